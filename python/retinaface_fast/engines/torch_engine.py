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
"""

from __future__ import annotations

import copy
import os
import threading
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from retinaface_fast.errors import EngineError
from retinaface_fast.network.retinaface import RetinaFace

from .base import RawOutputs, check_images, failure, split_device

if TYPE_CHECKING:
    from retinaface_fast._typing import ColorOrder, UInt8Array
    from retinaface_fast.weights import ModelWeights

__all__ = ["TorchEngine"]

_ModuleT = TypeVar("_ModuleT", bound=torch.nn.Module)


class TorchEngine:
    """Runs `RetinaFace` with batch norm folded in, in channels-last memory, without autograd.

    Args:
        weights: What to run.
        device: "cpu", "cuda", "cuda:N" or "mps"; None takes a CUDA device if there is one, and the CPU if
            not.

    Raises:
        ValueError: If the device is of another kind.
        EngineError: If the device is not there.
        MissingDependencyError: If the network needs deformable convolutions and torchvision is not installed.
    """

    name = "torch"

    def __init__(self, weights: ModelWeights, *, device: str | None = None) -> None:
        self._device = find_device(device)
        self._config = weights.config
        self._means = {
            "bgr": np.array(weights.config.mean_bgr, dtype=np.float32),
            "rgb": np.array(weights.config.mean_bgr[::-1], dtype=np.float32),
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
        if self._device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            for module in network.modules():
                if type(module) is torch.nn.Conv2d:
                    module.__class__ = _OneDnnConv2d
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._networks = {"bgr": network}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def device(self) -> str:
        """Where the network runs, such as "cpu" or "cuda:0"."""
        return str(self._device)

    def __repr__(self) -> str:
        return f"TorchEngine({self._config.name!r}, device={self.device!r})"

    def run(self, images: UInt8Array, *, color: ColorOrder) -> RawOutputs:
        """See `Engine.run`."""
        check_images(images, color)
        if os.getpid() != self._pid:
            # A forked child has the parent's OpenMP pool without its threads and would wait for ever.
            torch.set_num_threads(1)
            self._pid = os.getpid()
        network = self._network(color)
        try:
            with torch.inference_mode():
                outputs = network(self._input(images, color))
                # Views of the tensors on the CPU; `reshape` in the network has made them contiguous.
                class_scores, box_deltas, landmark_deltas = (
                    tuple(level.cpu().numpy() for level in levels) for levels in outputs
                )
        except (RuntimeError, MemoryError) as error:
            raise failure(self.name, images, error) from error
        return RawOutputs(class_scores, box_deltas, landmark_deltas, scores_are="logits")

    def _input(self, images: UInt8Array, color: ColorOrder) -> torch.Tensor:
        batch, height, width, _ = images.shape
        # Rows of W * 3 values: a mean broadcast over an innermost axis of 3 is not vectorised, which costs
        # 2.5 instead of 0.4 ms at 640x480. NumPy takes one pass where torch takes two, and any strides.
        rows = images.reshape(batch, height, width * 3)
        mean = np.tile(self._means[color], width)
        if self._device.type == "cpu":
            pixels = torch.from_numpy(np.subtract(rows, mean, dtype=np.float32))
        else:
            # A quarter of the bytes to move, and torch warns where NumPy says read-only.
            rows = np.require(rows, requirements=("C", "W"))
            pixels = torch.from_numpy(rows).to(self._device).to(torch.float32)
            pixels.sub_(torch.from_numpy(mean).to(self._device))
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
                self._networks[color] = network
            return self._networks[color]


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


def find_device(device: str | None) -> torch.device:
    """The torch device of a name, present for certain."""
    if device is None:
        return (
            torch.device("cuda", torch.cuda.current_device())
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    kind, index = split_device(device)
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = "has no CUDA support" if torch.version.cuda is None else "finds no CUDA device"
            raise EngineError(
                f"device {device!r} was asked for, but this torch ({torch.__version__}) {built}"
            )
        number = torch.cuda.current_device() if index is None else index
        if number >= torch.cuda.device_count():
            raise EngineError(f"device {device!r} was asked for, but there are {torch.cuda.device_count()}")
        return torch.device("cuda", number)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise EngineError("device 'mps' was asked for, but this torch finds no Metal device")
    return torch.device(kind)


def _shallow_copy(module: _ModuleT) -> _ModuleT:
    """A module that shares everything with the original but can be given other children."""
    clone = copy.copy(module)
    clone._modules = module._modules.copy()
    return clone
