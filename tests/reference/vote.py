"""Oracle of box voting: the definition in NumPy, one group after the other, in double precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tests.reference.nms import iou, score_order

Array = npt.NDArray[Any]


class Group(NamedTuple):
    """One face: which candidates it is made of, the best first, and their mean."""

    members: list[int]
    box: Array  #: (4,) float64
    landmarks: Array  #: (5, 2) float64
    best: float
    score_sum: float


def groups(boxes: Array, scores: Array, landmarks: Array, threshold: float) -> list[Group]:
    """All groups of (N, 4) float32 boxes, (N,) scores and (N, 5, 2) landmarks, highest best score first."""
    left = [int(i) for i in score_order(scores)]
    found = []
    while left:
        first = left[0]
        members = [
            first,
            *(i for i in left[1:] if float(iou(boxes[first], boxes[i])) >= max(threshold, 1e-300)),
        ]
        weights = scores[members].astype(np.float64)
        if len(members) == 1 or weights.sum() == 0:
            box, points = boxes[first].astype(np.float64), landmarks[first].astype(np.float64)
        else:
            box = np.average(boxes[members].astype(np.float64), axis=0, weights=weights)
            points = np.average(landmarks[members].astype(np.float64), axis=0, weights=weights)
        found.append(Group(members, box, points, float(scores[first]), float(weights.sum())))
        left = [i for i in left if i not in members]
    return found
