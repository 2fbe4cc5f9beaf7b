"""The ways of today, written for these comparisons: same answer, same options, as fast as they can be made.

`pure_python` is the way of the popular PyTorch port: anchors in Python loops, everything decoded, NumPy
NMS. `best_numpy` is what someone who has read the profiler writes: anchors cached for the image size (they
cost this opponent nothing here), the threshold before any exp, only survivors decoded, and the fastest
suppression that is installed. Where a step can be done in several fast ways, all are offered and the
fastest is taken.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import by_torchvision

FloatArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

STRIDES, SIZES, VARIANCES = by_torchvision.STRIDES, by_torchvision.SIZES, by_torchvision.VARIANCES


class Found(NamedTuple):
    """Faces of one image by score: (N, 4) boxes, (N,) scores, (N, 5, 2) landmarks."""

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray


# --- anchors ---


def anchors_the_popular_way(image_size_hw: tuple[int, int]) -> FloatArray:
    """Anchors in the manner of the popular PyTorch port, in fractions of the image.

    That code allows several centres in a cell, though it never has more than one: for every size of every
    cell it builds the list of columns and the list of rows and pairs them. Most of its time goes there.
    """
    height, width = image_size_hw
    values: list[float] = []
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        for row, column in itertools.product(range(rows), range(columns)):
            for size in sizes:
                centres_x = [x * stride / width for x in (column + 0.5,)]
                centres_y = [y * stride / height for y in (row + 0.5,)]
                for cy, cx in itertools.product(centres_y, centres_x):
                    values.extend([cx, cy, size / width, size / height])
    return np.array(values, dtype=np.float32).reshape(-1, 4)


def anchors_in_lean_loops(image_size_hw: tuple[int, int]) -> FloatArray:
    """The same by loops without anything that could be left out: what pure Python can do at its best."""
    height, width = image_size_hw
    values: list[float] = []
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        sides = [(size / width, size / height) for size in sizes]
        centres_x = [(column + 0.5) * stride / width for column in range(math.ceil(width / stride))]
        for row in range(math.ceil(height / stride)):
            cy = (row + 0.5) * stride / height
            for cx in centres_x:
                for side_x, side_y in sides:
                    values += (cx, cy, side_x, side_y)
    return np.array(values, dtype=np.float32).reshape(-1, 4)


def anchors_in_numpy(image_size_hw: tuple[int, int]) -> FloatArray:
    """Anchors in pixels, level by level, by broadcasting into place."""
    height, width = image_size_hw
    levels = []
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        level = np.empty((rows, columns, len(sizes), 4), dtype=np.float32)
        level[..., 0] = ((np.arange(columns, dtype=np.float32) + 0.5) * stride)[None, :, None]
        level[..., 1] = ((np.arange(rows, dtype=np.float32) + 0.5) * stride)[:, None, None]
        level[..., 2:] = np.array(sizes, dtype=np.float32)[:, None]
        levels.append(level.reshape(-1, 4))
    return np.concatenate(levels)


cached_anchors = functools.lru_cache(maxsize=4)(anchors_in_numpy)


# --- decode ---


def decode_in_numpy(box_deltas: FloatArray, anchors: FloatArray) -> FloatArray:
    """Boxes of all given anchors, written into one array."""
    boxes = np.empty_like(box_deltas)
    centres = box_deltas[:, :2] * np.float32(VARIANCES[0])
    centres *= anchors[:, 2:]
    centres += anchors[:, :2]
    halves = np.exp(box_deltas[:, 2:] * np.float32(VARIANCES[1]))
    halves *= anchors[:, 2:]
    halves *= np.float32(0.5)
    np.subtract(centres, halves, out=boxes[:, :2])
    np.add(centres, halves, out=boxes[:, 2:])
    return boxes


def decode_landmarks_in_numpy(landmark_deltas: FloatArray, anchors: FloatArray) -> FloatArray:
    """Landmarks of all given anchors."""
    points = landmark_deltas.reshape(-1, 5, 2) * np.float32(VARIANCES[0])
    points *= anchors[:, None, 2:]
    points += anchors[:, None, :2]
    return points


def decode_in_python(box_deltas: FloatArray, anchors: FloatArray) -> FloatArray:
    """Boxes by a loop over Python's own numbers, without anything that could be left out."""
    values: list[float] = []
    for (dx, dy, dw, dh), (cx, cy, w, h) in zip(box_deltas.tolist(), anchors.tolist(), strict=True):
        x, y = cx + dx * VARIANCES[0] * w, cy + dy * VARIANCES[0] * h
        half_w, half_h = w * math.exp(dw * VARIANCES[1]) / 2, h * math.exp(dh * VARIANCES[1]) / 2
        values += (x - half_w, y - half_h, x + half_w, y + half_h)
    return np.array(values, dtype=np.float32).reshape(-1, 4)


