"""What the engine `torch` has beside `run`: faces without the host, batches, half the precision."""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

import retinaface_fast
from retinaface_fast import EngineError, FaceDetector, ops
from retinaface_fast.anchor_config import AnchorConfig
from retinaface_fast.engines import DetectingEngine, create_engine
from retinaface_fast.network import CONFIGS
from tests.ops.agreement import assert_same_faces
from tests.ops.device_arrays import MODULE, NOT_HERE, WithInterface, cuda_on_cpu
from tests.weights.published import random_weights

torch = pytest.importorskip("torch")

from retinaface_fast.engines import torch_device, torch_engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retinaface_fast._typing import ColorOrder
    from retinaface_fast.weights import ModelWeights

UInt8Array = npt.NDArray[np.uint8]
SMALL = CONFIGS["mobilenet0.25"]
OPTIONS: dict[str, Any] = {"score_threshold": 0.3, "nms_threshold": 0.5, "top_k": 400, "keep_top_k": 90}
DEFAULTS = {"score_threshold": 0.5, "nms_threshold": 0.4, "top_k": 5000, "keep_top_k": 750}
HAS_CUDA = torch.cuda.is_available()


@pytest.fixture(scope="module")
def weights(published_weights: ModelWeights) -> ModelWeights:
    return published_weights


def make(weights: ModelWeights, postprocessing: str = "native", **options: Any) -> Any:
    engine: Any = create_engine("torch", weights, device="cpu", **options)
    assert engine.postprocessing == "native"
    engine._postprocessing = postprocessing
    return engine


def from_outputs(
    engine: Any, images: UInt8Array, color: ColorOrder = "bgr", **options: Any
) -> list[ops.Faces]:
    """The faces of the raw outputs, as the detector finds them for an engine that does no more."""
    outputs = engine.run(images, color=color)
    return ops.postprocess(
        outputs.class_scores,
        outputs.box_deltas,
        outputs.landmark_deltas,
        images.shape[1:3],
        config=SMALL.anchors,
        variances=SMALL.variances,
        **options,
    )


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("postprocessing", ["native", "torch"])
def test_the_faces_are_those_of_the_raw_outputs(
    postprocessing: str, color: ColorOrder, weights: ModelWeights, astronaut_bgr: UInt8Array
) -> None:
    engine = make(weights, postprocessing)
    assert isinstance(engine, DetectingEngine)
    for options in (OPTIONS, {**OPTIONS, "score_threshold": 0.02, "top_k": None, "keep_top_k": None}):
        [expected] = from_outputs(engine, astronaut_bgr[None], color, **options)
        faces, seconds = engine.detect(astronaut_bgr, color=color, **options)
        assert_same_faces([faces], [expected])
        assert len(faces.scores) >= 1
        assert 0 < seconds < 60


@pytest.mark.parametrize("postprocessing", ["native", "torch"])
def test_a_batch_is_its_images(postprocessing: str, weights: ModelWeights, astronaut_bgr: UInt8Array) -> None:
    engine = make(weights, postprocessing)
    images = np.stack([astronaut_bgr, np.zeros_like(astronaut_bgr), astronaut_bgr[::-1], astronaut_bgr])
    together = engine.detect_batch(images[:, 20:420:, 31:])
    alone = [engine.detect(image[20:420, 31:], color="bgr", **DEFAULTS)[0] for image in images]
    assert_same_faces(together, alone)
    assert [len(faces.scores) for faces in together][1::2] == [0, 1]


