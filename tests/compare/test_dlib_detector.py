"""dlib behind our interface, against dlib called directly."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import Detections, EngineError, FaceDetector, ImageError, WeightsError, ops
from retinaface_fast.compare import DlibDetector, find_dlib_model
from retinaface_fast.compare.dlib_detector import DEFAULT_MAX_MEMORY

dlib = pytest.importorskip("dlib")
cv2 = pytest.importorskip("cv2")

from retinaface_fast.compare._dlib_parts import Predictor, memory_needed  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("dlib_files")

#: Where the points of a mirrored face are among those of the 68.
MIRRORED = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65),
    ]
)


@pytest.fixture(scope="module")
def hog() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="module")
def cnn(hog: DlibDetector) -> DlibDetector:
    return hog.replace(kind="cnn")


@pytest.fixture
def face_bgr(astronaut_bgr: np.ndarray) -> np.ndarray:
    """The face alone, (160, 160, 3): small enough for the CNN."""
    return np.ascontiguousarray(astronaut_bgr[40:200, 140:300])


def hog_directly(rgb: np.ndarray, upsample: int, threshold: float) -> tuple[list[Any], list[float]]:
    boxes, scores, _ = dlib.get_frontal_face_detector().run(rgb, upsample, threshold)
    return list(boxes), list(scores)


# ------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize("upsample", [0, 1, 2])
@pytest.mark.parametrize("threshold", [0.0, -1.0, 0.5])
def test_hog_is_that_of_dlib(
    upsample: int, threshold: float, hog: DlibDetector, astronaut_bgr: np.ndarray
) -> None:
    rgb = np.ascontiguousarray(astronaut_bgr[:300:, :, ::-1])
    boxes, scores = hog_directly(rgb, upsample, threshold)
    assert boxes, "or there is nothing to compare"
    found = hog.replace(upsample=upsample, score_threshold=threshold).detect(rgb, color="rgb")
    np.testing.assert_array_equal(found.scores, np.float32(scores))
    for box, ours in zip(boxes, found.boxes, strict=True):
        assert ours.tolist() == [box.left(), box.top(), box.right() + 1, box.bottom() + 1]
        # Our width is x2 - x1; dlib's counts the pixels.
        assert (ours[2] - ours[0], ours[3] - ours[1]) == (box.width(), box.height())
    assert (found.engine, found.device, found.image_size) == ("dlib", "cpu", (300, 512))


@pytest.mark.parametrize("upsample", [0, 1])
def test_cnn_is_that_of_dlib(upsample: int, cnn: DlibDetector, face_bgr: np.ndarray) -> None:
    rgb = np.ascontiguousarray(face_bgr[:, :, ::-1])
    model = dlib.cnn_face_detection_model_v1(str(find_dlib_model("cnn")))
    (face,) = model(rgb, upsample)
    ours = cnn.replace(upsample=upsample)
    found = ours.detect(face_bgr)
    box = face.rect
    assert found.boxes.tolist() == [[box.left(), box.top(), box.right() + 1, box.bottom() + 1]]
    np.testing.assert_array_equal(found.scores, np.float32([face.confidence]))
    assert len(ours.replace(score_threshold=float(found.scores[0])).detect(face_bgr)) == 0, (
        "score > threshold"
    )


def test_a_lower_threshold_finds_the_same_and_more(hog: DlibDetector, astronaut_bgr: np.ndarray) -> None:
    everything = hog.replace(score_threshold=-2.0).detect(astronaut_bgr)
    assert len(everything) > 30
    assert (np.diff(everything.scores) <= 0).all()
    for threshold in (-1.0, 0.0, float(everything.scores[3])):
        found = hog.replace(score_threshold=threshold).detect(astronaut_bgr)
        assert found == everything[everything.scores > threshold]
    assert len(hog.replace(score_threshold=50).detect(astronaut_bgr)) == 0


def test_faces_of_equal_score_have_an_order(monkeypatch: pytest.MonkeyPatch, hog: DlibDetector) -> None:
    from retinaface_fast.compare._dlib_parts import Found

    edges = np.array([[5, 9, 8, 12], [1, 9, 8, 12], [7, 2, 8, 12], [0, 9, 8, 12]])
    scores = np.array([0.5, 0.5, 0.5, 0.75])
    monkeypatch.setattr(type(hog._detector), "__call__", lambda *_: Found(edges, scores))
    found = hog.replace(landmarks="none").detect(np.zeros((20, 20), np.uint8))
    assert found.boxes[:, :2].tolist() == [[0, 9], [7, 2], [1, 9], [5, 9]]


def test_landmarks_of_68_are_those_of_dlib(hog: DlibDetector, astronaut_bgr: np.ndarray) -> None:
    rgb = np.ascontiguousarray(astronaut_bgr[:, :, ::-1])
    predictor = dlib.shape_predictor(str(find_dlib_model("landmarks-68")))
    (box,), _ = hog_directly(rgb, 0, 0.0)
    points = np.array([(p.x, p.y) for p in predictor(rgb, box).parts()]) + 0.5
    expected = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]]
    (face,) = hog.detect(astronaut_bgr)
    np.testing.assert_allclose(face.landmarks, expected, rtol=1e-6)


def test_landmarks_of_5_are_two_eyes(hog: DlibDetector, astronaut_bgr: np.ndarray) -> None:
    rgb = np.ascontiguousarray(astronaut_bgr[:, :, ::-1])
    predictor = dlib.shape_predictor(str(find_dlib_model("landmarks-5")))
    (box,), _ = hog_directly(rgb, 0, 0.0)
    points = np.array([(p.x, p.y) for p in predictor(rgb, box).parts()]) + 0.5
    (face,) = hog.replace(landmarks="5").detect(astronaut_bgr)
    np.testing.assert_array_equal(face.landmarks[:2], [points[2:4].mean(axis=0), points[:2].mean(axis=0)])
    assert np.isnan(face.landmarks[2:]).all()
    (bare,) = hog.replace(landmarks="none").detect(astronaut_bgr)
    assert np.isnan(bare.landmarks).all()
    np.testing.assert_array_equal(bare.box, face.box)


@pytest.mark.parametrize("kind", ["hog", "cnn"])
def test_both_find_what_retinaface_finds(kind: str, hog: DlibDetector, grace_hopper_path: Path) -> None:
    picture = cv2.imread(str(grace_hopper_path))[40:300, 100:380]
    (theirs,) = hog.replace(kind=kind).detect(picture)
    (ours,) = FaceDetector().detect(picture)
    assert ops.box_iou(theirs.box[None], ours.box[None]) > 0.5
    distances = np.linalg.norm(theirs.landmarks - ours.landmarks, axis=1)
    assert (distances < 0.08 * ours.height).all()
    (eyes,) = hog.replace(kind=kind, landmarks="5").detect(picture)
    assert (np.linalg.norm(eyes.landmarks - ours.landmarks, axis=1)[:2] < 0.08 * ours.height).all()


def test_points_are_centres_of_pixels(astronaut_bgr: np.ndarray) -> None:
    """A mirrored face has mirrored points: x and width - x, but for the predictor's own asymmetry."""
    predictor = Predictor(68, None)
    rgb = np.ascontiguousarray(astronaut_bgr[:, :, ::-1])
    mirrored = np.ascontiguousarray(rgb[:, ::-1])
    sums = []
    for shift in range(-4, 5):
        left, top, right, bottom = 179 + shift, 83, 266 + shift, 170
        points = predictor(rgb, np.array([left, top, right, bottom]))
        others = predictor(mirrored, np.array([511 - right, top, 511 - left, bottom]))[MIRRORED]
        sums.append(points[:, 0] + others[:, 0])
    # Points that named pixels, without the half, would have the sum 511.
    assert abs(np.mean(sums) - 512) < 0.4


