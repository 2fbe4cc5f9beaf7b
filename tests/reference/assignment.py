"""Oracles of the assignment of anchors: one by arrays, one pair by pair.

An anchor is the face with which its IoU is highest, the first of equals, if that is >= positive_iou;
background (-1) if it is < negative_iou; neither (-2) in between. With `force`, each face in turn then takes
the first of its best anchors, if that IoU is >= force_min_iou and > 0. Background is neither where its IoU
with an ignored face is > 0 and >= negative_iou or >= half of the highest that the ignored face has with any
anchor, or at least half of the anchor lies inside that face.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import boxes as reference_boxes

Array = npt.NDArray[Any]


class Thresholds(NamedTuple):
    positive_iou: float
    negative_iou: float
    force: bool = True
    force_min_iou: float = 0.0


def corners(anchors: Array) -> Array:
    """cxcywh to xyxy."""
    half = anchors[:, 2:] * anchors.dtype.type(0.5)
    return np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1)


def assign(anchors: Array, boxes: Array, thresholds: Thresholds, ignored: Array | None = None) -> Array:
    """(A, 4) anchors, cxcywh, and (G, 4) boxes, xyxy, to (A,) rows of boxes, -1 or -2."""
    skip = np.zeros(len(boxes), bool) if ignored is None else ignored
    kind = anchors.dtype.type
    iou = np.nan_to_num(reference_boxes.box_iou(corners(anchors), boxes), nan=0.0)
    near = _may_find(corners(anchors), boxes[skip], iou[:, skip], kind(thresholds.negative_iou))
    # A column of zeros, so that there is a highest without any face; zero is below every threshold.
    of_faces = np.where(skip, kind(0), iou)
    padded = np.concatenate([of_faces, np.zeros((len(anchors), 1), anchors.dtype)], axis=1)
    highest = padded.max(axis=1)
    assigned = np.where(highest >= kind(thresholds.negative_iou), -2, -1)
    assigned = np.where(highest >= kind(thresholds.positive_iou), padded.argmax(axis=1), assigned)
    if thresholds.force and len(anchors):
        for face, best in enumerate(of_faces.argmax(axis=0)):
            overlap = of_faces[best, face]
            if overlap > 0 and overlap >= kind(thresholds.force_min_iou):
                assigned[best] = face
    assigned[near & (assigned == -1)] = -2
    return assigned


def _may_find(sides: Array, boxes: Array, iou: Array, negative_iou: Any) -> Array:
    """(A,) whether an anchor may find one of the (G, 4) ignored boxes."""
    half = sides.dtype.type(0.5)
    least = np.minimum(negative_iou, half * iou.max(axis=0, initial=0))
    shared = np.minimum(sides[:, None, 2:], boxes[:, 2:]) - np.maximum(sides[:, None, :2], boxes[:, :2])
    inside = np.maximum(shared, 0).prod(axis=2) >= half * (sides[:, 2:] - sides[:, :2]).prod(axis=1)[:, None]
    return np.asarray(((iou > 0) & ((iou >= least) | inside)).any(axis=1))


def assign_one_by_one(
    anchors: Array, boxes: Array, thresholds: Thresholds, ignored: Array | None = None
) -> list[int]:
    """The same in float32, as one would say it, pair by pair."""
    f32 = np.float32
    skip = [False] * len(boxes) if ignored is None else [bool(flag) for flag in ignored]

    def overlap(anchor: Array, box: Array) -> np.float32:
        cx, cy, width, height = anchor
        left, right = cx - width / f32(2), cx + width / f32(2)
        top, bottom = cy - height / f32(2), cy + height / f32(2)
        shared_width = min(right, box[2]) - max(left, box[0])
        shared_height = min(bottom, box[3]) - max(top, box[1])
        if not (shared_width > 0 and shared_height > 0):
            return f32(0)
        shared = shared_width * shared_height
        both = (right - left) * (bottom - top) + (box[2] - box[0]) * (box[3] - box[1])
        return f32(shared / (both - shared))

    def is_half_inside(anchor: Array, box: Array) -> bool:
        cx, cy, width, height = anchor
        left, right = max(cx - width / f32(2), box[0]), min(cx + width / f32(2), box[2])
        top, bottom = max(cy - height / f32(2), box[1]), min(cy + height / f32(2), box[3])
        own = ((cx + width / f32(2)) - (cx - width / f32(2))) * (
            (cy + height / f32(2)) - (cy - height / f32(2))
        )
        return bool((right - left) * (bottom - top) >= own / f32(2))

    def may_find(place: int, face: int) -> bool:
        value = table[place][face]
        if not value > 0:
            return False
        highest = max(row[face] for row in table)
        if value >= f32(thresholds.negative_iou) or value >= highest / f32(2):
            return True
        return is_half_inside(anchors[place], boxes[face])

    table = [[overlap(anchor, box) for box in boxes] for anchor in anchors]
    answer = []
    for row in table:
        best_face, best = -1, f32(0)
        for face, value in enumerate(row):
            if not skip[face] and value > best:
                best_face, best = face, value
        if best >= f32(thresholds.positive_iou):
            answer.append(best_face)
        else:
            answer.append(-2 if best >= f32(thresholds.negative_iou) else -1)
    for face in range(len(boxes)):
        if skip[face] or not thresholds.force:
            continue
        best_anchor, best = -1, f32(0)
        for place, row in enumerate(table):
            if row[face] > best:
                best_anchor, best = place, row[face]
        if best_anchor >= 0 and best >= f32(thresholds.force_min_iou):
            answer[best_anchor] = face
    for place in range(len(table)):
        if answer[place] == -1:
            near = any(skip[face] and may_find(place, face) for face in range(len(boxes)))
            answer[place] = -2 if near else -1
    return answer
