"""The native engine against the others, and against itself in every way in which it must not matter."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retinaface_fast import Detections, EngineError, FaceDetector, _core, ops
from retinaface_fast.engines import create_engine
from retinaface_fast.engines.native_engine import NativeEngine
from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import load_weights
from tests.weights.published import random_weights

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.engines import Engine, RawOutputs
    from retinaface_fast.weights import ModelWeights

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

SMALL = CONFIGS["mobilenet0.25"]
SIZES_WH = [
    *[(640, 480), (637, 475), (333, 217), (1, 1), (31, 33)],
    *(pytest.param(size, marks=pytest.mark.slow) for size in ((1920, 1080), (4096, 2160))),
]


@pytest.fixture(scope="module")
def weights() -> ModelWeights:
    return load_weights("mobilenet0.25")


@pytest.fixture(scope="module")
def engine(weights: ModelWeights) -> NativeEngine:
    return NativeEngine(weights, threads=2)


def noise(*shape: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def crowd(size_wh: tuple[int, int], face: UInt8Array) -> UInt8Array:
    """A picture of many faces from 30 pixels up: all of what the network answers to."""
    width, height = size_wh
    scene = np.full((height, width, 3), 110, np.uint8)
    head = face[20:220, 120:320]
    x = y = row = 0
    for index in range(100):
        side = (48, 64, 96, 140, 200, 32)[index % 6]
        patch = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)[: height - y, : width - x]
        scene[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
        x, row = x + side, max(row, side)
        if x >= width:
            x, y, row = 0, y + row, 0
        if y >= height:
            break
    return scene


def heads(outputs: RawOutputs) -> list[tuple[FloatArray, ...]]:
    return [outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas]


def assert_same(outputs: RawOutputs, expected: RawOutputs) -> None:
    for head, expected_head in zip(heads(outputs), heads(expected), strict=True):
        for level, expected_level in zip(head, expected_head, strict=True):
            np.testing.assert_array_equal(level, expected_level)


def assert_close(outputs: RawOutputs, expected: RawOutputs, *, relative: float = 3e-5) -> None:
    """Within `relative` of the range of each head's values over all levels."""
    for head, expected_head in zip(heads(outputs), heads(expected), strict=True):
        spread = max(level.max() for level in expected_head) - min(level.min() for level in expected_head)
        for level, expected_level in zip(head, expected_head, strict=True):
            np.testing.assert_allclose(level, expected_level, rtol=0, atol=relative * spread)


def faces_of(engine: Engine, outputs: RawOutputs, size_hw: tuple[int, int], **options: Any) -> ops.Faces:
    [faces] = ops.postprocess(
        outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas, size_hw, **options
    )
    return faces


# Against the other engines


@pytest.mark.parametrize("size_wh", SIZES_WH, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("other", ["onnxruntime", "torch"])
def test_agrees_with_the_other_engines(
    other: str,
    size_wh: tuple[int, int],
    engine: NativeEngine,
    weights: ModelWeights,
    astronaut_bgr: UInt8Array,
) -> None:
    pytest.importorskip(other)
    reference = create_engine(other, weights, device="cpu")
    image = crowd(size_wh, astronaut_bgr)[None]
    for color in ("bgr", "rgb"):
        expected = reference.run(image, color=color)  # type: ignore[arg-type]
        assert_close(engine.run(image, color=color), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 33), (97, 130), (1, 200), (200, 1), (64, 64), (217, 333)])
@pytest.mark.parametrize("name", ["mobilenet0.25", "mobilenet0.5", "mobilenet1.0"])
def test_every_width_agrees_with_onnxruntime(name: str, size_hw: tuple[int, int]) -> None:
    pytest.importorskip("onnxruntime")
    for seed in range(2):
        weights = random_weights(CONFIGS[name], seed=seed)
        image = noise(1, *size_hw, 3, seed=seed)
        expected = create_engine("onnxruntime", weights, device="cpu").run(image, color="bgr")
        assert_close(create_engine("native", weights, threads=2).run(image, color="bgr"), expected)


