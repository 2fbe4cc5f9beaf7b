from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retinaface_fast
from retinaface_fast import TTA, Detections, FaceDetector, ops
from retinaface_fast._search import flip_faces
from retinaface_fast.tta import View
from tests.reference import tta as reference

MIRRORED = [1, 0, 2, 4, 3]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(threads=1)


def mirrored(result: Detections) -> Detections:
    """The result as it would be of the mirrored picture."""
    width = result.image_size[1]
    boxes = np.column_stack(
        [width - result.boxes[:, 2], result.boxes[:, 1], width - result.boxes[:, 0], result.boxes[:, 3]]
    )
    landmarks = result.landmarks[:, MIRRORED] * np.float32([-1, 1]) + np.float32([width, 0])
    return Detections(boxes, result.scores, landmarks, result.image_size)


def assert_close(result: Detections, expected: Detections, *, pixels: float, score: float = 1e-4) -> None:
    assert len(result) == len(expected)
    np.testing.assert_allclose(result.boxes, expected.boxes, rtol=0, atol=pixels)
    np.testing.assert_allclose(result.landmarks, expected.landmarks, rtol=0, atol=pixels)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=score)


# --- views ---


def test_the_defaults_are_the_papers() -> None:
    views = TTA().views((768, 1024))
    assert [view.scale * 768 for view in views] == pytest.approx(
        [side for side in (500, 800, 1100, 1400, 1700) for _ in "ab"]
    )
    assert [view.flipped for view in views] == [False, True] * 5


def test_the_longer_side_is_held() -> None:
    tta = TTA(short_sides=(1600,), max_long_side=2150, flip=False)
    assert tta.views((683, 1024)) == [View(2150 / 1024, False)]
    assert tta.views((1024, 768)) == [View(1600 / 768, False)]
    assert TTA(short_sides=(None,), max_long_side=10, flip=False).views((30, 40)) == [View(1.0, False)]


def test_equal_sizes_are_searched_once() -> None:
    assert TTA(short_sides=(None, 480, 480), flip=False).views((480, 640)) == [View(1.0, False)]


# --- one view is a plain search ---


def test_one_level_of_the_own_size_is_identical(detector: FaceDetector, crowd_bgr: np.ndarray) -> None:
    plain = detector.replace(close_ups=False)
    tta = TTA(short_sides=(None,), flip=False, agreement=0.5, paper_compat=True)
    assert len(plain.detect(crowd_bgr)) > 3
    assert plain.replace(tta=tta).detect(crowd_bgr) == plain.detect(crowd_bgr)


def test_one_level_is_a_search_of_the_resized_picture(
    detector: FaceDetector, astronaut_bgr: np.ndarray
) -> None:
    picture = astronaut_bgr[:, :450]
    result = detector.replace(tta=TTA(short_sides=(701,), flip=False)).detect(picture)
    scale = 701 / 450
    larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    expected = detector.replace(close_ups=False).detect(larger)
    np.testing.assert_allclose(result.boxes, expected.boxes / scale, rtol=1e-5)
    np.testing.assert_allclose(result.landmarks, expected.landmarks / scale, rtol=1e-5)
    np.testing.assert_array_equal(result.scores, expected.scores)


# --- mirroring ---


