"""The engine `torch`: the PyTorch network, arranged for inference.

On the CPU every convolution goes to oneDNN. Left to itself, torch sends small ones of single images
elsewhere, so that an image in a batch gets other last bits than alone: in 25 of 25 random batches, and in
none with oneDNN for all. MobileNet-0.25 on one thread of an EPYC core, torch 2.13, best time of interleaved
runs in ms:

    image       left to torch   oneDNN for all
    160x120               8.0             10.6
    640x480              34.9             34.5
    1280x720             92.9             96.9

The channels come last in memory: at 640x480 the network alone takes 36.6 ms, and 60.1 with
planes of channels.

On a CUDA device the raw outputs stay where they are and become faces there: by the CUDA kernels of this
package if it was built with them for that device, and if not by operations of torch. Elsewhere, and for
whoever asks for the raw outputs, they come to the host. From the same outputs the faces are the same, bit for
bit, except that one NaN is like another.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from retinaface_fast import ops
from retinaface_fast.errors import EngineError
from retinaface_fast.network.retinaface import NetworkOutputs, RetinaFace

from .base import RawOutputs, check_image, check_images, check_precision, failure
from .torch_device import choose_postprocessing, current, find_device
from .torch_postprocess import postprocess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinaface_fast._typing import ColorOrder, UInt8Array
    from retinaface_fast.weights import ModelWeights

    from .base import Precision
    from .torch_device import Postprocessing

__all__ = ["TorchEngine"]

_LOGGER = logging.getLogger(__name__)

_ModuleT = TypeVar("_ModuleT", bound=torch.nn.Module)


class TorchEngine:
    """Runs `RetinaFace` with batch norm folded in, in channels-last memory, without autograd.

    Args:
        weights: What to run.
        device: "cpu", "cuda", "cuda:N" or "mps"; None takes a CUDA device if there is one, and the CPU if
            not.
        precision: "float32", or "float16" on a CUDA device: the weights and activations of the network have
            half the bits, what comes before and after it has not. None for "float32", where it is torch that
            decides whether convolutions on a CUDA device may round to TF32.

    Raises:
        TypeError: If the precision is not a string.
        ValueError: If the device or the precision is of another kind.
        EngineError: If the device is not there, or does not do the precision.
        MissingDependencyError: If the network needs deformable convolutions and torchvision is not installed.
    """

    name = "torch"

    def __init__(
        self, weights: ModelWeights, *, device: str | None = None, precision: str | None = None
    ) -> None:
        self._precision = check_precision(precision)
        self._device = find_device(device)
        if self._precision == "float16" and not _does_float16(self._device):
            raise EngineError(
                "precision 'float16' was asked for, which the engine 'torch' does on a CUDA device and not "
                f"on {self.device!r}; give device='cuda'"
            )
        self._postprocessing, reason = choose_postprocessing(self._device, weights.config.anchors)
        if reason is not None:
            _LOGGER.info("operations of torch make the faces on %s: %s", self.device, reason)
        self._config = weights.config
        self._means = {
            "bgr": np.array(weights.config.mean_bgr, dtype=np.float32),
            "rgb": np.array(weights.config.mean_bgr[::-1], dtype=np.float32),
        }
        self._device_means = {
            color: torch.tensor(mean, device=self._device) for color, mean in self._means.items()
        }
        with torch.device("meta"):  # nothing is allocated or initialised only to be replaced
            network = RetinaFace(weights.config, folded=True)
        tensors = {
            # A copy, because the weights stay read-only.
            name: torch.tensor(array, device=self._device)
            for name, array in weights.tensors.items()
        }
        network.load_state_dict(tensors, assign=True)
        network.eval().requires_grad_(requires_grad=False)
        if self._precision == "float16":
            network.half()
        elif self._device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            for module in network.modules():
                if type(module) is torch.nn.Conv2d:
                    module.__class__ = _OneDnnConv2d
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._networks = {"bgr": network}
        self._settle()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def device(self) -> str:
        """Where the network runs, such as "cpu" or "cuda:0"."""
        return str(self._device)

    @property
    def precision(self) -> Precision:
        """What the network computes in."""
        return self._precision

    @property
    def postprocessing(self) -> Postprocessing:
        """What makes faces of raw outputs: "cuda" kernels, "torch" on the device, or "native" on the host."""
        return self._postprocessing

    def __repr__(self) -> str:
        precision = "" if self._precision == "float32" else f", precision={self._precision!r}"
        return f"TorchEngine({self._config.name!r}, device={self.device!r}{precision})"

    def run(self, images: UInt8Array, *, color: ColorOrder) -> RawOutputs:
        """See `Engine.run`."""
        check_images(images, color)
        try:
            with self._modes():
                outputs = self._outputs(images, color)
                # Views of the tensors on the CPU; `reshape` in the network has made them contiguous.
                class_scores, box_deltas, landmark_deltas = (
                    tuple(level.cpu().numpy() for level in levels) for levels in outputs
                )
        except (RuntimeError, MemoryError) as error:
            raise failure(self.name, images, error) from error
        return RawOutputs(class_scores, box_deltas, landmark_deltas, scores_are="logits")

    def detect(
        self,
        image: UInt8Array,
        *,
        color: ColorOrder,
        score_threshold: float,
        nms_threshold: float,
        top_k: int | None,
        keep_top_k: int | None,
    ) -> tuple[ops.Faces, float]:
        """See `DetectingEngine.detect`."""
        check_image(image, color)
        [faces], seconds = self._detect(
            image[None],
            color,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
        )
        return faces, seconds

    def detect_batch(
        self,
        images: UInt8Array,
        *,
        color: ColorOrder = "bgr",
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        top_k: int | None = 5000,
        keep_top_k: int | None = 750,
    ) -> list[ops.Faces]:
        """Find the faces of images of one size, in one run of the network.

        Args:
            images: (B, H, W, 3) uint8, any strides, B, H and W >= 1. Not kept and not written to.
            color: Channel order of the images.
            score_threshold: Within [0, 1]; a face has score > score_threshold.
            nms_threshold: Within [0, 1]; an IoU > nms_threshold suppresses.
            top_k: Candidates of one image that enter suppression; all if None.
            keep_top_k: Faces of one image that are returned; all if None.

        Returns:
            The faces of each image, in its pixels and not clipped to it.

        Raises:
            TypeError: If the images are not a uint8 array or a number is not one.
            ValueError: If their shape or the color order is another one, or a number is out of range.
            EngineError: If the engine fails.
        """
        check_images(images, color)
        faces, _ = self._detect(
            images,
            color,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
        )
        return faces

    def _detect(self, images: UInt8Array, color: ColorOrder, **options: Any) -> tuple[list[ops.Faces], float]:
        """The faces of a batch, and how many seconds the network took."""
        try:
            with self._modes():
                started, begin = time.perf_counter(), self._event()
                outputs = self._outputs(images, color)
                if self._postprocessing == "native":  # before the clock is read: what is copied is there
                    outputs = NetworkOutputs(*(tuple(level.cpu() for level in levels) for levels in outputs))
                end, seconds = self._event(), time.perf_counter() - started
                faces = self._faces(outputs, images.shape[1:3], options)
        except (RuntimeError, MemoryError) as error:
            raise failure(self.name, images, error) from error
        if begin is not None and end is not None:
            seconds = begin.elapsed_time(end) * 1e-3  # both have passed: the faces came after them
        return faces, seconds

    def _faces(
        self, outputs: NetworkOutputs, size_hw: tuple[int, int], options: dict[str, Any]
    ) -> list[ops.Faces]:
        anchors, variances = self._config.anchors, self._config.variances
        if self._postprocessing == "cuda":
            from retinaface_fast.ops import cuda

            options = {**options, "config": anchors, "variances": variances, "stream": self._stream()}
            try:
                faces = cuda.postprocess(*outputs, size_hw, **options)
            except MemoryError:
                # torch keeps what it has freed, and the kernels take their memory from a pool of their own.
                torch.cuda.empty_cache()
                faces = cuda.postprocess(*outputs, size_hw, **options)
            return faces.to_host()
        if self._postprocessing == "torch":
            return postprocess(*outputs, size_hw, config=anchors, variances=variances, **options)
        scores, boxes, landmarks = (tuple(level.numpy() for level in levels) for levels in outputs)
        return ops.postprocess(
            scores, boxes, landmarks, size_hw, config=anchors, variances=variances, **options
        )

    @contextlib.contextmanager
    def _modes(self) -> Iterator[None]:
        """No autograd, none of the casts that the caller may have switched on for work of their own."""
        with contextlib.ExitStack() as modes:
            modes.enter_context(current(self._device))
            modes.enter_context(torch.inference_mode())
            if _has_autocast(self._device.type):
                modes.enter_context(torch.autocast(self._device.type, enabled=False))
            yield

    def _settle(self) -> None:
        """Wait for weights that were made on the stream of this thread: others may use them on theirs."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _stream(self) -> int:
        """The stream of this thread on the device, as CUDA knows it."""
        return torch.cuda.current_stream(self._device).cuda_stream

    def _event(self) -> torch.cuda.Event | None:
        """A mark of the time on the stream; None where there is none."""
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _outputs(self, images: UInt8Array, color: ColorOrder) -> NetworkOutputs:
        """The raw outputs in float32, on the device."""
        if os.getpid() != self._pid:
            # A forked child has the parent's OpenMP pool without its threads and would wait for ever.
            torch.set_num_threads(1)
            self._pid = os.getpid()
        pixels = self._input(images, color)
        if self._precision == "float16":
            pixels = pixels.half()
        outputs: NetworkOutputs = self._network(color)(pixels)
        if self._precision == "float16":
            outputs = NetworkOutputs(*(tuple(level.float() for level in levels) for levels in outputs))
        return outputs

    def _input(self, images: UInt8Array, color: ColorOrder) -> torch.Tensor:
        if self._device.type != "cpu":
            return _upload(images, self._device_means[color]).permute(0, 3, 1, 2)
        batch, height, width, _ = images.shape
        # Rows of W * 3 values: a mean broadcast over an innermost axis of 3 is not vectorised, which costs
        # 2.5 instead of 0.4 ms at 640x480. NumPy takes one pass where torch takes two, and any strides.
        rows = images.reshape(batch, height, width * 3)
        mean = np.tile(self._means[color], width)
        pixels = torch.from_numpy(np.subtract(rows, mean, dtype=np.float32))
        return pixels.view(batch, height, width, 3).permute(0, 3, 1, 2)

    def _network(self, color: ColorOrder) -> RetinaFace:
        """The network for a channel order; RGB costs a first convolution of its own, no copy of an image."""
        network = self._networks.get(color)
        if network is not None:
            return network
        with self._lock:
            if color not in self._networks:
                bgr = self._networks["bgr"]
                stem = copy.deepcopy(bgr.backbone.stem)
                stem.conv.weight.data = stem.conv.weight.flip(1).contiguous(memory_format=torch.channels_last)
                network = _shallow_copy(bgr)
                network.backbone = _shallow_copy(bgr.backbone)
                network.backbone.stem = stem
                self._settle()
                self._networks[color] = network
            return self._networks[color]


