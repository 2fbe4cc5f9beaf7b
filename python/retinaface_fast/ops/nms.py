"""Non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_fast import _core

if TYPE_CHECKING:
    from retinaface_fast._typing import FloatArray, IntArray

__all__ = ["nms"]


def nms(
    boxes: FloatArray,
    scores: FloatArray,
    *,
    iou_threshold: float = 0.4,
    top_k: int | None = None,
    keep_top_k: int | None = None,
) -> IntArray:
    """Greedy non-maximum suppression.

    Boxes are taken by score, highest first, and by index where scores are equal; one is dropped when its IoU
    with a kept one is greater than the threshold. The result is that of `torchvision.ops.nms`, with ties
    decided. The time grows with the number of boxes, not with its square, where they are sparse.

    Args:
        boxes: (N, 4) float32 xyxy, pixels. A box without area, or with a coordinate that is not finite,
            overlaps nothing.
        scores: (N,) float32, not NaN.
        iou_threshold: Within [0, 1]; an IoU > iou_threshold suppresses.
        top_k: Only this many boxes with the highest scores take part; all if None.
        keep_top_k: At most this many are returned; all if None.

    Returns:
        (K,) int64 indices of the kept boxes, highest score first.

    Raises:
        TypeError: If an array is not float32 or a number is not one.
        ValueError: If a shape does not fit, a score is NaN, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
        >>> nms(boxes, np.array([0.8, 0.9, 0.7], np.float32)).tolist()
        [1, 2]
    """
    return _core.nms(boxes, scores, iou_threshold, top_k, keep_top_k)
