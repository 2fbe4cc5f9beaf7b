"""The engine `native`: the network in the C++ core, from uint8 pixels to faces in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_fast import _core
from retinaface_fast.errors import EngineError
from retinaface_fast.ops.anchors import native_pyramid
from retinaface_fast.ops.postprocess import Faces

from .base import RawOutputs, check_image, check_images, failure, split_device
from .threads import check_threads, default_threads

if TYPE_CHECKING:
    from retinaface_fast._typing import ColorOrder, UInt8Array
    from retinaface_fast.network.config import RetinaFaceConfig
    from retinaface_fast.weights import ModelWeights

__all__ = ["NativeEngine"]

#: The levels whose features the core computes: strides 8, 16 and 32.
_LEVELS = (3, 4, 5)


class NativeEngine:
    """Runs a MobileNetV1 RetinaFace in the C++ core, on the CPU.

    The weights are packed once, when the engine is made. Calls share nothing but
    those and the threads, and give the same bits whatever the number of threads. The threads start when a
    call first needs them; a process that was forked starts its own.

    Args:
        weights: What to run.
        device: "cpu", or None for the same.
        threads: Most threads of one call, within [1, 1024]; None for what the environment variable
            `RETINAFACE_FAST_THREADS` says, else for the processors that this process may use, 8 at most.

    Raises:
        TypeError: If `threads` is not an integer.
        ValueError: If `threads`, the variable in its place, or the kind of device is out of range or unknown.
        EngineError: If the device is another one, or the network is not a MobileNetV1 with the levels P3 to
            P5 and plain context modules that share their first convolution.
    """

    name = "native"
    device = "cpu"
    precision = "float32"
    postprocessing = "native"

    def __init__(
        self, weights: ModelWeights, *, device: str | None = None, threads: int | None = None
    ) -> None:
        if device is not None and split_device(device)[0] != "cpu":
            raise EngineError(
                f"the engine 'native' runs on the CPU and not on {device!r}; the engines 'torch' and "
                "'onnxruntime' may"
            )
        config = weights.config
        obstacle = _obstacle(config)
        if obstacle is not None:
            raise EngineError(
                f"the engine 'native' cannot run the network {config.name!r}: {obstacle}; use 'torch' or "
                "'onnxruntime'"
            )
        threads = check_threads(threads)
        count = default_threads() if threads is None else threads
        try:
            self._core = _core.NativeEngine(
                dict(weights.tensors),
                native_pyramid(config.anchors),
                config.variances,
                config.mean_bgr,
                config.backbone.negative_slope,
                config.neck_negative_slope,
                count,
            )
        except ValueError as error:
            raise EngineError(
                f"the engine 'native' cannot run the network {config.name!r}: {error}; use 'torch' or "
                "'onnxruntime'"
            ) from error
        self._model = config.name

    @property
    def threads(self) -> int:
        """Most threads of one call."""
        return self._core.threads

    def __repr__(self) -> str:
        return f"NativeEngine({self._model!r}, threads={self.threads})"

    def run(self, images: UInt8Array, *, color: ColorOrder) -> RawOutputs:
        """See `Engine.run`."""
        check_images(images, color)
        try:
            class_scores, box_deltas, landmark_deltas = self._core.run(images, color == "rgb")
        except (RuntimeError, MemoryError) as error:
            raise failure(self.name, images, error) from error
        return RawOutputs(tuple(class_scores), tuple(box_deltas), tuple(landmark_deltas), scores_are="logits")

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
        """See `DetectingEngine.detect`."""
        check_image(image, color)
        try:
            boxes, scores, landmarks, seconds = self._core.detect(
                image, color == "rgb", score_threshold, nms_threshold, top_k, keep_top_k
            )
        except (RuntimeError, MemoryError) as error:
            raise failure(self.name, image, error) from error
        return Faces(boxes, scores, landmarks), seconds


def _obstacle(config: RetinaFaceConfig) -> str | None:
    """Say what of a network the core does not have; None if it can run it."""
    if config.backbone.kind != "mobilenet":
        return "it has a ResNet and only a MobileNetV1 is built in"
    if config.levels != _LEVELS:
        levels = ", ".join(f"P{level}" for level in config.levels)
        return f"it has the levels {levels} and only P3, P4, P5 are built in"
    if config.context.deformable:
        return "it has deformable convolutions"
    if not config.context.share_first:
        return "the branches of its context modules do not share their first convolution"
    if config.backbone.negative_slope > 1:
        return f"its rectifiers have a slope of {config.backbone.negative_slope:g}, above 1"
    return None
