"""The landmarks of `--landmarks-from`: searched once for each run, by one of its processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from ._train_report import is_first_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from retinaface_fast.training import Recipe, Record
    from retinaface_fast.weights import ModelWeights


class KeptLandmarks:
    """Landmarks that some weights find, and their file in the folder of the run.

    Whoever goes on must have the same bits, and another device or release may find others: what was found is
    kept, and taken for the same data and weights only.

    Args:
        folder: Of the run.
        source: What `load_weights` takes.
        recipe: Of the run.
        resumed: Whether the folder knows the weights; their file may be gone.

    Raises:
        DatasetError: The folder holds another run.
        WeightsError: The weights cannot be had.
        typer.BadParameter: There are no weights of this name.
    """

    def __init__(self, folder: Path, source: str, recipe: Recipe, *, resumed: bool) -> None:
        from retinaface_fast.training.run_folder import read_run

        self._folder = folder
        self._path = folder / "landmarks.npz"
        self._source = source
        self._recipe = recipe
        known = read_run(folder).get("landmarks_from") if resumed else None
        self._weights = None if known and self._path.is_file() else self._load()
        self._sha256 = str(known) if self._weights is None else self._weights.sha256

    @property
    def conditions(self) -> dict[str, Any]:
        """What whoever goes on must have the same of."""
        return {"landmarks_from": self._sha256}

    def fill(
        self, records: Sequence[Record], *, device: str | None, progress: Callable[[int, int], None]
    ) -> Sequence[Record]:
        """The records with landmarks for the faces that have none; `device` and `progress` of the search.

        Raises:
            DatasetError: The folder cannot be written, another process has it, it holds another run, or its
                landmarks are others.
        """
        from retinaface_fast.training.landmark_fill import (
            fill_landmarks,
            load_landmarks,
            save_landmarks,
            wait_for_landmarks,
        )
        from retinaface_fast.training.run_folder import check_run, lock_run

        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not is_first_process():
            wait_for_landmarks(self._path)
            return load_landmarks(self._path, records, weights_sha256=self._sha256)
        # Not the run's own lock, which is the trainer's to take; it finds out if another run came between.
        lock = lock_run(self._folder)
        try:
            part = {**self.conditions, "recipe": self._recipe.model_dump(mode="json")}
            check_run(self._folder, {**part, "pictures": len(records)})
            if self._weights is None or self._path.is_file():
                return load_landmarks(self._path, records, weights_sha256=self._sha256)
            detector = _detector(self._weights, device)
            filled = fill_landmarks(records, detector=detector, progress=progress)
            save_landmarks(self._path, filled, given=records, weights_sha256=self._sha256)
            return filled
        finally:
            lock.release(force=True)

    def _load(self) -> ModelWeights:
        from retinaface_fast.weights import load_weights

        try:
            return load_weights(self._source)
        except ValueError as error:
            text = str(error).removeprefix("source: ")
            raise typer.BadParameter(text, param_hint="--landmarks-from") from None


def _detector(weights: ModelWeights, device: str | None) -> Any:
    from retinaface_fast.detector import FaceDetector

    return FaceDetector(weights=weights, device=device, score_threshold=0.3)
