"""Oracle of the multi-task loss: anchor by anchor, number by number, in double precision."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Sums(NamedTuple):
    """The terms before they are divided, and by what."""

    classification: float
    box: float
    landmark: float
    positives: int
    landmark_faces: int


def cross_entropy(logits: Array, label: int) -> float:
    """-log softmax(logits)[label]."""
    highest = max(logits)
    return float(math.log(sum(math.exp(value - highest) for value in logits)) + highest - logits[label])


def smooth_l1(predicted: float, wanted: float, beta: float) -> float:
    """Quadratic below a difference of beta, linear above (Girshick 2015, equation 3, for beta 1)."""
    apart = abs(float(predicted) - float(wanted))
    return 0.5 * apart * apart / beta if apart < beta else apart - 0.5 * beta


def hard_negatives(logits: Array, labels: Array, ratio: float, least: int) -> list[int]:
    """Anchors of one picture: so many background ones with the highest loss, by a plain sort."""
    background = [i for i, label in enumerate(labels) if label == 0]
    count = max(math.floor(ratio * sum(1 for label in labels if label == 1)), least)
    return sorted(background, key=lambda i: -cross_entropy(logits[i], 0))[:count]


def sums(
    logits: Array,
    box_deltas: Array,
    landmark_deltas: Array,
    targets: Any,
    *,
    ratio: float,
    least: int,
    box_beta: float,
    landmark_beta: float,
) -> Sums:
    """Of (B, A, 2), (B, A, 4) and (B, A, 10) outputs, and targets as arrays."""
    pictures, anchors = targets.labels.shape
    classification = box = landmark = 0.0
    landmark_faces = 0
    for picture in range(pictures):
        labels = targets.labels[picture]
        for i in hard_negatives(logits[picture], labels, ratio, least):
            classification += cross_entropy(logits[picture, i], 0)
        for i in range(anchors):
            if labels[i] == 1:
                classification += cross_entropy(logits[picture, i], 1)
    for row, place in enumerate(targets.positives):
        picture, anchor = divmod(int(place), anchors)
        for k in range(4):
            box += smooth_l1(box_deltas[picture, anchor, k], targets.box_deltas[row, k], box_beta)
        for point in range(5):
            if targets.landmark_mask[row, point]:
                for k in (2 * point, 2 * point + 1):
                    said = landmark_deltas[picture, anchor, k]
                    landmark += smooth_l1(said, targets.landmark_deltas[row, k], landmark_beta)
        landmark_faces += bool(np.any(targets.landmark_mask[row]))
    return Sums(classification, box, landmark, len(targets.positives), landmark_faces)