@pytest.mark.parametrize("postprocessing", ["native", "torch"])
def test_a_detector_uses_it(
    postprocessing: str, weights: ModelWeights, crowd_bgr: UInt8Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(weights, postprocessing)

    def run(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("the raw outputs are not asked for")

    monkeypatch.setattr(engine, "run", run)
    result = FaceDetector(engine=engine).detect(crowd_bgr)
    expected = FaceDetector(engine="torch", device="cpu").detect(crowd_bgr)
    assert result == expected
    assert len(result) > 3
    assert result.timings["network"] > 0 < result.timings["postprocess"]


@pytest.mark.parametrize("postprocessing", ["native", "torch"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_autocast_of_the_caller_changes_nothing(
    precision: str,
    postprocessing: str,
    weights: ModelWeights,
    astronaut_bgr: UInt8Array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With convolutions that it casts, as on a CUDA device; those of oneDNN that the CPU gets it leaves."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    allow_float16(monkeypatch)
    engine = make(weights, postprocessing, precision=precision)
    assert {type(module) for module in engine._networks["bgr"].modules()} >= {torch.nn.Conv2d}
    image = astronaut_bgr[20:220, 140:320]
    expected, _ = engine.detect(image, color="bgr", **DEFAULTS)
    outputs = engine.run(image[None], color="bgr")
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            faces, _ = engine.detect(image, color="bgr", **DEFAULTS)
            again = engine.run(image[None], color="bgr")
            assert torch.is_autocast_enabled("cpu")
        assert_same_faces([faces], [expected])
        for level, other in zip(again.class_scores, outputs.class_scores, strict=True):
            np.testing.assert_array_equal(level, other)
    assert len(expected.scores) == 1


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_what_is_uploaded_is_what_the_cpu_gets(color: ColorOrder, weights: ModelWeights) -> None:
    engine = make(weights)
    images = np.random.default_rng(5).integers(0, 256, (3, 40, 70, 3)).astype(np.uint8)
    frozen = images.copy()
    frozen.flags.writeable = False
    mean = np.array(SMALL.mean_bgr[:: 1 if color == "bgr" else -1], np.float32)
    for given in (images, images[:, ::-2, 3:, :], images[..., ::-1], frozen):
        before = given.copy()
        pixels = torch_engine._upload(given, engine._device_means[color])
        assert pixels.dtype == torch.float32
        np.testing.assert_array_equal(pixels.numpy(), given.astype(np.float32) - mean)
        np.testing.assert_array_equal(engine._input(given, color).permute(0, 2, 3, 1), pixels)
        np.testing.assert_array_equal(given, before)


def test_weights_are_there_before_another_stream_can_use_them(
    weights: ModelWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_float16(monkeypatch)
    waits = []

    def settle(engine: Any) -> None:
        for network in engine._networks.values():
            assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
            stem = network.backbone.stem.conv.weight
            assert stem.is_contiguous(memory_format=torch.channels_last)
        waits.append(sorted(engine._networks))

    monkeypatch.setattr(torch_engine.TorchEngine, "_settle", settle)
    engine = make(weights, precision="float16")
    for color in ("rgb", "rgb", "bgr"):
        engine.detect(np.zeros((8, 9, 3), np.uint8), color=color, **OPTIONS)
    assert waits == [["bgr"], ["bgr"]]  # once for each network, the second before anybody can get it


def test_what_waits_for_the_weights(weights: ModelWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Any] = []
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda device: SimpleNamespace(synchronize=lambda: waits.append(device)),
    )
    engine = make(weights)
    assert waits == []
    monkeypatch.setattr(engine, "_device", torch.device("cuda:1"))
    engine._settle()
    assert waits == [torch.device("cuda:1")]


# What makes the faces


def cuda_that_says(obstacle: str | Exception | None, **functions: Callable[..., Any]) -> Any:
    def say(_device: int) -> str | None:
        if isinstance(obstacle, Exception):
            raise obstacle
        return obstacle

    return SimpleNamespace(obstacle=say, **functions)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The devices that are the current one, innermost last."""
    devices: list[Any] = []

    @contextlib.contextmanager
    def enter(device: Any) -> Iterator[None]:
        devices.append(device)
        yield
        devices.pop()

    for module in (torch_engine, torch_device):
        monkeypatch.setattr(module, "current", enter)
    return devices


def test_how_a_device_becomes_the_current_one() -> None:
    second = torch_device.current(torch.device("cuda:1"))
    assert isinstance(second, torch.cuda.device)
    assert second.idx == 1  # type: ignore[attr-defined]
    with torch_device.current(torch.device("cpu")):
        pass


@pytest.mark.usefixtures("current")
def test_the_choice_of_the_postprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    def choice(device: str) -> str:
        chosen, reason = torch_device.choose_postprocessing(torch.device(device), SMALL.anchors)
        assert reason == ("not built" if chosen == "torch" else None)
        return chosen

    monkeypatch.setattr(ops, "cuda", cuda_that_says(None), raising=False)
    assert [choice(device) for device in ("cpu", "mps", "cuda:0", "cuda:1")] == [
        *("native", "native", "cuda", "cuda")
    ]
    monkeypatch.setattr(ops, "cuda", cuda_that_says("not built"), raising=False)
    assert [choice(device) for device in ("cpu", "cuda:0")] == ["native", "torch"]
    broken = cuda_that_says(ImportError("no libcudart"))
    monkeypatch.setattr(ops, "cuda", broken, raising=False)
    assert choice("cpu") == "native"
    with pytest.raises(EngineError, match="kernels of this package cannot be loaded: no libcudart"):
        choice("cuda:0")


def test_the_kernels_are_asked_on_their_device(current: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def obstacle(device: int) -> None:
        assert [(one.type, one.index) for one in current] == [("cuda", device)]

    monkeypatch.setattr(ops, "cuda", SimpleNamespace(obstacle=obstacle), raising=False)
    assert torch_device.choose_postprocessing(torch.device("cuda:1"), SMALL.anchors) == ("cuda", None)
    assert current == []


def test_a_detector_says_what_makes_its_faces(weights: ModelWeights) -> None:
    detector = FaceDetector()
    assert (detector.engine, detector.postprocessing) == ("native", "native")
    assert FaceDetector(engine="torch", device="cpu").postprocessing == "native"
    for postprocessing in ("cuda", "torch"):
        detector = FaceDetector(engine=make(weights, postprocessing))
        assert detector.postprocessing == postprocessing
        assert detector.replace(max_side=99).postprocessing == postprocessing
        with pytest.raises(AttributeError, match="cannot be changed"):
            detector.postprocessing = "native"  # type: ignore[misc]
    silent: Any = SimpleNamespace(name="mine", device="cpu", run=lambda images, *, color: None)
    assert FaceDetector(engine=silent).postprocessing is None


def test_the_reason_is_logged_once(
    weights: ModelWeights, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", torch_engine.__name__)
    engine = make(weights)
    assert caplog.messages == []
    monkeypatch.setattr(torch_engine, "choose_postprocessing", lambda *_: ("torch", "not built"))
    engine = create_engine("torch", weights, device="cpu")
    for _ in range(2):
        engine.detect(np.zeros((8, 9, 3), np.uint8), color="bgr", **OPTIONS)  # type: ignore[attr-defined]
    assert caplog.messages == ["operations of torch make the faces on cpu: not built"]
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.usefixtures("current")
def test_pyramids_that_the_kernels_do_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    header = Path(__file__).parents[2] / "csrc" / "include" / "retinaface" / "cuda.hpp"
    limits = dict(re.findall(r"size_t kMax(Levels|SizesPerLevel) = (\d+);", header.read_text()))
    levels, sizes = int(limits["Levels"]), int(limits["SizesPerLevel"])
    monkeypatch.setattr(ops, "cuda", cuda_that_says(None), raising=False)

    def choice(level_count: int, size_count: int) -> tuple[str, str | None]:
        strides = tuple(8 << level for level in range(level_count))
        last = tuple(16.0 + number for number in range(size_count))
        anchors = AnchorConfig(strides=strides, sizes=(*((16.0,) for _ in strides[1:]), last))
        return torch_device.choose_postprocessing(torch.device("cuda:0"), anchors)

    assert choice(levels, sizes) == ("cuda", None)
    assert choice(levels + 1, 1) == (
        "torch",
        f"the CUDA kernels take {levels} levels of anchors, not {levels + 1}",
    )
    assert choice(1, sizes + 1) == (
        "torch",
        f"the CUDA kernels take {sizes} sizes of anchors on a level, not {sizes + 1}",
    )
    monkeypatch.setattr(ops, "cuda", cuda_that_says("not built"), raising=False)
    assert choice(levels + 1, 1) == ("torch", "not built")


def test_what_the_kernels_are_given(
    weights: ModelWeights, astronaut_bgr: UInt8Array, current: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module in the place of `ops.cuda` that does on the host what that does on the device."""
    streams = []

    def kernels(
        scores: Sequence[Any],
        boxes: Sequence[Any],
        landmarks: Sequence[Any],
        size_hw: tuple[int, int],
        *,
        stream: int,
        **options: Any,
    ) -> Any:
        streams.append(stream)
        assert current == [torch.device("cpu")]
        levels = [[level.numpy() for level in output] for output in (scores, boxes, landmarks)]
        for level in (level for output in levels for level in output):
            assert level.flags.c_contiguous

        def to_host() -> list[ops.Faces]:
            assert current == [torch.device("cpu")]
            return ops.postprocess(*levels, size_hw, **options)  # type: ignore[arg-type]

        return SimpleNamespace(to_host=to_host)

    engine = make(weights, "cuda")
    expected, _ = make(weights).detect(astronaut_bgr, color="rgb", **OPTIONS)
    monkeypatch.setattr(ops, "cuda", cuda_that_says(None, postprocess=kernels), raising=False)
    monkeypatch.setattr(engine, "_stream", lambda: 77)
    faces, _ = engine.detect(astronaut_bgr, color="rgb", **OPTIONS)
    assert_same_faces([faces], [expected])
    assert streams == [77]
    assert current == []


def test_memory_that_torch_keeps_is_for_the_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fail once or for ever, and what they were given must be the same again."""
    engine = make(random_weights(SMALL), "cuda")
    image = np.zeros((9, 8, 3), np.uint8)
    found = [object()]
    order: list[Any] = []
    failures: list[Exception] = []

    def kernels(*outputs: Any, **options: Any) -> Any:
        order.append((outputs, options))
        if failures:
            raise failures.pop()
        return SimpleNamespace(to_host=lambda: found)

    monkeypatch.setattr(ops, "cuda", SimpleNamespace(postprocess=kernels), raising=False)
    monkeypatch.setattr(engine, "_stream", lambda: 5)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("emptied"))
    failures[:] = [MemoryError("out of memory on the device")]
    assert engine.detect(image, color="bgr", **OPTIONS)[0] is found[0]
    first, emptied, second = order
    assert emptied == "emptied"
    assert all(one is other for one, other in zip(first[0], second[0], strict=True))
    assert first[1] == second[1]

    order.clear()
    failures[:] = [MemoryError("out of memory on the device"), MemoryError("the first")]
    with pytest.raises(EngineError, match=r"out of memory; a smaller picture .* \(out of memory on the dev"):
        engine.detect(image, color="bgr", **OPTIONS)
    assert [what == "emptied" for what in order] == [False, True, False]

    order.clear()
    failures[:] = [RuntimeError("an illegal address")]
    with pytest.raises(EngineError, match="an illegal address"):
        engine.detect(image, color="bgr", **OPTIONS)
    assert len(order) == 1  # what is wrong otherwise is not tried again


@pytest.mark.usefixtures("current")
def test_the_kernels_make_the_faces(
    weights: ModelWeights, astronaut_bgr: UInt8Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels that run on the CPU, to which memory of the host is that of the device."""
    extension = cuda_on_cpu()
    if extension is None:
        pytest.skip(NOT_HERE)
    monkeypatch.setitem(sys.modules, MODULE, extension)
    monkeypatch.setattr(retinaface_fast, "_cuda", extension, raising=False)
    assert torch_device.choose_postprocessing(torch.device("cuda:0"), SMALL.anchors) == ("cuda", None)
    engine = make(weights, "cuda")
    run_network = engine._outputs

    def outputs(images: UInt8Array, color: ColorOrder) -> Any:
        return [[WithInterface(level.numpy()) for level in levels] for levels in run_network(images, color)]

    monkeypatch.setattr(engine, "_outputs", outputs)
    monkeypatch.setattr(engine, "_stream", lambda: 0)
    images = np.stack([astronaut_bgr, np.zeros_like(astronaut_bgr), astronaut_bgr[::-1]])
    for options in (DEFAULTS, {**DEFAULTS, "score_threshold": 0.02}):
        assert_same_faces(
            engine.detect_batch(images, **options), make(weights).detect_batch(images, **options)
        )


def test_the_time_of_the_network_is_that_of_the_device(
    weights: ModelWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks in the place of CUDA's, which may be read once the faces are there."""
    engine = make(weights, "torch")
    order: list[str] = []

    class Mark:
        def __init__(self) -> None:
            order.append("mark")

        def elapsed_time(self, other: Mark) -> float:
            order.append("read")
            return 250.0 if other is not self else 0.0

    postprocess = torch_engine.postprocess
    monkeypatch.setattr(
        torch_engine, "postprocess", lambda *a, **o: order.append("faces") or postprocess(*a, **o)
    )
    monkeypatch.setattr(engine, "_event", Mark)
    _, seconds = engine.detect(np.zeros((40, 50, 3), np.uint8), color="bgr", **OPTIONS)
    assert (seconds, order) == (0.25, ["mark", "mark", "faces", "read"])


# Arguments and failures


@pytest.mark.parametrize("postprocessing", ["native", "torch"])
def test_bad_arguments(postprocessing: str) -> None:
    engine = make(random_weights(SMALL), postprocessing)
    image = np.zeros((9, 8, 3), np.uint8)
    for given, error, message in (
        (image.astype(np.float32), TypeError, r"^image: expected a uint8 array, got float32"),
        (image[0], ValueError, r"^image: expected shape \(H, W, 3\)"),
        (image[:0], ValueError, r"^image: expected shape \(H, W, 3\) without zeros"),
    ):
        with pytest.raises(error, match=message):
            engine.detect(given, color="bgr", **OPTIONS)
    with pytest.raises(ValueError, match=r"^images: expected shape \(B, H, W, 3\)"):
        engine.detect_batch(image)
    with pytest.raises(ValueError, match="color must be"):
        engine.detect_batch(image[None], color="hsv")
    for name, value in (("score_threshold", 2.0), ("nms_threshold", -1.0), ("top_k", 0), ("keep_top_k", -1)):
        with pytest.raises(ValueError, match=f"^{name}"):
            engine.detect(image, color="bgr", **{**OPTIONS, name: value})
        with pytest.raises(ValueError, match=f"^{name}"):
            engine.detect_batch(image[None], **{name: value})


@pytest.mark.parametrize("where", ["network", "postprocessing"])
def test_what_fails_is_an_error_of_the_engine(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(random_weights(SMALL), "torch")
    error = RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise error

    if where == "network":
        monkeypatch.setitem(engine._networks, "bgr", broken)
    else:
        monkeypatch.setattr(torch_engine, "postprocess", broken)
    with pytest.raises(
        EngineError, match=r"'torch' failed on pixels of shape \(1, 9, 8, 3\): out of memory"
    ) as caught:
        engine.detect(np.zeros((9, 8, 3), np.uint8), color="bgr", **OPTIONS)
    assert caught.value.__cause__ is error


# Precision


def test_float16_is_for_cuda(weights: ModelWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("native", "onnxruntime"):
        with pytest.raises(
            EngineError, match=f"'{engine}' computes in float32 .* 'torch' does on a CUDA device"
        ):
            create_engine(engine, weights, precision="float16")
    with pytest.raises(
        EngineError, match=r"'float16' was asked for, which .* on a CUDA device and not on 'cpu'"
    ):
        create_engine("torch", weights, device="cpu", precision="float16")
    with pytest.raises(EngineError, match="on a CUDA device and not on 'cpu'"):
        create_engine("auto", weights, device="cpu", precision="float16")
    monkeypatch.setattr(
        "retinaface_fast.engines._installed_version", lambda name: None if name == "torch" else "1"
    )
    with pytest.raises(
        EngineError, match=r"retinaface-fast\[torch\].*'onnxruntime' computes in float32"
    ) as caught:
        create_engine("auto", weights, precision="float16")
    assert "'native' computes in float32" in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "error", "message"),
    [
        *((name, ValueError, "^precision: expected 'float32' or 'float16', got") for name in ("half", "")),
        (16, TypeError, "^precision must be a string, got int 16"),
        (b"float16", TypeError, "^precision must be a string, got bytes"),
    ],
)
def test_an_unknown_precision(
    precision: Any, error: type[Exception], message: str, weights: ModelWeights
) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for build in (
        lambda: create_engine("torch", weights, precision=precision),
        lambda: FaceDetector(precision=precision),
        lambda: retinaface_fast.detect(image, precision=precision),
    ):
        with pytest.raises(error, match=message):
            build()


def test_the_precision_of_a_detector(weights: ModelWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FaceDetector().precision == "float32"
    assert FaceDetector(precision="float32").engine == "native"
    with pytest.raises(EngineError, match="not on 'cpu'"):
        FaceDetector(device="cpu", precision="float16")
    with pytest.raises(ValueError, match=r"^precision must be None where engine is an object, got 'float16'"):
        FaceDetector(engine=create_engine("native", weights), precision="float16")
    with pytest.raises(TypeError, match=r"replace takes .* got precision; another .* precision needs"):
        FaceDetector().replace(precision="float16")
    allow_float16(monkeypatch)
    detector = FaceDetector(engine="torch", device="cpu", precision="float16")
    other = pickle.loads(pickle.dumps(detector.replace(max_side=99)))
    for one in (detector, detector.replace(max_side=300), other):
        assert one.precision == "float16"
        assert "device='cpu', threads=None, precision='float16', score_threshold=0.5" in repr(one)


def allow_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU does it, too, only slowly."""
    monkeypatch.setattr(torch_engine, "_does_float16", lambda _device: True)


@pytest.mark.parametrize("postprocessing", ["native", "torch"])
def test_faces_in_float16(
    postprocessing: str, weights: ModelWeights, astronaut_bgr: UInt8Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = astronaut_bgr[20:220, 140:320]
    expected, _ = make(weights).detect(image, color="bgr", **DEFAULTS)
    allow_float16(monkeypatch)
    engine = make(weights, postprocessing, precision="float16")
    assert repr(engine) == "TorchEngine('mobilenet0.25', device='cpu', precision='float16')"
    assert {parameter.dtype for parameter in engine._networks["bgr"].parameters()} == {torch.float16}
    found, _ = engine.detect(image, color="bgr", **DEFAULTS)
    assert len(found.scores) == len(expected.scores) == 1
    # In one run on a CPU, 0.04 pixels and 2e-6. They differ, or it would not have been half the bits.
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=0.15)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, rtol=0, atol=0.15)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-3)
    assert not np.array_equal(found.boxes, expected.boxes)
    swapped, _ = engine.detect(np.ascontiguousarray(image[..., ::-1]), color="rgb", **DEFAULTS)
    np.testing.assert_allclose(swapped.boxes, found.boxes, rtol=0, atol=0.15)
    outputs = engine.run(image[None], color="bgr")
    assert {level.dtype for level in outputs.class_scores} == {np.dtype(np.float32)}


# On a device


@pytest.mark.skipif(not HAS_CUDA, reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("postprocessing", ["torch", "cuda"])
def test_on_a_cuda_device(
    postprocessing: str, precision: str, weights: ModelWeights, astronaut_bgr: UInt8Array
) -> None:
    engine: Any = create_engine("torch", weights, device="cuda", precision=precision)
    if engine.postprocessing == "torch" and postprocessing == "cuda":
        pytest.skip("the CUDA kernels were not built for this device")
    engine._postprocessing = postprocessing
    images = np.stack([astronaut_bgr, astronaut_bgr[:, ::-1]])
    # A batch and its images may take other convolutions, so that each is compared with its own outputs.
    assert_same_faces(engine.detect_batch(images), from_outputs(engine, images, **DEFAULTS))
    faces, seconds = engine.detect(astronaut_bgr, color="bgr", **DEFAULTS)
    expected, _ = make(weights).detect(astronaut_bgr, color="bgr", **DEFAULTS)
    np.testing.assert_allclose(faces.boxes, expected.boxes, rtol=0, atol=1.0)
    assert 0 < seconds < 60
