"""The official WIDER FACE evaluation: what the authors' MATLAB program (`wider_eval.m`) computes.

1. Scores are normalised over all pictures: the lowest becomes 0, the highest 1.
2. In each picture predictions are taken by score. Each looks for the annotated box that it overlaps most, the
   first of equals, whether that box is taken or not and whether it counts in the subset or not.
3. With an overlap >= 0.5 it has found that box. If the box does not count, the prediction is left out. Else
   the first to find it is right; every later one is a false alarm, as is a prediction that found nothing. In
   a picture without any annotation predictions are left out.
4. At each of the thresholds 0.999, 0.998 ... 0, the predictions of all pictures with a score >= that give one
   precision (right ones of those that are not left out) and one recall (right ones of all faces that count).
5. Average precision is the area under that curve, in the way of Pascal VOC 2010: precision is replaced by the
   highest at that recall or a higher one.

Which prediction is the first to find a box does not depend on the subset, so all of it is decided once, in
one call of the core for all pictures; subsets, events and sizes of faces then differ in what they count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._validation import check_fraction

from ._columns import join_predictions
from .matching import match_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinaface_fast._typing import BoolArray, DoubleArray, IntArray
    from retinaface_fast.data.records import GroundTruth, Prediction

__all__ = ["NUM_THRESHOLDS", "Curve", "Scores", "evaluate"]

#: Steps of the curve; the official program has as many.
NUM_THRESHOLDS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision and recall from the highest threshold to the lowest.

    Attributes:
        precision: (T,) float64, 0 where nothing passes the threshold.
        recall: (T,) float64, never falling; 0 where no face counts.
        thresholds: (T,) float64, of normalised scores; a score passes if it is >= the threshold.
    """

    precision: DoubleArray
    recall: DoubleArray
    thresholds: DoubleArray

    @property
    def average_precision(self) -> float:
        """Area under the curve from 0 to 1, each precision raised to the highest at that recall or more."""
        return area_under_curve(self.precision, self.recall)


@dataclass(frozen=True, eq=False)
class Scores:
    """The outcome of an evaluation, down to the single prediction and the single face.

    Predictions of all pictures are in one array, in the order in which they came.

    Attributes:
        truth: What was looked for.
        min_overlap: What it took to find a box, by >=.
        boxes: (P, 4) float64 xyxy in pixels, all predictions.
        offsets: (pictures + 1,) int64: the predictions of picture i are the rows `offsets[i]:offsets[i + 1]`.
        scores: (P,) float64 as predicted.
        normalised: (P,) float64, the scores stretched to [0, 1] over all pictures; 1 where all are equal.
        best: (P,) int64, the box of `truth` that each overlaps most, -1 in a picture without boxes.
        overlaps: (P,) float64, how much.
        found_by: (G,) int64, for each box of `truth` the first prediction to find it, that with the highest
            score; -1 where none did.
    """

    truth: GroundTruth
    min_overlap: float
    boxes: DoubleArray
    offsets: IntArray
    scores: DoubleArray
    normalised: DoubleArray
    best: IntArray
    overlaps: DoubleArray
    found_by: IntArray

    @cached_property
    def found_at(self) -> DoubleArray:
        """(G,) float64, the score with which each box of `truth` was found; -inf where it was not."""
        found_at = np.full(len(self.found_by), -np.inf)
        found = self.found_by >= 0
        found_at[found] = self.scores[self.found_by[found]]
        return found_at

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """The curve of each subset."""
        return {subset: self.curve(counted) for subset, counted in self.truth.counted.items()}

    @cached_property
    def ap(self) -> Mapping[str, float]:
        """Average precision of each subset, from 0 to 1."""
        return {subset: curve.average_precision for subset, curve in self.curves.items()}

    def right(self, counted: BoolArray) -> BoolArray:
        """Which predictions are right: the first to find a face that counts.

        Args:
            counted: (G,) bool, the boxes that count, such as `truth.counted["hard"]`.

        Returns:
            (P,) bool.
        """
        right = np.zeros(len(self.scores), dtype=np.bool_)
        right[self.found_by[counted & (self.found_by >= 0)]] = True
        return right

    def left_out(self, counted: BoolArray) -> BoolArray:
        """Which predictions are neither right nor wrong.

        They found a box that does not count, or their picture has no box at all.

        Args:
            counted: (G,) bool, the boxes that count.

        Returns:
            (P,) bool.
        """
        left_out = self.best < 0
        matched = self._matched
        left_out[matched] = ~counted[self.best[matched]]
        return left_out

    def curve(self, counted: BoolArray, taking_part: BoolArray | None = None) -> Curve:
        """Precision and recall where other faces count than in a subset, or only some of the predictions do.

        Args:
            counted: (G,) bool, the boxes that are to be found.
            taking_part: (P,) bool, the predictions that count if they are not left out anyway; all if None.

        Returns:
            The curve of 1,000 thresholds of the scores that are normalised over all predictions.
        """
        shown, right = ~self.left_out(counted), self.right(counted)
        if taking_part is not None:
            shown &= taking_part
            right &= taking_part
        # What passes a threshold has reached it or a higher one before.
        num_shown, num_right = (
            np.cumsum(np.bincount(self._steps[which], minlength=NUM_THRESHOLDS)) for which in (shown, right)
        )
        return Curve(
            precision=num_right / np.maximum(num_shown, 1),
            recall=num_right / max(int(np.count_nonzero(counted)), 1),
            thresholds=_thresholds(),
        )

    @cached_property
    def _matched(self) -> IntArray:
        """The predictions that found a box, be it the first time or not."""
        return np.flatnonzero(self.overlaps >= self.min_overlap)

    @cached_property
    def _steps(self) -> IntArray:
        """(P,) the first of the thresholds that each score passes."""
        rising = _thresholds()[::-1]
        return NUM_THRESHOLDS - np.searchsorted(rising, self.normalised, side="right")