def test_every_small_size_agrees_with_onnxruntime(engine: NativeEngine, weights: ModelWeights) -> None:
    """Every remainder of a division by 32, by tiles, by vectors, on either side."""
    pytest.importorskip("onnxruntime")
    reference = create_engine("onnxruntime", weights, device="cpu", threads=1)
    canvas = noise(1, 100, 100, 3)
    for step in range(1, 100):
        image = canvas[:, :step, : 1 + 37 * step % 100]
        assert_close(engine.run(image, color="bgr"), reference.run(image, color="bgr"), relative=5e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_plain_pictures(value: int, engine: NativeEngine, weights: ModelWeights) -> None:
    pytest.importorskip("onnxruntime")
    image = np.full((1, 77, 141, 3), value, np.uint8)
    expected = create_engine("onnxruntime", weights, device="cpu").run(image, color="bgr")
    assert_close(engine.run(image, color="bgr"), expected)


def matched(result: Detections, expected: Detections, threshold: float) -> int:
    """Compare two results but for faces whose score is a tie with the threshold; return how many agree."""
    count = 0
    for one, other in ((result, expected), (expected, result)):
        for face in one:
            if face.score < threshold + 1e-3:
                continue
            distance = (
                np.abs(other.boxes - face.box).max(axis=1, initial=0) if len(other) else np.array([9.0])
            )
            nearest = int(distance.argmin())
            assert distance[nearest] < 0.05, (face, distance[nearest])
            assert abs(float(other.scores[nearest]) - face.score) < 1e-3
            count += 1
    return count


@pytest.mark.parametrize("other", ["onnxruntime", "torch"])
def test_finds_the_same_faces(other: str, astronaut_bgr: UInt8Array) -> None:
    pytest.importorskip(other)
    image = crowd((800, 600), astronaut_bgr)
    result = FaceDetector(engine="native", score_threshold=0.02).detect(image)
    expected = FaceDetector(engine=other, device="cpu", score_threshold=0.02).detect(image)
    assert (result.engine, expected.engine) == ("native", other)
    assert matched(result, expected, 0.02) > 60


@pytest.mark.slow
def test_finds_the_same_faces_in_photographs(wider_dir: Path) -> None:
    pytest.importorskip("torch")
    native = FaceDetector(engine="native", score_threshold=0.02)
    torch = FaceDetector(engine="torch", device="cpu", score_threshold=0.02)
    names = (wider_dir / "images.txt").read_text().split()
    count = 0
    for name in names[:: max(1, len(names) // 25)]:
        path = wider_dir / "images" / f"{name.removesuffix('.jpg')}.jpg"
        count += matched(native.detect(path), torch.detect(path), 0.02)
    assert count > 200


# The fused way


@pytest.mark.parametrize("size_wh", [(640, 480), (637, 475), (333, 217), (1, 1), (31, 33), (9, 400)])
def test_detect_is_run_and_postprocess(
    size_wh: tuple[int, int], engine: NativeEngine, astronaut_bgr: UInt8Array
) -> None:
    image = crowd(size_wh, astronaut_bgr)
    for color in ("bgr", "rgb"):
        outputs = engine.run(image[None], color=color)  # type: ignore[arg-type]
        for changes in (
            {},
            {"score_threshold": 0.02},
            {"score_threshold": 0.02, "nms_threshold": 1.0, "top_k": 10},
            {"score_threshold": 0.02, "keep_top_k": 3},
            {"score_threshold": 1.0},
            {"score_threshold": 0.0, "top_k": None, "keep_top_k": None, "nms_threshold": 0.0},
        ):
            options: dict[str, Any] = {
                "score_threshold": 0.5,
                "nms_threshold": 0.4,
                "top_k": 5000,
                "keep_top_k": 750,
                **changes,
            }
            faces, seconds = engine.detect(image, color=color, **options)  # type: ignore[arg-type]
            expected = faces_of(engine, outputs, image.shape[:2], **options)
            np.testing.assert_array_equal(faces.scores, expected.scores)
            np.testing.assert_array_equal(faces.boxes, expected.boxes)
            np.testing.assert_array_equal(faces.landmarks, expected.landmarks)
            assert 0 < seconds < 10
    assert faces.boxes.dtype == faces.scores.dtype == faces.landmarks.dtype == np.float32


def test_a_detector_takes_the_fused_way(astronaut_bgr: UInt8Array, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FaceDetector(engine="native")
    monkeypatch.setattr(NativeEngine, "run", None)
    result = detector.detect(astronaut_bgr)
    assert (len(result), result.engine, result.device) == (1, "native", "cpu")
    assert list(result.timings) == ["decode", "resize", "network", "postprocess", "total"]
    assert result.timings["network"] > result.timings["postprocess"] > 0


def test_what_is_returned_belongs_to_the_caller(engine: NativeEngine, astronaut_bgr: UInt8Array) -> None:
    detector = FaceDetector(engine=engine)
    first = detector.detect(astronaut_bgr)
    kept = first.boxes.copy(), first.scores.copy(), first.landmarks.copy()
    detector.detect(np.ascontiguousarray(astronaut_bgr[::-1, ::-1]), score_threshold=0.0)
    for array, copy in zip((first.boxes, first.scores, first.landmarks), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


# How the pixels lie in memory


def views(image: UInt8Array) -> dict[str, UInt8Array]:
    """The same pixels with every kind of strides."""
    height, width, _ = image.shape
    wide = noise(height, width + 50, 3, seed=1)
    wide[:, 20 : 20 + width] = image
    tall = noise(2 * height, width, 3, seed=2)
    tall[::2] = image
    apart = noise(height, 2 * width, 3, seed=3)
    apart[:, ::2] = image
    four = noise(height, width, 4, seed=4)
    four[..., :3] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    return {
        "rows apart": wide[:, 20 : 20 + width],
        "every second row": tall[::2],
        "every second pixel": apart[:, ::2],
        "four channels": four[..., :3],
        "rows upwards": np.ascontiguousarray(image[::-1])[::-1],
        "columns backwards": np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        "channels backwards": np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        "all backwards": np.ascontiguousarray(image[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        "transposed": np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1),
        "planes": np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
        "Fortran": np.asfortranarray(image),
        "read-only": frozen,
        "unaligned": np.frombuffer(b"x" + image.tobytes(), np.uint8, offset=1).reshape(image.shape),
    }


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_any_strides(color: Any, engine: NativeEngine, astronaut_bgr: UInt8Array) -> None:
    image = np.ascontiguousarray(astronaut_bgr[30:251, 130:307])
    options: dict[str, Any] = {
        "score_threshold": 0.02,
        "nms_threshold": 0.4,
        "top_k": 100,
        "keep_top_k": None,
    }
    expected = engine.run(image[None], color=color)
    expected_faces, _ = engine.detect(image, color=color, **options)
    assert len(expected_faces.scores)
    for kind, view in views(image).items():
        np.testing.assert_array_equal(view, image, err_msg=kind)
        before = view.copy()
        assert_same(engine.run(view[None], color=color), expected)
        faces, _ = engine.detect(view, color=color, **options)
        for array, expected_array in zip(faces, expected_faces, strict=True):
            np.testing.assert_array_equal(array, expected_array, err_msg=kind)
        np.testing.assert_array_equal(view, before, err_msg=kind)


def test_one_row_broadcast_to_all(engine: NativeEngine) -> None:
    view = np.broadcast_to(noise(1, 90, 3), (70, 90, 3))  # rows 0 bytes apart
    assert_same(engine.run(view[None], color="bgr"), engine.run(view.copy()[None], color="bgr"))
    options: dict[str, Any] = {
        "score_threshold": 0.0,
        "nms_threshold": 0.4,
        "top_k": 9,
        "keep_top_k": None,
    }
    for one, other in zip(
        engine.detect(view, color="bgr", **options)[0],
        engine.detect(view.copy(), color="bgr", **options)[0],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_nothing_outside_of_the_picture_is_looked_at(engine: NativeEngine) -> None:
    for height, width in ((1, 1), (5, 7), (33, 31), (64, 96), (97, 101)):
        results = []
        for fill in (0, 255):
            canvas = np.full((height + 64, width + 64, 3), fill, np.uint8)
            canvas[32 : 32 + height, 32 : 32 + width] = noise(height, width, 3)
            results.append(engine.run(canvas[None, 32 : 32 + height, 32 : 32 + width], color="bgr"))
        assert_same(*results)


# What must not matter


def test_the_number_of_threads_does_not_matter(weights: ModelWeights, astronaut_bgr: UInt8Array) -> None:
    engines = [NativeEngine(weights, threads=threads) for threads in (1, 2, 3, 4, 8)]
    for size_wh in ((640, 480), (637, 475), (333, 217), (31, 33), (1, 1), (1200, 40), (17, 900)):
        image = crowd(size_wh, astronaut_bgr)
        expected = engines[0].run(image[None], color="bgr")
        detected = FaceDetector(engine=engines[0], score_threshold=0.02).detect(image)
        for engine in engines[1:]:
            assert_same(engine.run(image[None], color="bgr"), expected)
            assert FaceDetector(engine=engine, score_threshold=0.02).detect(image) == detected


def test_a_batch_is_its_images_bit_for_bit(engine: NativeEngine) -> None:
    images = noise(5, 61, 83, 3)
    together = heads(engine.run(images, color="bgr"))
    for index in range(5):
        alone = heads(engine.run(images[index : index + 1], color="bgr"))
        for head, expected_head in zip(together, alone, strict=True):
            for level, expected_level in zip(head, expected_head, strict=True):
                np.testing.assert_array_equal(level[index : index + 1], expected_level)


def test_what_came_before_does_not_matter(engine: NativeEngine) -> None:
    """Arenas are reused: what an earlier, larger picture left there must not shine through."""
    small, large = noise(1, 45, 51, 3), np.full((1, 200, 300, 3), 255, np.uint8)
    expected = engine.run(small, color="bgr")
    for height in range(200, 20, -7):
        engine.run(large[:, :height, : 300 - height], color="rgb")
        assert_same(engine.run(small, color="bgr"), expected)


LEVEL = """
    import sys
    import numpy as np
    from retinaface_fast import FaceDetector, ops
    from retinaface_fast.engines.native_engine import NativeEngine
    from retinaface_fast.weights import load_weights

    level, source, target = sys.argv[1:]
    assert ops.simd_level() == level
    weights = load_weights("mobilenet0.25")
    saved = {}
    for name, image in np.load(source).items():
        for threads in (1, 2):
            engine = NativeEngine(weights, threads=threads)
            outputs = engine.run(image[None], color="bgr")
            arrays = [*outputs.class_scores, *outputs.box_deltas, *outputs.landmark_deltas]
            for index, array in enumerate(arrays):
                key = f"{name}.{index}"
                if threads == 1:
                    saved[key] = array
                assert np.array_equal(saved[key], array), (key, threads)
            [faces] = ops.postprocess(
                outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas, image.shape[:2],
                score_threshold=0.02,
            )
            result = FaceDetector(engine=engine, score_threshold=0.02).detect(image)
            assert np.array_equal(result.scores, faces.scores)
            assert np.array_equal(result.boxes, faces.boxes)
            assert np.array_equal(result.landmarks, faces.landmarks)
    np.savez(target, **saved)
"""


@pytest.mark.parametrize("level", ops.simd_levels())
def test_every_simd_level(
    level: str, weights: ModelWeights, astronaut_bgr: UInt8Array, tmp_path: Path
) -> None:
    onnxruntime = create_engine("onnxruntime", weights, device="cpu") if _has("onnxruntime") else None
    sizes = [(320, 240), (333, 217), (31, 33), (1, 1)]
    images = {f"{w}x{h}": crowd((w, h), astronaut_bgr) for w, h in sizes}
    np.savez(tmp_path / "images.npz", **images)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LEVEL), level, tmp_path / "images.npz", tmp_path / "out.npz"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "RETINAFACE_FAST_SIMD": level},
    )
    assert done.returncode == 0, done.stderr
    here = NativeEngine(weights, threads=1)
    with np.load(tmp_path / "out.npz") as found:
        for name, image in images.items():
            references = [here, *([onnxruntime] if onnxruntime else [])]
            for reference in references:
                expected = reference.run(image[None], color="bgr")
                arrays = [level for head in heads(expected) for level in head]
                for head in range(3):
                    levels = arrays[3 * head : 3 * head + 3]
                    spread = max(a.max() for a in levels) - min(a.min() for a in levels)
                    for index, array in enumerate(levels):
                        np.testing.assert_allclose(
                            found[f"{name}.{3 * head + index}"], array, rtol=0, atol=3e-5 * spread
                        )


def _has(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


# Threads and processes


def test_many_threads_use_one_detector(astronaut_bgr: UInt8Array) -> None:
    detector = FaceDetector(engine="native", threads=2, score_threshold=0.1)
    pictures = [crowd((60 + 31 * i, 300 - 23 * i), astronaut_bgr) for i in range(8)]
    serial = [detector.detect(picture) for picture in pictures]
    assert sum(map(len, serial)) > 10
    barrier = threading.Barrier(8)

    def work(seed: int) -> None:
        barrier.wait()
        for index in np.random.default_rng(seed).integers(0, 8, 30):
            assert detector.detect(pictures[index]) == serial[index]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_many_detectors_in_many_threads(astronaut_bgr: UInt8Array) -> None:
    picture = crowd((320, 240), astronaut_bgr)
    expected = FaceDetector(engine="native", threads=1).detect(picture)

    def work(threads: int) -> list[Detections]:
        detector = FaceDetector(engine="native", threads=threads)
        return [detector.detect(picture) for _ in range(10)]

    with ThreadPoolExecutor(6) as pool:
        for results in pool.map(work, [1, 2, 3, 4, 2, 8]):
            assert results == [expected] * 10


def test_detectors_come_and_go(weights: ModelWeights) -> None:
    def alive() -> int:
        return len(os.listdir("/proc/self/task")) if _LINUX else threading.active_count()  # noqa: PTH208

    before = alive()
    image = noise(1, 200, 300, 3)
    for _ in range(30):
        NativeEngine(weights, threads=4).run(image, color="bgr")
    # The system may list a thread for a moment after it was joined.
    deadline = time.monotonic() + 20
    while alive() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive() <= before


_LINUX = sys.platform.startswith("linux")

FORKED_WHILE_BUSY = """
    import os, sys, threading
    import numpy as np
    from retinaface_fast import FaceDetector

    height, width, count, forks = map(int, sys.argv[1:])
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    detector = FaceDetector(engine="native", threads=count, score_threshold=0.0, top_k=50)
    expected = detector.detect(picture)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            detector.detect(picture)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    children, codes = [], []
    for _ in range(forks):  # some of them meet a call in its middle
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if all(detector.detect(picture) == expected for _ in range(5)) else 2
            finally:
                os._exit(code)
        children.append(child)
        if len(children) == 12:
            codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            children.clear()
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * forks, codes
    assert detector.detect(picture) == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("height", "width", "threads", "forks"),
    [(240, 320, 3, 12), (1, 1, 1, 1200)],
    ids=["in the network", "where workspaces are taken"],
)
def test_a_fork_in_the_middle_of_calls(height: int, width: int, threads: int, forks: int) -> None:
    arguments = [str(number) for number in (height, width, threads, forks)]
    program = textwrap.dedent(FORKED_WHILE_BUSY)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def _boxes_of(detector: FaceDetector, picture: UInt8Array) -> FloatArray:
    return detector.detect(picture).boxes


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_detector_goes_to_the_workers_of_a_pool(method: str, astronaut_bgr: UInt8Array) -> None:
    if method == "fork":
        pytest.skip("forked in a process of its own, without the threads of this one: test_threads.py")
    detector = FaceDetector(engine="native", threads=2)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for boxes in pool.starmap(_boxes_of, [(detector, astronaut_bgr)] * 4):
            np.testing.assert_array_equal(boxes, detector.detect(astronaut_bgr).boxes)


# Memory


PEAK = """
    import numpy as np
    from retinaface_fast import FaceDetector

    def kilobytes(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))

    picture = np.random.default_rng(0).integers(0, 256, (2160, 4096, 3), np.uint8)
    detector = FaceDetector(engine="native", threads=1)
    detector.detect(picture[:64, :64])
    before = kilobytes("VmRSS")
    for _ in range(3):
        detector.detect(picture)
    print((kilobytes("VmHWM") - before) * 1024 / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(not _LINUX, reason="only Linux tells the most memory that a process has had")
def test_a_4k_picture_takes_100_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 100


# Errors


@pytest.mark.parametrize(
    ("image", "color", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "bgr", TypeError, "image: expected a uint8 array, got float32"),
        ([[1]], "bgr", TypeError, "image: expected a uint8 array, got list"),
        (np.zeros((1, 8, 8, 3), np.uint8), "bgr", ValueError, r"image: expected shape \(H, W, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), "bgr", ValueError, r"got \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), "bgr", ValueError, r"got \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), "gray", ValueError, 'color must be "bgr" or "rgb", got \'gray\''),
    ],
)
def test_bad_images(
    image: Any, color: Any, error: type[Exception], message: str, engine: NativeEngine
) -> None:
    with pytest.raises(error, match=message):
        engine.detect(image, color=color, score_threshold=0.5, nms_threshold=0.4, top_k=9, keep_top_k=9)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"score_threshold": 1.5}, ValueError, "score_threshold"),
        ({"score_threshold": float("nan")}, ValueError, "score_threshold"),
        ({"score_threshold": "x"}, TypeError, "score_threshold"),
        ({"nms_threshold": -0.1}, ValueError, "nms_threshold"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"keep_top_k": 0}, ValueError, "keep_top_k"),
        ({"keep_top_k": 1.5}, TypeError, "keep_top_k"),
    ],
)
def test_bad_options(
    changes: dict[str, Any], error: type[Exception], message: str, engine: NativeEngine
) -> None:
    options: dict[str, Any] = {"score_threshold": 0.5, "nms_threshold": 0.4, "top_k": 9, "keep_top_k": 9}
    with pytest.raises(error, match=message):
        engine.detect(np.zeros((8, 8, 3), np.uint8), color="bgr", **{**options, **changes})


