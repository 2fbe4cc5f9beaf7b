"""How the core is compared with the oracles, so that rounding is forgiven and a bug is not.

`exp` may differ by units in the last place between NumPy and the core. A tolerance on the final boxes alone
would be the wrong answer to that: one such unit can flip a comparison and bring a whole box in or out, and
a test that forgives a missing box forgives every bug. So the chain is cut where rounding happens, and each
piece gets the comparison that it deserves:

* Arithmetic (decode, encode, scores) is compared with the float64 oracle, to a few units in the last place.
* Decisions (threshold, order, top-k, suppression, limits) are exact. `check_faces` replays them in the oracle
  on the very numbers that the core computed: the boxes of `ops.decode_boxes`, which must come back from the
  fused call bit for bit, and, for probabilities, the scores that went in.
* Scores of logits are nowhere to be had but from the fused call, so the oracle takes its own, in float64. A
  decision closer than `MARGIN` is then nobody's fault; `check_faces` raises `AmbiguousError` on such a sample
  *before* it looks at the answer. Samples drawn from a grid of logits (`samples.random_outputs`) keep a
  margin by construction, so the deterministic tests let the error through: there it is a failure.
* `check_faces_independently` uses nothing of the core but the answer: decode, overlap and order are all the
  oracle's, in float64, with margins on every decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from retinaface_fast import ops
from tests.reference import anchors as reference_anchors
from tests.reference import postprocess as reference_postprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = npt.NDArray[np.float32]

#: Relative to the score: what the core's sigmoid may be off by is a few units in the last place, 6e-8 each.
SCORE_TOLERANCE = 5e-7
#: Decisions on scores that are closer than this are not judged.
MARGIN = 2 * SCORE_TOLERANCE
#: Below this the float32 sigmoid by its formula, 1 / (1 + exp(-x)), has no digits left: exp(-x) overflows.
SMALLEST_SCORE = 1e-37


class AmbiguousError(Exception):
    """The sample holds a decision that rounding may take either way."""


class RawOutputs(NamedTuple):
    """Outputs of the network over all levels, for a batch."""

    class_scores: FloatArray
    box_deltas: FloatArray
    landmark_deltas: FloatArray


@dataclass(frozen=True)
class Grid:
    """An anchor configuration for both sides: the package's and the oracle's."""

    strides: Sequence[int]
    sizes: Sequence[Sequence[float]]

    @property
    def config(self) -> ops.AnchorConfig:
        return ops.AnchorConfig(strides=tuple(self.strides), sizes=tuple(tuple(row) for row in self.sizes))

    def anchors(self, image_size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
        return reference_anchors.generate(image_size_hw, self.strides, self.sizes)

    def count(self, image_size_hw: tuple[int, int]) -> int:
        return reference_anchors.count(image_size_hw, self.strides, self.sizes)

    def level_counts(self, image_size_hw: tuple[int, int]) -> list[int]:
        return [
            rows * columns * len(sizes)
            for (rows, columns), sizes in zip(
                reference_anchors.feature_sizes_hw(image_size_hw, self.strides), self.sizes, strict=True
            )
        ]

    def split(self, array: npt.NDArray[Any], image_size_hw: tuple[int, int]) -> list[npt.NDArray[Any]]:
        """(B, A, n) over all levels to one (B, A_l, n) for each, C-contiguous."""
        ends = np.cumsum(self.level_counts(image_size_hw))[:-1]
        return [np.ascontiguousarray(level) for level in np.split(array, ends, axis=1)]


P3_P5 = Grid(reference_anchors.P3_P5_STRIDES, reference_anchors.P3_P5_SIZES)
P2_P6 = Grid(reference_anchors.P2_P6_STRIDES, reference_anchors.P2_P6_SIZES)


def assert_same_bits(actual: npt.NDArray[Any], expected: npt.NDArray[Any], what: str = "") -> None:
    """Equal to the last bit, signs of zeros and all; NaN equals NaN."""
    assert actual.dtype == expected.dtype, what
    assert actual.shape == expected.shape, what
    actual, expected = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    if actual.dtype == np.float32:
        both_nan = np.isnan(actual) & np.isnan(expected)
        same = (actual.view(np.uint32) == expected.view(np.uint32)) | both_nan
    else:
        same = actual == expected
    if not same.all():
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(
            f"{what}: {(~same).sum()} of {same.size} differ, first at {where}: "
            f"{actual[where]!r} instead of {expected[where]!r}"
        )


def assert_same_faces(actual: Sequence[ops.Faces], expected: Sequence[ops.Faces]) -> None:
    """Two results of the core, equal to the last bit."""
    assert len(actual) == len(expected)
    for got, wanted in zip(actual, expected, strict=True):
        assert_same_bits(got.scores, wanted.scores, "scores")
        assert_same_bits(got.boxes, wanted.boxes, "boxes")
        assert_same_bits(got.landmarks, wanted.landmarks, "landmarks")


def assert_well_formed(faces: ops.Faces) -> None:
    """Shapes, types and layout that every result has."""
    count = len(faces.scores)
    assert faces.boxes.shape == (count, 4)
    assert faces.scores.shape == (count,)
    assert faces.landmarks.shape == (count, 5, 2)
    for array in faces:
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert np.isfinite(faces.boxes).all()
    assert (faces.scores[1:] <= faces.scores[:-1]).all()


def check_faces(
    faces: Sequence[ops.Faces],
    raw: RawOutputs,
    image_size_hw: tuple[int, int],
    grid: Grid,
    *,
    scores_are: Literal["logits", "probabilities"] = "logits",
    variances: tuple[float, float] = (0.1, 0.2),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int = 5000,
    keep_top_k: int = 750,
) -> list[reference_postprocess.ReferenceFaces]:
    """Compares with the oracle on the core's own decoded boxes: the same anchors, bit for bit.

    Returns what the oracle found, so that a test can assert that its sample was not an empty one.
    """
    anchors = grid.anchors(image_size_hw)
    anchors32 = anchors.astype(np.float32)
    assert len(faces) == len(raw.class_scores)
    found = []
    for image, got in enumerate(faces):
        class_scores, box_deltas, landmark_deltas = (np.ascontiguousarray(array[image]) for array in raw)
        boxes = ops.decode_boxes(box_deltas, anchors32, variances=variances)
        landmarks = ops.decode_landmarks(landmark_deltas, anchors32, variances=variances)
        expected = reference_postprocess.postprocess(
            class_scores,
            box_deltas,
            landmark_deltas,
            anchors,
            scores_are=scores_are,
            variances=variances,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
            boxes=boxes,
        )
        if scores_are == "logits":
            score_margin, order_margin = expected.score_margin(), expected.order_margin()
            if min(score_margin, order_margin) < MARGIN:
                raise AmbiguousError(f"scores: {score_margin:.1e}, order: {order_margin:.1e}")

        assert_well_formed(got)
        assert len(got.scores) == len(expected.indices), f"image {image}"
        assert_same_bits(got.boxes, boxes[expected.indices], f"boxes of image {image}")
        assert_same_bits(got.landmarks, landmarks[expected.indices], f"landmarks of image {image}")
        if scores_are == "probabilities":
            assert_same_bits(got.scores, class_scores[expected.indices, 1], f"scores of image {image}")
        else:
            np.testing.assert_allclose(
                got.scores.astype(np.float64),
                expected.scores,
                rtol=SCORE_TOLERANCE,
                atol=SMALLEST_SCORE,
                err_msg=f"scores of image {image}",
            )
        assert (got.scores.astype(np.float64) > score_threshold).all()
        found.append(expected)
    return found


def check_faces_independently(
    faces: Sequence[ops.Faces], raw: RawOutputs, image_size_hw: tuple[int, int], grid: Grid, **options: Any
) -> int:
    """Compares with the oracle's own float64 decode; returns the number of faces.

    Raises:
        AmbiguousError: A score or an overlap is too near to a decision.
    """
    anchors = grid.anchors(image_size_hw)
    total = 0
    for image, got in enumerate(faces):
        expected = reference_postprocess.postprocess(*(array[image] for array in raw), anchors, **options)
        margins = expected.score_margin(), expected.order_margin(), expected.iou_margin() / 10
        if min(margins) < MARGIN:
            raise AmbiguousError("scores: {:.1e}, order: {:.1e}, overlaps: {:.1e} times ten".format(*margins))
        assert_well_formed(got)
        scale = float(max(image_size_hw))
        np.testing.assert_allclose(got.scores, expected.scores, rtol=SCORE_TOLERANCE)
        np.testing.assert_allclose(got.boxes, expected.boxes, rtol=1e-6, atol=1e-6 * scale)
        np.testing.assert_allclose(got.landmarks, expected.landmarks, rtol=1e-6, atol=1e-6 * scale)
        total += len(expected.indices)
    return total
