"""Which weights of a run are the best, and when there is no point in going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .recipe import ValidationSection

__all__ = ["Selection"]


@dataclass(slots=True)
class Selection:
    """What the validations of a run have found so far.

    Attributes:
        config: Which figure decides, and how long there is patience.
        ap: The last average precision, 0 to 1, by subset; None before the first validation.
        best: The best of the figures that decide; None before the first validation.
        without_best: Validations since then.
    """

    config: ValidationSection
    ap: dict[str, float] | None = None
    best: float | None = None
    without_best: int = 0

    @property
    def ends(self) -> bool:
        """Whether patience is at its end."""
        return self.config.patience is not None and self.without_best >= self.config.patience

    def take(self, ap: Mapping[str, float]) -> bool:
        """Take in a validation; whether it is the best so far."""
        self.ap = dict(ap)
        metric = self.config.metric
        value = ap[metric] if metric in ap else float(np.mean(list(ap.values())))
        if value > (-np.inf if self.best is None else self.best):
            self.best, self.without_best = value, 0
            return True
        self.without_best += 1
        return False

    def state(self) -> dict[str, Any]:
        """What `load_state` needs, as JSON takes it."""
        return {"ap": self.ap, "best": self.best, "without_best": self.without_best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self.ap, self.best, self.without_best = state["ap"], state["best"], int(state["without_best"])
