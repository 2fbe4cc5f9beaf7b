"""Engines: uint8 images in, raw outputs per pyramid level out; chosen by name.

Nothing here imports torch or onnxruntime until an engine is made.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from retinaface_fast.errors import EngineError, MissingDependencyError

from .base import Engine, RawOutputs

if TYPE_CHECKING:
    from retinaface_fast.weights import ModelWeights

__all__ = ["ENGINES", "Engine", "RawOutputs", "available_engines", "create_engine"]

#: Names that `create_engine` takes beside "auto", which is the first of them that is installed.
ENGINES = ("torch", "onnxruntime")

# onnxruntime is published under several names, one per set of accelerators.
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
}


def available_engines() -> dict[str, str | None]:
    """The engines and the versions of what they run on, without importing any of it.

    Returns:
        Version by name of the engine, in the order in which "auto" prefers them; None if it is not installed.

    Example:
        >>> list(available_engines())
        ['torch', 'onnxruntime']
    """
    return {name: _installed_version(name) for name in ENGINES}


def create_engine(name: str, weights: ModelWeights, *, device: str | None = None) -> Engine:
    """Make an engine.

    Args:
        name: "torch", "onnxruntime", or "auto" for the first of them that is installed. What is asked for by
            name is never replaced by another.
        weights: What it shall run.
        device: "cpu", "cuda", "cuda:N" or "mps"; None leaves it to the engine: a CUDA device if it can use
            one, and the CPU if not. The attribute `device` of the engine says which it is.

    Raises:
        ValueError: If the name or the kind of device is unknown.
        MissingDependencyError: If the engine is an extra that is not installed.
        EngineError: If the engine or device cannot be had.
    """
    if name == "auto":
        available = [known for known, found in available_engines().items() if found is not None]
        if not available:
            raise EngineError(f"no engine is installed; install one of {', '.join(ENGINES)}")
        name = available[0]
    if name == "torch":
        try:
            from .torch_engine import TorchEngine
        except ImportError as error:
            if error.name is not None and error.name.partition(".")[0] != "torch":
                raise
            raise EngineError(f"the engine 'torch' needs torch (pip install torch): {error}") from error
        return TorchEngine(weights, device=device)
    if name == "onnxruntime":
        try:
            from .onnxruntime_engine import OnnxRuntimeEngine
        except ImportError as error:
            raise MissingDependencyError(
                error.name or "onnxruntime", extra="onnxruntime", purpose="the engine 'onnxruntime'"
            ) from error
        return OnnxRuntimeEngine(weights, device=device)
    raise ValueError(f"name: expected one of auto, {', '.join(ENGINES)}, got {name!r}")


def _installed_version(name: str) -> str | None:
    for distribution in _DISTRIBUTIONS[name]:
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None
