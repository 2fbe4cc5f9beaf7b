"""The boxes of many pictures, one after another in one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import BoolArray, DoubleArray, IntArray
    from retinaface_fast.data.records import Prediction


def join_predictions(
    predictions: Sequence[Prediction], names: Sequence[str]
) -> tuple[DoubleArray, DoubleArray, IntArray]:
    """All predictions: boxes, scores, and where each picture's begin.

    Args:
        predictions: One for each picture.
        names: What the pictures are called in a message.

    Raises:
        ValueError: If a shape does not fit, or a number is NaN or infinite.
    """
    for prediction, name in zip(predictions, names, strict=True):
        shape, length = np.shape(prediction.boxes), np.shape(prediction.scores)
        if shape != (*length, 4) or len(length) != 1:
            raise ValueError(
                f"predictions: expected boxes of shape (N, 4) and scores of shape (N,) for {name}, "
                f"got {shape} and {length}"
            )
    boxes = np.concatenate([np.empty((0, 4)), *(prediction.boxes for prediction in predictions)])
    scores = np.concatenate([np.empty(0), *(prediction.scores for prediction in predictions)])
    offsets = _offsets([prediction.scores for prediction in predictions])
    _check_finite(boxes, "predictions", "a coordinate", offsets, names)
    _check_finite(scores, "predictions", "a score", offsets, names)
    return boxes, scores, offsets


def join_boxes(
    truth_boxes: Sequence[DoubleArray], ignored: Sequence[BoolArray] | None, names: Sequence[str]
) -> tuple[DoubleArray, BoolArray, IntArray]:
    """All annotated boxes, which of them count, and where each picture's begin.

    Args:
        truth_boxes: (G, 4) of each picture.
        ignored: (G,) bool of each picture: the boxes that do not count; None if all do.
        names: What the pictures are called in a message.

    Raises:
        TypeError: If `ignored` is not bool.
        ValueError: If a shape does not fit, or a number is NaN or infinite.
    """
    for boxes, name in zip(truth_boxes, names, strict=True):
        if np.ndim(boxes) != 2 or np.shape(boxes)[1] != 4:
            raise ValueError(
                f"truth_boxes: expected an array of shape (G, 4) for {name}, got {np.shape(boxes)}"
            )
    if ignored is not None and len(ignored) != len(truth_boxes):
        raise ValueError(
            f"ignored: expected one for each of the {len(truth_boxes)} pictures, got {len(ignored)}"
        )
    for boxes, mask, name in zip(truth_boxes, ignored or (), names, strict=False):
        if np.shape(mask) != (len(boxes),):
            raise ValueError(
                f"ignored: expected an array of shape ({len(boxes)},) for {name}, got {np.shape(mask)}"
            )
        if np.asarray(mask).dtype != np.bool_:
            raise TypeError(f"ignored: expected bool for {name}, got {np.asarray(mask).dtype}")
    joined = np.concatenate([np.empty((0, 4)), *truth_boxes])
    offsets = _offsets(truth_boxes)
    _check_finite(joined, "truth_boxes", "a coordinate", offsets, names)
    if ignored is None:
        return joined, np.ones(len(joined), dtype=np.bool_), offsets
    return joined, ~np.concatenate([np.empty(0, dtype=np.bool_), *ignored]), offsets


def _offsets(arrays: Sequence[Any]) -> IntArray:
    return np.cumsum([0, *map(len, arrays)], dtype=np.int64)


def _check_finite(
    values: DoubleArray, argument: str, what: str, offsets: IntArray, names: Sequence[str]
) -> None:
    if np.isfinite(values).all():
        return
    row = int(np.argwhere(~np.isfinite(values))[0, 0])
    picture = int(np.searchsorted(offsets, row, side="right")) - 1
    raise ValueError(
        f"{argument}: expected finite numbers, got {what} that is NaN or infinite in row "
        f"{row - offsets[picture]} of {names[picture]}"
    )
