"""Oracle of the fused post-processing: raw network outputs of one image to faces.

1. The score of an anchor is 1 / (1 + exp(background - face)) of its logits, or the face probability as given.
2. An anchor is a candidate if its score is greater than the threshold, compared as doubles; NaN is not.
3. The `top_k` candidates with the highest scores go on, equal scores by index.
4. Their boxes are decoded; one with a coordinate that is not finite is dropped.
5. Non-maximum suppression, as in `tests.reference.nms`.
6. The first `keep_top_k` of the kept boxes are the faces; their landmarks are decoded and not judged.

`scores` and `boxes` replay the decisions on given numbers instead of on the oracle's own: see
`tests.ops.agreement` for when that is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tests.reference import boxes as reference_boxes
from tests.reference import nms as reference_nms

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReferenceFaces:
    """What the oracle found; the margins tell by how much its closest decisions were taken."""

    indices: npt.NDArray[np.int64]  #: anchors of the faces, in score order
    boxes: Array
    scores: Array
    landmarks: Array
    candidates: npt.NDArray[np.int64]  #: anchors that took part in the suppression, in score order
    all_scores: Array  #: of every anchor, float64
    all_boxes: Array  #: of every anchor
    score_threshold: float
    nms_threshold: float

    def score_margin(self) -> float:
        """Smallest relative distance of a score from the threshold."""
        # Exactly the threshold is no near miss: sigmoid(0) is 0.5 in any arithmetic.
        scores = self.all_scores[np.isfinite(self.all_scores) & (self.all_scores != self.score_threshold)]
        relative = np.abs(scores - self.score_threshold) / np.maximum(
            scores, max(self.score_threshold, 1e-30)
        )
        return float(relative.min(initial=np.inf))

    def order_margin(self) -> float:
        """Smallest relative distance between scores above the threshold that are not equal."""
        different = np.unique(self.all_scores[self.all_scores > self.score_threshold])
        different = different[np.isfinite(different)]
        return float((np.diff(different) / different[1:]).min(initial=np.inf))

    def iou_margin(self) -> float:
        """Smallest distance of an overlap of two candidates from the threshold.

        Every pair, also those that the suppression never compares: stricter than needed, and simple.
        """
        boxes = self.all_boxes[self.candidates]
        overlaps = reference_boxes.box_iou(boxes, boxes)[np.triu_indices(len(boxes), 1)]
        distance = np.abs(overlaps[np.isfinite(overlaps)].astype(np.float64) - self.nms_threshold)
        return float(distance.min(initial=np.inf))


def face_scores(class_scores: Array, scores_are: Literal["logits", "probabilities"]) -> Array:
    """(A,) float64 scores of (A, 2) float32 columns (background, face).

    The difference of the logits is taken in float32, as networks and their softmax do; what follows is exact.
    """
    if scores_are == "probabilities":
        return class_scores[:, 1].astype(np.float64)
    with np.errstate(all="ignore"):
        difference = (class_scores[:, 1] - class_scores[:, 0]).astype(np.float64)
        return 1.0 / (1.0 + np.exp(-difference))


def postprocess(
    class_scores: Array,
    box_deltas: Array,
    landmark_deltas: Array,
    anchors: Array,
    *,
    scores_are: Literal["logits", "probabilities"] = "logits",
    variances: tuple[float, float] = (0.1, 0.2),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int = 5000,
    keep_top_k: int = 750,
    scores: Array | None = None,
    boxes: Array | None = None,
) -> ReferenceFaces:
    """Faces of one image, from float32 outputs over all anchors; `anchors` are float64 cxcywh."""
    if scores is None:
        scores = face_scores(class_scores, scores_are)
    if boxes is None:
        deltas = box_deltas.astype(np.float64)
        with np.errstate(over="ignore"):
            boxes = reference_boxes.decode_boxes(deltas, anchors, variances).astype(np.float32)

    exact = scores.astype(np.float64)
    ranked = np.array(
        [index for index in range(len(exact)) if exact[index] > score_threshold], dtype=np.int64
    )
    ranked = ranked[reference_nms.score_order(exact[ranked], top_k)]
    finite = [index for index in ranked if np.isfinite(boxes[index]).all()]
    candidates = np.array(finite, dtype=np.int64)
    kept = reference_nms.row_by_row(boxes[candidates], exact[candidates], nms_threshold, None, keep_top_k)
    indices = candidates[kept]

    landmarks = reference_boxes.decode_landmarks(
        landmark_deltas[indices].astype(np.float64), anchors[indices], variances
    )
    return ReferenceFaces(
        indices=indices,
        boxes=boxes[indices],
        scores=scores[indices],
        landmarks=landmarks,
        candidates=candidates,
        all_scores=exact,
        all_boxes=boxes,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
    )
