from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import ops
from tests.ops.layouts import LAYOUTS
from tests.reference import vote as reference


def sample(seed: int, count: int, snap: float = 0.0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20 * np.sqrt(count) + 1, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(4, 60, (count, 2))])
    if snap:
        boxes = np.round(boxes / snap) * snap
    scores = rng.integers(0, 33, count) / 32
    landmarks = rng.uniform(0, 400, (count, 5, 2))
    return boxes.astype(np.float32), scores.astype(np.float32), landmarks.astype(np.float32)


def agree(votes: ops.Votes, expected: list[reference.Group]) -> None:
    assert votes.members.tolist() == [len(group.members) for group in expected]
    np.testing.assert_array_equal(votes.scores, [group.best for group in expected])
    if expected:
        np.testing.assert_allclose(votes.boxes, [group.box for group in expected], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(votes.score_sums, [group.score_sum for group in expected], rtol=1e-6)
        assert votes.landmarks is not None
        points = [group.landmarks for group in expected]
        np.testing.assert_allclose(votes.landmarks, points, rtol=1e-6, atol=1e-5)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    snap=st.sampled_from([0.0, 4.0, 16.0]),
    threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.4, 0.5, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_definition(seed: int, count: int, snap: float, threshold: float) -> None:
    boxes, scores, landmarks = sample(seed, count, snap)
    votes = ops.vote_boxes(boxes, scores, landmarks, iou_threshold=threshold)
    agree(votes, reference.groups(boxes, scores, landmarks, threshold))
    assert votes.boxes.dtype == votes.scores.dtype == votes.score_sums.dtype == np.float32
    assert votes.boxes.shape == (len(votes.scores), 4)


def test_two_boxes_by_hand() -> None:
    boxes = np.float32([[0, 0, 8, 8], [2, 0, 10, 8], [100, 0, 110, 10]])
    landmarks = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    votes = ops.vote_boxes(boxes, np.float32([0.25, 0.75, 0.5]), landmarks)
    assert votes.boxes.tolist() == [[1.5, 0, 9.5, 8], [100, 0, 110, 10]]
    assert votes.scores.tolist() == [0.75, 0.5]
    assert votes.score_sums.tolist() == [1.0, 0.5]
    assert votes.members.tolist() == [2, 1]
    assert votes.landmarks is not None
    np.testing.assert_allclose(votes.landmarks[0], landmarks[0] + 7.5)
    np.testing.assert_array_equal(votes.landmarks[1], landmarks[2])


def test_equal_to_the_threshold_joins() -> None:
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 2]])  # IoU 1/2
    scores = np.float32([1, 0.5])
    assert ops.vote_boxes(boxes, scores, iou_threshold=0.5).members.tolist() == [2]
    assert ops.vote_boxes(boxes, scores, iou_threshold=float(np.nextafter(0.5, 1))).members.tolist() == [1, 1]


def test_nothing_and_without_landmarks() -> None:
    votes = ops.vote_boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert votes.boxes.shape == (0, 4)
    assert votes.members.shape == (0,)
    assert votes.landmarks is None
    empty = np.zeros((0, 5, 2), np.float32)
    points = ops.vote_boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), empty).landmarks
    assert points is not None
    assert points.shape == (0, 5, 2)


def test_a_nan_landmark_spoils_no_box() -> None:
    boxes, scores = np.float32([[0, 0, 8, 8], [0, 0, 8, 8]]), np.float32([0.5, 0.5])
    landmarks = np.zeros((2, 5, 2), np.float32)
    landmarks[1, 3, 0] = np.nan
    votes = ops.vote_boxes(boxes, scores, landmarks)
    assert votes.boxes.tolist() == [[0, 0, 8, 8]]
    assert votes.landmarks is not None
    assert np.isnan(votes.landmarks).sum() == 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: getattr(layout, "__name__", str(layout)))
def test_any_memory_layout(layout) -> None:
    boxes, scores, landmarks = sample(3, 40)
    expected = ops.vote_boxes(boxes, scores, landmarks)
    apply = LAYOUTS[layout] if isinstance(LAYOUTS, dict) else layout
    votes = ops.vote_boxes(apply(boxes), apply(scores), apply(landmarks))
    np.testing.assert_array_equal(votes.boxes, expected.boxes)
    np.testing.assert_array_equal(votes.landmarks, expected.landmarks)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": np.zeros((2, 4))}, TypeError, "boxes: expected a float32"),
        ({"boxes": np.zeros((2, 5), np.float32)}, ValueError, r"boxes: .*\(N, 4\)"),
        (
            {"scores": np.zeros(3, np.float32)},
            ValueError,
            "scores: expected one for each of the 2 boxes, got 3",
        ),
        (
            {"scores": np.float32([0.5, np.nan])},
            ValueError,
            "scores: expected finite numbers >= 0, got nan at",
        ),
        ({"scores": np.float32([0.5, -1])}, ValueError, "got -1.0 at index 1"),
        ({"scores": np.float32([np.inf, 1])}, ValueError, "got inf at index 0"),
        ({"landmarks": np.zeros((2, 10), np.float32)}, ValueError, r"landmarks: .*\(N, 5, 2\)"),
        ({"landmarks": "five"}, TypeError, "landmarks: expected a float32 array"),
        ({"landmarks": np.zeros((3, 5, 2), np.float32)}, ValueError, "landmarks: .* 2 boxes, got 3"),
        ({"iou_threshold": 1.5}, ValueError, r"iou_threshold: .*\[0, 1\], got 1.5"),
        ({"iou_threshold": "half"}, TypeError, "iou_threshold"),
    ],
)
def test_errors_name_the_argument(change: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "boxes": np.zeros((2, 4), np.float32),
        "scores": np.zeros(2, np.float32),
        "landmarks": None,
        "iou_threshold": 0.4,
        **change,
    }
    with pytest.raises(error, match=message):
        ops.vote_boxes(**arguments)