def test_the_core_refuses_other_tensors(weights: ModelWeights) -> None:
    good = dict(weights.tensors)
    config = weights.config
    pyramid = ops.anchors.native_pyramid(config.anchors)

    def build(tensors: Any, *, threads: Any = 1) -> Any:
        return _core.NativeEngine(tensors, pyramid, config.variances, config.mean_bgr, 0.1, 0.1, threads)

    build(good)
    stem = "backbone.stem.conv.weight"
    for tensors in (
        {},
        {name: array for name, array in good.items() if name != stem},
        {**good, stem: np.zeros((8, 3, 5, 5), np.float32)},
        {**good, "backbone.blocks.3.pointwise.conv.weight": np.zeros((7, 7, 1, 1), np.float32)},
        {**good, "box_head.1.bias": np.zeros(9, np.float32)},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            build(tensors)
    with pytest.raises((TypeError, ValueError)):
        build({**good, stem: good[stem].astype(np.float64)})
    for threads in (0, -1):
        with pytest.raises((TypeError, ValueError)):
            build(good, threads=threads)
    with pytest.raises(TypeError):
        build(good, threads="2")


class FakeCore:
    """Stands in for the core: it fails as it is told to."""

    threads = 1
    fails_to_build: Exception | None = None
    failure: Exception | None = None

    def __init__(
        self, tensors: Any, anchors: Any, variances: Any, mean_bgr: Any, *slopes_and_threads: float
    ) -> None:
        assert isinstance(anchors, _core.AnchorPyramid)
        assert slopes_and_threads[:2] == (0.1, 0.1)
        assert (variances, mean_bgr) == ((0.1, 0.2), (104.0, 117.0, 123.0))
        assert len(tensors) == 112
        if self.fails_to_build is not None:
            raise self.fails_to_build

    def run(self, *_: Any) -> Any:
        raise self.failure or AssertionError

    detect = run


def test_what_the_core_refuses_is_an_error_of_the_engine(
    weights: ModelWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "NativeEngine", FakeCore)
    monkeypatch.setattr(FakeCore, "fails_to_build", ValueError("backbone.stem has 12 channels"))
    with pytest.raises(
        EngineError, match=r"cannot run the network 'mobilenet0\.25': backbone\.stem has 12 channels; use"
    ):
        create_engine("native", weights)
    pytest.importorskip("torch")
    assert create_engine("auto", weights, device="cpu").name == "torch"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (MemoryError(), "out of memory; a smaller picture or max_side needs less$"),
        (MemoryError("std::bad_alloc"), "out of memory; a smaller picture or max_side needs less$"),
        (RuntimeError("no thread could be started"), "no thread could be started$"),
        (RuntimeError(), "RuntimeError$"),
    ],
)
def test_what_fails_in_the_core_is_an_error_of_the_engine(
    failure: Exception, reason: str, weights: ModelWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "NativeEngine", FakeCore)
    monkeypatch.setattr(FakeCore, "failure", failure)
    detector = FaceDetector(weights=weights, engine="native")
    with pytest.raises(EngineError, match=rf"'native' failed on pixels of shape \(9, 8, 3\): {reason}"):
        detector.detect(np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(EngineError, match=rf"failed on pixels of shape \(2, 9, 8, 3\): {reason}"):
        create_engine("native", weights).run(np.zeros((2, 9, 8, 3), np.uint8), color="bgr")


def test_the_object(engine: NativeEngine) -> None:
    assert (engine.name, engine.device, engine.threads) == ("native", "cpu", 2)
    assert repr(engine) == "NativeEngine('mobilenet0.25', threads=2)"
    with pytest.raises(AttributeError):
        engine.threads = 3  # type: ignore[misc]
