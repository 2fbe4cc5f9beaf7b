"""Several detectors on the same pictures: what each finds, how long it takes, and what it refuses."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retinaface_fast.errors import RetinaFaceError
from retinaface_fast.image import read_image

from .pairing import DEFAULT_MIN_IOU, check_min_iou, pair_faces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.detections import Detections
    from retinaface_fast.image import ImageSource

    from .pairing import FacePairs

__all__ = [
    "ComparedPicture",
    "Contestant",
    "Detector",
    "Search",
    "compare_picture",
    "failures",
    "warm_up",
]

#: Longest side of the picture that detectors are warmed up with: enough to load everything, at a small part
#: of the 3 s that dlib's CNN takes for a photograph.
_WARM_UP_SIDE = 320


class Detector(Protocol):
    """Anything that finds faces in pixels, such as `FaceDetector` and `DlibDetector`."""

    def detect(self, image: UInt8Array, /) -> Detections:
        """Find the faces in (H, W, 3) uint8 BGR pixels."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """A detector that takes part in a comparison.

    Attributes:
        name: What it is called in files, such as "dlib-hog".
        label: What people call it, such as "dlib HOG".
        detector: What finds the faces that are shown, counted and paired, and is timed.
        scorer: What finds the faces that average precision is computed of, also those of low scores; None
            takes those that are shown.
        settings: How it was set up, as JSON takes it.
    """

    name: str
    label: str
    detector: Detector
    scorer: Detector | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What came of one detector in one picture.

    Attributes:
        detections: The faces; None where the detector refused the picture or failed.
        seconds: What `detect` took, without reading the file; None where it failed.
        scored: The faces for average precision; None where nobody asked for them, or it failed.
        error: Why it failed; None where it did not.
        scored_error: Why the search for average precision failed, where that for `detections` did not.
    """

    detections: Detections | None = None
    seconds: float | None = None
    scored: Detections | None = None
    error: str | None = None
    scored_error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPicture:
    """What came of all detectors in one picture.

    Attributes:
        name: What the picture is called.
        image_size: Height and width in pixels; None where it cannot be read.
        searches: By the name of the detector, in their order; empty where it cannot be read.
        pairs: By the name of each detector but the first: the faces that it has in common with the first,
            whose faces are those called first. It lacks detectors that failed, and is empty if the first did.
        error: Why the picture cannot be read; None where it can.
    """

    name: str
    image_size: tuple[int, int] | None = None
    searches: Mapping[str, Search] = field(default_factory=dict)
    pairs: Mapping[str, FacePairs] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every detector has searched the picture, for average precision too where that is asked."""
        return self.error is None and all(
            search.error is None and search.scored_error is None for search in self.searches.values()
        )


def failures() -> tuple[type[Exception], ...]:
    """Return what is the fault of one picture, or of a detector that refuses it, and does not end a run."""
    # OpenCV raises its own class where it lacks memory.
    cv2 = sys.modules.get("cv2")
    own = () if cv2 is None else (cv2.error,)
    return (RetinaFaceError, OSError, ValueError, MemoryError, *own)


def compare_picture(
    name: str,
    image: ImageSource,
    contestants: Sequence[Contestant],
    *,
    scored: bool = False,
    min_iou: float = DEFAULT_MIN_IOU,
    max_pixels: int | None = None,
) -> tuple[ComparedPicture, UInt8Array | None]:
    """Have each detector search one picture, one after the other.

    Each is called once, with the pixels that were read once for all; that call is what is timed. A picture
    that cannot be read and a detector that refuses it are in the result and raise nothing.

    Args:
        name: What the picture is called.
        image: The picture, anything that `read_image` takes.
        contestants: The detectors; the others are compared with the first.
        scored: Whether the faces for average precision are wanted, too.
        min_iou: Least overlap of the boxes of a pair; see `pair_faces`.
        max_pixels: Refuse files with more pixels; see `read_image`.

    Returns:
        What came of it, and (H, W, 3) uint8 BGR, the upright picture; None where it cannot be read.

    Raises:
        ValueError: There is no detector, two have the same name, or `min_iou` is out of range.
        TypeError: `min_iou` is no number.
    """
    min_iou = check_min_iou(min_iou)
    names = [contestant.name for contestant in contestants]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"contestants must be at least one, each with a name of its own, got {names}")
    try:
        pixels = read_image(image, max_pixels=max_pixels).to_color("bgr")
    except failures() as error:
        reason = _reason(error)
        if isinstance(image, str | os.PathLike):  # where somebody keeps a picture is no part of a report
            reason = reason.replace(os.fspath(image), name)
        return ComparedPicture(name, error=reason), None
    searches = {each.name: _search(each, pixels, scored=scored) for each in contestants}
    first = searches[names[0]].detections
    pairs = {}
    if first is not None:
        for other in names[1:]:
            found = searches[other].detections
            if found is not None:
                pairs[other] = pair_faces(first, found, min_iou=min_iou)
    size = (int(pixels.shape[0]), int(pixels.shape[1]))
    return ComparedPicture(name, size, MappingProxyType(searches), MappingProxyType(pairs)), pixels


def _search(contestant: Contestant, pixels: UInt8Array, *, scored: bool) -> Search:
    try:
        started = time.perf_counter()
        detections = contestant.detector.detect(pixels)
        seconds = time.perf_counter() - started
    except failures() as error:
        return Search(error=_reason(error))
    if not scored:
        return Search(detections, seconds)
    if contestant.scorer is None:
        return Search(detections, seconds, detections)
    try:
        return Search(detections, seconds, contestant.scorer.detect(pixels))
    except failures() as error:
        return Search(detections, seconds, scored_error=_reason(error))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def warm_up(image: ImageSource, contestants: Sequence[Contestant], *, max_pixels: int | None = None) -> bool:
    """Have each detector search a small version of a picture, so that none is timed while it loads.

    Args:
        image: The picture, anything that `read_image` takes.
        contestants: The detectors.
        max_pixels: Refuse files with more pixels; see `read_image`.

    Returns:
        Whether it could be done: not with a picture that cannot be read.
    """
    try:
        pixels = read_image(image, max_side=_WARM_UP_SIDE, max_pixels=max_pixels).to_color("bgr")
    except failures():
        return False
    for contestant in contestants:
        _search(contestant, np.ascontiguousarray(pixels), scored=False)
    return True
