from __future__ import annotations

import numpy as np
import pytest
import torch

from retinaface_fast import ops
from retinaface_fast.training.assignment import IGNORED, NEGATIVE, assign_anchors
from retinaface_fast.training.batch import Sample, Targets
from retinaface_fast.training.recipe import AssignmentSection
from retinaface_fast.training.targets import collate, make_targets
from tests.reference import boxes as reference

# The anchors and variances of the PyTorch port, and those of the paper's own code, which has no variances.
CONVENTIONS = [(ops.P3_P5, (0.1, 0.2)), (ops.P2_P6, (1.0, 1.0))]
USUAL = AssignmentSection()
PORT = (0.1, 0.2)


def faces(count: int, seed: int = 0, side: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size, corner = rng.uniform(6, 90, (count, 2)), rng.uniform(-5, side - 20, (count, 2))
    boxes = np.hstack([corner, corner + size]).astype(np.float32)
    landmarks = (corner[:, None] + rng.uniform(0, 1, (count, 5, 2)) * size[:, None]).astype(np.float32)
    return boxes, landmarks


def one_face(points: np.ndarray, variances: tuple[float, float] = PORT) -> Targets:
    """The targets of one anchor, 8 x 16 around (10, 20), and a face of its size around (12, 20)."""
    return make_targets(
        np.array([[10, 20, 8, 16]], np.float32),
        np.array([[8, 12, 16, 28]], np.float32),
        points,
        config=USUAL,
        variances=variances,
    )


def test_deltas_by_hand() -> None:
    points = np.tile(np.array([14, 12], np.float32), (1, 5, 1))
    targets = one_face(points)
    assert targets.box_deltas.dtype == targets.landmark_deltas.dtype == np.float32
    assert targets.box_deltas.tolist() == [[2.5, 0, 0, 0]]
    assert targets.landmark_deltas[0, :2].tolist() == [5, -5]
    assert one_face(points, (0.5, 9)).landmark_deltas[0, 8:].tolist() == [1, -1]


def test_an_unknown_landmark_is_zero_in_both_coordinates() -> None:
    points = np.full((1, 5, 2), 2, np.float32)
    points[0, 1] = np.nan
    points[0, 3, 1] = np.nan
    points[0, 4, 0] = np.inf
    deltas = one_face(points).landmark_deltas.reshape(5, 2)
    assert (deltas == 0).all(axis=1).tolist() == [False, True, False, True, True]
    assert (deltas == 0).any(axis=1).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(("grid", "variances"), CONVENTIONS)
def test_targets_lead_back_to_the_faces(grid: ops.AnchorConfig, variances: tuple[float, float]) -> None:
    anchors = ops.generate_anchors((256, 256), config=grid)
    boxes, landmarks = faces(12, seed=1)
    landmarks[3] = np.nan
    landmarks[5, 2:4] = np.nan
    landmarks[7, 1, 0] = np.nan
    ignored = np.arange(12) % 6 == 4
    config = AssignmentSection(positive_iou=0.5, negative_iou=0.3)
    targets = make_targets(anchors, boxes, landmarks, ignored=ignored, config=config, variances=variances)
    assigned = assign_anchors(anchors, boxes, config=config, ignored=ignored)

    assert targets.labels.dtype == np.int8
    meaning = {1: assigned >= 0, 0: assigned == NEGATIVE, -1: assigned == IGNORED}
    for label, expected in meaning.items():
        np.testing.assert_array_equal(targets.labels == label, expected)
        assert expected.any()
    assert targets.positives.dtype == np.int64
    assert targets.positives.tolist() == [i for i, label in enumerate(targets.labels) if label == 1]

    owner = assigned[targets.positives]
    assert {3, 5, 7} < set(owner.tolist()), "faces with unknown landmarks have no anchor"
    own = anchors[targets.positives]
    np.testing.assert_allclose(
        ops.decode_boxes(targets.box_deltas, own, variances=variances), boxes[owner], atol=1e-4
    )
    np.testing.assert_allclose(
        targets.box_deltas,
        reference.encode_boxes(boxes[owner].astype(np.float64), own.astype(np.float64), variances),
        rtol=1e-4,
        atol=1e-4,
    )
    wide = reference.encode_landmarks(landmarks[owner].astype(np.float64), own.astype(np.float64), variances)
    np.testing.assert_allclose(
        targets.landmark_deltas[targets.landmark_mask.repeat(2, axis=1)],
        wide.reshape(-1, 10)[targets.landmark_mask.repeat(2, axis=1)],
        rtol=1e-4,
        atol=1e-4,
    )
    decoded = ops.decode_landmarks(targets.landmark_deltas, own, variances=variances)
    assert targets.landmark_mask.dtype == np.bool_
    for row, face in enumerate(owner):
        known = [not np.isnan(landmarks[face, k]).any() for k in range(5)]
        assert targets.landmark_mask[row].tolist() == known
        np.testing.assert_allclose(decoded[row][known], landmarks[face][known], atol=1e-4)
        assert not targets.landmark_deltas[row].reshape(5, 2)[np.logical_not(known)].any()


def test_a_picture_without_faces() -> None:
    anchors = ops.generate_anchors((64, 64))
    empty = make_targets(
        anchors, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), config=USUAL, variances=PORT
    )
    assert empty.labels.tolist() == [0] * len(anchors)
    shapes = [empty.positives, empty.box_deltas, empty.landmark_deltas, empty.landmark_mask]
    assert [array.shape for array in shapes] == [(0,), (0, 4), (0, 10), (0, 5)]
    assert [array.dtype for array in shapes] == [np.int64, np.float32, np.float32, np.bool_]


