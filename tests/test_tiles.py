from __future__ import annotations

import numpy as np
import pytest
from benchmarks.scenes import crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import Detections, FaceDetector, ops
from retinaface_fast._tiles import MARGIN, SMALLEST_TILE, tile_grid


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(close_ups=False, threads=1)


@pytest.fixture(scope="module")
def large_crowd() -> np.ndarray:
    return crowd((1500, 2111), sides=(90, 150, 60, 420, 300))


# --- the grid ---


@given(
    height=st.integers(1, 9000),
    width=st.integers(1, 9000),
    tile_side=st.integers(SMALLEST_TILE, 5000),
    stride=st.sampled_from([32, 64]),
)
@settings(max_examples=300, deadline=None)
def test_tiles_cover_the_picture_once(height: int, width: int, tile_side: int, stride: int) -> None:
    tiles = tile_grid((height, width), tile_side, stride)
    rng = np.random.default_rng(height)
    # Points anywhere, beyond the edges too, and far from the borders between tiles, where two may answer.
    points = np.floor(rng.uniform([-50, -50], [width + 50, height + 50], (200, 2)) / 8) * 8 + 4
    boxes = np.hstack([points - 3, points + 3]).astype(np.float32)
    owners = np.sum([tile.owns(boxes) for tile in tiles], axis=0)
    assert (owners == 1).all()
    for tile in tiles:
        left, top, right, bottom = tile.outer
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert max(right - left, bottom - top) <= tile_side
        assert left % stride == top % stride == 0
        # A tile sees a margin around what it answers for, or as far as the picture goes.
        for edge, seen, limit in zip(tile.inner, tile.outer, (0, 0, width, height), strict=True):
            assert abs(edge - seen) >= MARGIN or seen == limit
    if max(height, width) <= tile_side:
        assert len(tiles) == 1


def test_as_few_tiles_as_can_be() -> None:
    assert len(tile_grid((1200, 1400), 1280, 32)) == 2
    assert len(tile_grid((4320, 7680), 4096, 32)) == 6
    assert len(tile_grid((10, 8000), 2048, 32)) == 7


def test_on_the_border_both_answer() -> None:
    left, right = tile_grid((100, 1600), 1280, 32)
    edge = left.inner[2]
    assert edge == right.inner[0]
    boxes = np.float32([[edge - 5, 0, edge + 5, 10]])
    assert left.owns(boxes).all()
    assert right.owns(boxes).all()


# --- the faces ---


def assert_same_faces(result: Detections, whole: Detections) -> None:
    assert len(result) == len(whole)
    overlaps = ops.box_iou(whole.boxes, result.boxes)
    partner = overlaps.argmax(axis=1)
    assert sorted(partner) == list(range(len(whole)))
    np.testing.assert_allclose(result.boxes[partner], whole.boxes, rtol=0, atol=2e-3)
    np.testing.assert_allclose(result.landmarks[partner], whole.landmarks, rtol=0, atol=2e-3)
    np.testing.assert_allclose(result.scores[partner], whole.scores, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tile_side", [1280, 1300, 1536])
@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_tiles_find_what_the_whole_picture_shows(
    detector: FaceDetector, large_crowd: np.ndarray, tile_side: int, threshold: float
) -> None:
    whole = detector.detect(large_crowd, score_threshold=threshold)
    assert len(whole) > 100
    # There are faces across the borders of the tiles.
    inner = [tile.inner for tile in tile_grid(large_crowd.shape[:2], tile_side, 32)]
    border = next(right for _, _, right, _ in inner if np.isfinite(right))
    assert ((whole.boxes[:, 0] < border - 9) & (whole.boxes[:, 2] > border + 9)).sum() >= 2
    assert_same_faces(
        detector.replace(tile_side=tile_side).detect(large_crowd, score_threshold=threshold), whole
    )


def test_a_picture_that_fits_is_not_cut(detector: FaceDetector, large_crowd: np.ndarray) -> None:
    tiled = detector.replace(tile_side=1280)
    for size in ((1280, 1280), (33, 1280), (700, 900)):
        picture = large_crowd[: size[0], : size[1]]
        assert tiled.detect(picture) == detector.detect(picture)


def test_limits_are_those_of_the_whole_picture(detector: FaceDetector, large_crowd: np.ndarray) -> None:
    few = detector.replace(keep_top_k=20, score_threshold=0.1)
    assert_same_faces(few.replace(tile_side=1280).detect(large_crowd), few.detect(large_crowd))
    first = detector.replace(top_k=60, score_threshold=0.1)
    assert_same_faces(first.replace(tile_side=1280).detect(large_crowd), first.detect(large_crowd))


def test_close_ups_are_searched_in_the_whole_picture(detector: FaceDetector, large_crowd: np.ndarray) -> None:
    with_both = detector.replace(tile_side=1280, close_ups=True)
    assert_same_faces(with_both.detect(large_crowd), detector.replace(close_ups=True).detect(large_crowd))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_other_engines_see_the_same(engine: str, large_crowd: np.ndarray) -> None:
    detector = FaceDetector(engine=engine, close_ups=False)
    picture = large_crowd[:700, :1500]
    whole = detector.detect(picture)
    assert len(whole) > 20
    assert_same_faces(detector.replace(tile_side=1280).detect(picture), whole)


def test_a_tile_is_not_all_margin() -> None:
    with pytest.raises(ValueError, match="tile_side must be at least 1280, got 640"):
        FaceDetector(tile_side=640)
    with pytest.raises(TypeError, match="tile_side must be an integer, got float"):
        FaceDetector(tile_side=2048.0)  # type: ignore[arg-type]
