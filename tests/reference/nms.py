"""Oracles of non-maximum suppression, in three forms that must give one answer.

Boxes are taken by score, highest first, equal scores by index, lowest first. A box is kept unless a kept
box before it overlaps it by *more* than the threshold. Overlaps are float32, computed in torchvision's
order of operations, and compared with the threshold as a double: `float64(iou) > threshold`. No +1 on
widths. An overlap that is NaN (a box with a NaN in it, or two empty boxes) suppresses nothing.

`one_by_one` is the definition. `row_by_row` and `all_pairs` do the same float32 arithmetic on arrays, for
large sets and for many small sets at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


def score_order(scores: Array, top_k: int | None = None) -> Indices:
    """Indices by score descending, then index ascending; the first `top_k` of them."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    return order[:top_k]


def iou(a: Array, b: Array) -> np.float32:
    """Overlap of two float32 boxes, one float32 operation at a time."""
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    with np.errstate(all="ignore"):
        area_a = (ax2 - ax1) * (ay2 - ay1)
        area_b = (bx2 - bx1) * (by2 - by1)
        width = np.maximum(np.float32(0), np.minimum(ax2, bx2) - np.maximum(ax1, bx1))
        height = np.maximum(np.float32(0), np.minimum(ay2, by2) - np.maximum(ay1, by1))
        inter = width * height
        result = inter / (area_a + area_b - inter)
    return np.float32(result)


def one_by_one(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    top_k: int | None = None,
    keep_top_k: int | None = None,
) -> Indices:
    """The definition, box by box."""
    kept: list[int] = []
    for candidate in score_order(scores, top_k):
        if not any(float(iou(boxes[index], boxes[candidate])) > iou_threshold for index in kept):
            kept.append(int(candidate))
    return np.array(kept[:keep_top_k], dtype=np.int64)


def row_by_row(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    top_k: int | None = None,
    keep_top_k: int | None = None,
) -> Indices:
    """Each kept box against all that are left: memory for one row of overlaps."""
    order = score_order(scores, top_k)
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T)
    zero = np.float32(0)
    kept: list[int] = []
    with np.errstate(all="ignore"):
        area = (x2 - x1) * (y2 - y1)
        while order.size:
            kept.append(int(order[0]))
            width = np.maximum(zero, np.minimum(x2[0], x2[1:]) - np.maximum(x1[0], x1[1:]))
            height = np.maximum(zero, np.minimum(y2[0], y2[1:]) - np.maximum(y1[0], y1[1:]))
            inter = width * height
            overlap = inter / (area[0] + area[1:] - inter)
            left = ~(overlap.astype(np.float64) > iou_threshold)
            if left.all():
                order, x1, y1, x2, y2, area = (values[1:] for values in (order, x1, y1, x2, y2, area))
            else:
                order, x1, y1, x2, y2, area = (values[1:][left] for values in (order, x1, y1, x2, y2, area))
    return np.array(kept[:keep_top_k], dtype=np.int64)


def all_pairs(boxes: Array, scores: Array, iou_threshold: float) -> list[Indices]:
    """Many sets of one length at once: (S, N, 4) boxes and (S, N) scores, a list of S answers."""
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    x1, y1, x2, y2 = np.moveaxis(np.take_along_axis(boxes, order[:, :, None], axis=1), 2, 0)
    zero = np.float32(0)
    with np.errstate(all="ignore"):
        area = (x2 - x1) * (y2 - y1)
        inter = np.minimum(x2[:, :, None], x2[:, None, :]) - np.maximum(x1[:, :, None], x1[:, None, :])
        np.maximum(inter, zero, out=inter)
        height = np.minimum(y2[:, :, None], y2[:, None, :]) - np.maximum(y1[:, :, None], y1[:, None, :])
        inter *= np.maximum(height, zero, out=height)
        # The double compared with the float: NumPy converts, as the definition says.
        overlap = inter / (area[:, :, None] + area[:, None, :] - inter)
        suppresses = overlap.astype(np.float64) > iou_threshold
    keep = np.ones(scores.shape, dtype=bool)
    for rank in range(1, scores.shape[1]):
        keep[:, rank] = ~np.any(keep[:, :rank] & suppresses[:, :rank, rank], axis=1)
    return [np.asarray(indices[mask], dtype=np.int64) for indices, mask in zip(order, keep, strict=True)]
