"""Average precision of weights in training, by the package's own detector and evaluator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import _core
from retinaface_fast.data import Prediction
from retinaface_fast.detector import FaceDetector
from retinaface_fast.errors import DatasetError, ImageError
from retinaface_fast.evaluation import PROTOCOLS, evaluate, voc_average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from retinaface_fast.data import GroundTruth
    from retinaface_fast.detections import Detections
    from retinaface_fast.evaluation import Protocol
    from retinaface_fast.weights import ModelWeights

    from .records import Record

__all__ = ["ValidationResult", "Validator", "records_validator", "widerface_validator"]


@dataclass(frozen=True, slots=True, eq=False)
class ValidationResult:
    """What a validation has come to.

    Attributes:
        ap: Average precision, 0 to 1, by subset: "easy", "medium" and "hard", or "ap" alone.
        found: The faces of each picture.
        faults: Pictures that could not be searched, and why; they count as pictures without a prediction.
    """

    ap: Mapping[str, float]
    found: Sequence[Detections | None]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Validator:
    """Searches pictures with some weights and scores what is found.

    Attributes:
        images: The pictures.
        truth: Ground truth of WIDER FACE, its pictures in the same order; None scores by `boxes`.
        boxes: (G, 4) float64 xyxy pixels of each picture, for the average precision of Pascal VOC at IoU >=
            0.5.
        ignored: (G,) bool of each picture: boxes that are neither to be found nor wrong.
        device: Where the detector runs; as for `FaceDetector`.
    """

    images: Sequence[Path]
    truth: GroundTruth | None = None
    boxes: Sequence[np.ndarray] = ()
    ignored: Sequence[np.ndarray] = ()
    device: str | None = None
    _workers: int = field(default_factory=_core.available_processors)

    def __call__(self, weights: ModelWeights, *, protocol: str = "original") -> ValidationResult:
        """Search all pictures by a protocol of `retinaface_fast.evaluation.PROTOCOLS`, and score.

        Raises:
            EngineError: The device failed, such as for want of memory: no figure is better than a wrong one.
            MissingDependencyError: A package is needed to read the pictures.
        """
        found: list[Detections | None] = []
        faults: list[str] = []
        for path, outcome in zip(self.images, self._search(weights, PROTOCOLS[protocol]), strict=True):
            if isinstance(outcome, str):
                faults.append(f"{path}: {outcome}")
                found.append(None)
            else:
                found.append(outcome)
        predictions = [_prediction(detections) for detections in found]
        if self.truth is not None:
            ap: Mapping[str, float] = dict(evaluate(predictions, self.truth).ap)
        else:
            ap = {"ap": voc_average_precision(predictions, list(self.boxes), ignored=list(self.ignored))}
        return ValidationResult(ap, tuple(found), tuple(faults))

    def _search(self, weights: ModelWeights, protocol: Protocol) -> list[Detections | str]:
        # Several pictures at a time on one thread each are faster than one on all of them, where the engine
        # lets itself be told.
        detector = FaceDetector(weights=weights, device=self.device, **protocol.options())
        workers = 1
        if detector.engine == "native" and self._workers > 1:
            workers = self._workers
            detector = FaceDetector(weights=weights, device=self.device, threads=1, **protocol.options())

        def search(path: Path) -> Detections | str:
            try:
                return protocol.detect(detector, path)
            except (ImageError, OSError, ValueError) as error:  # of the picture; all else ends the run
                return str(error) or type(error).__name__

        with ThreadPoolExecutor(workers, thread_name_prefix="validation") as pool:
            return list(pool.map(search, self.images))


def widerface_validator(
    images: Path, truth: GroundTruth, *, device: str | None = None, most: int | None = None
) -> Validator:
    """A validator by the official protocol of WIDER FACE.

    Args:
        images: Folder of the pictures, `<event>/<name>.jpg`.
        truth: The ground truth, of `data.read_ground_truth`.
        device: As for `FaceDetector`.
        most: How many pictures may be missing, which then count as pictures without a prediction; None for
            none.

    Raises:
        DatasetError: More pictures are missing.
    """
    paths = [images / f"{name}.jpg" for name in truth.names]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) > (most or 0):
        raise DatasetError(f"{images}: {len(missing):,} of {len(paths):,} pictures are missing: {missing[0]}")
    return Validator(paths, truth=truth, device=device)


def records_validator(records: Sequence[Record], *, device: str | None = None) -> Validator:
    """A validator for annotations of any origin: average precision of Pascal VOC at IoU >= 0.5.

    Args:
        records: The pictures and their faces.
        device: As for `FaceDetector`.

    Raises:
        DatasetError: There is no face to be found.
    """
    if all(record.ignored.all() for record in records):
        raise DatasetError("there is no face to be found in the pictures to validate on")
    return Validator(
        [record.image for record in records],
        boxes=[record.boxes.astype(np.float64) for record in records],
        ignored=[record.ignored for record in records],
        device=device,
    )


def _prediction(found: Detections | None) -> Prediction:
    if found is None:
        return Prediction(np.empty((0, 4)), np.empty(0))
    return Prediction(found.boxes.astype(np.float64), found.scores.astype(np.float64))
