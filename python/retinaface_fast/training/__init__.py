"""Training: targets, losses, augmentation, recipes and the loop. Needs the extra `train`.

Importing this imports neither torch nor pydantic; what is taken from it imports what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check import DataReport, check_data, report_lines
    from .curves import plot_run
    from .landmark_fill import fill_landmarks
    from .losses import LossTerms, MultiTaskLoss
    from .progress import Shares, TrainingProgress, TrainingResult
    from .recipe import Recipe, load_recipe, recipe_names
    from .records import Record, RecordSet, read_records
    from .trainer import Trainer
    from .validation import Validator, records_validator, widerface_validator

_HOMES = {
    "DataReport": "check",
    "LossTerms": "losses",
    "MultiTaskLoss": "losses",
    "Recipe": "recipe",
    "Record": "records",
    "RecordSet": "records",
    "Shares": "progress",
    "Trainer": "trainer",
    "TrainingProgress": "progress",
    "TrainingResult": "progress",
    "Validator": "validation",
    "check_data": "check",
    "fill_landmarks": "landmark_fill",
    "load_recipe": "recipe",
    "plot_run": "curves",
    "read_records": "records",
    "recipe_names": "recipe",
    "records_validator": "validation",
    "report_lines": "check",
    "widerface_validator": "validation",
}

__all__ = [
    "DataReport",
    "LossTerms",
    "MultiTaskLoss",
    "Recipe",
    "Record",
    "RecordSet",
    "Shares",
    "Trainer",
    "TrainingProgress",
    "TrainingResult",
    "Validator",
    "check_data",
    "fill_landmarks",
    "load_recipe",
    "plot_run",
    "read_records",
    "recipe_names",
    "records_validator",
    "report_lines",
    "widerface_validator",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
