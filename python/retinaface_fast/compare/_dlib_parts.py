"""dlib's objects, each behind a function of pixels that any number of threads may call."""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinaface_fast.errors import WeightsError

from .dlib_models import find_dlib_model, import_dlib

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from retinaface_fast._typing import FloatArray, UInt8Array

#: Sides from which on dlib's CNN is safe. On pictures of less than 9 pixels it fails, and at 6x6 it takes the
#: process with it (segmentation fault, dlib 20.0.1).
_SMALLEST_CNN_SIDE = 40

#: Peak memory per pixel of the upsampled picture, in bytes, with a margin for the space that dlib leaves
#: between the levels of its pyramid. Measured: CNN 1,000 to 1,020 from 800x800 on, 1,190 at 400x400 and up to
#: 2,070 on narrow strips, which the margin covers; HOG at most 11.
_BYTES_PER_PIXEL = {"cnn": 1100, "hog": 16}
_MARGIN = 40

#: HOG detectors that are kept for the next call: each holds the pyramid of its last picture. One that just
#: searched more pixels (after upsampling) is not kept: 3000x2000 upsampled once leaves 110 MB in it. A copy
#: costs 4 ms, the search of so many pixels 0.2 s. What is kept holds at most some 28 MB each.
_MOST_KEPT = 16
_MOST_KEPT_PIXELS = 4_000_000


class Found(NamedTuple):
    """What a detector gives: inclusive edges (N, 4) int64, and scores (N,) float64, in dlib's order."""

    edges: np.ndarray[Any, np.dtype[np.int64]]
    scores: np.ndarray[Any, np.dtype[np.float64]]


def memory_needed(kind: str, size_hw: tuple[int, int], upsample: int) -> int:
    """Return about how many bytes a search takes at its peak."""
    height, width = ((length << upsample) + _MARGIN for length in size_hw)
    return _BYTES_PER_PIXEL[kind] * height * width


class HogDetector:
    """The HOG detector, or one of its kind from a file.

    `run` releases the GIL and works in buffers of its object, so that two threads must never share one: each
    call takes an object of its own from a pool. A copy costs 4 ms, the first one 0.5 s.
    """

    def __init__(self, path: Path | None) -> None:
        self._pickled = _pickled_frontal_detector() if path is None else _pickled_hog(path)
        # Appending and popping are atomic.
        self._free: deque[Any] = deque([pickle.loads(self._pickled)], maxlen=_MOST_KEPT)

    def __call__(self, pixels: UInt8Array, upsample: int, score_threshold: float) -> Found:
        try:
            detector = self._free.pop()
        except IndexError:
            detector = pickle.loads(self._pickled)
        boxes, scores, _ = detector.run(pixels, upsample, score_threshold)
        height, width = pixels.shape[:2]
        if height * width << 2 * upsample <= _MOST_KEPT_PIXELS:
            self._free.append(detector)
        return Found(_edges(boxes), np.array(scores, np.float64))


class CnnDetector:
    """The CNN. It works in buffers of its object; dlib holds the GIL, and the lock does not rely on that."""

    def __init__(self, path: Path | None) -> None:
        dlib = import_dlib("dlib's CNN face detector")
        found = find_dlib_model("cnn", path)
        self._model = _load(dlib.cnn_face_detection_model_v1, found, "dlib's CNN face detector")
        self._lock = threading.Lock()

    def __call__(self, pixels: UInt8Array, upsample: int, score_threshold: float) -> Found:
        height, width = pixels.shape[:2]
        if min(height, width) < _SMALLEST_CNN_SIDE:
            sides = max(height, _SMALLEST_CNN_SIDE), max(width, _SMALLEST_CNN_SIDE)
            padded = np.zeros((*sides, 3), np.uint8)
            padded[:height, :width] = pixels
            pixels = padded
        with self._lock:
            found = list(self._model(pixels, upsample))
        return Found(
            _edges([face.rect for face in found]), np.array([face.confidence for face in found], np.float64)
        )


class Predictor:
    """A shape predictor, which does not change when it is used: threads share it."""

    def __init__(self, points: int, path: Path | None) -> None:
        purpose = "dlib's landmarks"
        self._dlib = import_dlib(purpose)
        found = find_dlib_model(f"landmarks-{points}", path)
        self._model = _load(self._dlib.shape_predictor, found, purpose)
        blank = np.zeros((32, 32, 3), np.uint8)
        given = self._model(blank, self._dlib.rectangle(4, 4, 27, 27)).num_parts
        if given != points:
            raise WeightsError(f"{found}: a predictor of {given} points, where one of {points} was asked for")

    def __call__(self, pixels: UInt8Array, edges: np.ndarray[Any, Any]) -> FloatArray:
        """Return (points, 2) float32, x and y, the centre of the first pixel at 0.5."""
        shape = self._model(pixels, self._dlib.rectangle(*(int(edge) for edge in edges)))
        points: FloatArray = np.array([(part.x, part.y) for part in shape.parts()], np.float32)
        points += 0.5
        return points


def _edges(rectangles: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    edges = [(box.left(), box.top(), box.right(), box.bottom()) for box in rectangles]
    return np.array(edges, np.int64).reshape(-1, 4)


@lru_cache(maxsize=1)
def _pickled_frontal_detector() -> bytes:
    # Half a second each time: dlib unpacks it from its own code.
    detector = import_dlib("dlib's HOG face detector").get_frontal_face_detector()
    return pickle.dumps(detector)


def _pickled_hog(path: Path) -> bytes:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file (a HOG detector of dlib)")
    dlib = import_dlib("dlib's HOG face detector")
    return pickle.dumps(_load(dlib.fhog_object_detector, path, "a HOG detector of dlib"))


def _load(kind: Callable[[str], Any], path: Path, purpose: str) -> Any:
    try:
        return kind(os.fspath(path))
    # dlib raises RuntimeError; what a damaged file says about lengths may ask for any amount of memory.
    except (RuntimeError, MemoryError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{path}: not a file of {purpose}, or damaged: {reason}") from error
