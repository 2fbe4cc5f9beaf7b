from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform, warp

from retinaface_fast.align import align_faces, arcface_template, estimate_similarity

ASTRONAUT_LANDMARKS = np.float32([[201, 102], [242, 99], [223, 130], [208, 150], [243, 147]])
WITHOUT_MOUTH = np.vstack([ASTRONAUT_LANDMARKS[:3], np.full((2, 2), np.nan, np.float32)])


def skimage_matrix(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    if hasattr(SimilarityTransform, "from_estimate"):
        return SimilarityTransform.from_estimate(source, target).params[:2]
    transform = SimilarityTransform()
    assert transform.estimate(source, target)
    return transform.params[:2]


@given(
    seed=st.integers(0, 2**32 - 1),
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.02, 50),
    noise=st.sampled_from([0.0, 0.01, 0.3, 3.0]),
)
@settings(deadline=None, max_examples=300)
def test_estimate_agrees_with_skimage(seed: int, angle: float, scale: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    target = arcface_template(112)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = target @ turn.T + rng.uniform(-2000, 2000, 2) + noise * scale * rng.normal(size=(5, 2))
    expected = skimage_matrix(source, target)
    np.testing.assert_allclose(estimate_similarity(source, target), expected, rtol=1e-9, atol=1e-9)


def test_estimate_recovers_the_transform_and_never_mirrors() -> None:
    target = arcface_template(112)
    source = target * 3 + (100, -50)
    matrix = estimate_similarity(source, target)
    np.testing.assert_allclose(matrix, [[1 / 3, 0, -100 / 3], [0, 1 / 3, 50 / 3]], atol=1e-12)
    mirrored = estimate_similarity(source * (-1, 1), target)
    assert np.linalg.det(mirrored[:, :2]) > 0
    np.testing.assert_allclose(mirrored, skimage_matrix(source * (-1, 1), target), atol=1e-9)


def test_estimate_of_many_at_once() -> None:
    rng = np.random.default_rng(0)
    sources = rng.uniform(0, 100, (3, 7, 5, 2))
    matrices = estimate_similarity(sources, arcface_template())
    assert matrices.shape == (3, 7, 2, 3)
    assert matrices.dtype == np.float64
    np.testing.assert_array_equal(matrices[2, 4], estimate_similarity(sources[2, 4], arcface_template()))
    assert estimate_similarity(np.empty((0, 5, 2)), arcface_template()).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2)), "must not all coincide"),
        (np.zeros((5, 3)), np.zeros((5, 2)), r"source must have shape \(\.\.\., K, 2\)"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "source must have shape"),
        (np.eye(5, 2), np.zeros((4, 2)), "as many points"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "source must be finite"),
        (np.eye(5, 2), np.full((5, 2), np.inf), "target must be finite"),
    ],
)
def test_estimate_of_bad_points(source: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_similarity(source, target)


def test_template_sizes() -> None:
    # The formula of InsightFace, written out.
    base = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    np.testing.assert_array_equal(arcface_template(), base)
    np.testing.assert_allclose(arcface_template(224), base * 2, rtol=1e-15)
    np.testing.assert_allclose(arcface_template(128), np.add(base, (8, 0)), rtol=1e-15)
    np.testing.assert_allclose(arcface_template(256), base * 2 + (16, 0), rtol=1e-15)
    np.testing.assert_allclose(arcface_template(896), base * 8, rtol=1e-15)
    arcface_template()[:] = 0
    assert arcface_template()[0, 0] == 38.2946


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), (-112, ValueError), (100, ValueError), (112.0, TypeError), (True, TypeError)],
)
def test_template_of_other_sizes(size: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^size must be"):
        arcface_template(size)
    with pytest.raises(error, match=r"^size must be"):
        align_faces(np.zeros((8, 8, 3), np.uint8), np.empty((0, 5, 2)), size=size)


@pytest.mark.parametrize("size", [112, 128, 224])
def test_crops_agree_with_skimage(size: int, astronaut_bgr: np.ndarray) -> None:
    [crop] = align_faces(astronaut_bgr, ASTRONAUT_LANDMARKS[None], size=size)
    matrix = np.vstack([skimage_matrix(ASTRONAUT_LANDMARKS.astype(float), arcface_template(size)), [0, 0, 1]])
    expected = warp(
        astronaut_bgr, np.linalg.inv(matrix), output_shape=(size, size), order=1, preserve_range=True
    )
    assert crop.shape == (size, size, 3)
    assert np.abs(crop - expected).mean() < 0.6  # OpenCV interpolates at 1/32 of a pixel


def test_landmarks_land_on_the_template() -> None:
    # Five discs at known places, turned by 25 degrees: after alignment they sit on the template.
    angle, scale = np.radians(25), 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (arcface_template() - 56) @ turn.T + (300, 250)
    image = np.zeros((500, 600, 3), np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x * 16), round(y * 16)), 8 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    [crop] = align_faces(image, points[None])
    count, _, _, centres = cv2.connectedComponentsWithStats((crop[:, :, 0] > 127).astype(np.uint8))
    assert count == 6
    distances = np.linalg.norm(centres[1:, None] - arcface_template()[None], axis=2)
    assert distances.min(axis=0).max() < 0.3


def test_order_of_channels_and_outside_is_black(astronaut_bgr: np.ndarray) -> None:
    bgr = align_faces(astronaut_bgr, ASTRONAUT_LANDMARKS[None])
    rgb = align_faces(np.ascontiguousarray(astronaut_bgr[:, :, ::-1]), ASTRONAUT_LANDMARKS[None], color="rgb")
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])
    outside = align_faces(astronaut_bgr, ASTRONAUT_LANDMARKS[None] + 5000)
    assert not outside.any()


def test_each_face_is_independent(astronaut_bgr: np.ndarray) -> None:
    landmarks = np.stack([ASTRONAUT_LANDMARKS, ASTRONAUT_LANDMARKS + 9, ASTRONAUT_LANDMARKS[::-1]])
    crops = align_faces(astronaut_bgr, landmarks)
    for crop, points in zip(crops, landmarks, strict=True):
        np.testing.assert_array_equal(crop, align_faces(astronaut_bgr, points[None])[0])


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((5, 2)), r"landmarks must have shape \(N, 5, 2\)"),
        (np.zeros((1, 10)), "landmarks must have shape"),
        (np.zeros((1, 5, 2)), "coincide"),
        (np.full((1, 5, 2), np.inf), "finite"),
        (
            np.full((1, 5, 2), np.nan),
            "face 0 lacks landmarks.*no left_eye, right_eye, nose, left_mouth, right",
        ),
        (
            np.stack([ASTRONAUT_LANDMARKS, WITHOUT_MOUTH]),
            "face 1 lacks landmarks.*no left_mouth, right_mouth",
        ),
    ],
)
def test_wrong_landmarks(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_faces(np.zeros((8, 8, 3), np.uint8), landmarks)


def test_templates_need_no_opencv() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np\n"
        "from retinaface_fast.align import *\n"
        "estimate_similarity(arcface_template(128), arcface_template())\n"
        "assert align_faces(np.zeros((4, 4, 3), np.uint8), np.empty((0, 5, 2))).shape == (0, 112, 112, 3)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
