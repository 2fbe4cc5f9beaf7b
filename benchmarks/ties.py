"""Why one engine has a face that another has not: a decision that was close in both, or a disagreement.

Rounding moves every score and box a little, so that decisions that hang on a hair may fall differently:
whether a score passes the threshold, which of two faces comes first, whether an overlap suppresses. A face
that is missing is followed back through the suppression, on the raw outputs of both engines, until such a
decision is found; how close it was is reported. Without one, nobody can call it a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.predictions import SETTINGS
from retinaface_fast import ops

if TYPE_CHECKING:
    from benchmarks.predictions import Predictions
    from retinaface_fast.data import Prediction

Array = npt.NDArray[Any]

#: Two faces are the same within so many pixels, of boxes and landmarks, and so much of the score.
PIXELS = 0.05
SCORE = 1e-3
#: A suppression is close if the overlap is that near to the threshold.
OVERLAP = 1e-3
#: Overlaps that are computed here may differ by this from those that an engine decided on: a box of 16 pixels
#: at x = 1000 has corners that are right to 6e-5 pixel in float32.
ROUNDING = 2e-5
#: A face on file is that of an anchor whose raw outputs give it within this, in pixels and of the score.
SAME_PIXELS, SAME_SCORE = 0.02, 1e-5


class Matched(NamedTuple):
    """Faces of two engines side by side."""

    pairs: Array  #: (M, 2) int64: indices of the same face in both
    only_one: Array  #: indices of those that only the first has
    only_other: Array  #: indices of those that only the second has


def landmarks_of(found: Prediction) -> Array:
    """(N, 5, 2), also of a picture without a face: its file has no columns to say that it has landmarks."""
    return np.empty((0, 5, 2)) if found.landmarks is None and not len(found) else np.asarray(found.landmarks)


def distances(face: int, one: Prediction, other: Prediction) -> tuple[Array, Array, Array]:
    """Largest difference of box, of landmarks, and of score of one face to each of another result."""
    boxes = np.abs(other.boxes - one.boxes[face]).max(axis=1, initial=0)
    landmarks = np.abs(landmarks_of(other) - landmarks_of(one)[face]).max(axis=(1, 2), initial=0)
    return boxes, landmarks, np.abs(other.scores - one.scores[face])


def match(one: Prediction, other: Prediction) -> Matched:
    """Each face of `one`, by score, takes the nearest within the tolerances that is still free."""
    free = np.ones(len(other.scores), dtype=bool)
    pairs, only_one = [], []
    for face in range(len(one.scores)):
        boxes, landmarks, scores = distances(face, one, other)
        near = free & (boxes <= PIXELS) & (landmarks <= PIXELS) & (scores <= SCORE)
        if near.any():
            best = int(np.where(near, boxes, np.inf).argmin())
            free[best] = False
            pairs.append((face, best))
        else:
            only_one.append(face)
    return Matched(
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        np.array(only_one, dtype=np.int64),
        np.flatnonzero(free),
    )


@dataclass(frozen=True)
class Tie:
    """A decision that fell differently because it was close.

    Attributes:
        kind: "threshold", "top_k", "keep_top_k", "overlap" or "order".
        size: How far from even it was in the engine where it was farther: a difference of scores or overlaps.
        steps: Suppressions between it and the face that is missing.
    """

    kind: str
    size: float
    steps: int = 0


class Side:
    """The decisions of one engine on one picture: raw outputs of every anchor, and which became faces.

    Args:
        scores: (A,) of every anchor.
        boxes: (A, 4) of every anchor, xyxy, pixels.
        found: The faces.
    """

    def __init__(self, scores: Array, boxes: Array, found: Prediction) -> None:
        self.scores = scores.astype(np.float64)
        self.boxes = boxes.astype(np.float64)
        self.found = found
        #: (N,) anchor of each face, -1 for one that the raw outputs do not give
        self.anchors = self._trace()
        #: anchors of the faces, ascending
        self.kept = np.unique(self.anchors[self.anchors >= 0])

    @classmethod
    def of(cls, predictions: Predictions, picture: str) -> Side:
        """What an engine made of a picture; the network runs again."""
        pixels = predictions.pixels(picture)
        outputs = predictions.engine.run(pixels[None], color="bgr")
        logits = np.concatenate([level[0] for level in outputs.class_scores])
        deltas = np.concatenate([level[0] for level in outputs.box_deltas])
        anchors = ops.generate_anchors(pixels.shape[:2], config=predictions.anchors)
        margin = (logits[:, 1] - logits[:, 0]).astype(np.float64)
        scores = logits[:, 1] if outputs.scores_are == "probabilities" else 1 / (1 + np.exp(-margin))
        boxes = ops.decode_boxes(deltas, anchors, variances=predictions.variances)
        return cls(scores, boxes, predictions[picture])

    def _trace(self) -> Array:
        anchors = np.full(len(self.found.scores), -1, dtype=np.int64)
        for face, (box, score) in enumerate(zip(self.found.boxes, self.found.scores, strict=True)):
            same = np.flatnonzero(np.abs(self.scores - score) <= SAME_SCORE)
            distance = np.abs(self.boxes[same] - box).max(axis=1, initial=0)
            if len(same) and distance.min() <= SAME_PIXELS:
                anchors[face] = same[distance.argmin()]
        return anchors

    def overlap(self, anchor: int, others: Array) -> Array:
        """IoU of an anchor's box with those of others."""
        box, boxes = self.boxes[anchor], self.boxes[others]
        sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        return np.asarray(shared / (areas - shared))

    def before(self, anchor: int, other: int) -> bool:
        """Whether an anchor comes before another one in the order of the suppression."""
        mine, its = self.scores[anchor], self.scores[other]
        return bool(mine > its or (mine == its and anchor < other))


