"""The engine `onnxruntime`: ONNX Runtime on a graph made from the weights."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from retinaface_fast.errors import EngineError

from .base import RawOutputs, check_images, failure, split_device
from .onnx_graph import INPUT_NAME, build_onnx, output_names

if TYPE_CHECKING:
    from retinaface_fast._typing import ColorOrder, UInt8Array
    from retinaface_fast.weights import ModelWeights

__all__ = ["OnnxRuntimeEngine"]


class OnnxRuntimeEngine:
    """Runs a network with ONNX Runtime; the weights may come from a file of any format.

    Args:
        weights: What to run.
        device: "cpu", "cuda" or "cuda:N"; None takes a CUDA device if this ONNX Runtime can use one, and the
            CPU if not.
        threads: Threads that one call may use, >= 1; None leaves it to ONNX Runtime: one per core.

    Raises:
        ValueError: If the device is of another kind.
        EngineError: If the device is not there, or this ONNX Runtime has not what the network needs:
            deformable convolutions came to it late.
    """

    name = "onnxruntime"
    precision = "float32"

    def __init__(
        self, weights: ModelWeights, *, device: str | None = None, threads: int | None = None
    ) -> None:
        self._weights = weights
        self._threads = threads
        self._providers, self._device = _find_providers(device)
        self._levels = len(weights.config.levels)
        self._output_names = output_names(self._levels)
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        session = self._session("bgr")
        if session.get_providers()[0] != self._provider_name:
            if device is not None:
                raise EngineError(f"ONNX Runtime could not start on device {device!r}; its log says why")
            self._device = "cpu"

    @property
    def _provider_name(self) -> str:
        first = self._providers[0]
        return first if isinstance(first, str) else first[0]

    @property
    def device(self) -> str:
        """Where the network runs, "cpu" or "cuda:N"."""
        return self._device

    @property
    def threads(self) -> int | None:
        """Most threads of one call; None where ONNX Runtime decides."""
        return self._threads

    def __repr__(self) -> str:
        return f"OnnxRuntimeEngine({self._weights.config.name!r}, device={self.device!r})"

    def run(self, images: UInt8Array, *, color: ColorOrder) -> RawOutputs:
        """See `Engine.run`."""
        check_images(images, color)
        session = self._session(color)
        try:
            outputs = session.run(self._output_names, {INPUT_NAME: np.ascontiguousarray(images)})
        except Exception as error:  # its exceptions share no public base class
            raise failure(self.name, images, error) from error
        levels = self._levels
        return RawOutputs(
            tuple(outputs[:levels]),
            tuple(outputs[levels : 2 * levels]),
            tuple(outputs[2 * levels :]),
            scores_are="logits",
        )

    def _session(self, color: ColorOrder) -> Any:
        """The session for a channel order, made when it is first needed."""
        session = self._sessions.get(color)
        if session is not None:
            return session
        with self._lock:
            if color not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 3
                # A plan of the memory is kept for every input size that was met, without bound.
                options.enable_mem_pattern = False
                if self._threads is not None:
                    options.intra_op_num_threads = self._threads
                model = build_onnx(self._weights, color=color).SerializeToString()
                try:
                    self._sessions[color] = onnxruntime.InferenceSession(
                        model, options, providers=self._providers
                    )
                except Exception as error:  # its exceptions share no public base class
                    raise EngineError(f"ONNX Runtime cannot load the network: {error}") from error
            return self._sessions[color]


def _find_providers(device: str | None) -> tuple[list[Any], str]:
    """Execution providers for a device, and the device's full name."""
    available = onnxruntime.get_available_providers()
    if device is None:
        device = "cuda" if "CUDAExecutionProvider" in available else "cpu"
    kind, index = split_device(device)
    if kind == "cpu":
        return ["CPUExecutionProvider"], "cpu"
    if kind == "mps":
        raise EngineError("the engine 'onnxruntime' does not run on 'mps'; use the engine 'torch'")
    if "CUDAExecutionProvider" not in available:
        raise EngineError(
            f"device {device!r} was asked for, but this ONNX Runtime ({onnxruntime.__version__}) has no CUDA "
            "support; onnxruntime-gpu has"
        )
    number = index or 0
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"], f"cuda:{number}"
