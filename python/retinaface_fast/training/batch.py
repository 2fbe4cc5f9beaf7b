"""What a training step works on: pictures and the targets of their anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from retinaface_fast._typing import FloatArray, IntArray, UInt8Array

__all__ = ["Batch", "BatchTargets", "Sample", "Targets"]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the anchors of one picture should say.

    Attributes:
        labels: (A,) int8 for every anchor: 1 face, 0 background, -1 neither.
        positives: (P,) int64, the anchors with label 1, ascending.
        box_deltas: (P, 4) float32, relative to the anchor and divided by the variances.
        landmark_deltas: (P, 10) float32 likewise; 0 where a landmark is unknown.
        landmark_mask: (P, 5) bool, which landmarks are known.
    """

    labels: npt.NDArray[np.int8]
    positives: IntArray
    box_deltas: FloatArray
    landmark_deltas: FloatArray
    landmark_mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One training picture.

    Attributes:
        image: (side, side, 3) uint8, BGR.
        targets: What its anchors should say.
        load_seconds: What reading and augmenting it took.
        assign_seconds: What making its targets took.
        faults: What was wrong with the data, such as a picture that cannot be decoded and was replaced by
            another; each begins with `file:line:` where it can.
    """

    image: UInt8Array
    targets: Targets
    load_seconds: float = 0.0
    assign_seconds: float = 0.0
    faults: tuple[str, ...] = ()


class BatchTargets(NamedTuple):
    """Targets of a batch; `positives` counts through the anchors of all pictures, row by row of `labels`.

    Attributes:
        labels: (B, A) int8: 1 face, 0 background, -1 neither.
        positives: (P,) int64 into the flattened labels, ascending.
        box_deltas: (P, 4) float32.
        landmark_deltas: (P, 10) float32.
        landmark_mask: (P, 5) bool.
    """

    labels: torch.Tensor
    positives: torch.Tensor
    box_deltas: torch.Tensor
    landmark_deltas: torch.Tensor
    landmark_mask: torch.Tensor


class Batch(NamedTuple):
    """A batch as the loader hands it over.

    Attributes:
        images: (B, side, side, 3) uint8, BGR.
        targets: What their anchors should say.
        load_seconds: What reading and augmenting the pictures took, added up over the workers.
        assign_seconds: What making the targets took, likewise.
        faults: What was wrong with the data.
    """

    images: torch.Tensor
    targets: BatchTargets
    load_seconds: float
    assign_seconds: float
    faults: tuple[str, ...]
