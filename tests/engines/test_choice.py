"""Which engine runs: by name, by "auto", and what is said where none can; and how many threads it gets."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import retinaface_fast
from retinaface_fast import EngineError, FaceDetector, MissingDependencyError, engines
from retinaface_fast.anchor_config import P2_P6, AnchorConfig
from retinaface_fast.engines import ENGINES, DetectingEngine, available_engines, create_engine
from retinaface_fast.engines.threads import default_threads
from retinaface_fast.network import CONFIGS, ContextConfig, RetinaFaceConfig
from tests.weights.published import random_weights

SMALL = CONFIGS["mobilenet0.25"]
UNSHARED = dataclasses.replace(SMALL, name="unshared", context=ContextConfig(share_first=False))
DEFORMABLE = dataclasses.replace(SMALL, name="deformable", context=ContextConfig(deformable=True))
FIVE_LEVELS = dataclasses.replace(SMALL, name="five levels", anchors=P2_P6)
TWO_LEVELS = dataclasses.replace(
    SMALL, name="two levels", anchors=AnchorConfig(strides=(16, 32), sizes=((16, 32), (64, 128)))
)
STEEP = dataclasses.replace(
    SMALL, name="steep", backbone=dataclasses.replace(SMALL.backbone, negative_slope=1.5)
)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETINAFACE_FAST_THREADS", raising=False)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let engines seem not to be installed."""
    real = engines._installed_version
    monkeypatch.setattr(engines, "_installed_version", lambda name: None if name in names else real(name))
    for name in names:
        for module in [m for m in sys.modules if m.startswith(f"retinaface_fast.engines.{name}_engine")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)


# The names


def test_names() -> None:
    assert ENGINES == ("native", "torch", "onnxruntime")
    assert list(available_engines()) == list(ENGINES)
    assert available_engines()["native"] == retinaface_fast.__version__
    with pytest.raises(
        ValueError, match="name: expected one of auto, native, torch, onnxruntime, got 'tensorrt'"
    ):
        create_engine("tensorrt", random_weights(SMALL))


@pytest.mark.parametrize("name", ["auto", *ENGINES])
def test_weights_are_loaded_first(name: str) -> None:
    with pytest.raises(TypeError, match=r"weights must be a ModelWeights, .*load_weights.*, got str 'mobile"):
        create_engine(name, "mobilenet0.25")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "detects"), [("native", True), ("torch", True), ("onnxruntime", False)])
def test_which_engines_detect_by_themselves(name: str, detects: bool) -> None:
    pytest.importorskip("retinaface_fast" if name == "native" else name)
    assert isinstance(create_engine(name, random_weights(SMALL)), DetectingEngine) == detects


# "auto"


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("name", ["mobilenet0.25", "mobilenet0.5", "mobilenet1.0"])
def test_auto_is_native_where_the_model_and_the_device_allow(name: str, device: str | None) -> None:
    engine = create_engine("auto", random_weights(CONFIGS[name]), device=device, threads=2)
    assert (engine.name, engine.device) == ("native", "cpu")