def evaluate(predictions: Sequence[Prediction], truth: GroundTruth, *, min_overlap: float = 0.5) -> Scores:
    """Score predictions by the official WIDER FACE protocol.

    Args:
        predictions: One for each picture of `truth`, in that order; boxes (N, 4) xyxy in pixels, scores (N,)
            of any range. One without boxes has found nothing.
        truth: The faces to be found.
        min_overlap: What it takes to find a box, by >=; within (0, 1]. The official protocol says 0.5.

    Returns:
        Average precision and curve by subset, and what became of every prediction and face.

    Raises:
        ValueError: If there are more or fewer predictions than pictures, a shape does not fit, or a
            coordinate or score is NaN or infinite; the message names the picture.

    Example:
        >>> import numpy as np
        >>> from retinaface_fast.data import GroundTruth, Prediction
        >>> faces = np.array([[0, 0, 20, 20], [40, 0, 60, 20]], np.float64)
        >>> counted = {"easy": np.array([True, False]), "hard": np.array([True, True])}
        >>> truth = GroundTruth(["event/picture"], faces, np.array([0, 2], np.int64), counted)
        >>> found = Prediction(faces[:1], np.array([0.9]))
        >>> evaluate([found], truth).ap
        {'easy': 1.0, 'hard': 0.5}
    """
    min_overlap = check_fraction(min_overlap, "min_overlap")
    if min_overlap == 0:
        raise ValueError("min_overlap must be greater than 0: with 0 every box would be found")
    if len(predictions) != len(truth):
        raise ValueError(
            f"predictions: expected one for each of the {len(truth)} pictures of the ground truth, "
            f"got {len(predictions)}"
        )
    boxes, scores, offsets = join_predictions(predictions, truth.names)
    best, overlaps = match_boxes(boxes, offsets, truth.boxes, truth.offsets)
    return Scores(
        truth=truth,
        min_overlap=min_overlap,
        boxes=boxes,
        offsets=offsets,
        scores=scores,
        normalised=_normalised(scores),
        best=best,
        overlaps=overlaps,
        found_by=first_finders(best, overlaps >= min_overlap, scores, len(truth.boxes)),
    )


def _normalised(scores: DoubleArray) -> DoubleArray:
    """Scores stretched to [0, 1]. The official program does not provide for equal ones: they become 1."""
    low, high = (float(scores.min()), float(scores.max())) if scores.size else (0.0, 0.0)
    if math.isinf(high - low):  # half of each is exact, unless it is so small that it adds nothing
        scores, low, high = scores / 2, low / 2, high / 2
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def area_under_curve(precision: DoubleArray, recall: DoubleArray) -> float:
    """Sum the highest precision from there over the steps of recall, which never falls (Pascal VOC 2010)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    highest_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * highest_from_here[1:]).sum())


def first_finders(best: IntArray, matched: BoolArray, scores: DoubleArray, num_boxes: int) -> IntArray:
    """For each box the prediction with the highest score that found it, the first of equals, or -1."""
    finders = np.flatnonzero(matched)
    finders = finders[np.argsort(-scores[finders], kind="stable")]
    found_by = np.full(num_boxes, -1, dtype=np.int64)
    # From the last to the first: where a box comes up again, the later assignment stays.
    found_by[best[finders[::-1]]] = finders[::-1]
    return found_by


def _thresholds() -> DoubleArray:
    return 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS
