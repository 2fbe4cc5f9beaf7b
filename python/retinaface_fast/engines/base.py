"""What every engine is: uint8 pixels in, raw outputs per pyramid level out, and from some of them faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from retinaface_fast._validation import check_color, check_str
from retinaface_fast.errors import EngineError

if TYPE_CHECKING:
    from retinaface_fast._typing import ColorOrder, FloatArray, UInt8Array
    from retinaface_fast.ops import Faces

__all__ = [
    "DetectingEngine",
    "Engine",
    "Precision",
    "RawOutputs",
    "check_image",
    "check_images",
    "check_precision",
    "failure",
    "split_device",
]

#: What a network may compute in.
Precision = Literal["float32", "float16"]

#: How the libraries say that memory has run out, in lower case: C++ of three makers, torch, ONNX Runtime.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate memory",
)


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


@runtime_checkable
class DetectingEngine(Engine, Protocol):
    """An engine that goes on to the faces by itself, so that the raw outputs need not exist.

    A detector asks every engine whether it has a method `detect` and then calls that instead of `run`.
    """

    def detect(
        self,
        image: UInt8Array,
        *,
        color: ColorOrder,
        score_threshold: float,
        nms_threshold: float,
        top_k: int | None,
        keep_top_k: int | None,
    ) -> tuple[Faces, float]:
        """Find the faces of one image: what `run` and `ops.postprocess` find.

        Args:
            image: (H, W, 3) uint8, any strides, H and W >= 1. Not kept and not written to.
            color: Channel order of the image.
            score_threshold: Within [0, 1]; a face has score > score_threshold.
            nms_threshold: Within [0, 1]; an IoU > nms_threshold suppresses.
            top_k: Candidates that enter suppression; all if None.
            keep_top_k: Faces that are returned; all if None.

        Returns:
            The faces, in pixels of the image and not clipped to it, and how many seconds of the call the
            network took.

        Raises:
            TypeError: If the image is not a uint8 array or a number is not one.
            ValueError: If its shape or the color order is another one, or a number is out of range.
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


def check_image(image: object, color: object) -> None:
    """Raise the errors that `DetectingEngine.detect` promises for a bad image."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image: expected a uint8 array, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected shape (H, W, 3) without zeros, got {image.shape}")
    check_color(color)


def check_precision(precision: object) -> Precision:
    """Return the precision that an argument stands for, or say what it may be."""
    if precision is None or check_str(precision, "precision") == "float32":
        return "float32"
    if precision == "float16":
        return "float16"
    raise ValueError(f"precision: expected 'float32' or 'float16', got {precision!r}")


def failure(engine: str, images: UInt8Array, error: Exception) -> EngineError:
    """The error of a run that failed, with its reason in words that help."""
    said = str(error)
    if isinstance(error, MemoryError) or any(words in said.lower() for words in _OUT_OF_MEMORY):
        details = "" if said in ("", "std::bad_alloc", "bad allocation") else f" ({said})"
        said = f"out of memory; a smaller picture or max_side needs less{details}"
    return EngineError(
        f"the engine {engine!r} failed on pixels of shape {images.shape}: {said or type(error).__name__}"
    )


def split_device(device: str) -> tuple[str, int | None]:
    """Return the kind of a device, "cpu", "cuda" or "mps", and its number, None where it has none.

    Raises:
        ValueError: If it is nothing of the kind.

    Example:
        >>> split_device("cuda:1")
        ('cuda', 1)
    """
    kind, colon, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"device: expected 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r}")
    return kind, int(index) if index else None
