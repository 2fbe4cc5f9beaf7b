"""What every engine is: uint8 pixels in, raw outputs per pyramid level out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from retinaface_fast._validation import check_color

if TYPE_CHECKING:
    from retinaface_fast._typing import ColorOrder, FloatArray, UInt8Array

__all__ = ["Engine", "RawOutputs", "check_images"]


@dataclass(frozen=True, slots=True, eq=False)
class RawOutputs:
    """Raw outputs of a network, one array per pyramid level, finest first.

    The arrays are C-contiguous and may be views of memory that the engine gave away; the engine never writes
    to them again. Anchors of a level are ordered by row, column and size, as `ops.postprocess` expects.

    Attributes:
        class_scores: Each (B, A_l, 2) float32: background, face.
        box_deltas: Each (B, A_l, 4) float32, relative to the anchors.
        landmark_deltas: Each (B, A_l, 10) float32, relative to the anchors.
        scores_are: Whether the class scores are "logits" or already "probabilities".
    """

    class_scores: tuple[FloatArray, ...]
    box_deltas: tuple[FloatArray, ...]
    landmark_deltas: tuple[FloatArray, ...]
    scores_are: Literal["logits", "probabilities"] = "logits"


@runtime_checkable
class Engine(Protocol):
    """Runs one network.

    An engine is built once from weights and then immutable: `run` may be called from many threads at once.
    """

    @property
    def name(self) -> str:
        """Name under which `create_engine` knows the engine."""
        ...

    @property
    def device(self) -> str:
        """Where the network runs, such as "cpu" or "cuda:0"."""
        ...

    def run(self, images: UInt8Array, *, color: ColorOrder) -> RawOutputs:
        """Run the network on a batch.

        Args:
            images: (B, H, W, 3) uint8, any strides, B, H and W >= 1. Not kept and not written to.
            color: Channel order of the images.

        Returns:
            The raw outputs.

        Raises:
            TypeError: If the images are not a uint8 array.
            ValueError: If their shape or the color order is another one.
            EngineError: If the engine fails.
        """
        ...


def check_images(images: object, color: object) -> None:
    """Raise the errors that `Engine.run` promises for bad arguments."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"images: expected a uint8 array, got {kind}")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ValueError(f"images: expected shape (B, H, W, 3) without zeros, got {images.shape}")
    check_color(color)