# ------------------------------------------------------------------------------------------ pictures


def test_every_source_gives_the_same(hog: DlibDetector, astronaut_bgr: np.ndarray, tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    picture = np.ascontiguousarray(astronaut_bgr[:240, 80:360])
    expected = hog.detect(picture)
    assert len(expected) == 1
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), picture)
    data = path.read_bytes()
    rgb = np.ascontiguousarray(picture[:, :, ::-1])
    with_alpha = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    for source in (path, str(path), data, io.BytesIO(data), image_module.open(path), with_alpha):
        assert hog.detect(source) == expected
    assert hog.detect(rgb, color="rgb") == expected
    assert hog.detect(astronaut_bgr[:240, 80:360]) == expected, "rows that lie apart"
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    assert hog.detect(gray) == hog.detect(gray[:, :, None])
    assert len(hog.detect(gray)) == 1
    assert hog.detect_batch(iter([picture, gray, path])) == [expected, hog.detect(gray), expected]


def test_exif_orientation_is_honoured(hog: DlibDetector, astronaut_bgr: np.ndarray) -> None:
    image_module = pytest.importorskip("PIL.Image")
    upright = np.ascontiguousarray(astronaut_bgr[:240, 80:360, ::-1])
    stored = image_module.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = stored.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    found = hog.detect(file.getvalue())
    assert found.image_size == (240, 280)
    assert found == hog.detect(upright, color="rgb")