@pytest.mark.parametrize("landmarks", [np.zeros((3, 5, 2), np.float32), np.zeros((2, 10), np.float32)])
def test_landmarks_of_another_shape(landmarks: np.ndarray) -> None:
    boxes, _ = faces(2)
    with pytest.raises(ValueError, match=r"^landmarks: expected .*\(2, 5, 2\).* got"):
        make_targets(ops.generate_anchors((64, 64)), boxes, landmarks, config=USUAL, variances=PORT)


def test_landmarks_of_another_type() -> None:
    boxes, landmarks = faces(2)
    with pytest.raises(TypeError, match=r"^landmarks: expected a float32 array"):
        make_targets(
            ops.generate_anchors((256, 256)),
            boxes,
            landmarks.astype(np.float64),
            config=USUAL,
            variances=PORT,
        )


def sample(count: int, seed: int, side: int = 64, faults: tuple[str, ...] = ()) -> Sample:
    boxes, landmarks = faces(count, seed, side)
    anchors = ops.generate_anchors((side, side))
    targets = make_targets(anchors, boxes, landmarks, config=USUAL, variances=PORT)
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Sample(image, targets, 0.25 * seed, 0.5 * seed, faults)


def test_collate() -> None:
    samples = [sample(2, 1, faults=("a:1: x",)), sample(0, 2), sample(3, 3, faults=("b:2: y", "b:3: z"))]
    batch = collate(samples)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.labels.dtype == torch.int8
    assert batch.targets.positives.dtype == torch.int64
    assert batch.targets.landmark_mask.dtype == torch.bool
    assert batch.targets.box_deltas.dtype == batch.targets.landmark_deltas.dtype == torch.float32
    np.testing.assert_array_equal(batch.images.numpy(), [each.image for each in samples])
    np.testing.assert_array_equal(batch.targets.labels.numpy(), [each.targets.labels for each in samples])
    flat = [i for i, label in enumerate(batch.targets.labels.flatten().tolist()) if label == 1]
    assert batch.targets.positives.tolist() == flat
    anchors = samples[0].targets.labels.size
    for place, each in enumerate(samples):
        own = torch.div(batch.targets.positives, anchors, rounding_mode="floor") == place
        assert int(own.sum()) == len(each.targets.positives)
        for name in ("box_deltas", "landmark_deltas", "landmark_mask"):
            ours = getattr(batch.targets, name)[own].numpy()
            np.testing.assert_array_equal(ours, getattr(each.targets, name))
    assert (batch.load_seconds, batch.assign_seconds) == (1.5, 3.0)
    assert batch.faults == ("a:1: x", "b:2: y", "b:3: z")


def test_a_batch_has_memory_of_its_own() -> None:
    one = sample(2, 1)
    batch = collate([one])
    before = batch.images.clone(), batch.targets.box_deltas.clone()
    one.image[:] = 0
    one.targets.box_deltas[:] = 0
    assert torch.equal(batch.images, before[0])
    assert torch.equal(batch.targets.box_deltas, before[1])
    assert before[1].any()


def test_collate_without_a_face() -> None:
    batch = collate([sample(0, 1), sample(0, 2)])
    shapes = [tuple(tensor.shape) for tensor in batch.targets]
    assert shapes == [(2, 168), (0,), (0, 4), (0, 10), (0, 5)]
    assert not batch.targets.labels.any()


def test_samples_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^samples: expected at least one, got none"):
        collate([])
    with pytest.raises(ValueError, match=r"^samples: expected pictures of one shape, got \[\(64, 64, 3\), "):
        collate([sample(1, 1), sample(1, 1, side=96)])
    other = sample(1, 1, side=96)
    with pytest.raises(ValueError, match=r"^samples: expected labels of one shape"):
        collate([sample(1, 1), Sample(sample(1, 1).image, other.targets)])