def _upload(images: UInt8Array, mean: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) float32: the images less the mean (3,), on the device of the mean."""
    # The bytes go, a quarter of the floats. torch warns where NumPy says read-only.
    pixels = torch.from_numpy(np.require(images, requirements=("C", "W")))
    return pixels.to(mean.device).to(torch.float32).sub_(mean)


class _OneDnnConv2d(torch.nn.Conv2d):
    """A convolution that always runs in oneDNN."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.mkldnn_convolution(
            features,
            self.weight,
            self.bias,
            self.padding,  # type: ignore[arg-type]  # numbers here, never "same"
            self.stride,
            self.dilation,
            self.groups,
        )


def _does_float16(device: torch.device) -> bool:
    """Whether half the bits are worth anything: on the CPU they take many times as long."""
    return device.type == "cuda"


def _has_autocast(kind: str) -> bool:
    """Whether torch can cast by itself on a kind of device; on Metal it cannot before 2.5."""
    available = getattr(torch.amp, "is_autocast_available", None)  # since torch 2.4
    return kind != "mps" if available is None else bool(available(kind))


def _shallow_copy(module: _ModuleT) -> _ModuleT:
    """A module that shares everything with the original but can be given other children."""
    clone = copy.copy(module)
    clone._modules = module._modules.copy()
    return clone
