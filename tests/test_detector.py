from __future__ import annotations

import io
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import retinaface_fast
from retinaface_fast import (
    Detections,
    EngineError,
    FaceDetector,
    ImageError,
    MissingDependencyError,
    WeightsError,
    ops,
)
from retinaface_fast import (
    detector as detector_module,
)
from retinaface_fast.engines import RawOutputs
from retinaface_fast.weights import load_weights

# What the published MobileNet-0.25 weights find, to be met within a pixel by every engine.
ASTRONAUT_BOX = (177.9, 56.8, 273.1, 177.2)
ASTRONAUT_LANDMARKS = [(204.8, 100.8), (247.4, 103.4), (223.6, 129.2), (202.5, 138.2), (244.2, 140.6)]
HOPPER_BOX = (177.7, 106.5, 353.9, 327.7)
HOPPER_LANDMARKS = [(219.0, 187.6), (303.4, 186.8), (259.6, 247.2), (231.9, 273.1), (299.2, 272.7)]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


class FakeEngine:
    """Answers with fixed outputs, one face on the first anchor, and remembers what it was given."""

    name = "fake"
    device = "nowhere"

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, str]] = []

    def run(self, images: np.ndarray, *, color: str) -> RawOutputs:
        self.calls.append((images, color))
        counts = [h * w * 2 for h, w in ops.P3_P5.feature_sizes_hw(images.shape[1:3])]
        logits = [np.tile(np.float32([4, -4]), (len(images), count, 1)) for count in counts]
        logits[0][:, 0] = (-3, 3)
        return RawOutputs(
            tuple(logits),
            tuple(np.zeros((len(images), count, 4), np.float32) for count in counts),
            tuple(np.zeros((len(images), count, 10), np.float32) for count in counts),
        )


