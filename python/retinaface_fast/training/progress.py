"""How far a training run is, where its time goes, and what it has come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Shares", "TrainingProgress", "TrainingResult"]


@dataclass(slots=True)
class Shares:
    """Where the time of a run goes, in seconds of its first process.

    Attributes:
        loading: Reading and augmenting pictures, added up over the workers.
        assignment: Making targets, likewise.
        waiting: What the loop waited for pictures: loading and assignment that the workers did not hide.
        forward: The network and the loss.
        backward: The gradients, and adding them up over processes.
        update: The optimiser and the average.
        pictures: Pictures that went through the loop.
        total: All of it, without validation and checkpoints.
    """

    loading: float = 0.0
    assignment: float = 0.0
    waiting: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    update: float = 0.0
    pictures: int = 0
    total: float = 0.0

    @property
    def pictures_per_second(self) -> float:
        """The rate of the loop; 0 before its first step."""
        return self.pictures / self.total if self.total > 0 else 0.0

    def of_work(self) -> dict[str, float]:
        """Share of each kind of work, workers' included; they add up to 1."""
        parts = {
            "loading": self.loading,
            "assignment": self.assignment,
            "forward": self.forward,
            "backward": self.backward,
            "update": self.update,
        }
        whole = sum(parts.values())
        return {name: seconds / whole if whole > 0 else 0.0 for name, seconds in parts.items()}


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run is.

    Attributes:
        epoch: The epoch that is being worked at, from 0.
        epochs: All of them.
        step: Steps that are done, over all epochs.
        steps: All of them.
        losses: The terms of the last step, by name.
        lr: Its learning rate.
        pictures_per_second: The rate of the loop so far, over all processes.
        ap: What the last validation found, by subset; None before the first.
        best: The best figure of `validation.metric` so far; None before the first.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict)
    lr: float = 0.0
    pictures_per_second: float = 0.0
    ap: Mapping[str, float] | None = None
    best: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run has come to.

    Attributes:
        progress: How far it came.
        finished: Whether all epochs are done, or it ended early by `validation.patience`.
        stopped: Whether it was stopped and can go on.
        shares: Where the time went.
        last: Weights of the last epoch, for `FaceDetector(weights=...)`; None if none is done.
        best: Those with the best validation; None without validation.
        faults: What was wrong with the data, each once.
    """

    progress: TrainingProgress
    finished: bool
    stopped: bool
    shares: Shares
    last: Path | None
    best: Path | None
    faults: tuple[str, ...]
