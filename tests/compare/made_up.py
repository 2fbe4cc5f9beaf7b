"""Results and detectors that need no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import Detections
from retinaface_fast.compare import Contestant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import UInt8Array


def result(
    boxes: object, *, scores: object = None, landmarks: object = None, size: tuple[int, int] = (100, 200)
) -> Detections:
    """Faces with these boxes; without landmarks, these lie at fixed parts of the box."""
    array = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(array)
    if landmarks is None:
        shares = np.float32([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        sides = array[:, None, 2:] - array[:, None, :2]
        landmarks = array[:, None, :2] + shares * sides
    if scores is None:
        scores = np.linspace(0.9, 0.6, count)
    return Detections(array, scores, np.asarray(landmarks, np.float32).reshape(-1, 5, 2), image_size=size)


@dataclass
class Finder:
    """Finds these boxes in every picture, with the size of that picture; notes what it was given."""

    boxes: object = ()
    scores: object = None
    landmarks: object = None
    before: Callable[[UInt8Array], None] | None = None
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def detect(self, image: UInt8Array, /) -> Detections:
        """Return the same faces whatever is in the picture."""
        self.seen.append(image.shape)
        if self.before is not None:
            self.before(image)
        return result(
            self.boxes, scores=self.scores, landmarks=self.landmarks, size=(image.shape[0], image.shape[1])
        )


def contestants(*finders: Finder, scorers: dict[int, Finder] | None = None) -> list[Contestant]:
    """RetinaFace, dlib HOG and dlib CNN, as far as there are finders."""
    names = [("retinaface", "RetinaFace"), ("dlib-hog", "dlib HOG"), ("dlib-cnn", "dlib CNN")]
    return [
        Contestant(name, label, finder, (scorers or {}).get(index), {"engine": "made up"})
        for index, ((name, label), finder) in enumerate(zip(names, finders, strict=False))
    ]
