"""Face embeddings, against dlib's own way from a picture to the numbers."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast import Detections, FaceDetector, MissingDependencyError, WeightsError
from retinaface_fast.align import estimate_similarity
from retinaface_fast.compare import (
    SAME_PERSON_DISTANCE,
    FaceEmbedder,
    can_be_embedded,
    embedding_crops,
    embedding_distance,
    embedding_distances,
    find_dlib_model,
)
from retinaface_fast.image import read_image
from retinaface_fast.weights import bundled_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from retinaface_fast._typing import UInt8Array

cv2 = pytest.importorskip("cv2")

# Where the landmarks lie in a crop: written out, so that a change has to be meant.
TEMPLATE = np.array([[46.44, 44.79], [101.33, 44.82], [73.46, 77.28], [49.92, 101.53], [97.51, 101.68]])

FACE = np.float32([[40, 40], [80, 40], [60, 65], [44, 82], [76, 82]])


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    pytest.importorskip("dlib")
    return FaceEmbedder()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    if bundled_path() is None:
        pytest.skip("this build has no weights in it")
    return FaceDetector()


@pytest.fixture(scope="module")
def hopper(grace_hopper_path: Path) -> UInt8Array:
    return read_image(grace_hopper_path).to_color("bgr")


def dlibs_own(bgr: UInt8Array) -> np.ndarray:
    """HOG, 68 landmarks, dlib's crop, dlib's network: nothing of this package."""
    dlib = pytest.importorskip("dlib")
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    (face,) = dlib.get_frontal_face_detector()(rgb, 0)
    shape = dlib.shape_predictor(str(find_dlib_model("landmarks-68")))(rgb, face)
    network = dlib.face_recognition_model_v1(str(find_dlib_model("embedding")))
    return np.array(network.compute_face_descriptor(rgb, shape))


# -------------------------------------------------------------------------------------------------- persons


def test_near_what_dlib_computes_by_itself(
    embedder: FaceEmbedder, detector: FaceDetector, astronaut_bgr: UInt8Array, hopper: UInt8Array
) -> None:
    for image in (astronaut_bgr, hopper):
        (mine,) = embedder.embed(image, detector.detect(image))
        # 0.14 on average over 68 portraits; other pictures of one person are 0.39 apart, two persons 0.88.
        assert np.linalg.norm(mine - dlibs_own(image)) < 0.25


def test_the_same_person_however_the_picture_is_changed(
    embedder: FaceEmbedder, detector: FaceDetector, astronaut_bgr: UInt8Array, hopper: UInt8Array
) -> None:
    height, width = astronaut_bgr.shape[:2]
    turn = cv2.getRotationMatrix2D((225, 120), 25, 1)
    changed = {
        "mirrored": np.ascontiguousarray(astronaut_bgr[:, ::-1]),
        "half": cv2.resize(astronaut_bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "large": cv2.resize(astronaut_bgr, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC),
        "turned": cv2.warpAffine(astronaut_bgr, turn, (width, height), borderMode=cv2.BORDER_REPLICATE),
        "dark": (astronaut_bgr * 0.6).astype(np.uint8),
    }
    (collins,) = embedder.embed(astronaut_bgr, detector.detect(astronaut_bgr)[:1])
    (other,) = embedder.embed(hopper, detector.detect(hopper)[:1])
    assert embedding_distance(collins, other) > SAME_PERSON_DISTANCE
    for name, image in changed.items():
        (embedding,) = embedder.embed(image, detector.detect(image)[:1])
        assert embedding_distance(collins, embedding) < 0.4, name
        assert embedding_distance(other, embedding) > SAME_PERSON_DISTANCE, name


def test_the_eyes_alone_are_enough(
    embedder: FaceEmbedder, detector: FaceDetector, astronaut_bgr: UInt8Array
) -> None:
    landmarks = detector.detect(astronaut_bgr).landmarks[:1].copy()
    whole = embedder.embed(astronaut_bgr, landmarks)[0]
    landmarks[:, 2:] = np.nan
    assert embedding_distance(whole, embedder.embed(astronaut_bgr, landmarks)[0]) < 0.3


# -------------------------------------------------------------------------------------------------- crops


def crop_of(image: UInt8Array, landmarks: np.ndarray) -> UInt8Array:
    (crop,) = embedding_crops(image, landmarks[None])
    return crop


def test_eyes_lie_on_the_template() -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    for x, y in FACE[:2]:
        cv2.circle(image, (int(x), int(y)), 3, (255, 255, 255), -1)
    # The circle is round the centre of pixel 40, which is 40.5 in our frame.
    crop = crop_of(image, np.vstack([FACE[:2] + 0.5, np.full((3, 2), np.nan)]))[:, :, 0]
    ys, xs = np.nonzero(crop > 127)
    left = xs < 75
    assert xs[left].mean() + 0.5 == pytest.approx(46.44, abs=0.3)
    assert xs[~left].mean() + 0.5 == pytest.approx(101.33, abs=0.3)
    assert ys.mean() + 0.5 == pytest.approx(44.8, abs=0.3)


def test_mirroring_the_picture_mirrors_the_crop(astronaut_bgr: UInt8Array) -> None:
    face = np.float32([[204.8, 100.8], [247.4, 103.4], [223.6, 129.2], [202.5, 138.1], [244.2, 140.6]])
    mirrored = face[[1, 0, 2, 4, 3]] * (-1, 1) + (512, 0)
    one = crop_of(astronaut_bgr, face)
    two = crop_of(np.ascontiguousarray(astronaut_bgr[:, ::-1]), mirrored.astype(np.float32))[:, ::-1]
    # The template is not quite symmetric: its middle is at 73.9 and not at 75.
    assert min(np.abs(one[:, 6:-6].astype(int) - np.roll(two, s, 1)[:, 6:-6]).mean() for s in (-3, -2)) < 8


def test_a_large_face_is_averaged_and_not_sampled() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    crop = crop_of(noise, FACE * 16)
    assert 110 < crop.mean() < 145
    assert crop.std() < 20  # 74 before; a sample of single pixels would keep nearly all of it


def test_a_crop_does_not_depend_on_what_lies_far_away() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    wide = cv2.copyMakeBorder(image, 301, 299, 203, 197, cv2.BORDER_REPLICATE)
    expected = crop_of(image, FACE)
    np.testing.assert_allclose(crop_of(wide, FACE + np.float32([203, 301])).astype(int), expected, atol=1)


def test_outside_the_picture_is_black() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    assert not crop_of(image, FACE + 5000).any()
    half = crop_of(image, FACE - np.float32([60, 20]))
    assert not half[:, :20].any()
    assert (half[50:75, 110:135] == 200).all()


def exact_crop(sample: Callable[[np.ndarray, np.ndarray], np.ndarray], landmarks: np.ndarray) -> np.ndarray:
    """The crop of a picture that is a formula: for each pixel, what lies under its centre."""
    matrix = np.vstack([estimate_similarity(landmarks, TEMPLATE), (0, 0, 1)])
    x, y = np.meshgrid(np.arange(150) + 0.5, np.arange(150) + 0.5)
    places = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    return sample(places[0], places[1]).reshape(150, 150)


def ramps(width: int, height: int) -> tuple[UInt8Array, list[Callable[[np.ndarray, np.ndarray], np.ndarray]]]:
    """A picture that gets brighter to the right in blue, downwards in green; and what it is at any place.

    A ramp stays what it is when it is blended or averaged: the crop is known to the last bit.
    """
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    across, down = 255 / width, 255 / height
    picture = np.stack([x * across, y * down, np.zeros_like(x)], axis=2).round().astype(np.uint8)
    return picture, [lambda x, _: x * across, lambda _, y: y * down]


@pytest.mark.parametrize(
    ("size", "scale", "offset"),
    [
        pytest.param((31, 35), 0.25, (0.3, 1.2), id="small"),
        pytest.param((127, 123), 1.0, (3.6, 1.1), id="as-large-as-the-crop"),
        pytest.param((601, 599), 4.7, (7.2, 6.1), id="large-and-odd"),
        pytest.param((333, 335), 2.5, (20.9, 18.3), id="a-little-large-and-odd"),
    ],
)
@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_each_pixel_is_what_lies_under_its_centre(
    size: tuple[int, int], scale: float, offset: tuple[float, float], turn: float
) -> None:
    picture, formulas = ramps(*size)
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    face = ((FACE - (60, 60)) @ rotation.T + (60, 60)) * scale + offset
    crop = crop_of(picture, face.astype(np.float32))
    width, height = size
    inside = np.ones((150, 150), bool)
    for formula, limit in ((lambda x, _: x, width), (lambda _, y: y, height)):
        place = exact_crop(formula, face)
        # At the border, black is blended in.
        inside &= (place > 4 * max(1, scale)) & (place < limit - 4 * max(1, scale))
    assert inside.mean() > 0.3
    for channel, formula in enumerate(formulas):
        error = (crop[:, :, channel] - exact_crop(formula, face))[inside]
        assert abs(error.mean()) < 0.12 * 255 / min(size), "in pixels: the mean of all errors of rounding"
        assert np.abs(error).max() < 2.5


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.7, 9.3])
def test_the_slice_holds_every_pixel_that_is_blended_in(scale: float) -> None:
    side = int(250 * max(scale, 1))
    white = np.full((side, side, 3), 255, np.uint8)
    # Upright faces have slices as tight as can be; the fractions put their edges anywhere in a pixel.
    for fraction in np.arange(0, 1, 0.125):
        face = (FACE - (60, 60)) * scale + side / 2 + fraction * np.array([1, -1])
        # The whole crop is in the picture: there is no black to blend in.
        assert (crop_of(white, face.astype(np.float32)) == 255).all(), fraction


def test_colours(embedder: FaceEmbedder, astronaut_bgr: UInt8Array) -> None:
    rgb = np.ascontiguousarray(astronaut_bgr[:, :, ::-1])
    face = np.float32([[204.8, 100.8], [247.4, 103.4], [223.6, 129.2], [202.5, 138.1], [244.2, 140.6]])[None]
    one = embedder.embed(astronaut_bgr, face)
    np.testing.assert_array_equal(one, embedder.embed(rgb, face, color="rgb"))
    assert not np.array_equal(one, embedder.embed(rgb, face))
    assert one.shape == (1, 128)
    assert one.dtype == np.float32


def test_several_faces_are_one_by_one(embedder: FaceEmbedder, astronaut_bgr: UInt8Array) -> None:
    faces = np.stack([FACE + 100, FACE + 160])
    both = embedder.embed(astronaut_bgr, faces)
    alone = [embedder.embed(astronaut_bgr, face[None])[0] for face in faces]
    np.testing.assert_array_equal(both, alone)
    crops = embedding_crops(astronaut_bgr, faces)
    np.testing.assert_array_equal(both, embedder.embed_crops(crops))


def test_no_face(embedder: FaceEmbedder, astronaut_bgr: UInt8Array) -> None:
    empty = Detections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)), image_size=(512, 512))
    assert embedder.embed(astronaut_bgr, empty).shape == (0, 128)
    assert embedder.embed(astronaut_bgr, []).shape == (0, 128)
    assert can_be_embedded(empty).shape == (0,)


# -------------------------------------------------------------------------------------------------- refusals


def test_which_faces_can_be_embedded() -> None:
    faces = np.stack([FACE] * 5)
    faces[1, 2:] = np.nan
    faces[2, 0, 1] = np.nan
    faces[3, 1] = faces[3, 0]
    faces[4, 1] = np.inf
    assert can_be_embedded(faces).tolist() == [True, True, False, False, False]
    image = np.zeros((99, 99, 3), np.uint8)
    for index in (2, 3, 4):
        with pytest.raises(ValueError, match=r"faces must have both eyes.*number 1 of 2"):
            embedding_crops(image, faces[[0, index]])


def test_bad_arguments(embedder: FaceEmbedder) -> None:
    image = np.zeros((99, 99, 3), np.uint8)
    with pytest.raises(ValueError, match=r"faces must be Detections or have shape \(N, 5, 2\), got \(5, 2\)"):
        embedder.embed(image, FACE)
    with pytest.raises(ValueError, match='color must be "bgr"'):
        embedder.embed(image, FACE[None], color="gray")  # type: ignore[arg-type]
    other = Detections([[0, 0, 9, 9]], [0.9], FACE[None], image_size=(100, 99))
    with pytest.raises(ValueError, match="image must be the picture that was searched, of 99x100"):
        embedder.embed(image, other)
    with pytest.raises(ValueError, match=r"crops must have shape \(N, 150, 150, 3\)"):
        embedder.embed_crops(np.zeros((1, 112, 112, 3), np.uint8))
    with pytest.raises(TypeError, match="crops must be uint8, got float64"):
        embedder.embed_crops(np.zeros((1, 150, 150, 3)))


def test_files_that_are_no_embedding(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    with pytest.raises(WeightsError, match="no such file"):
        FaceEmbedder(tmp_path / "none.dat")
    wrong = tmp_path / "wrong.dat"
    wrong.write_bytes(b"nothing of dlib's")
    with pytest.raises(WeightsError, match=r"wrong\.dat: not a file of dlib's face embedding, or damaged"):
        FaceEmbedder(wrong)
    with pytest.raises(WeightsError, match="not a file of dlib's face embedding"):
        FaceEmbedder(find_dlib_model("landmarks-5"))


def test_a_damaged_file_may_ask_for_any_amount_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dlib = pytest.importorskip("dlib")

    def too_much(_: str) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(dlib, "face_recognition_model_v1", too_much)
    with pytest.raises(WeightsError, match=r"damaged: std::bad_alloc"):
        FaceEmbedder()


def test_paths_that_are_none() -> None:
    pytest.importorskip("dlib")
    with pytest.raises(TypeError, match="path must be a path or None, got int 5"):
        FaceEmbedder(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path must be the path of a file, got an empty one"):
        FaceEmbedder("")


def test_without_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[dlib\]"):
        FaceEmbedder()
    assert embedding_crops(np.zeros((99, 99, 3), np.uint8), FACE[None]).shape == (1, 150, 150, 3)


# ------------------------------------------------------------------------------------------------- the object


def test_copies_and_threads(embedder: FaceEmbedder, astronaut_bgr: UInt8Array) -> None:
    faces = np.stack([FACE + 100 + 20 * k for k in range(3)])
    expected = embedder.embed(astronaut_bgr, faces)
    for other in (pickle.loads(pickle.dumps(embedder)), copy.deepcopy(embedder)):
        np.testing.assert_array_equal(other.embed(astronaut_bgr, faces), expected)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.embed(astronaut_bgr, faces)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_it_cannot_be_changed(embedder: FaceEmbedder) -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        embedder._path = "x"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del embedder._path
    assert repr(embedder) == "FaceEmbedder()"


# -------------------------------------------------------------------------------------------------- distances


def test_distances_are_those_of_scipy() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 0.1, (7, 128)), rng.normal(0, 0.1, (5, 128))
    np.testing.assert_allclose(embedding_distances(a, b), distance.cdist(a, b), atol=1e-12)
    assert embedding_distance(a[0], b[0]) == pytest.approx(distance.euclidean(a[0], b[0]), abs=1e-12)
    assert embedding_distance(a[0], a[0]) == 0
    assert embedding_distances(a, np.empty((0, 128))).shape == (7, 0)


def test_bad_embeddings() -> None:
    good, bad = np.zeros(128), np.zeros(128)
    bad[3] = np.nan
    with pytest.raises(ValueError, match=r"second must be finite"):
        embedding_distance(good, bad)
    with pytest.raises(ValueError, match=r"first must have shape \(128,\), got \(127,\)"):
        embedding_distance(good[1:], good)
    with pytest.raises(ValueError, match=r"first must be finite, row 1 is not"):
        embedding_distances([good, bad], [good])
    with pytest.raises(ValueError, match=r"second must have shape \(N, 128\), got \(128,\)"):
        embedding_distances([good], good)