@given(seed=st.integers(0, 2**32), width=st.integers(1, 5000), count=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_mirrored_mirror_image_is_the_image(seed: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Quarters of pixels: exact in float32.
    boxes = (rng.integers(-400, 4 * width, (count, 4)) / 4).astype(np.float32)
    landmarks = (rng.integers(-400, 4 * width, (count, 5, 2)) / 4).astype(np.float32)
    faces = ops.Faces(boxes, np.linspace(1, 0.5, count, dtype=np.float32), landmarks)
    once = flip_faces(faces, width)
    np.testing.assert_array_equal(once.boxes[:, 2] - once.boxes[:, 0], boxes[:, 2] - boxes[:, 0])
    np.testing.assert_array_equal(once.landmarks[:, 2, 0], width - landmarks[:, 2, 0])
    for column, original in zip(flip_faces(once, width), faces, strict=True):
        np.testing.assert_array_equal(column, original)


@pytest.mark.parametrize("width", [512, 511, 499, 481, 480])
def test_mirrored_search_of_any_width(detector: FaceDetector, astronaut_bgr: np.ndarray, width: int) -> None:
    """The vote on a picture and its mirror image is the mirror image of the vote on the mirrored picture."""
    picture = astronaut_bgr[:, :width]
    voting = detector.replace(tta=TTA(short_sides=(None,)), score_threshold=0.02)
    result, of_mirror = voting.detect(picture), voting.detect(np.ascontiguousarray(picture[:, ::-1]))
    assert result.scores[0] > 0.99
    assert_close(mirrored(of_mirror), result, pixels=1e-3)
    # The face is where a plain search finds it; each eye is still on its side.
    plain = detector.detect(picture)
    np.testing.assert_allclose(result.boxes[0], plain.boxes[0], atol=3)
    np.testing.assert_allclose(result.landmarks[0], plain.landmarks[0], atol=3)


@pytest.mark.parametrize("shift", [32, 96])
def test_a_shift_of_the_picture_shifts_the_faces(
    detector: FaceDetector, astronaut_bgr: np.ndarray, shift: int
) -> None:
    padded = np.zeros((512 + 2 * shift, 512 + 2 * shift, 3), np.uint8)
    frame = np.zeros_like(padded)
    padded[:512, :512] = astronaut_bgr
    frame[shift : 512 + shift, shift : 512 + shift] = astronaut_bgr
    # Both have one size, so that both are searched at the same scales.
    voting = detector.replace(tta=TTA(short_sides=(None, (512 + 2 * shift) // 2)))
    before, after = voting.detect(padded), voting.detect(frame)
    np.testing.assert_allclose(after.boxes[0], before.boxes[0] + shift, atol=1)
    np.testing.assert_allclose(after.landmarks[0], before.landmarks[0] + shift, atol=1)


def test_the_order_of_channels_does_not_matter(detector: FaceDetector, crowd_bgr: np.ndarray) -> None:
    voting = detector.replace(tta=TTA(short_sides=(300, None)))
    rgb = np.ascontiguousarray(crowd_bgr[:, :, ::-1])
    assert voting.detect(rgb, color="rgb") == voting.detect(crowd_bgr)


# --- the vote ---


def random_views(seed: int, tta: TTA, size_hw: tuple[int, int]) -> tuple[list[ops.Faces], list[View]]:
    """Faces of a few people as each view sees them: a little elsewhere, or not at all."""
    rng = np.random.default_rng(seed)
    views = tta.views(size_hw)
    people = int(rng.integers(0, 12))
    corners = rng.uniform(-20, 400, (people, 2))
    truth = np.hstack([corners, corners + rng.uniform(4, 500, (people, 1)) * [1, 1.3]])
    found = []
    for _ in views:
        seen = rng.random(people) < 0.7
        boxes = (truth[seen] + rng.normal(0, 3, (int(seen.sum()), 4))).astype(np.float32)
        # No two scores equal, nor near each other.
        scores = (rng.permutation(1000)[: len(boxes)] / 1000 + 0.0205).astype(np.float32).clip(max=1)
        landmarks = rng.uniform(0, 400, (len(boxes), 5, 2)).astype(np.float32)
        found.append(ops.Faces(boxes, scores, landmarks))
    return found, views


@pytest.mark.parametrize("options", [
    {}, {"agreement": 0.5}, {"agreement": 1.0, "max_face_side": 200}, {"max_face_side": 120},
    {"paper_compat": True}, {"vote_threshold": 0.6, "flip": False}, {"vote_threshold": 0.0},
])  # fmt: skip
def test_merge_agrees_with_the_definition(options: dict) -> None:
    tta = TTA(short_sides=(240, 480, 800), **options)
    size_hw, compared = (480, 640), 0
    for seed in range(60):
        found, views = random_views(seed, tta, size_hw)
        limits = {"score_threshold": 0.3, "nms_threshold": 0.4, "keep_top_k": 5 if seed % 2 else None}
        result = tta.merge(found, views, **limits)
        expected = reference.merge(tta, found, views, **limits)
        assert len(result.scores) == len(expected), seed
        compared += len(expected)
        for box, score, points, (e_box, e_score, e_points) in zip(*result, expected, strict=True):
            np.testing.assert_allclose(box, e_box, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(score, e_score, rtol=1e-5)
            np.testing.assert_allclose(points, e_points, rtol=1e-5, atol=1e-4)
    assert compared > 50


def test_a_face_of_one_view_is_kept_but_by_the_papers_code() -> None:
    lone = ops.Faces(np.float32([[0, 0, 9, 9]]), np.float32([0.9]), np.zeros((1, 5, 2), np.float32))
    none = ops.Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
    limits = {"score_threshold": 0.5, "nms_threshold": 0.4, "keep_top_k": None}
    for compat, faces in ((False, 1), (True, 0)):
        tta = TTA(short_sides=(None,), paper_compat=compat)
        assert len(tta.merge([lone, none], tta.views((20, 20)), **limits).scores) == faces


def test_the_papers_code_writes_750_faces() -> None:
    corners = np.stack(np.meshgrid(np.arange(30) * 20.0, np.arange(30) * 20.0), axis=-1).reshape(-1, 2)
    boxes = np.hstack([corners, corners + 10]).astype(np.float32)
    faces = ops.Faces(boxes, np.full(900, 0.9, np.float32), np.zeros((900, 5, 2), np.float32))
    tta = TTA(short_sides=(None,), paper_compat=True)
    limits = {"score_threshold": 0.5, "nms_threshold": 0.4}
    views = tta.views((600, 600))
    assert len(tta.merge([faces, faces], views, keep_top_k=None, **limits).scores) == 750
    assert len(tta.merge([faces, faces], views, keep_top_k=7, **limits).scores) == 7


def test_the_threshold_only_filters(detector: FaceDetector, crowd_bgr: np.ndarray) -> None:
    voting = detector.replace(tta=TTA(short_sides=(300, None, 900)))
    every = voting.detect(crowd_bgr, score_threshold=0.02)
    sure = voting.detect(crowd_bgr, score_threshold=0.6)
    assert 3 < len(sure) < len(every)
    assert sure == every[every.scores > 0.6]
    overlaps = ops.box_iou(every.boxes, every.boxes) - np.eye(len(every), dtype=np.float32)
    assert overlaps.max() <= 0.4
    assert (np.diff(every.scores) <= 0).all()


@pytest.mark.parametrize("options", [{}, {"paper_compat": True}, {"agreement": 0.5}])
def test_a_limit_takes_the_first_faces(detector: FaceDetector, crowd_bgr: np.ndarray, options: dict) -> None:
    voting = detector.replace(tta=TTA(short_sides=(300, None), **options), keep_top_k=None)
    every = voting.detect(crowd_bgr)
    assert len(every) > 3
    assert voting.replace(keep_top_k=3).detect(crowd_bgr) == every[:3]


def test_long_thin_pictures_take_no_more_than_their_share(detector: FaceDetector) -> None:
    assert max(view.scale for view in TTA().views((2, 2000))) * 2000 < 2**18
    for size_hw in ((2, 2000), (30, 1025), (1, 1), (4096, 4096)):
        for view in TTA(short_sides=(10**9,)).views(size_hw):
            assert view.scale**2 * size_hw[0] * size_hw[1] <= 2**24 * 1.001
    assert TTA(short_sides=(5000,), flip=False).views((6000, 6000)) == [View(5000 / 6000, False)]
    assert TTA(short_sides=(None, 7000), flip=False).views((6000, 6000)) == [View(1.0, False)]
    thin = detector.replace(tta=TTA(short_sides=(1700,))).detect(np.zeros((3, 900, 3), np.uint8))
    assert len(thin) == 0


def test_small_faces_are_found_that_one_search_misses(
    detector: FaceDetector, astronaut_bgr: np.ndarray
) -> None:
    small = cv2.resize(astronaut_bgr, (64, 64), interpolation=cv2.INTER_AREA)  # a face of 12 x 15 pixels
    frame = np.full((300, 400, 3), 90, np.uint8)
    frame[100:164, 200:264] = small
    assert len(detector.detect(frame)) == 0
    [face] = detector.replace(tta=TTA()).detect(frame)
    np.testing.assert_allclose(face.box, np.array([178, 57, 273, 177]) / 8 + [200, 100, 200, 100], atol=2)


def test_an_empty_picture_and_a_tiny_one(detector: FaceDetector) -> None:
    voting = detector.replace(tta=TTA(short_sides=(1, 64, 128), max_long_side=4000))
    assert voting.detect(np.zeros((1, 5000, 3), np.uint8)).boxes.shape == (0, 4)
    assert len(voting.detect(np.zeros((1, 1, 3), np.uint8))) == 0
    assert voting.detect(np.zeros((3, 200, 3), np.uint8)).boxes.shape == (0, 4)


# --- the option ---


def test_the_option_is_carried(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    tta = TTA(short_sides=[256, None])
    voting = detector.replace(tta=tta)
    assert voting.tta == tta
    assert voting.tta is not None
    assert voting.tta.short_sides == (256, None)
    assert pickle.loads(pickle.dumps(voting)).tta == tta
    assert retinaface_fast.detect(astronaut_bgr, tta=tta) == voting.detect(astronaut_bgr)
    timings = voting.detect(astronaut_bgr).timings
    assert timings["network"] > 0
    assert timings["resize"] > 0
    assert all(seconds >= 0 for seconds in timings.values())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"short_sides": ()}, ValueError, "short_sides must hold at least one size"),
        ({"short_sides": 640}, TypeError, "short_sides must be a sequence .* got int 640"),
        ({"short_sides": "640"}, TypeError, "short_sides must be a sequence"),
        ({"short_sides": (640, 0)}, ValueError, r"short_sides\[1\] must be at least 1, got 0"),
        ({"short_sides": (640.0,)}, TypeError, r"short_sides\[0\] must be an integer"),
        ({"flip": 1}, TypeError, "flip must be True or False, got int 1"),
        ({"max_long_side": 0}, ValueError, "max_long_side"),
        ({"vote_threshold": 1.1}, ValueError, "vote_threshold must be between 0 and 1"),
        ({"max_face_side": -1}, ValueError, "max_face_side"),
        ({"agreement": float("nan")}, ValueError, "agreement"),
        ({"paper_compat": "yes"}, TypeError, "paper_compat must be True or False"),
    ],
)
def test_errors_name_the_option(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TTA(**options)


def test_the_detector_takes_nothing_else(detector: FaceDetector) -> None:
    with pytest.raises(TypeError, match="tta must be a TTA or None, got str 'paper'"):
        FaceDetector(tta="paper")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="close_ups must be True or False, got int 1"):
        detector.replace(close_ups=1)
