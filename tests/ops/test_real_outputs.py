"""The fused call on what the published network really gives, against the oracles."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from benchmarks import scenes

from retinaface_fast import ops
from tests.ops import torchvision_nms
from tests.ops.agreement import (
    P3_P5,
    AmbiguousError,
    RawOutputs,
    assert_same_bits,
    assert_same_faces,
    check_faces,
    check_faces_independently,
)


@functools.cache
def outputs_of(kind: str) -> tuple[scenes.Outputs, tuple[int, int]]:
    pytest.importorskip("onnxruntime", reason="onnxruntime runs the network that the outputs come from")
    size = (480, 640) if kind == "crowd" else (333, 517)
    try:
        picture = scenes.crowd(size, sides=(96, 144, 72, 200, 112), seed=5 if kind == "crowd" else 6)
        return scenes.run_network(picture), size
    except scenes.MissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", ["crowd", "odd size"])
@pytest.mark.parametrize("score_threshold", [0.02, 0.5, 0.6])
def test_probabilities_to_the_last_bit(kind: str, score_threshold: float) -> None:
    outputs, size = outputs_of(kind)
    raw = RawOutputs(outputs.class_probabilities, outputs.box_deltas, outputs.landmark_deltas)
    faces = ops.postprocess(*raw, size, scores_are="probabilities", score_threshold=score_threshold)
    (found,) = check_faces(
        faces, raw, size, P3_P5, scores_are="probabilities", score_threshold=score_threshold
    )
    assert len(found.indices) >= 10
    assert len(found.candidates) > 2 * len(found.indices)


@pytest.mark.parametrize("kind", ["crowd", "odd size"])
def test_logits_give_the_faces_of_probabilities(kind: str) -> None:
    outputs, size = outputs_of(kind)
    rest = outputs.box_deltas, outputs.landmark_deltas
    (logits,) = ops.postprocess(outputs.class_logits, *rest, size, score_threshold=0.02)
    (probabilities,) = ops.postprocess(
        outputs.class_probabilities, *rest, size, score_threshold=0.02, scores_are="probabilities"
    )
    np.testing.assert_allclose(logits.scores, probabilities.scores, rtol=1e-6)
    # Two scores within a unit in the last place may change places; the boxes are the same ones.
    by_place = [np.lexsort(faces.boxes.T) for faces in (logits, probabilities)]
    assert_same_bits(logits.boxes[by_place[0]], probabilities.boxes[by_place[1]])
    assert_same_bits(logits.landmarks[by_place[0]], probabilities.landmarks[by_place[1]])


@pytest.mark.parametrize("kind", ["crowd", "odd size"])
def test_an_oracle_that_shares_nothing_finds_the_same_faces(kind: str) -> None:
    outputs, size = outputs_of(kind)
    raw = RawOutputs(outputs.class_probabilities, outputs.box_deltas, outputs.landmark_deltas)
    judged = 0
    for nms_threshold in np.linspace(0.3, 0.5, 21):
        options = {
            "scores_are": "probabilities",
            "score_threshold": 0.5,
            "nms_threshold": float(nms_threshold),
        }
        faces = ops.postprocess(*raw, size, **options)
        try:
            judged += check_faces_independently(faces, raw, size, P3_P5, **options)
        except AmbiguousError:
            continue
    assert judged >= 10


def test_levels_are_as_good() -> None:
    outputs, size = outputs_of("crowd")
    raw = RawOutputs(outputs.class_logits, outputs.box_deltas, outputs.landmark_deltas)
    levels = [P3_P5.split(array, size) for array in raw]
    assert_same_faces(ops.postprocess(*levels, size), ops.postprocess(*raw, size))


def test_suppression_is_torchvisions() -> None:
    torchvision = torchvision_nms.load()
    outputs, size = outputs_of("crowd")
    index = np.flatnonzero(outputs.class_probabilities[0, :, 1] > 0.02)
    scores = outputs.class_probabilities[0, index, 1]
    boxes = ops.decode_boxes(outputs.box_deltas[0, index], ops.generate_anchors(size)[index])
    for iou_threshold in (0.2, 0.4, 0.6):
        assert_same_bits(
            ops.nms(boxes, scores, iou_threshold=iou_threshold), torchvision(boxes, scores, iou_threshold)
        )
