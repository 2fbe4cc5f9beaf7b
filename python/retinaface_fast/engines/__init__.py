"""Engines: uint8 images in, raw outputs per pyramid level out; chosen by name.

Nothing here imports torch or onnxruntime until an engine is made that runs on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_fast.errors import EngineError, MissingDependencyError
from retinaface_fast.weights import ModelWeights

from .base import DetectingEngine, Engine, RawOutputs, check_precision, split_device
from .onnx_export import ExportCheck, export_onnx
from .threads import check_threads, threads_from_environment

if TYPE_CHECKING:
    from .base import Precision

__all__ = [
    "ENGINES",
    "DetectingEngine",
    "Engine",
    "ExportCheck",
    "RawOutputs",
    "available_engines",
    "create_engine",
    "export_onnx",
]

#: Names that `create_engine` takes beside "auto", in the order in which "auto" prefers them.
ENGINES = ("native", "torch", "onnxruntime")

# onnxruntime is published under several names, one per set of accelerators.
_DISTRIBUTIONS = {
    "native": ("retinaface-fast",),
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
}

_TORCH_TAKES_NO_THREADS = (
    "the engine 'torch' takes no number of its own: torch.set_num_threads sets it for the whole process"
)
_FLOAT32_ALONE = "computes in float32 and not in 'float16', which the engine 'torch' does on a CUDA device"


def available_engines() -> dict[str, str | None]:
    """The engines and the versions of what they run on, without importing any of it.

    Returns:
        Version by name of the engine, in the order in which "auto" prefers them; None if it is not installed.
        `native` is a part of this package and always there: every CPU can run it.

    Example:
        >>> list(available_engines())
        ['native', 'torch', 'onnxruntime']
    """
    return {name: _installed_version(name) for name in ENGINES}


def create_engine(
    name: str,
    weights: ModelWeights,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> Engine:
    """Make an engine.

    Args:
        name: "native", "torch", "onnxruntime", or "auto" for the first of them that is installed and can run
            this network on this device, with `threads` and `precision` where they are given. What is asked
            for by name is never replaced by another.
        weights: What it shall run.
        device: "cpu", "cuda", "cuda:N" or "mps"; None leaves it to the engine: the CPU for `native`, and for
            the others a CUDA device if they can use one, and the CPU if not. The attribute `device` of the
            engine says which it is.
        threads: Most threads of one call, within [1, 1024]. None stands for the environment variable
            `RETINAFACE_FAST_THREADS`, and where that is not set for the engine's own choice: `native` takes
            the processors that the process may use, 8 at most. torch counts its threads for the whole
            process, so that the engine `torch` takes no number and ignores the variable.
        precision: What the network computes in: "float32", or "float16", which `torch` does on a CUDA device.
            None for "float32".

    Raises:
        TypeError: If `weights` is not a ModelWeights, `threads` not an integer or `precision` not a string.
        ValueError: If the name, the kind of device or the precision is unknown, the number of threads is out
            of range, or the engine takes none.
        MissingDependencyError: If the engine is an extra that is not installed.
        EngineError: If the engine or device cannot be had, or the engine cannot run the network or does not
            do the precision.
    """
    if not isinstance(weights, ModelWeights):
        raise TypeError(
            "weights must be a ModelWeights, as retinaface_fast.weights.load_weights gives it, "
            f"got {type(weights).__name__} {weights!r:.200}"
        )
    threads = check_threads(threads)
    precision = check_precision(precision)
    if device is not None:
        split_device(device)
    if name == "auto":
        return _first_engine(weights, device, threads, precision)
    if name in ("native", "onnxruntime") and precision != "float32":
        raise EngineError(f"the engine {name!r} {_FLOAT32_ALONE}")
    if name == "native":
        from .native_engine import NativeEngine

        return NativeEngine(weights, device=device, threads=threads)
    if name == "torch":
        return _torch_engine(weights, device, threads, precision)
    if name == "onnxruntime":
        return _onnxruntime_engine(weights, device, threads)
    raise ValueError(f"name: expected one of auto, {', '.join(ENGINES)}, got {name!r}")


def _first_engine(
    weights: ModelWeights, device: str | None, threads: int | None, precision: Precision
) -> Engine:
    """The engine that "auto" stands for."""
    try:
        return create_engine("native", weights, device=device, threads=threads, precision=precision)
    except EngineError as error:
        refusals = [str(error)]
    for name in ENGINES[1:]:
        if _installed_version(name) is None:
            refusals.append(f'{name} is not installed (pip install "retinaface-fast[{name}]")')
        elif name == "torch" and threads is not None:
            refusals.append(f"threads were given and {_TORCH_TAKES_NO_THREADS}")
        elif name == "onnxruntime" and precision != "float32":
            refusals.append(f"the engine {name!r} {_FLOAT32_ALONE}")
        else:
            return create_engine(name, weights, device=device, threads=threads, precision=precision)
    raise EngineError(f"no engine can run the network {weights.config.name!r}: {'; '.join(refusals)}")


def _torch_engine(
    weights: ModelWeights, device: str | None, threads: int | None, precision: Precision
) -> Engine:
    if threads is not None:
        raise ValueError(f"threads must be None, got {threads}: {_TORCH_TAKES_NO_THREADS}")
    try:
        from .torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("torch", extra="torch", purpose="the engine 'torch'") from error
    except ImportError as error:  # a library of the system that torch needs
        raise EngineError(f"the engine 'torch' needs torch, which cannot be imported: {error}") from error
    return TorchEngine(weights, device=device, precision=precision)


def _onnxruntime_engine(weights: ModelWeights, device: str | None, threads: int | None) -> Engine:
    try:
        from .onnxruntime_engine import OnnxRuntimeEngine
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "onnxruntime", extra="onnxruntime", purpose="the engine 'onnxruntime'"
        ) from error
    if threads is None:
        threads = threads_from_environment()
    return OnnxRuntimeEngine(weights, device=device, threads=threads)


def _installed_version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in _DISTRIBUTIONS[name]:
        try:
            return version(distribution)
        except PackageNotFoundError:  # noqa: PERF203 -- four names at most
            continue
    return None