def decode_landmarks_in_python(landmark_deltas: FloatArray, anchors: FloatArray) -> FloatArray:
    """Landmarks by such a loop."""
    values: list[float] = []
    rows = landmark_deltas.reshape(-1, 10).tolist()
    for deltas, (cx, cy, w, h) in zip(rows, anchors.tolist(), strict=True):
        step_x, step_y = VARIANCES[0] * w, VARIANCES[0] * h
        for k in range(0, 10, 2):
            values += (cx + deltas[k] * step_x, cy + deltas[k + 1] * step_y)
    return np.array(values, dtype=np.float32).reshape(-1, 5, 2)


# --- suppression; the four in Python and NumPy take boxes that are in order of their scores ---


def greedy_in_python(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """By loops over Python's own numbers: each box against those that were kept before it."""
    kept: list[int] = []
    others: list[tuple[float, float, float, float, float]] = []
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        area = (x2 - x1) * (y2 - y1)
        for a1, b1, a2, b2, other in others:
            width = (x2 if x2 < a2 else a2) - (x1 if x1 > a1 else a1)
            height = (y2 if y2 < b2 else b2) - (y1 if y1 > b1 else b1)
            if width > 0 and height > 0:
                shared = width * height
                if shared / (area + other - shared) > iou_threshold:
                    break
        else:
            kept.append(index)
            others.append((x1, y1, x2, y2, area))
    return np.array(kept, dtype=np.int64)


def greedy(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """The usual NumPy NMS: the best box against all that are left, until none is."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    order = np.arange(len(scores))
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.maximum(np.float32(0), np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]))
        height = np.maximum(np.float32(0), np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]))
        inter = width * height
        order = rest[inter / (areas[best] + areas[rest] - inter) <= iou_threshold]
    return np.array(kept, dtype=np.int64)


def greedy_on_columns(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """The same with contiguous columns that shrink along, and no division."""
    columns = np.empty((5, len(scores)), dtype=np.float32)
    columns[:4] = boxes.T
    np.multiply(columns[2] - columns[0], columns[3] - columns[1], out=columns[4])
    index = np.arange(len(scores))
    ratio = np.float32(iou_threshold / (1 + iou_threshold))
    kept = []
    while index.size:
        kept.append(index[0])
        x1, y1, x2, y2, area = columns[:, 0]
        rest = columns[:, 1:]
        width = np.minimum(rest[2], x2) - np.maximum(rest[0], x1)
        height = np.minimum(rest[3], y2) - np.maximum(rest[1], y1)
        np.maximum(width, 0, out=width)
        np.maximum(height, 0, out=height)
        width *= height
        left = np.flatnonzero(width <= (rest[4] + area) * ratio)
        columns, index = rest[:, left], index[1:][left]
    return np.array(kept, dtype=np.int64)


def all_pairs(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """One matrix of overlaps, then a sweep over its rows."""
    x1, y1, x2, y2 = (np.ascontiguousarray(column) for column in boxes.T)
    areas = (x2 - x1) * (y2 - y1)
    inter = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    np.maximum(inter, 0, out=inter)
    height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    np.maximum(height, 0, out=height)
    inter *= height
    unions = areas[:, None] + areas
    unions -= inter
    unions *= np.float32(iou_threshold)
    suppresses = inter > unions
    alive = np.ones(len(scores), dtype=bool)
    kept = []
    for index in range(len(scores)):
        if alive[index]:
            kept.append(index)
            alive &= ~suppresses[index]
    return np.array(kept, dtype=np.int64)


def opencv(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """`cv2.dnn.NMSBoxes`, which wants corners and sizes."""
    import cv2

    corners = boxes.copy()
    corners[:, 2:] -= corners[:, :2]
    return np.asarray(cv2.dnn.NMSBoxes(corners, scores, 0.0, iou_threshold), dtype=np.int64).reshape(-1)


#: These take boxes in any order, so that nobody needs to sort before.
SORTING = (opencv, by_torchvision.nms)


def suppressions() -> dict[str, Any]:
    """The ways to suppress that can run here, by name."""
    ways: dict[str, Any] = {
        "NumPy greedy": greedy,
        "NumPy columns": greedy_on_columns,
        "NumPy all pairs": all_pairs,
    }
    try:
        opencv(np.float32([[0, 0, 9, 9]]), np.float32([0.9]), 0.4)
    except ImportError:
        pass
    else:
        ways["OpenCV"] = opencv
    if by_torchvision.is_here():
        ways["torchvision"] = by_torchvision.nms
    return ways


# --- the whole way ---


class Options(NamedTuple):
    """What is asked for; the same for everyone."""

    score_threshold: float
    nms_threshold: float = 0.4
    top_k: int = 5000
    keep_top_k: int = 750


def pure_python(
    class_scores: FloatArray,
    box_deltas: FloatArray,
    landmark_deltas: FloatArray,
    image_size_hw: tuple[int, int],
    options: Options,
    *,
    make_anchors: Any = anchors_the_popular_way,
) -> Found:
    """The way of the popular PyTorch port, from probabilities: everything is decoded, then thrown away."""
    height, width = image_size_hw
    anchors = make_anchors(image_size_hw)
    variance = VARIANCES[0]
    boxes = np.concatenate(
        [
            anchors[:, :2] + box_deltas[:, :2] * variance * anchors[:, 2:],
            anchors[:, 2:] * np.exp(box_deltas[:, 2:] * VARIANCES[1]),
        ],
        axis=1,
    )
    boxes[:, :2] -= boxes[:, 2:] / 2
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes * np.float32([width, height, width, height])
    scores = class_scores[:, 1]
    landmarks = np.concatenate(
        [
            anchors[:, :2] + landmark_deltas[:, 2 * point : 2 * point + 2] * variance * anchors[:, 2:]
            for point in range(5)
        ],
        axis=1,
    )
    landmarks = landmarks * np.float32([width, height] * 5)

    above = np.where(scores > options.score_threshold)[0]
    boxes, scores, landmarks = boxes[above], scores[above], landmarks[above]
    order = np.argsort(-scores, kind="stable")[: options.top_k]
    boxes, scores, landmarks = boxes[order], scores[order], landmarks[order]
    kept = greedy(boxes, scores, options.nms_threshold)[: options.keep_top_k]
    return Found(boxes[kept], scores[kept], landmarks[kept].reshape(-1, 5, 2))


def above_by_columns(class_scores: FloatArray, bound: float, logits: bool) -> tuple[Indices, FloatArray]:
    """Candidates and their scores or logit differences, on the two columns as they lie."""
    values = class_scores[:, 1] - class_scores[:, 0] if logits else class_scores[:, 1]
    index = np.flatnonzero(values > np.float32(bound))
    return index, values[index]


def above_by_product(class_scores: FloatArray, bound: float, logits: bool) -> tuple[Indices, FloatArray]:
    """The same with the difference, or the column, taken by a matrix product of BLAS."""
    values = class_scores @ np.float32([-1 if logits else 0, 1])
    index = np.flatnonzero(values > np.float32(bound))
    return index, values[index]


FILTERS = {"columns": above_by_columns, "product": above_by_product}


def best_numpy(
    class_scores: FloatArray,
    box_deltas: FloatArray,
    landmark_deltas: FloatArray,
    image_size_hw: tuple[int, int],
    options: Options,
    *,
    logits: bool,
    suppress: Any,
    find: Any = above_by_columns,
) -> Found:
    """Threshold first, decode the survivors, suppress with the best that is installed."""
    threshold = options.score_threshold
    bound = math.log(threshold / (1 - threshold)) if logits else threshold
    index, scores = find(class_scores, bound, logits)
    if logits:
        scores = 1 / (1 + np.exp(-scores))
    if len(index) > options.top_k or suppress not in SORTING:
        order = np.argsort(-scores, kind="stable")[: options.top_k]
        index, scores = index[order], scores[order]
    anchors = cached_anchors(image_size_hw)[index]
    boxes = decode_in_numpy(box_deltas[index], anchors)
    kept = suppress(boxes, scores, options.nms_threshold)[: options.keep_top_k]
    landmarks = decode_landmarks_in_numpy(landmark_deltas[index[kept]], anchors[kept])
    return Found(boxes[kept], scores[kept], landmarks)