def flip(result: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and landmarks of a result, mirrored from left to right."""
    width = result.image_size[1]
    boxes = result.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    landmarks = result.landmarks[:, [1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
    return boxes, landmarks


def best_iou(result: Detections, box: tuple[float, ...] | np.ndarray) -> float:
    return float(ops.box_iou(np.float32([box]), result.boxes).max()) if len(result) else 0.0


# Real pictures


@pytest.mark.parametrize(
    ("picture", "box", "landmarks", "size"),
    [
        ("astronaut_path", ASTRONAUT_BOX, ASTRONAUT_LANDMARKS, (512, 512)),
        ("grace_hopper_path", HOPPER_BOX, HOPPER_LANDMARKS, (600, 512)),
    ],
)
def test_portraits(picture: str, box, landmarks, size, request: pytest.FixtureRequest) -> None:
    result = retinaface_fast.detect(request.getfixturevalue(picture))
    assert len(result) == 1
    assert result.scores[0] > 0.99
    np.testing.assert_allclose(result.boxes[0], box, atol=1)
    np.testing.assert_allclose(result.landmarks[0], landmarks, atol=1)
    assert result.image_size == size


def test_cat_is_no_face(detector: FaceDetector, cat_bgr: np.ndarray) -> None:
    result = detector.detect(cat_bgr)
    assert (result.engine, result.device) == (detector.engine, detector.device)
    assert len(result) == 0
    assert (result.boxes.shape, result.landmarks.shape) == ((0, 4), (0, 5, 2))
    assert result.image_size == cat_bgr.shape[:2]


def test_sources_give_one_result(
    detector: FaceDetector, astronaut_path: Path, astronaut_bgr: np.ndarray
) -> None:
    expected = detector.detect(astronaut_bgr)
    data = astronaut_path.read_bytes()
    rgb = np.ascontiguousarray(astronaut_bgr[:, :, ::-1])
    padded = np.zeros((600, 700, 3), np.uint8)
    padded[20:532, 30:542] = astronaut_bgr
    read_only = astronaut_bgr.copy()
    read_only.flags.writeable = False
    window = padded[20:532, 30:542]
    swapped = rgb[:, :, ::-1]  # how pixels lie in memory must not change a bit
    for source in (str(astronaut_path), astronaut_path, data, io.BytesIO(data), window, swapped, read_only):
        assert detector.detect(source) == expected
    # A first convolution with its channels turned round adds up in another order.
    with Image.open(astronaut_path) as pil:
        for result in (detector.detect(rgb, color="rgb"), detector.detect(pil)):
            np.testing.assert_allclose(result.boxes, expected.boxes, atol=0.01)
            np.testing.assert_allclose(result.landmarks, expected.landmarks, atol=0.01)
    wrong_order = detector.detect(rgb)
    assert not np.allclose(wrong_order.boxes, expected.boxes, atol=0.01), "color must matter"


def test_gray_picture(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    gray = cv2.cvtColor(astronaut_bgr, cv2.COLOR_BGR2GRAY)
    result = detector.detect(gray)
    assert best_iou(result, ASTRONAUT_BOX) > 0.85
    assert detector.detect(gray[:, :, None]) == result


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(
    orientation: int, detector: FaceDetector, grace_hopper_path: Path
) -> None:
    # Store the picture as a camera held in another way would: turned away from upright, with the tag.
    turned_back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    upright = np.asarray(Image.open(grace_hopper_path).convert("RGB"))
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(turned_back[orientation](upright))).save(
        file, "JPEG", quality=95, exif=exif
    )
    for max_side in (None, 299):  # whole, and decoded at half its size
        result = detector.detect(file.getvalue(), max_side=max_side)
        expected = detector.detect(grace_hopper_path, max_side=max_side)
        assert result.image_size == (600, 512)
        assert best_iou(result, expected.boxes[0]) > 0.95
        np.testing.assert_allclose(result.landmarks, expected.landmarks, atol=2 if max_side is None else 4)


# Geometry


@pytest.mark.parametrize("factor", [2, 4])
def test_scale_equivariance(factor: int, detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    # Enlarged by repeating pixels and shrunk back by max_side the network sees the very same pixels, so that
    # only the way of coordinates is under test. In a frame of continuous coordinates it is a multiplication;
    # were boxes counted in pixel centres, (x + 0.5) * factor - 0.5, they would be off by (factor - 1) / 2.
    expected = detector.detect(astronaut_bgr)
    enlarged = np.kron(astronaut_bgr, np.ones((factor, factor, 1), np.uint8))
    result = detector.detect(enlarged, max_side=512)
    assert result.image_size == (512 * factor, 512 * factor)
    np.testing.assert_array_equal(result.boxes, expected.boxes * factor)
    np.testing.assert_array_equal(result.landmarks, expected.landmarks * factor)
    np.testing.assert_array_equal(result.scores, expected.scores)


@pytest.mark.parametrize("size_hw", [(256, 256), (384, 300), (768, 1024), (1500, 901)])
def test_resized_pictures(
    size_hw: tuple[int, int], detector: FaceDetector, astronaut_bgr: np.ndarray
) -> None:
    interpolation = cv2.INTER_AREA if size_hw[0] < 512 else cv2.INTER_LINEAR
    result = detector.detect(cv2.resize(astronaut_bgr, size_hw[::-1], interpolation=interpolation))
    scale = np.array([size_hw[1] / 512, size_hw[0] / 512] * 2)
    assert best_iou(result, ASTRONAUT_BOX * scale) > 0.75
    error = np.abs(result.landmarks[0] / scale[:2] - ASTRONAUT_LANDMARKS)
    assert error.max() < 9


@pytest.mark.parametrize("max_side", [500, 400, 256, 200])
def test_max_side_returns_original_coordinates(
    max_side: int, detector: FaceDetector, astronaut_bgr: np.ndarray
) -> None:
    wide = cv2.copyMakeBorder(astronaut_bgr, 0, 0, 0, 333, cv2.BORDER_REFLECT)[:, :700]
    result = detector.detect(wide, max_side=max_side)
    assert result.image_size == (512, 700)
    assert best_iou(result, ASTRONAUT_BOX) > 0.8
    assert result.timings["resize"] > 0
    assert detector.replace(max_side=max_side).detect(wide) == result


def test_mirror_image(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    mirrored = detector.detect(astronaut_bgr[:, ::-1])
    boxes, landmarks = flip(mirrored)
    np.testing.assert_allclose(boxes[0], ASTRONAUT_BOX, atol=2.5)
    np.testing.assert_allclose(landmarks[0], ASTRONAUT_LANDMARKS, atol=2.5)
    # Left and right are those of the image, in the mirror too.
    assert mirrored.landmarks[0, 0, 0] < mirrored.landmarks[0, 1, 0]
    assert mirrored.landmarks[0, 3, 0] < mirrored.landmarks[0, 4, 0]


def test_padding_moves_or_keeps_boxes(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    expected = detector.detect(astronaut_bgr)
    for right, bottom in ((64, 0), (0, 160), (96, 32), (37, 5)):
        padded = cv2.copyMakeBorder(
            astronaut_bgr, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(104, 117, 123)
        )
        result = detector.detect(padded)
        np.testing.assert_allclose(result.boxes, expected.boxes, atol=0.05)
        assert result.image_size == (512 + bottom, 512 + right)
    padded = cv2.copyMakeBorder(astronaut_bgr, 64, 0, 128, 0, cv2.BORDER_CONSTANT, value=(104, 117, 123))
    np.testing.assert_allclose(
        detector.detect(padded).boxes, np.add(expected.boxes, [128, 64, 128, 64]), atol=1
    )


def test_composed_scene(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    # Faces of known place, size and direction on one canvas that is neither square nor of even size.
    scene = np.full((901, 1333, 3), (104, 117, 123), np.uint8)
    head = astronaut_bgr[20:220, 110:330]
    box = np.array(ASTRONAUT_BOX) - (110, 20, 110, 20)
    truth = []
    for x, y, scale, mirrored in (
        (10, 15, 2.0, False),
        (700, 40, 1.0, True),
        (1000, 60, 0.6, False),
        (620, 500, 1.5, True),
        (1100, 700, 0.35, False),
        (200, 600, 0.8, True),
    ):
        patch = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = patch.shape[:2]
        placed = box * scale
        if mirrored:
            patch, placed = (
                patch[:, ::-1],
                np.array([width, 0, width, 0]) + placed[[2, 1, 0, 3]] * [-1, 1, -1, 1],
            )
        scene[y : y + height, x : x + width] = patch
        truth.append(np.add(placed, (x, y, x, y)))
    result = detector.detect(scene)
    assert len(result) == len(truth)
    overlaps = ops.box_iou(np.float32(truth), result.boxes)
    assert overlaps.max(axis=1).min() > 0.75
    assert len(set(overlaps.argmax(axis=1))) == len(truth)
    assert (np.diff(result.scores) <= 0).all()


def test_crowd(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    head = cv2.resize(astronaut_bgr[20:220, 120:320], (60, 60), interpolation=cv2.INTER_AREA)
    crowd = np.tile(head, (9, 14, 1))
    result = detector.detect(crowd)
    assert len(result) == 9 * 14
    centres = (result.boxes[:, :2] + result.boxes[:, 2:]) / 2 // 60
    assert len({tuple(centre) for centre in centres}) == 9 * 14
    assert len(detector.detect(crowd, keep_top_k=7)) == 7
    assert detector.detect(crowd, keep_top_k=7) == result[:7]
    assert len(detector.detect(crowd, top_k=40)) <= 40


@pytest.mark.parametrize(
    ("size_hw", "faces"),
    [
        *(((1, 1), 0), ((1, 500), 0), ((500, 1), 0), ((2, 3), 0), ((7, 9), 0), ((31, 33), 0), ((37, 53), 0)),
        *(((217, 333), 1), ((333, 277), 1), ((512, 511), 1)),
    ],
)
def test_odd_sizes(
    size_hw: tuple[int, int], faces: int, detector: FaceDetector, astronaut_bgr: np.ndarray
) -> None:
    height, width = size_hw
    picture = np.ascontiguousarray(astronaut_bgr[:height, :width])
    result = detector.detect(picture)
    assert result.image_size == size_hw
    assert np.isfinite(result.boxes).all()
    assert len(result) == faces
    assert detector.detect(picture) == result


def test_portrait_and_landscape(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    # The anchors of a picture that is not square are where they should be, on either axis.
    for view in (astronaut_bgr[:, 100:350], astronaut_bgr[20:230]):
        result = detector.detect(view)
        offset = (100, 0) if view.shape[1] < 512 else (0, 20)
        assert best_iou(result, np.array(ASTRONAUT_BOX) - offset * 2) > 0.85


# Options


def test_options_of_a_call_are_those_of_a_detector(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    noisy = detector.detect(astronaut_bgr, score_threshold=0.02, nms_threshold=0.9)
    assert len(noisy) > len(detector.detect(astronaut_bgr, score_threshold=0.02)) >= 1
    assert noisy.scores.min() > 0.02
    assert detector.replace(score_threshold=0.02, nms_threshold=0.9).detect(astronaut_bgr) == noisy
    cut = detector.detect(astronaut_bgr, score_threshold=float(noisy.scores[2]), nms_threshold=0.9)
    assert (cut.scores > noisy.scores[2]).all()
    assert len(detector.detect(astronaut_bgr, score_threshold=1.0)) == 0
    assert detector.score_threshold == 0.5
    assert retinaface_fast.detect(astronaut_bgr, score_threshold=0.02, nms_threshold=0.9) == noisy
    everything = detector.replace(score_threshold=0.0, nms_threshold=1.0, top_k=None, keep_top_k=None)
    assert len(everything.detect(astronaut_bgr[:64, :64])) > 100


BAD_OPTIONS = [
    ({"score_threshold": float("nan")}, ValueError, "score_threshold must be between 0 and 1, got nan"),
    ({"score_threshold": -0.1}, ValueError, "score_threshold must be between 0 and 1"),
    ({"score_threshold": 1.5}, ValueError, "score_threshold must be between 0 and 1"),
    ({"score_threshold": "0.5"}, TypeError, "score_threshold must be a number, got str"),
    ({"score_threshold": True}, TypeError, "score_threshold must be a number, got bool"),
    ({"score_threshold": np.array([0.5])}, TypeError, "score_threshold must be a number"),
    ({"score_threshold": 0.5j}, TypeError, "score_threshold must be a number"),
    ({"nms_threshold": float("inf")}, ValueError, "nms_threshold must be between 0 and 1"),
    ({"nms_threshold": np.bool_(1)}, TypeError, "nms_threshold must be a number"),
    ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
    ({"top_k": -5}, ValueError, "top_k must be at least 1"),
    ({"top_k": 10.0}, TypeError, "top_k must be an integer, got float"),
    ({"top_k": True}, TypeError, "top_k must be an integer, got bool"),
    ({"top_k": 2**31}, ValueError, "top_k must be at most 2147483647, got 2147483648"),
    ({"keep_top_k": 2**64}, ValueError, "keep_top_k must be at most 2147483647"),
    ({"keep_top_k": 0}, ValueError, "keep_top_k must be at least 1"),
    ({"keep_top_k": "7"}, TypeError, "keep_top_k must be an integer, got str"),
    ({"max_side": 0}, ValueError, "max_side must be at least 1"),
    ({"max_side": 640.5}, TypeError, "max_side must be an integer"),
    ({"max_pixels": -1}, ValueError, "max_pixels must be at least 1"),
]

BAD_THREADS = [
    (0, ValueError, "threads must be at least 1, got 0"),
    (-2, ValueError, "threads must be at least 1"),
    (1025, ValueError, "threads must be at most 1024, got 1025"),
    (2.0, TypeError, "threads must be an integer, got float"),
    (True, TypeError, "threads must be an integer, got bool"),
    ("2", TypeError, "threads must be an integer, got str"),
    ([2], TypeError, "threads must be an integer, got list"),
]


@pytest.mark.parametrize(("threads", "error", "message"), BAD_THREADS)
def test_bad_numbers_of_threads(threads: object, error: type[Exception], message: str) -> None:
    for call in (
        lambda: FaceDetector(threads=threads),
        lambda: FaceDetector(engine=FakeEngine(), threads=threads),
        lambda: FaceDetector(engine="torch", threads=threads),
        lambda: retinaface_fast.detect(np.zeros((8, 8, 3), np.uint8), threads=threads),
    ):
        with pytest.raises(error, match=f"^{message}"):
            call()


def test_threads_of_a_detector() -> None:
    assert FaceDetector(threads=3).threads == 3
    assert FaceDetector(threads=np.int64(2)).threads == 2
    assert FaceDetector(threads=3).replace(max_side=9).threads == 3
    assert FaceDetector(engine=FakeEngine()).threads is None
    with pytest.raises(ValueError, match=r"^threads must be None where engine is an object, got 2"):
        FaceDetector(engine=FakeEngine(), threads=2)


def test_an_engine_that_finds_faces_by_itself_is_asked_for_them(astronaut_bgr: np.ndarray) -> None:
    class Detecting(FakeEngine):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[dict[str, object]] = []

        def detect(self, image: np.ndarray, **options: object) -> tuple[ops.Faces, float]:
            self.asked.append(options)
            assert np.shares_memory(image, astronaut_bgr)
            assert image.shape == (512, 512, 3)
            faces = ops.Faces(np.float32([[1, 2, 3, 4]]), np.float32([0.75]), np.ones((1, 5, 2), np.float32))
            return faces, 1e-7

    engine = Detecting()
    detector = FaceDetector(engine=engine, score_threshold=0.25, keep_top_k=None)
    result = detector.detect(astronaut_bgr, color="rgb", nms_threshold=0.75, top_k=7)
    assert engine.calls == []
    assert engine.asked == [
        {"color": "rgb", "score_threshold": 0.25, "nms_threshold": 0.75, "top_k": 7, "keep_top_k": None}
    ]
    np.testing.assert_array_equal(result.boxes, [[1, 2, 3, 4]])
    assert result.timings["network"] == 1e-7
    assert result.timings["postprocess"] > 0
    assert result.timings["network"] + result.timings["postprocess"] < result.timings["total"]
    detector.replace(top_k=3).detect(astronaut_bgr)
    assert engine.asked[1]["top_k"] == 3


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options(options: dict, error: type[Exception], message: str, detector: FaceDetector) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for call in (
        lambda: FaceDetector(**options),
        lambda: detector.replace(**options),
        lambda: detector.detect(image, **options),
        lambda: detector.detect_batch([], **options),
        lambda: retinaface_fast.detect(image, **options),
    ):
        with pytest.raises(error, match=f"^{message}"):
            call()


def test_the_largest_numbers(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    most = 2**31 - 1
    assert len(detector.detect(astronaut_bgr, top_k=most, keep_top_k=most)) == 1


def test_none_for_a_call_is_the_detectors_own(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    one = detector.replace(keep_top_k=1, score_threshold=0.0, nms_threshold=1.0)
    assert len(one.detect(astronaut_bgr, keep_top_k=None)) == 1
    assert len(one.replace(keep_top_k=None).detect(astronaut_bgr)) > 1


def test_numbers_of_numpy_are_numbers(detector: FaceDetector) -> None:
    changed = detector.replace(score_threshold=np.float32(0.25), top_k=np.int32(9), max_side=np.uint16(640))
    assert (changed.score_threshold, changed.top_k, changed.max_side) == (0.25, 9, 640)
    assert (type(changed.score_threshold), type(changed.top_k)) == (float, int)
    assert changed.replace(max_side=None, top_k=None).max_side is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"model": "mobilnet"},
            ValueError,
            r"model must be one of mobilenet0\.25, .*resnet50.*, got 'mobilnet'",
        ),
        ({"model": "resnet152"}, ValueError, "its weights must be given as a file"),
        ({"model": None}, TypeError, "model must be a string"),
        ({"engine": "tensorflow"}, ValueError, "engine must be one of auto, .*torch.*, got 'tensorflow'"),
        ({"engine": None}, TypeError, "engine must be a"),
        ({"engine": 3}, TypeError, "engine must be a"),
        ({"device": [1]}, TypeError, "device must be a string"),
        ({"device": 0}, TypeError, "device must be a string"),
        ({"device": "toaster"}, ValueError, "toaster"),
        ({"weights": 5}, TypeError, "weights must be a path"),
        ({"weights": "nowhere.safetensors"}, WeightsError, r"nowhere\.safetensors"),
        ({"weights": Path("nowhere.onnx")}, WeightsError, r"nowhere\.onnx"),
        ({"weights": "w.onnx", "model": "resnet999"}, ValueError, "model must be one of .*resnet152"),
        ({"color": "hsv"}, ValueError, 'color must be "bgr" or "rgb"'),
    ],
)
def test_unknown_choices(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        retinaface_fast.detect(np.zeros((8, 8, 3), np.uint8), **options)
    if "color" not in options:
        with pytest.raises(error, match=message):
            FaceDetector(**options)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "retinaface_fast.engines.onnxruntime_engine", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[onnxruntime\]"):
        FaceDetector(engine="onnxruntime")


def test_engines_agree(astronaut_bgr: np.ndarray, detector: FaceDetector) -> None:
    pytest.importorskip("onnxruntime")
    other = FaceDetector(engine="onnxruntime", device="cpu")
    result, expected = other.detect(astronaut_bgr), detector.detect(astronaut_bgr)
    assert result.engine == "onnxruntime"
    np.testing.assert_allclose(result.boxes, expected.boxes, atol=0.05)
    np.testing.assert_allclose(result.landmarks, expected.landmarks, atol=0.05)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-4)


def test_weights_by_path_and_as_object(
    tmp_path: Path, astronaut_bgr: np.ndarray, detector: FaceDetector
) -> None:
    from retinaface_fast.weights import save_weights

    loaded = load_weights("mobilenet0.25")
    path = tmp_path / "mine.safetensors"
    save_weights(loaded, path)
    expected = detector.detect(astronaut_bgr)
    for built in (FaceDetector(weights=path), FaceDetector(weights=str(path)), FaceDetector(weights=loaded)):
        assert built.model == "mobilenet0.25"
        assert built.detect(astronaut_bgr) == expected
    assert retinaface_fast.detect(astronaut_bgr, weights=path) == expected
    with pytest.raises(WeightsError, match="resnet18"):
        FaceDetector("resnet18", weights=path)
    with pytest.raises(ValueError, match="model must be that of the weights"):
        FaceDetector("resnet18", weights=loaded)
    with pytest.raises(TypeError, match="weights must be a path"):
        retinaface_fast.detect(astronaut_bgr, weights=loaded)


# The object


def test_detector_cannot_be_changed(detector: FaceDetector) -> None:
    for name in ("score_threshold", "model", "_engine", "anything"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(detector, name, 0.1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del detector._engine
    assert repr(detector) == (
        f"FaceDetector('mobilenet0.25', engine='{detector.engine}', device='{detector.device}', "
        f"threads={detector.threads}, score_threshold=0.5, nms_threshold=0.4, top_k=5000, keep_top_k=750, "
        "max_side=None, tta=None, close_ups=True, tile_side=None)"
    )
    weakref.ref(detector)


def test_replace_shares_the_network(detector: FaceDetector) -> None:
    other = detector.replace(score_threshold=0.1, max_pixels=99)
    assert (other.score_threshold, other.nms_threshold, other.max_pixels) == (0.1, 0.4, 99)
    assert other._engine is detector._engine
    assert detector.score_threshold == 0.5
    for name, value in (("engine", "torch"), ("threads", 2)):
        with pytest.raises(
            TypeError, match=rf"replace takes score_threshold, .*, got {name}; another .*thre"
        ):
            detector.replace(**{name: value})


def test_detector_can_be_pickled(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    other = pickle.loads(pickle.dumps(detector.replace(score_threshold=0.7, max_side=300)))
    assert (other.score_threshold, other.max_side, other.engine) == (0.7, 300, detector.engine)
    assert other.detect(astronaut_bgr) == detector.detect(astronaut_bgr, max_side=300)


def test_pickling_keeps_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(FaceDetector(threads=3).replace(max_side=99))
    unsaid = pickle.dumps(FaceDetector())
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "5")
    assert pickle.loads(data).threads == 3
    assert pickle.loads(unsaid).threads == 5  # where nobody said a number, the other process has its own


def test_engine_gets_the_callers_pixels_and_nothing_is_copied(astronaut_bgr: np.ndarray) -> None:
    engine = FakeEngine()
    detector = FaceDetector(engine=engine)
    assert (detector.engine, detector.device) == ("fake", "nowhere")
    for view, color in (
        (astronaut_bgr, "bgr"),
        (astronaut_bgr[10:90, 20:220], "rgb"),
        (astronaut_bgr[::3], "bgr"),
    ):
        result = detector.detect(view, color=color)
        images, seen_color = engine.calls[-1]
        assert images.shape == (1, *view.shape)
        assert images.dtype == np.uint8
        assert np.shares_memory(images, astronaut_bgr)
        assert seen_color == color
        np.testing.assert_array_equal(images[0], view)
        np.testing.assert_array_equal(result.boxes, [[-4, -4, 12, 12]])
        assert (result.engine, result.device) == ("fake", "nowhere")
    with pytest.raises(ValueError, match="device must be None"):
        FaceDetector(engine=engine, device="cpu")


def test_stages_are_timed(detector: FaceDetector, grace_hopper_path: Path) -> None:
    started = time.perf_counter()
    timings = detector.detect(grace_hopper_path, max_side=500).timings
    elapsed = time.perf_counter() - started
    assert list(timings) == ["decode", "resize", "network", "postprocess", "total"]
    assert all(seconds > 0 for seconds in timings.values())
    stages = sum(seconds for name, seconds in timings.items() if name != "total")
    assert stages <= timings["total"] <= elapsed
    assert stages > 0.9 * timings["total"]


# Batches


def test_batch_equals_single_calls_bit_for_bit(
    detector: FaceDetector, astronaut_bgr: np.ndarray, grace_hopper_path: Path, cat_bgr: np.ndarray
) -> None:
    images = [
        astronaut_bgr,
        grace_hopper_path,
        cat_bgr,
        astronaut_bgr[30:233, 100:317],
        np.zeros((1, 1), np.uint8),
        grace_hopper_path.read_bytes(),
        astronaut_bgr,
        astronaut_bgr[:, ::-1],
    ]
    singles = [detector.detect(image, score_threshold=0.1) for image in images]
    batch = detector.detect_batch(images, score_threshold=0.1)
    assert isinstance(batch, list)
    assert batch == singles
    assert detector.detect_batch(iter(images), score_threshold=0.1) == singles
    assert detector.detect_batch(np.stack([astronaut_bgr] * 2), score_threshold=0.1) == [singles[0]] * 2
    assert detector.detect_batch([]) == []


def test_batch_takes_images_one_at_a_time() -> None:
    engine = FakeEngine()
    alive: list[weakref.ref] = []

    def pictures():
        for _ in range(4):
            engine.calls.clear()
            assert sum(reference() is not None for reference in alive) <= 1
            picture = np.zeros((16, 16, 3), np.uint8)
            alive.append(weakref.ref(picture))
            yield picture
            del picture

    assert len(FaceDetector(engine=engine).detect_batch(pictures())) == 4


def test_batch_names_the_broken_image(
    detector: FaceDetector, astronaut_bgr: np.ndarray, tmp_path: Path
) -> None:
    small = astronaut_bgr[:32, :32]
    for broken, error, message in (
        (tmp_path / "gone.jpg", ImageError, r"^images\[2\]: .*gone\.jpg.*no such file"),
        (b"text", ImageError, r"^images\[2\]: .*not a picture"),
        (None, TypeError, r"^images\[2\]: image must be"),
        (small.astype(np.float32), TypeError, r"^images\[2\]: image must be an array of uint8"),
        (small[:0], ValueError, r"^images\[2\]: image is empty"),
    ):
        with pytest.raises(error, match=message) as caught:
            detector.detect_batch([small, small, broken, small])
        assert isinstance(caught.value.__cause__, error)
    for single in (str(tmp_path), tmp_path, b"bytes", 5, None):
        with pytest.raises(TypeError, match="images must be an iterable of pictures"):
            detector.detect_batch(single)


def test_batch_names_the_image_that_an_engine_failed_on() -> None:
    class Failing(FakeEngine):
        def run(self, images: np.ndarray, *, color: str) -> RawOutputs:
            if images.shape[1] == 5:
                raise EngineError("out of memory")
            return super().run(images, color=color)

    small = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(EngineError, match=r"images\[1\]: out of memory"):
        FaceDetector(engine=Failing()).detect_batch([small, np.zeros((5, 5, 3), np.uint8)])


# The function detect and its detectors


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Builds of detectors by `detect`, which begins with an empty cache."""
    built: list[tuple] = []
    engine = FakeEngine()

    class Counting:
        def __init__(self, model: str, **options: object) -> None:
            built.append((model, options["engine"], options["threads"]))
            time.sleep(0.02)
            self._detect = FaceDetector(engine=engine)._detect

    monkeypatch.setattr(detector_module, "FaceDetector", Counting)
    monkeypatch.setattr(detector_module, "_cache", detector_module.LeastRecentCache(capacity=4))
    return built


def test_detect_builds_one_detector_for_all_settings(counted: list, astronaut_bgr: np.ndarray) -> None:
    for threshold in (0.3, 0.6):
        retinaface_fast.detect(astronaut_bgr, score_threshold=threshold, max_side=100)
    assert counted == [("mobilenet0.25", "auto", None)]


def test_detect_builds_one_detector_for_each_number_of_threads(
    counted: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for threads in (1, 2, 1, np.int64(2), None):
        retinaface_fast.detect(image, threads=threads)
    assert [threads for _, _, threads in counted] == [1, 2, None]
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "3")
    retinaface_fast.detect(image)
    assert len(counted) == 4


def test_detect_builds_one_detector_for_all_threads(counted: list, astronaut_bgr: np.ndarray) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> int:
        barrier.wait()
        return len(retinaface_fast.detect(astronaut_bgr, model=f"model{number % 2}"))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [1] * 8
    assert sorted(model for model, *_ in counted) == ["model0", "model1"]


def test_detect_keeps_few_detectors(counted: list) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for number in (0, 1, 2, 3, 0, 4, 0, 1):
        retinaface_fast.detect(image, model=f"model{number}")
    # 4 pushed out 1, the least recently used, not 0.
    assert [model for model, *_ in counted] == ["model0", "model1", "model2", "model3", "model4", "model1"]
    assert len(detector_module._cache) == 4


def test_detect_reads_changed_weights_again(counted: list, tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "weights.onnx"
    for content, builds in ((b"a", 1), (b"a", 1), (b"ab", 2), (None, 3)):
        if content is None:
            path.unlink()
        elif not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        retinaface_fast.detect(image, weights=path)
        assert len(counted) == builds


def test_detect_tries_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, astronaut_bgr: np.ndarray
) -> None:
    monkeypatch.setattr(detector_module, "_cache", detector_module.LeastRecentCache(capacity=4))
    with monkeypatch.context() as patch:
        patch.setattr(
            detector_module, "load_weights", lambda *_, **__: (_ for _ in ()).throw(WeightsError("no"))
        )
        for _ in range(2):
            with pytest.raises(WeightsError, match="no"):
                retinaface_fast.detect(astronaut_bgr)
    assert len(retinaface_fast.detect(astronaut_bgr)) == 1


# What is imported


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_array_is_detected_without_opencv(astronaut_bgr: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", astronaut_bgr)
    code = f"""
import sys
sys.modules["cv2"] = None  # an import of it raises ImportError
import numpy as np
from PIL import Image
import retinaface_fast as rf
image = np.load({str(tmp_path / "image.npy")!r})
result = rf.detect(image)
assert len(result) == 1, result
assert len(rf.detect(image[:, :, 0])) == 1
assert len(rf.detect(image, max_side=512)) == 1
assert rf.detect(image.repeat(3, axis=0).repeat(3, axis=1)).scores[0] > 0.99  # searched twice
assert len(rf.detect(Image.fromarray(image[:, :, ::-1]))) == 1
assert result.crop(image)[0].shape[2] == 3
assert rf.Detections.from_dict(result.to_dict()) == result
for call in (
    lambda: rf.detect(image, max_side=100),
    lambda: rf.detect({str(tmp_path / "x.png")!r}),
    lambda: result.draw(image),
    lambda: result.align(image),
):
    try:
        call()
    except rf.MissingDependencyError as error:
        assert "opencv-python-headless" in str(error), error
    else:
        raise AssertionError("no error")
assert sys.modules["cv2"] is None
"""
    (tmp_path / "x.png").write_bytes(cv2.imencode(".png", astronaut_bgr)[1].tobytes())
    done = run_python(code)
    assert done.returncode == 0, done.stderr


# Photographs of crowds


def test_wider_photographs(detector: FaceDetector, wider_dir: Path) -> None:
    """Most faces of 40 pixels and more are found, at their places, in 40 photographs of all events.

    Of 130 such faces 110 are found at the threshold of 0.5, with a mean IoU of 0.80.
    """
    truth = read_annotations(wider_dir / "wider_face_val_bbx_gt.txt")
    names = sorted(truth)[:: len(truth) // 40][:40]
    total = strangers = found = 0
    overlaps_of_found = []
    for name in names:
        result = detector.detect(wider_dir / "images" / name)
        faces = truth[name]
        found += len(result)
        if len(result):
            overlaps = ops.box_iou(result.boxes, faces).max(axis=1) if len(faces) else np.zeros(len(result))
            strangers += int((overlaps < 0.3).sum())
        large = faces[np.minimum(faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]) >= 40]
        total += len(large)
        if len(large) and len(result):
            overlaps = ops.box_iou(large, result.boxes).max(axis=1)
            overlaps_of_found.extend(overlaps[overlaps > 0.5])
    assert total == 130
    assert len(overlaps_of_found) > 105
    assert np.mean(overlaps_of_found) > 0.75
    assert strangers / found < 0.1, (strangers, found)


def read_annotations(path: Path) -> dict[str, np.ndarray]:
    lines = iter(path.read_text().splitlines())
    truth = {}
    for name in lines:
        count = int(next(lines))
        rows = [[int(value) for value in next(lines).split()] for _ in range(max(count, 1))]
        boxes = np.float32([row[:4] for row in rows if not row[7] and row[2] and row[3]]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truth[name] = boxes
    return truth


def test_one_array_is_no_batch(detector: FaceDetector) -> None:
    for shape in ((48, 64, 3), (48, 64)):
        with pytest.raises(TypeError, match=r"^images must be an iterable of pictures, got one array"):
            detector.detect_batch(np.zeros(shape, np.uint8))
    assert len(detector.detect_batch(np.zeros((2, 48, 64, 3), np.uint8))) == 2


def test_weights_are_a_path_even_if_the_registry_knows_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="resnet50"):  # at once, not after tries to download
        FaceDetector(weights="resnet50")


def test_an_empty_path_is_said_to_be_empty(detector: FaceDetector) -> None:
    with pytest.raises(ImageError, match="empty"):
        detector.detect("")
