"""Anchors, decoding and suppression as torchvision has them, where it is installed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

STRIDES = (8, 16, 32)
SIZES = ((16, 32), (64, 128), (256, 512))
VARIANCES = (0.1, 0.2)


@functools.cache
def is_here() -> bool:
    """Whether torchvision is here and was built for the torch that is here, without which it raises."""
    try:
        nms(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), 0.5)
    except (ImportError, RuntimeError):
        return False
    return True


@functools.cache
def _anchor_generator() -> Any:
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator(SIZES, ((1.0,),) * len(SIZES))
    # Its anchors have their centres in corners of the cells; it is told once that ours lie half a stride on.
    generator.cell_anchors = [
        cell + stride / 2 for cell, stride in zip(generator.cell_anchors, STRIDES, strict=True)
    ]
    generator.strides = [[torch.tensor(stride)] * 2 for stride in STRIDES]
    return generator


def generate_anchors(image_size_hw: tuple[int, int]) -> FloatArray:
    """The same anchors by `AnchorGenerator`, as xyxy, which is what its other functions take."""
    import torch

    height, width = image_size_hw
    generator = _anchor_generator()
    grids = [[-(-height // stride), -(-width // stride)] for stride in STRIDES]
    anchors: FloatArray = torch.cat(generator.grid_anchors(grids, generator.strides)).numpy()
    return anchors


def corners(anchors: FloatArray) -> FloatArray:
    """Anchors cxcywh as xyxy."""
    halves = anchors[:, 2:] / 2
    return np.concatenate([anchors[:, :2] - halves, anchors[:, :2] + halves], axis=1)


def decode_boxes(box_deltas: FloatArray, anchors_xyxy: FloatArray) -> FloatArray:
    """Boxes by torchvision's `BoxCoder`, whose weights are our variances upside down."""
    import torch

    boxes: FloatArray = (
        _box_coder().decode_single(torch.from_numpy(box_deltas), torch.from_numpy(anchors_xyxy)).numpy()
    )
    return boxes


@functools.cache
def _box_coder() -> Any:
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder(weights=tuple(1 / VARIANCES[k] for k in (0, 0, 1, 1)))


def nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """`torchvision.ops.nms` on views of the arrays."""
    import torch
    import torchvision

    kept = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou_threshold)
    return np.asarray(kept.numpy(), dtype=np.int64)
