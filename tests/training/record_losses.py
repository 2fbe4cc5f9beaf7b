"""Trains as one process of many and writes the loss of each step: what `test_processes` starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from retinaface_fast.training import load_recipe, read_records
from retinaface_fast.training.trainer import Trainer
from retinaface_fast.training.validation import ValidationResult


class Ap:
    """A validator that finds the same each time."""

    images: tuple[Path, ...] = ()

    def __call__(self, weights: object, *, protocol: str) -> ValidationResult:
        return ValidationResult({"ap": 0.5}, ())


def main() -> None:
    """Train by the JSON in the first argument."""
    plan = json.loads(sys.argv[1])
    trainer = Trainer(
        load_recipe(plan["recipe"], plan["changes"]),
        read_records(plan["data"]).records,
        plan["output"],
        init=plan.get("init"),
        validator=Ap(),
        workers=0,
        device="cpu",
        checkpoint_seconds=plan.get("checkpoint_seconds", 600.0),
    )
    losses: list[dict[str, float]] = []

    def tell(state: object) -> None:
        if state.losses:  # type: ignore[attr-defined]
            losses.append(dict(state.losses))  # type: ignore[attr-defined]
        if len(losses) == plan.get("stop_after"):
            trainer.stop()

    result = trainer.run(progress=tell)
    if trainer.is_first_process:
        Path(plan["losses"]).write_text(json.dumps({"losses": losses, "stopped": result.stopped}))


if __name__ == "__main__":
    main()