@pytest.mark.parametrize(
    "config", [CONFIGS["resnet18"], UNSHARED, FIVE_LEVELS, STEEP], ids=lambda config: config.name
)
def test_auto_goes_on_to_what_is_installed(config: RetinaFaceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    weights = random_weights(config)
    assert create_engine("auto", weights, device="cpu").name == "torch"
    # torch cannot do what is asked for, onnxruntime can.
    engine: Any = create_engine("auto", weights, device="cpu", threads=1)
    assert (engine.name, engine.threads) == ("onnxruntime", 1)
    hide(monkeypatch, "torch")
    assert create_engine("auto", weights, device="cpu").name == "onnxruntime"


def test_the_result_says_which_engine_ran() -> None:
    pytest.importorskip("torch")
    image = np.zeros((33, 40, 3), np.uint8)
    for config, name in ((SMALL, "native"), (CONFIGS["resnet18"], "torch")):
        detector = FaceDetector(weights=random_weights(config))
        assert detector.engine == detector.detect(image).engine == name


def test_auto_says_what_could_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch", "onnxruntime")
    for options, reason in (
        ({}, "it has a ResNet and only a MobileNetV1 is built in"),
        ({"device": "cuda"}, "runs on the CPU and not on 'cuda'"),
    ):
        with pytest.raises(EngineError) as caught:
            create_engine("auto", random_weights(CONFIGS["resnet18"]), **options)
        message = str(caught.value)
        assert message.startswith("no engine can run the network 'resnet18': the engine 'native'")
        for part in (reason, '"retinaface-fast[torch]"', '"retinaface-fast[onnxruntime]"'):
            assert part in message


def test_auto_says_why_torch_was_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    hide(monkeypatch, "onnxruntime")
    with pytest.raises(EngineError, match=r"threads were given and the engine 'torch' .*set_num_threads"):
        create_engine("auto", random_weights(CONFIGS["resnet18"]), threads=2)


def test_auto_leaves_cuda_to_the_others() -> None:
    torch = pytest.importorskip("torch")
    weights = random_weights(SMALL)
    if torch.cuda.is_available():
        assert create_engine("auto", weights, device="cuda").name == "torch"
    else:  # never the CPU in its place
        with pytest.raises(EngineError, match="device 'cuda' was asked for, but this torch"):
            create_engine("auto", weights, device="cuda")


# What was asked for and cannot be had


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CONFIGS["resnet18"], "it has a ResNet .*; use 'torch' or 'onnxruntime'"),
        (CONFIGS["resnet50"], "it has a ResNet .*; use 'torch' or 'onnxruntime'"),
        (FIVE_LEVELS, "it has the levels P2, P3, P4, P5, P6 .*; use 'torch' or 'onnxruntime'"),
        (TWO_LEVELS, "it has the levels P4, P5 and only P3, P4, P5 are"),
        (DEFORMABLE, "it has deformable convolutions; use 'torch' or 'onnxruntime'$"),
        (UNSHARED, "do not share their first convolution; use 'torch' or 'onnxruntime'"),
        (STEEP, "its rectifiers have a slope of 1.5, above 1; use 'torch' or 'onnxruntime'"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_networks_that_native_does_not_run(config: RetinaFaceConfig, reason: str) -> None:
    with pytest.raises(
        EngineError, match=f"^the engine 'native' cannot run the network '{config.name}': .*{reason}"
    ):
        create_engine("native", random_weights(config))


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_native_runs_on_the_cpu_alone(device: str) -> None:
    with pytest.raises(EngineError, match=f"'native' runs on the CPU and not on '{device}'"):
        create_engine("native", random_weights(SMALL), device=device)


def test_absent_devices_are_errors_and_not_replaced() -> None:
    torch = pytest.importorskip("torch")
    weights = random_weights(SMALL)
    if not torch.cuda.is_available():
        for device in ("cuda", "cuda:0"):
            with pytest.raises(EngineError, match=rf"device '{device}' was asked for, but this torch"):
                create_engine("torch", weights, device=device)
    if not torch.backends.mps.is_available():
        with pytest.raises(EngineError, match="finds no Metal device"):
            create_engine("torch", weights, device="mps")
    onnxruntime = pytest.importorskip("onnxruntime")
    with pytest.raises(EngineError, match="does not run on 'mps'"):
        create_engine("onnxruntime", weights, device="mps")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EngineError, match="has no CUDA support; onnxruntime-gpu has"):
            create_engine("onnxruntime", weights, device="cuda")


@pytest.mark.parametrize(
    ("engine", "module"), [("torch", "torch"), ("onnxruntime", "onnxruntime"), ("onnxruntime", "onnx")]
)
def test_a_missing_extra_names_itself(engine: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [
        name
        for name in sys.modules
        if name.startswith(("retinaface_fast.engines.onnx", "retinaface_fast.engines.torch"))
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingDependencyError, match=rf"{module} is needed .*retinaface-fast\[{engine}\]"
    ) as caught:
        create_engine(engine, random_weights(SMALL))
    assert caught.value.extra == engine


def test_a_torch_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "retinaface_fast.engines.torch_engine", raising=False)
    real = importlib.import_module("builtins").__import__

    def broken(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "torch":
            raise ImportError("libcudart.so.12: cannot open shared object file")
        return real(name, *arguments, **options)

    monkeypatch.setattr("builtins.__import__", broken)
    with pytest.raises(EngineError, match=r"cannot be imported: libcudart\.so\.12"):
        create_engine("torch", random_weights(SMALL))


# Threads


def test_threads_by_argument_variable_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(SMALL)

    def threads(name: str, **options: Any) -> int | None:
        engine: Any = create_engine(name, weights, device="cpu", **options)
        count: int | None = engine.threads
        return count

    assert threads("native") == default_threads()
    assert threads("native", threads=3) == 3
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "2")
    assert threads("native") == 2
    assert threads("native", threads=3) == 3
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "")
    assert threads("native") == default_threads()
    pytest.importorskip("onnxruntime")
    assert threads("onnxruntime") is None
    assert threads("onnxruntime", threads=3) == 3
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "2")
    assert threads("onnxruntime") == 2


