"""The annotated box that each predicted box overlaps most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_fast import _core

if TYPE_CHECKING:
    from retinaface_fast._typing import DoubleArray, IntArray

__all__ = ["match_boxes"]


def match_boxes(
    predictions: DoubleArray, prediction_offsets: IntArray, boxes: DoubleArray, box_offsets: IntArray
) -> tuple[IntArray, DoubleArray]:
    """For each predicted box the annotated one of its picture that it overlaps most.

    Overlap is intersection over union with the widths x2 - x1 + 1 of the official WIDER FACE evaluation, in
    double precision; `ops.box_iou` has none of that. The boxes of all pictures are in one array, those of
    picture i in the rows `offsets[i]:offsets[i + 1]`.

    Args:
        predictions: (P, 4) float64 xyxy, pixels.
        prediction_offsets: (pictures + 1,) int64, from 0 to P, never falling.
        boxes: (G, 4) float64 xyxy, pixels, annotated.
        box_offsets: (pictures + 1,) int64, from 0 to G, never falling.

    Returns:
        (P,) int64 row of `boxes`, the first of those with the same overlap (and so the picture's first where
        none is overlapped), -1 where the picture has no box; and (P,) float64 that overlap, within [0, 1].
        A box with a side that is NaN overlaps nothing.

    Raises:
        TypeError: If an array has another type.
        ValueError: If a shape does not fit, or offsets are not as described.

    Example:
        >>> import numpy as np
        >>> faces = np.array([[0, 0, 9, 9], [5, 0, 14, 9], [0, 0, 9, 9]], np.float64)
        >>> found = np.array([[6, 0, 15, 9], [0, 0, 9, 9]], np.float64)
        >>> best, overlaps = match_boxes(found, np.array([0, 1, 2]), faces, np.array([0, 2, 3]))
        >>> best.tolist(), overlaps.round(3).tolist()
        ([1, 2], [0.818, 1.0])
    """
    return _core.match_boxes(predictions, prediction_offsets, boxes, box_offsets)