def test_timings(hog: DlibDetector, face_bgr: np.ndarray) -> None:
    timings = hog.detect(face_bgr).timings
    assert list(timings) == ["decode", "network", "postprocess", "total"]
    assert all(seconds >= 0 for seconds in timings.values())
    parts = sum(timings[name] for name in ("decode", "network", "postprocess"))
    assert timings["total"] == pytest.approx(parts, rel=1e-6)


SIZES = [*((side, side) for side in (1, 2, 3, 5, 6, 8, 9, 20)), (1, 150), (150, 1), (6, 50)]


def test_small_and_narrow_pictures_do_no_harm() -> None:
    """In a process of its own: the CNN ends its process at 6x6, and fails below 9, without our padding."""
    code = (
        "import numpy as np\n"
        "from retinaface_fast.compare import DlibDetector\n"
        "for kind in ('hog', 'cnn'):\n"
        "    for landmarks in ('68', 'none')[:1 + (kind == 'cnn')]:\n"
        "        first = DlibDetector(kind, landmarks=landmarks)\n"
        "        for upsample in range(3):\n"
        "            detector = first.replace(upsample=upsample)\n"
        f"            for size in {SIZES}:\n"
        "                found = detector.detect(np.full(size, 90, np.uint8))\n"
        "                assert (len(found), found.image_size) == (0, size), (kind, upsample, size)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_padding_of_small_pictures_changes_no_coordinate(cnn: DlibDetector, face_bgr: np.ndarray) -> None:
    small = cv2.resize(face_bgr, (39, 39), interpolation=cv2.INTER_AREA)
    padded = np.zeros((40, 40, 3), np.uint8)
    padded[:39, :39] = small
    ours = cnn.replace(upsample=2, landmarks="none")
    found = ours.detect(small)
    assert len(found) == 1
    assert found.image_size == (39, 39)
    np.testing.assert_array_equal(found.boxes, ours.detect(padded).boxes)


def test_pictures_that_cannot_be_read(hog: DlibDetector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        hog.detect(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match=r"images\[1\]: "):
        hog.detect_batch([np.zeros((9, 9), np.uint8), b"no picture"])
    with pytest.raises(TypeError, match=r"images\[0\]: image must be an array of uint8"):
        hog.detect_batch([np.zeros((9, 9))])
    with pytest.raises(TypeError, match="images must be an iterable of pictures"):
        hog.detect_batch(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="color must be"):
        hog.detect_batch([], color="hsv")
    ok, data = cv2.imencode(".png", np.zeros((20, 30), np.uint8))
    assert ok
    with pytest.raises(ImageError, match="max_pixels"):
        hog.replace(max_pixels=599).detect(data.tobytes())
    assert len(hog.replace(max_pixels=600).detect(data.tobytes())) == 0


def test_a_failure_of_dlib_is_an_engine_error(monkeypatch: pytest.MonkeyPatch, hog: DlibDetector) -> None:
    def _fail(*_: object) -> None:
        raise RuntimeError("Error detected\n  in tensor.h")

    monkeypatch.setattr(type(hog._detector), "__call__", _fail)
    with pytest.raises(EngineError, match=r"images\[0\]: dlib-hog failed: Error detected in tensor.h"):
        hog.detect_batch([np.zeros((9, 9), np.uint8)])


# ------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(("upsample", "gib"), [(0, r"9\.3"), (1, r"36\.8"), (2, r"146\.0")])
def test_what_would_take_too_much_memory_is_refused(upsample: int, gib: str, cnn: DlibDetector) -> None:
    picture = np.zeros((2160, 4096, 3), np.uint8)
    message = (
        rf"dlib-cnn needs some {gib} GiB .* 4096x2160 .* upsample={upsample}.*max_memory allows 4\.0 GiB"
    )
    with pytest.raises(ImageError, match=message):
        cnn.replace(upsample=upsample).detect(picture)


def test_the_limit_can_be_moved(cnn: DlibDetector, hog: DlibDetector, face_bgr: np.ndarray) -> None:
    needed = memory_needed("cnn", (160, 160), 0)
    assert len(cnn.replace(max_memory=needed).detect(face_bgr)) == 1
    with pytest.raises(ImageError, match=r"images\[0\]: .*max_memory"):
        cnn.replace(max_memory=needed - 1).detect_batch([face_bgr])
    assert len(hog.replace(max_memory=needed - 1).detect(face_bgr)) == 1, "HOG needs less"
    with pytest.raises(ImageError, match="max_memory"):
        hog.replace(max_memory=1).detect(face_bgr)
    assert cnn.max_memory == DEFAULT_MAX_MEMORY == 2**32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured as Linux counts it")
@pytest.mark.parametrize(
    ("kind", "size", "upsample"),
    [("cnn", (400, 500), 0), ("cnn", (150, 200), 1), ("cnn", (40, 2000), 0), ("hog", (900, 1200), 1)],
)
def test_the_estimate_of_memory_is_kept(kind: str, size: tuple[int, int], upsample: int) -> None:
    code = (
        "import numpy as np\n"
        "from retinaface_fast.compare import DlibDetector\n"
        f"detector = DlibDetector({kind!r}, upsample={upsample}, landmarks='none')\n"
        f"picture = np.random.default_rng(0).integers(0, 256, {(*size, 3)}, dtype=np.uint8)\n"
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        "def peak():\n"
        "    with open('/proc/self/status') as file:\n"
        "        return next(int(line.split()[1]) for line in file if line.startswith('VmHWM')) * 1024\n"
        "before = peak()\n"
        "detector.detect(picture)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, estimate = int(done.stdout), memory_needed(kind, size, upsample)
    assert used <= estimate
    assert used >= estimate / 4, "a guard that refuses far too much is of no use"


def test_hog_keeps_no_object_that_has_grown(face_bgr: np.ndarray) -> None:
    """dlib's object keeps the pyramid of its last picture: 110 MB for 3000x2000 upsampled once."""
    detector = DlibDetector(landmarks="none")
    small = detector.detect(face_bgr)
    assert len(detector._detector._free) == 1
    large = np.zeros((1100, 1000, 3), np.uint8)
    detector.detect(large)
    assert len(detector._detector._free) == 1, "1.1 million pixels are few"
    detector.replace(upsample=1).detect(large)
    assert len(detector._detector._free) == 0
    assert detector.detect(face_bgr) == small
    assert len(detector._detector._free) == 1


# ------------------------------------------------------------------------------------------ threads


def test_hog_in_many_threads_is_hog_in_one() -> None:
    """In a process of its own: two threads that share dlib's object end it (double free)."""
    code = (
        "import numpy as np, skimage.data\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from retinaface_fast.compare import DlibDetector\n"
        "rgb = skimage.data.astronaut()\n"
        "pictures = [rgb, rgb[:, ::-1], rgb[:300], rgb[:240, 100:]]\n"
        "detector = DlibDetector(score_threshold=-1.0)\n"
        "expected = [detector.detect(picture, color='rgb') for picture in pictures]\n"
        "assert sum(map(len, expected)) > 12\n"
        "def same(index):\n"
        "    return detector.detect(pictures[index % 4], color='rgb') == expected[index % 4]\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    assert all(pool.map(same, range(160)))\n"
        "assert 1 < len(detector._detector._free) <= 8\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cnn_in_many_threads_is_cnn_in_one(cnn: DlibDetector, face_bgr: np.ndarray) -> None:
    pictures = [
        face_bgr[20:140, 20:140],
        face_bgr[:, :130],
        np.zeros((50, 80, 3), np.uint8),
        face_bgr[15:, 20:],
    ]
    expected = [cnn.detect(picture) for picture in pictures]
    assert sum(map(len, expected)) >= 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: cnn.detect(pictures[index % 4]), range(16)))
    assert found == [expected[index % 4] for index in range(16)]


# ------------------------------------------------------------------------------------------ the object


def test_settings_and_defaults(hog: DlibDetector, cnn: DlibDetector) -> None:
    assert (hog.kind, hog.model, hog.engine, hog.device) == ("hog", "dlib-hog", "dlib", "cpu")
    assert (hog.upsample, hog.score_threshold, hog.landmarks, hog.max_pixels) == (0, 0.0, "68", None)
    assert (cnn.kind, cnn.model, cnn.landmarks) == ("cnn", "dlib-cnn", "68")
    assert repr(cnn) == "DlibDetector('cnn', upsample=0, score_threshold=0.0, landmarks='68')"


def test_never_changes(hog: DlibDetector) -> None:
    with pytest.raises(AttributeError, match=r"replace\(upsample=…\)"):
        hog.upsample = 1
    with pytest.raises(AttributeError, match="cannot be changed"):
        del hog.kind
    assert copy.copy(hog) is hog
    assert copy.deepcopy([hog])[0] is hog


def test_replace_shares_what_is_loaded(hog: DlibDetector) -> None:
    other = hog.replace(upsample=1, score_threshold=-0.5)
    assert (other.upsample, other.score_threshold, hog.upsample) == (1, -0.5, 0)
    assert (other._detector, other._predictor) == (hog._detector, hog._predictor)
    assert hog.replace(kind="cnn")._predictor is hog._predictor
    assert hog.replace(landmarks="5")._detector is hog._detector
    assert hog.replace(landmarks="5")._predictor is not hog._predictor
    with pytest.raises(TypeError, match=r"replace takes kind, upsample, .*got size"):
        hog.replace(size=3)
    with pytest.raises(ValueError, match="upsample must be"):
        hog.replace(upsample=3)


def test_pickles(face_bgr: np.ndarray) -> None:
    first = DlibDetector("hog", upsample=1, score_threshold=-0.25, landmarks="5", max_memory=10**9)
    second = pickle.loads(pickle.dumps(first))
    assert repr(second) == repr(first)
    assert second.max_memory == 10**9
    assert second.detect(face_bgr) == first.detect(face_bgr)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "svm"}, ValueError, "kind must be one of hog, cnn, got 'svm'"),
        ({"kind": 3}, TypeError, "kind must be a string, got int 3"),
        ({"upsample": 3}, ValueError, "upsample must be from 0 to 2, got 3"),
        ({"upsample": -1}, ValueError, "upsample must be from 0 to 2, got -1"),
        ({"upsample": 1.0}, TypeError, "upsample must be an integer, got float"),
        ({"upsample": True}, TypeError, "upsample must be an integer, got bool"),
        ({"score_threshold": float("nan")}, ValueError, "score_threshold must be finite, got nan"),
        ({"score_threshold": float("-inf")}, ValueError, "score_threshold must be finite, got -inf"),
        ({"score_threshold": "0"}, TypeError, "score_threshold must be a number, got str"),
        ({"landmarks": "7"}, ValueError, "landmarks must be one of 68, 5, none, got '7'"),
        ({"landmarks": 68}, TypeError, "landmarks must be a string, got int 68"),
        ({"landmarks_path": 3}, TypeError, "landmarks_path must be a path or None, got int 3"),
        ({"detector_path": ""}, ValueError, "detector_path must be the path of a file, got an empty one"),
        ({"landmarks": "none", "landmarks_path": "x"}, ValueError, "landmarks_path must be None where"),
        ({"max_pixels": 0}, ValueError, "max_pixels must be at least 1"),
        ({"max_memory": 0}, ValueError, "max_memory must be at least 1"),
        ({"max_memory": None}, TypeError, "max_memory must be an integer"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DlibDetector(**options)


# ------------------------------------------------------------------------------------------ files


def test_a_wrong_path_fails_at_once(tmp_path: Path) -> None:
    for options in (
        {"kind": "cnn", "detector_path": tmp_path / "no.dat"},
        {"kind": "hog", "detector_path": tmp_path / "no.dat"},
        {"landmarks_path": str(tmp_path / "no.dat")},
        {"landmarks": "5", "landmarks_path": tmp_path / "no.dat"},
    ):
        with pytest.raises(WeightsError, match=r"no.dat: no such file"):
            DlibDetector(**options)


def test_files_by_path(tmp_path: Path, face_bgr: np.ndarray) -> None:
    saved = tmp_path / "hög.svm"
    dlib.get_frontal_face_detector().save(str(saved))
    given = DlibDetector(detector_path=saved, landmarks="5", landmarks_path=find_dlib_model("landmarks-5"))
    assert given.detect(face_bgr) == DlibDetector(landmarks="5").detect(face_bgr)
    assert len(given.detect(face_bgr)) == 1
    assert pickle.loads(pickle.dumps(given)).detect(face_bgr) == given.detect(face_bgr)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "another"])