def test_the_default_is_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, expected in ((1, 1), (6, 6), (8, 8), (96, 8)):
        monkeypatch.setattr("retinaface_fast._core.available_processors", lambda: processors)  # noqa: B023
        assert default_threads() == expected


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="no affinity masks here")
def test_the_default_minds_the_affinity_of_the_process() -> None:
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from retinaface_fast import FaceDetector
        assert FaceDetector().threads == 1
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", ["0", "-1", "1025", "two", "2.0", "1e1", "٢", "9" * 5000, "2;3"])
@pytest.mark.parametrize("name", ["native", "auto", "onnxruntime"])
def test_a_variable_that_makes_no_sense(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", text)
    with pytest.raises(ValueError, match=r"^RETINAFACE_FAST_THREADS must be a whole number from 1 to 1024"):
        create_engine(name, random_weights(SMALL))
    create_engine(name, random_weights(SMALL), threads=1)  # an argument goes before it


def test_torch_takes_no_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    weights = random_weights(SMALL)
    with pytest.raises(ValueError, match=r"^threads must be None, got 2: .*torch\.set_num_threads"):
        create_engine("torch", weights, threads=2)
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "2")
    create_engine("torch", weights)


# Nothing but the core


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

blocked = {"torch", "torchvision", "onnx", "onnxruntime", "cv2", "PIL", "filelock", "platformdirs", "typer",
           "rich", "supervision", "skimage", "matplotlib"}
sys.meta_path.insert(0, Block())
import numpy as np
import retinaface_fast
image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
result = retinaface_fast.detect(image, score_threshold=0.0, top_k=50)
assert result.engine == "native" and len(result), result
detector = retinaface_fast.FaceDetector(score_threshold=0.0, top_k=50)
assert detector.detect_batch([image, image[:, :, 0]])[0] == result
print(" ".join(sorted(sys.modules)))
"""


def test_a_detection_needs_numpy_and_safetensors_alone() -> None:
    """Whatever else is installed: nothing of it is imported, and neither is what only a download needs."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "torch" not in loaded
    assert loaded.isdisjoint({"urllib.request", "http.client", "ssl", "email", "sqlite3"})
    assert not [name for name in loaded if name.startswith(("retinaface_fast.cli", "retinaface_fast.draw"))]


# Failures


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory; a smaller picture or max_side needs less"),
        (MemoryError("std::bad_alloc"), "out of memory; a smaller picture or max_side needs less"),
        (
            RuntimeError("[enforce fail] not enough memory"),
            "out of memory; a smaller picture or max_side needs less ([enforce fail] not enough memory)",
        ),
        (RuntimeError("no such kernel"), "no such kernel"),
    ],
)
@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_what_fails_in_a_run_is_an_error_of_the_engine(
    name: str, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    engine: Any = create_engine(name, random_weights(SMALL), device="cpu")

    class Broken:
        def __call__(self, *_arguments: Any) -> Any:
            raise error

        run = __call__

    monkeypatch.setitem(engine._networks if name == "torch" else engine._sessions, "bgr", Broken())
    with pytest.raises(EngineError) as caught:
        engine.run(np.zeros((1, 9, 8, 3), np.uint8), color="bgr")
    assert str(caught.value) == f"the engine '{name}' failed on pixels of shape (1, 9, 8, 3): {reason}"
    assert caught.value.__cause__ is error
