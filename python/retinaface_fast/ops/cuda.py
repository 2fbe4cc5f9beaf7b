"""Post-processing on a CUDA device, for outputs of the network that lie there already.

The same faces as `retinaface_fast.ops.postprocess`, bit for bit (but one NaN is like another), without a copy
of the outputs to the host.
Arrays of any library are taken that has `__cuda_array_interface__` or DLPack, such as those of torch, CuPy,
Numba and JAX; none of them is needed. Work goes to the caller's stream, and nothing waits for it unless it is
asked to.

The kernels are an optional part of the build, which wheels do not hold: `is_built` says whether it is there,
and `obstacle` what stands in the way of using it.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Literal

from retinaface_fast.anchor_config import P3_P5, AnchorConfig
from retinaface_fast.errors import EngineError

from .postprocess import Faces

if TYPE_CHECKING:
    from types import ModuleType

    from retinaface_fast import _cuda

__all__ = ["DeviceFaces", "architectures", "is_built", "obstacle", "postprocess"]

_EXTENSION = "retinaface_fast._cuda"
_NOT_BUILT = (
    "this build of retinaface_fast has no CUDA kernels; build them with nvcc: "
    "pip install . -C cmake.define.RETINAFACE_CUDA=ON"
)


def _extension() -> ModuleType | None:
    """The extension module, or None if it was not built. One that is there and cannot be loaded raises."""
    try:
        import retinaface_fast._cuda as extension
    except ModuleNotFoundError as error:
        if error.name != _EXTENSION:
            raise
        return None
    return extension


class DeviceFaces:
    """The faces of a batch on the device, made by `postprocess`.

    What is found lies in two arrays, image after image: the faces of image b are the rows `offsets[b]` to
    `offsets[b + 1]`, highest score first; rows behind the last one hold anything. Both arrays have
    `__cuda_array_interface__` (version 3) and DLPack, so that `torch.from_dlpack(faces.rows)` and
    `cupy.asarray(faces.rows)` are views of them. The memory lives as long as this object or any view of it.

    The arrays are complete once the stream has come past the call. DLPack makes the stream of whoever takes
    them wait for that; `__cuda_array_interface__` says which stream to wait for, and `torch.as_tensor`
    does not.

    The arrays that were given are kept alive for as long. Whoever lets go of everything before the stream has
    come past the call answers for their memory, as after any other call that enqueues work.
    """

    def __init__(self, native: _cuda.DeviceFaces, /) -> None:
        self._native = native

    @property
    def device(self) -> int:
        """Number of the CUDA device."""
        return self._native.device

    @property
    def stream(self) -> int:
        """The stream of the call, as it was given; 0 is the default stream."""
        return self._native.stream

    @property
    def batch_size(self) -> int:
        """Number of images, B."""
        return self._native.batch_size

    @property
    def capacity(self) -> int:
        """Number of rows that there is room for, whatever was found."""
        return self._native.capacity

    @property
    def offsets(self) -> _cuda.DeviceArray:
        """(B + 1,) int32 on the device: where the rows of each image begin, and at last where they end."""
        return self._native.offsets

    @property
    def rows(self) -> _cuda.DeviceArray:
        """(capacity, 15) float32 on the device: box xyxy, score, five landmarks.

        Boxes are in pixels of the network's input and not clipped to it; landmarks are x and y of left eye,
        right eye, nose, left and right mouth corner as seen in the image.
        """
        return self._native.rows

    def to_host(self) -> list[Faces]:
        """Copy what was found to the host, and wait for the stream with the GIL released.

        Returns:
            One `Faces` for each image, in NumPy arrays of their own.

        Raises:
            RuntimeError: If CUDA reports an error, which may be one of earlier work on the stream.
        """
        return [Faces(*faces) for faces in self._native.to_host()]

    def __repr__(self) -> str:
        return f"DeviceFaces(device={self.device}, batch_size={self.batch_size}, capacity={self.capacity})"


def is_built() -> bool:
    """Whether this build of the package has the kernels.

    Raises:
        ImportError: If it has and they cannot be loaded.
    """
    return _extension() is not None


def architectures() -> tuple[str, ...]:
    """Compute capabilities that the kernels were compiled for, such as ("75", "80", "90"); () if not built.

    Raises:
        ImportError: If the kernels are there and cannot be loaded.
    """
    extension = _extension()
    return () if extension is None else tuple(extension.architectures())


def obstacle(device: int = 0) -> str | None:
    """Why the kernels cannot run on a device, in words; None if they can.

    Args:
        device: Number of the CUDA device.

    Raises:
        TypeError: If the number is not an integer.
        ImportError: If the kernels are there and cannot be loaded.
    """
    if isinstance(device, bool) or not hasattr(device, "__index__"):
        raise TypeError(f"device: expected the number of a CUDA device, got {device!r}")
    extension = _extension()
    if extension is None:
        return _NOT_BUILT
    # Whatever no int of C++ holds is no device either.
    number = min(max(index(device), -1), 2**31 - 1)
    return extension.obstacle(number) or None


def postprocess(
    class_scores: object,
    box_deltas: object,
    landmark_deltas: object,
    image_size_hw: tuple[int, int],
    *,
    config: AnchorConfig = P3_P5,
    scores_are: Literal["logits", "probabilities"] = "logits",
    variances: tuple[float, float] = (0.1, 0.2),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int | None = 5000,
    keep_top_k: int | None = 750,
    stream: object = 0,
) -> DeviceFaces:
    """Faces from the raw outputs of the network, for a batch of images of one size, all on one CUDA device.

    Enqueues the work on the stream and returns. `retinaface_fast.ops.postprocess` says what is computed; the
    faces are the same bit for bit, except that one NaN is like another: landmarks may be NaN.

    Each output is a device array over all levels, or a list or tuple with one device array for each level.
    The rows of one image must be contiguous, the images may be any number of floats apart; nothing is copied.
    Whatever has neither `__cuda_array_interface__` nor DLPack is refused, and so is memory of the host.

    An array is waited for if it says what for: DLPack always does, `__cuda_array_interface__` by its entry
    `stream`. That of torch has none: give the stream on which the tensors are computed, or one that waits
    for it.

    Args:
        class_scores: (B, A, 2) float32 on the device, background and face; per level (B, A_level, 2). B > 0.
        box_deltas: (B, A, 4) float32 on the device; per level (B, A_level, 4).
        landmark_deltas: (B, A, 10) float32 on the device; per level (B, A_level, 10).
        image_size_hw: Height and width in pixels of the network's input.
        config: Anchors of the network.
        scores_are: Whether class_scores are logits or probabilities (after softmax).
        variances: Positive factors of centre and size deltas.
        score_threshold: Within [0, 1]; a face has score > score_threshold.
        nms_threshold: Within [0, 1]; an IoU > nms_threshold suppresses.
        top_k: Candidates of one image that enter suppression; all if None.
        keep_top_k: Faces of one image that are returned; all if None.
        stream: Where the work is enqueued: the address of a CUDA stream, such as
            `torch.cuda.current_stream().cuda_stream` or the `ptr` of CuPy's, 0 for the default stream, or an
            object with `__cuda_stream__`. It must live as long as what is returned, which keeps an object
            alive. Not 2, by which CUDA means the one of each thread.

    Returns:
        The faces on the device.

    Raises:
        EngineError: If this build has no CUDA kernels.
        TypeError: If an array is not one of a CUDA device or not float32, or a number is not one.
        ValueError: If a shape does not fit the image size and anchors, an array is not contiguous or lies on
            another device, the stream is the one of each thread, or a number is out of range.
        MemoryError: If the device has not enough memory. What torch keeps of it for itself,
            `torch.cuda.empty_cache()` gives back.
        RuntimeError: If CUDA refuses.
        ImportError: If the kernels are there and cannot be loaded.

    Example:
        On the stream of the network, with what is found copied to the host::

            stream = torch.cuda.current_stream().cuda_stream
            faces = cuda.postprocess(logits, boxes, landmarks, (480, 640), stream=stream).to_host()
    """
    extension = _extension()
    if extension is None:
        raise EngineError(_NOT_BUILT)
    if not isinstance(config, AnchorConfig):
        raise TypeError(f"config: expected an AnchorConfig, got {type(config).__name__}")
    if scores_are not in ("logits", "probabilities"):
        raise ValueError(f"scores_are: expected 'logits' or 'probabilities', got {scores_are!r}")
    return DeviceFaces(
        extension.postprocess(
            config.strides,
            config.sizes,
            class_scores,
            box_deltas,
            landmark_deltas,
            image_size_hw,
            scores_are == "probabilities",
            variances,
            score_threshold,
            nms_threshold,
            top_k,
            keep_top_k,
            stream,
        )
    )
