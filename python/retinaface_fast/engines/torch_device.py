"""Devices of torch: whether one is there, how it becomes the current one, what makes faces on it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

import torch

from retinaface_fast.errors import EngineError

from .base import split_device

if TYPE_CHECKING:
    from retinaface_fast.anchor_config import AnchorConfig

__all__ = ["Postprocessing", "choose_postprocessing", "current", "find_device"]

Postprocessing = Literal["cuda", "torch", "native"]

#: What the kernels take: csrc/include/retinaface/cuda.hpp.
_MAX_LEVELS = 8
_MAX_SIZES_PER_LEVEL = 8


def choose_postprocessing(device: torch.device, anchors: AnchorConfig) -> tuple[Postprocessing, str | None]:
    """What makes faces of raw outputs on a device, and on a CUDA device why it is not the kernels."""
    if device.type != "cuda":
        return "native", None
    from retinaface_fast.ops import cuda

    try:
        with current(device):
            obstacle = cuda.obstacle(device.index)
    except ImportError as error:  # they were built, so that doing without them would be a surprise
        raise EngineError(f"the CUDA kernels of this package cannot be loaded: {error}") from error
    if obstacle is None and len(anchors.strides) > _MAX_LEVELS:
        obstacle = f"the CUDA kernels take {_MAX_LEVELS} levels of anchors, not {len(anchors.strides)}"
    most = max(len(sizes) for sizes in anchors.sizes)
    if obstacle is None and most > _MAX_SIZES_PER_LEVEL:
        obstacle = f"the CUDA kernels take {_MAX_SIZES_PER_LEVEL} sizes of anchors on a level, not {most}"
    return ("cuda" if obstacle is None else "torch"), obstacle


def current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make a CUDA device the current one, as the kernels do, too, for their work.

    They put back the one before, which since CUDA 12 makes a context on it; torch makes none.
    """
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


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