def explain(anchor: int, having: Side, lacking: Side, _seen: frozenset[int] = frozenset()) -> Tie | None:
    """Why `lacking` has no face at an anchor where `having` has one; None if no decision was close."""
    ours, theirs = having.scores[anchor], lacking.scores[anchor]
    if abs(ours - theirs) > SCORE or anchor in _seen:
        return None
    reasons = [_limit("threshold", SETTINGS["score_threshold"], ours, theirs)]
    top_k = SETTINGS["top_k"]
    if len(lacking.scores) > top_k:
        last_ours, last_theirs = (
            -np.partition(-side.scores, top_k - 1)[top_k - 1] for side in (having, lacking)
        )
        if theirs <= last_theirs:
            size = max(abs(ours - last_ours), abs(theirs - last_theirs))
            reasons.append(Tie("top_k", size) if size <= SCORE else None)
    if len(lacking.kept) == SETTINGS["keep_top_k"]:
        last = lacking.scores[lacking.kept].min()
        if theirs <= last:
            reasons.append(Tie("keep_top_k", last - theirs) if last - theirs <= SCORE else None)
    threshold = SETTINGS["nms_threshold"]
    for other, overlap in zip(lacking.kept, lacking.overlap(anchor, lacking.kept), strict=True):
        if overlap <= threshold - ROUNDING or not lacking.before(other, anchor):
            continue
        here = having.overlap(anchor, np.array([other]))[0]
        size = max(abs(here - threshold), abs(overlap - threshold))
        if size <= OVERLAP and here <= threshold + ROUNDING:
            reasons.append(Tie("overlap", size))
        if other in having.kept:
            continue
        # What suppressed it is itself missing on the other side: because of this one, or because of a third.
        if having.before(anchor, other):
            size = max(ours - having.scores[other], lacking.scores[other] - theirs)
            reasons.append(Tie("order", size) if size <= SCORE else None)
        else:
            deeper = explain(int(other), lacking, having, _seen | {anchor})
            reasons.append(Tie(deeper.kind, deeper.size, deeper.steps + 1) if deeper else None)
    ties = [reason for reason in reasons if reason is not None]
    return min(ties, key=lambda tie: tie.size, default=None)


def _limit(kind: str, limit: float, ours: float, theirs: float) -> Tie | None:
    size = max(abs(ours - limit), abs(theirs - limit))
    return Tie(kind, size) if theirs <= limit < ours and size <= SCORE else None