@pytest.mark.parametrize("which", ["cnn", "hog", "5"])
def test_damaged_files(which: str, damage: str, tmp_path: Path) -> None:
    path, saved = tmp_path / "bad.dat", tmp_path / "hog.svm"
    dlib.get_frontal_face_detector().save(str(saved))
    good = {"cnn": find_dlib_model("cnn"), "hog": saved, "5": find_dlib_model("landmarks-5")}
    data = good[which].read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"<html>404: not found</html>\n" * 40,
            "cut": data[: len(data) // 2],
            "flipped": bytes(255 - byte for byte in data[:64]) + data[64:],
            "another": good[{"cnn": "5", "hog": "cnn", "5": "hog"}[which]].read_bytes(),
        }[damage]
    )
    options = (
        {"landmarks": "5", "landmarks_path": path}
        if which == "5"
        else {"kind": which, "detector_path": path, "landmarks": "none"}
    )
    with pytest.raises(WeightsError, match=r"bad.dat: not a file of .*, or damaged: \S"):
        DlibDetector(**options)


def test_a_predictor_of_another_number_of_points() -> None:
    with pytest.raises(WeightsError, match="a predictor of 5 points, where one of 68 was asked for"):
        DlibDetector(landmarks_path=find_dlib_model("landmarks-5"))


def test_results_are_detections_like_any_other(hog: DlibDetector, astronaut_bgr: np.ndarray) -> None:
    found = hog.detect(astronaut_bgr)
    assert isinstance(found, Detections)
    assert found.align(astronaut_bgr).shape == (1, 112, 112, 3)
    assert Detections.from_dict(found.to_dict()) == found
    eyes = hog.replace(landmarks="5").detect(astronaut_bgr)
    assert eyes.to_dict()["faces"][0]["landmarks"]["nose"] is None
    with pytest.raises(ValueError, match=r"face 0 lacks landmarks.*no nose, left_mouth, right_mouth"):
        eyes.align(astronaut_bgr)
