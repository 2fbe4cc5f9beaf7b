"""The detector: picture in, `Detections` out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ._cache import LeastRecentCache
from ._search import Search, Stopwatch
from ._settings import SETTINGS, Settings
from ._validation import check_color, check_pictures, check_str, naming
from .detections import Detections
from .engines import ENGINES, Engine, create_engine
from .engines.base import check_precision
from .engines.threads import THREADS_VARIABLE, check_threads
from .image import read_image
from .network.config import CONFIGS
from .weights import REGISTRY, ModelWeights, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._typing import ColorOrder
    from .image import ImageSource
    from .tta import TTA

__all__ = ["DEFAULT_MODEL", "FaceDetector", "detect"]

#: The model whose weights travel inside the package.
DEFAULT_MODEL = "mobilenet0.25"


@final
class FaceDetector:
    """Finds faces. Build it once and use it for many pictures, from as many threads as you like.

    A detector never changes after it was built: to get one with other settings, call `replace`, which shares
    the network. It can be pickled if its weights and engine were given by name or path, and not as objects;
    the other process loads them again, and keeps `threads` if that was given.

    Args:
        model: Name of published weights: a key of `retinaface_fast.weights.REGISTRY`. With `weights`, any
            name of `retinaface_fast.network.CONFIGS`.
        weights: Path of a file (.safetensors, .onnx, .pth), or loaded `ModelWeights`, instead of the
            published weights of `model`. The file says which network it holds; a `model` other than the
            default must agree with it. For a path, nothing is ever downloaded.
        engine: What runs the network: a name that `retinaface_fast.engines.available_engines` lists, `"auto"`
            for the first of them that is installed and can run the model on the device, or an object that
            follows the protocol `Engine`. The property `engine`, and that of each result, says which it is.
        device: Where it runs, such as `"cpu"` or `"cuda:0"`; None lets the engine choose: the CPU where
            `native` can run the model.
        threads: At most so many threads work on one picture, from 1 to 1024; they never change the result of
            the engine `native`. None stands for the environment variable `RETINAFACE_FAST_THREADS`, and where
            that is not set for the processors that the process may use, 8 at most (with `onnxruntime`, for
            its own choice). The engine `torch` takes none: `torch.set_num_threads` is for the whole process.
        precision: What the network computes in: `"float32"`, or `"float16"`, which the engine `torch` does on
            a CUDA device. None for `"float32"`.
        score_threshold: From 0 to 1; a face has score > score_threshold.
        nms_threshold: From 0 to 1; of two boxes with IoU > nms_threshold, the one with the lower score is
            dropped.
        top_k: At most so many candidates, the best by score, enter the suppression; None for all. From 1 to
            2**31 - 1.
        keep_top_k: At most so many faces are returned; None for all. From 1 to 2**31 - 1.
        max_side: Pictures whose longer side is greater are shrunk to it before they are searched: faster, at
            the price of the smallest faces. Coordinates come back in the original picture. None never
            shrinks.
        max_pixels: Files with more pixels are refused before they are decoded; see `read_image`.
        tta: Search each picture several times, at other sizes and mirrored, and vote on what is found:
            `TTA()` takes the sizes of the paper. More faces, at many times the cost. None searches once.
        close_ups: Faces of more than some 700 pixels are too large for the network, which takes parts of them
            for faces. With True, a picture with more than 600 pixels on its shorter side is searched a second
            time, reduced to 384 or less on its longer one; that gives the faces from 400 pixels on, and what
            has more than 200 must be found in both. It takes 7 % more time at 1920x1080. Not with `tta`,
            whose sizes say what can be found.
        tile_side: Search pictures with a longer side in overlapping tiles of at most so many pixels on a
            side, so that memory does not grow with the picture. From 1280; 384 of them
            on each side are overlap, so that small tiles take much longer. The faces are those of the whole
            picture, as far as they have up to some 500 pixels. None never tiles.

    Raises:
        ValueError: An unknown model, engine or kind of device, or a number out of range; the message names
            the argument and the choices.
        TypeError: An argument of the wrong type.
        WeightsError: The weights cannot be found, downloaded, or fitted to the network.
        EngineError: The engine or device cannot be had, or the engine cannot run the model or does not do the
            precision.
        MissingDependencyError: The engine's package is not installed; the message names the extra.

    Examples:
        >>> import numpy as np
        >>> detector = FaceDetector(score_threshold=0.6)
        >>> result = detector.detect(np.zeros((48, 64, 3), np.uint8))
        >>> len(result), result.boxes.shape, result.image_size
        (0, (0, 4), (48, 64))
    """

    __slots__ = (
        "__weakref__",
        "_engine",
        "_model",
        "_origin",
        "_search",
        "_settings",
    )

    _engine: Engine
    _search: Search
    _settings: Settings
    _model: str
    _origin: dict[str, Any]

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        weights: str | os.PathLike[str] | ModelWeights | None = None,
        engine: str | Engine = "auto",
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        top_k: int | None = 5000,
        keep_top_k: int | None = 750,
        max_side: int | None = None,
        max_pixels: int | None = None,
        tta: TTA | None = None,
        close_ups: bool = True,
        tile_side: int | None = None,
    ) -> None:
        settings = Settings(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
            max_side=max_side,
            max_pixels=max_pixels,
            tta=tta,
            close_ups=close_ups,
            tile_side=tile_side,
        )
        if device is not None:
            check_str(device, "device")
        threads = check_threads(threads)
        if precision is not None:
            check_precision(precision)
        if isinstance(engine, str):
            if engine not in ("auto", *ENGINES):
                raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")
        elif not isinstance(engine, Engine):
            raise TypeError(f"engine must be a name or an Engine, got {type(engine).__name__} {engine!r}")
        elif device is not None:
            raise ValueError(f"device must be None where engine is an object, got {device!r}")
        elif threads is not None:
            raise ValueError(f"threads must be None where engine is an object, got {threads}")
        elif precision is not None:
            raise ValueError(f"precision must be None where engine is an object, got {precision!r}")
        loaded = _load(model, weights)
        running = engine
        if isinstance(running, str):
            running = create_engine(running, loaded, device=device, threads=threads, precision=precision)
        self._fill(
            _engine=running,
            _search=Search(running, loaded.config.anchors, loaded.config.variances),
            _settings=settings,
            _model=loaded.config.name if weights is not None else model,
            _origin={
                "model": model,
                "weights": weights,
                "engine": engine,
                "device": device,
                "threads": threads,
                "precision": precision,
            },
        )

    def _fill(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a FaceDetector cannot be changed; build another one with replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a FaceDetector cannot be changed")

    # Settings

    @property
    def model(self) -> str:
        """Name of the model, or of the network that the file of weights holds."""
        return self._model

    @property
    def engine(self) -> str:
        """Name of the engine that runs the network."""
        return self._engine.name

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._engine.device

    @property
    def threads(self) -> int | None:
        """Most threads that work on one picture; None where the engine does not say."""
        threads: int | None = getattr(self._engine, "threads", None)
        return threads

    @property
    def precision(self) -> str | None:
        """What the network computes in; None where the engine does not say."""
        precision: str | None = getattr(self._engine, "precision", None)
        return precision

    @property
    def postprocessing(self) -> str | None:
        """What makes faces of the outputs of the network; None where the engine does not say.

        `"native"`: the C++ core, on the CPU. `"cuda"`: the CUDA kernels, on the device. `"torch"`: operations
        of torch, on the device; why it is not the kernels is logged, at the level INFO, when the detector is
        built.
        """
        postprocessing: str | None = getattr(self._engine, "postprocessing", None)
        return postprocessing

    @property
    def score_threshold(self) -> float:
        """A face has a score greater than this."""
        return self._settings.score_threshold

    @property
    def nms_threshold(self) -> float:
        """An IoU greater than this suppresses."""
        return self._settings.nms_threshold

    @property
    def top_k(self) -> int | None:
        """At most so many candidates enter the suppression."""
        return self._settings.top_k

    @property
    def keep_top_k(self) -> int | None:
        """At most so many faces are returned."""
        return self._settings.keep_top_k

    @property
    def max_side(self) -> int | None:
        """Larger pictures are shrunk until their longer side is this."""
        return self._settings.max_side

    @property
    def max_pixels(self) -> int | None:
        """Larger files are refused; None for the default of `read_image`."""
        return self._settings.max_pixels

    @property
    def tta(self) -> TTA | None:
        """Sizes at which each picture is searched; None for its own, once."""
        return self._settings.tta

    @property
    def close_ups(self) -> bool:
        """Whether large pictures are searched again for faces that fill them."""
        return self._settings.close_ups

    @property
    def tile_side(self) -> int | None:
        """Larger pictures are searched in tiles of this side."""
        return self._settings.tile_side

    def replace(self, **changes: Any) -> FaceDetector:
        """Return a detector with other settings that shares this one's network.

        Args:
            **changes: Any of score_threshold, nms_threshold, top_k, keep_top_k, max_side, max_pixels, tta,
                close_ups, tile_side.

        Raises:
            TypeError: Another name, or a value of the wrong type.
            ValueError: A value is out of range.

        Examples:
            >>> FaceDetector().replace(max_side=640).max_side
            640
        """
        unknown = changes.keys() - SETTINGS.keys()
        if unknown:
            raise TypeError(
                f"replace takes {', '.join(SETTINGS)}, got {', '.join(sorted(unknown))}; another network, "
                "engine, device, number of threads or precision needs another FaceDetector"
            )
        other = object.__new__(FaceDetector)
        for name in self.__slots__:
            if name != "__weakref__":
                object.__setattr__(other, name, getattr(self, name))
        other._fill(_settings=dataclasses.replace(self._settings, **changes))
        return other

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in SETTINGS if name != "max_pixels")
        running = f"engine={self.engine!r}, device={self.device!r}, threads={self.threads!r}"
        if self.precision not in (None, "float32"):
            running += f", precision={self.precision!r}"
        return f"FaceDetector({self.model!r}, {running}, {settings})"

    def __copy__(self) -> FaceDetector:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> FaceDetector:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._origin["weights"], ModelWeights):
            raise TypeError(
                "a FaceDetector that was given loaded ModelWeights cannot be pickled: give weights as the "
                "path of a file, which the other process can load (save_weights writes one)"
            )
        return _rebuild, ({**self._origin, **{name: getattr(self._settings, name) for name in SETTINGS}},)

    # Detection

    def detect(
        self,
        image: ImageSource,
        *,
        color: ColorOrder = "bgr",
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        top_k: int | None = None,
        keep_top_k: int | None = None,
        max_side: int | None = None,
        max_pixels: int | None = None,
    ) -> Detections:
        """Find the faces in a picture.

        Args:
            image: A path; the bytes of a picture file; a binary file object; a PIL image; or a uint8 array of
                shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W). EXIF orientation is honoured.
            color: Channel order of an array, `"bgr"` as OpenCV gives it or `"rgb"`.
            score_threshold: Instead of the detector's own, for this call only; so are all that follow. None
                means the detector's own, and so cannot lift a limit: `replace` can.
            nms_threshold: As for `FaceDetector`.
            top_k: As for `FaceDetector`.
            keep_top_k: As for `FaceDetector`.
            max_side: As for `FaceDetector`.
            max_pixels: As for `FaceDetector`.

        Returns:
            The faces, highest score first, in pixels of the original, upright picture.

        Raises:
            ImageError: The picture cannot be read.
            TypeError: `image` or an option has the wrong type.
            ValueError: An array is empty or has the wrong shape, or an option is out of range.
            EngineError: The engine failed.
            MissingDependencyError: OpenCV is needed, to decode or to shrink, and cannot be imported.
        """
        settings = self._settings.override(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
            max_side=max_side,
            max_pixels=max_pixels,
        )
        return self._detect(image, color, settings)

    def detect_batch(
        self,
        images: Iterable[ImageSource],
        *,
        color: ColorOrder = "bgr",
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        top_k: int | None = None,
        keep_top_k: int | None = None,
        max_side: int | None = None,
        max_pixels: int | None = None,
    ) -> list[Detections]:
        """Find the faces in many pictures of any sizes.

        The results are those of `detect`, bit for bit: pictures are never padded or run together. Images are
        taken from the iterable one at a time, so that a generator keeps one picture in memory.

        Args:
            images: Pictures, each anything that `detect` takes.
            color: Channel order of arrays.
            score_threshold: Instead of the detector's own, for this call only; so are all that follow. None
                means the detector's own, and so cannot lift a limit: `replace` can.
            nms_threshold: As for `FaceDetector`.
            top_k: As for `FaceDetector`.
            keep_top_k: As for `FaceDetector`.
            max_side: As for `FaceDetector`.
            max_pixels: As for `FaceDetector`.

        Returns:
            One result for each picture, in order.

        Raises:
            ImageError: A picture cannot be read; the message begins with its index, `images[3]: …`, and the
                pictures after it are not read. To go on past broken files, call `detect` in a loop.
            TypeError: As above for the type of a picture; or `images` is a single picture or an option has
                the wrong type.
            ValueError: As above for a picture that is empty or of wrong shape; or an option is out of range.
            EngineError: The engine failed; the message begins with the index.

        Examples:
            >>> import numpy as np
            >>> small, large = np.zeros((32, 32, 3), np.uint8), np.zeros((50, 90), np.uint8)
            >>> [result.image_size for result in FaceDetector().detect_batch([small, large])]
            [(32, 32), (50, 90)]
        """
        check_color(color)
        settings = self._settings.override(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
            max_side=max_side,
            max_pixels=max_pixels,
        )
        check_pictures(images)
        results = []
        for index, image in enumerate(images):
            with naming(f"images[{index}]"):
                results.append(self._detect(image, color, settings))
        return results

    def _detect(self, image: ImageSource, color: ColorOrder, settings: Settings) -> Detections:
        started = time.perf_counter()
        loaded = read_image(image, color=color, max_side=settings.max_side, max_pixels=settings.max_pixels)
        watch, geometry = Stopwatch(), loaded.geometry
        before_search = time.perf_counter()
        faces = self._search(loaded.pixels, loaded.color, settings, watch)
        boxes = geometry.boxes_to_original(faces.boxes)
        landmarks = geometry.points_to_original(faces.landmarks)
        finished = time.perf_counter()
        return Detections(
            boxes=boxes,
            scores=faces.scores,
            landmarks=landmarks,
            image_size=geometry.original_size_hw,
            timings={
                "decode": loaded.decode_seconds,
                "resize": loaded.resize_seconds + watch.resize,
                "network": watch.network,
                "postprocess": finished - before_search - watch.network - watch.resize,
                "total": finished - started,
            },
            engine=self._engine.name,
            device=self._engine.device,
        )


def _rebuild(options: dict[str, Any]) -> FaceDetector:
    return FaceDetector(**options)


def _load(model: object, weights: object) -> ModelWeights:
    name = check_str(model, "model")
    if weights is None:
        if name not in REGISTRY:
            hint = "; its weights must be given as a file" if name in CONFIGS else ""
            raise ValueError(f"model must be one of {', '.join(REGISTRY)}, got {name!r}{hint}")
        return load_weights(name)
    config = None
    if name != DEFAULT_MODEL:
        if name not in CONFIGS:
            raise ValueError(f"model must be one of {', '.join(CONFIGS)}, got {name!r}")
        config = CONFIGS[name]
    if isinstance(weights, ModelWeights):
        if config is not None and config.name != weights.config.name:
            raise ValueError(f"model must be that of the weights, {weights.config.name!r}, got {name!r}")
        return weights
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights must be a path or ModelWeights, got {type(weights).__name__}")
    if not os.fspath(weights):
        raise ValueError("weights must be the path of a file, got an empty one")
    # A path, even where it reads like a name of the registry: a local path never touches the network.
    return load_weights(Path(weights), config=config)


_cache: LeastRecentCache[FaceDetector] = LeastRecentCache(capacity=4)


def detect(
    image: ImageSource,
    *,
    color: ColorOrder = "bgr",
    model: str = DEFAULT_MODEL,
    weights: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int | None = 5000,
    keep_top_k: int | None = 750,
    max_side: int | None = None,
    max_pixels: int | None = None,
    tta: TTA | None = None,
    close_ups: bool = True,
    tile_side: int | None = None,
) -> Detections:
    """Find the faces in a picture.

    The detector is kept for the next call with the same model, weights, engine, device, threads and precision
    (the last four combinations are kept), so that only the first call loads weights. Safe to call from many
    threads.

    Args:
        image: A path; the bytes of a picture file; a binary file object; a PIL image; or a uint8 array of
            shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W). EXIF orientation is honoured.
        color: Channel order of an array, `"bgr"` as OpenCV gives it or `"rgb"`.
        model: As for `FaceDetector`.
        weights: Path of a file of weights. The file is read once; it is read again when it has changed.
        engine: Name of an engine, or `"auto"`.
        device: Where the engine runs.
        threads: At most so many threads work on the picture; as for `FaceDetector`.
        precision: What the network computes in; as for `FaceDetector`.
        score_threshold: As for `FaceDetector`; so are all that follow.
        nms_threshold: From 0 to 1; an IoU greater than this suppresses.
        top_k: At most so many candidates enter the suppression.
        keep_top_k: At most so many faces are returned.
        max_side: Larger pictures are shrunk before they are searched.
        max_pixels: Larger files are refused.
        tta: Search the picture several times and vote.
        close_ups: Search a large picture again for faces that fill it.
        tile_side: Search a larger picture in tiles.

    Returns:
        The faces, highest score first, in pixels of the original, upright picture.

    Raises:
        ImageError: The picture cannot be read.
        TypeError: An argument has the wrong type.
        ValueError: An array is empty or has the wrong shape, or an argument is out of range or unknown.
        WeightsError: The weights cannot be found, downloaded, or fitted to the network.
        EngineError: The engine or device cannot be had, or failed.
        MissingDependencyError: A package that is needed is not installed.

    Examples:
        >>> import numpy as np
        >>> detect(np.zeros((48, 64, 3), np.uint8), score_threshold=0.3).boxes.shape
        (0, 4)
    """
    check_color(color)
    settings = Settings(
        score_threshold, nms_threshold, top_k, keep_top_k, max_side, max_pixels, tta, close_ups, tile_side
    )
    check_str(engine, "engine")
    if device is not None:
        check_str(device, "device")
    threads = check_threads(threads)
    precision = check_precision(precision)
    path, state = None, None
    if weights is not None:
        if not isinstance(weights, str | os.PathLike):
            raise TypeError(f"weights must be a path, got {type(weights).__name__}")
        path = Path(weights).absolute()
        with contextlib.suppress(OSError):  # the loader has the better message
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
    detector = _cache.get(
        (
            check_str(model, "model"),
            path,
            state,
            engine,
            device,
            threads,
            os.environ.get(THREADS_VARIABLE),  # may be another one by the next call, too
            precision,
        ),
        lambda: FaceDetector(
            model, weights=weights, engine=engine, device=device, threads=threads, precision=precision
        ),
    )
    return detector._detect(image, color, settings)
