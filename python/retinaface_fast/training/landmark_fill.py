"""Landmarks for faces that have none: those that a detector finds on them."""

from __future__ import annotations

import io
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._files import write_whole
from retinaface_fast._validation import check_fraction
from retinaface_fast.errors import DatasetError, ImageError
from retinaface_fast.ops import box_iou

from .run_folder import data_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from retinaface_fast._typing import FloatArray, IntArray
    from retinaface_fast.detector import FaceDetector

    from .records import Record

__all__ = ["fill_landmarks", "load_landmarks", "save_landmarks", "wait_for_landmarks"]

#: What is wrong with the data, and nothing else.
_faults = logging.getLogger("retinaface_fast.training.faults")


def fill_landmarks(
    records: Sequence[Record],
    *,
    detector: FaceDetector,
    min_iou: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Record, ...]:
    """Give faces without landmarks those that a detector finds on them.

    Trained on boxes alone, the shared layers drift and the landmarks of a network that had learnt them get
    worse; with its own landmarks as targets they are held where they were.

    Each detection goes to the one face that it overlaps most among those that are still free, the surest
    detection first, and each face takes one at most. Faces that have landmarks, even one, keep them and hold
    their detection; ignored faces likewise.

    Args:
        records: The pictures; pass `RecordSet.records`.
        detector: What finds the landmarks: of the network that is trained on, as a rule.
        min_iou: A face takes a detection only if their IoU is >= this, from 0 to 1. Faces that do not overlap
            at all never match.
        progress: Called after each picture with the number of those done and of all.

    Returns:
        The pictures in the same order. One that cannot be read stays as it is, with a warning in the log; the
        data set meets it again.

    Raises:
        ValueError: `min_iou` is out of range.
    """
    min_iou = check_fraction(min_iou, "min_iou")
    filled = []
    for number, record in enumerate(records, start=1):
        filled.append(_fill(record, detector, min_iou))
        if progress is not None:
            progress(number, len(records))
    return tuple(filled)


def save_landmarks(
    path: Path, records: Sequence[Record], *, given: Sequence[Record], weights_sha256: str
) -> None:
    """Keep the landmarks of pictures in a file, whole or not at all.

    Args:
        path: The file.
        records: The pictures with the landmarks that were found.
        given: The pictures as they were before.
        weights_sha256: Of the weights that have found them.

    Raises:
        DatasetError: It cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        landmarks=np.concatenate([np.empty((0, 5, 2), np.float32), *(r.landmarks for r in records)]),
        faces=np.array([len(record.boxes) for record in records], np.int64),
        data=np.array(data_digest(given)),
        weights=np.array(weights_sha256),
    )
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from None


def load_landmarks(path: Path, records: Sequence[Record], *, weights_sha256: str) -> tuple[Record, ...]:
    """Give pictures the landmarks that `save_landmarks` kept of the same ones.

    Args:
        path: The file.
        records: The pictures as they were before landmarks were found.
        weights_sha256: Of the weights that should have found them.

    Raises:
        DatasetError: The file cannot be read, or is that of other pictures or of other weights.
    """
    try:
        # Not from the path: NumPy leaves the file open where it finds no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            landmarks, faces = file["landmarks"], file["faces"]
            data, weights = str(file["data"]), str(file["weights"])
    # Of damaged files NumPy, zipfile and the decompressors raise nearly everything that there is.
    except Exception as error:
        what = str(error) or type(error).__name__
        raise DatasetError(f"{path}: expected kept landmarks, got something else: {what}") from None
    if (landmarks.dtype, faces.dtype) != (np.float32, np.int64):
        raise DatasetError(
            f"{path}: expected kept landmarks of float32 and counts of int64, got {landmarks.dtype} and "
            f"{faces.dtype}"
        )
    counts = [len(record.boxes) for record in records]
    if faces.tolist() != counts or landmarks.shape != (sum(counts), 5, 2):
        raise DatasetError(f"{path}: expected landmarks of {sum(counts):,} faces, got those of other data")
    for what, found, wanted in (
        ("data", data, data_digest(records)),
        ("weights", weights, weights_sha256),
    ):
        if found != wanted:
            raise DatasetError(
                f"{path}: expected landmarks of these {what}, got those of other {what}: name another "
                "folder, or remove the file to have them searched again"
            )
    parts = np.split(landmarks, np.cumsum(counts)[:-1])
    return tuple(replace(record, landmarks=part) for record, part in zip(records, parts, strict=True))


def wait_for_landmarks(path: Path, *, seconds: float = 6 * 3600.0, interval: float = 1.0) -> None:
    """Wait until another process has written the file of `save_landmarks`, which appears whole.

    Args:
        path: The file.
        seconds: How long at the most.
        interval: Seconds from one look to the next.

    Raises:
        DatasetError: It did not appear.
    """
    end = time.monotonic() + seconds
    while not path.is_file():
        if time.monotonic() >= end:
            raise DatasetError(
                f"{path}: expected from the first process within {seconds / 3600:g} hours, got no such file: "
                "the folder has to be one that all processes share"
            )
        time.sleep(interval)


def _fill(record: Record, detector: FaceDetector, min_iou: float) -> Record:
    is_wanted = np.isnan(record.landmarks).all(axis=(1, 2)) & ~record.ignored
    if not is_wanted.any():
        return record
    try:
        found = detector.detect(record.image)
    except ImageError as error:
        _faults.warning("%s: left without landmarks: %s", record.source, error)
        return record
    taken = _match(found.boxes, record.boxes, min_iou)
    is_filled = is_wanted & (taken >= 0)
    landmarks = record.landmarks.copy()
    landmarks[is_filled] = found.landmarks[taken[is_filled]]
    return replace(record, landmarks=landmarks)


def _match(found: FloatArray, faces: FloatArray, min_iou: float) -> IntArray:
    """The detection that each face takes, -1 for none; detections come surest first."""
    taken = np.full(len(faces), -1, np.int64)
    overlaps = box_iou(np.ascontiguousarray(found), np.ascontiguousarray(faces))
    for detection, row in enumerate(overlaps):
        free = np.where(taken < 0, row, 0)
        face = int(np.argmax(free))
        if free[face] > 0 and free[face] >= min_iou:
            taken[face] = detection
    return taken
