"""What a run is to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retinaface_fast._validation import MOST_THREADS, check_positive_int

from .machine import available_threads
from .rows import QUICK_ROWS, ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PAPER_SIZES", "PARTS", "LatencyPlan"]

#: Height and width of the pictures of the paper: VGA, HD and 4K.
PAPER_SIZES = ((480, 640), (1080, 1920), (2160, 4096))
#: What can be measured.
PARTS = ("times", "memory", "cold")
_SMALLEST, _LARGEST = 32, 16384


def _one_and_all() -> tuple[int, ...]:
    return tuple(sorted({1, available_threads()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPlan:
    """What a run is to measure.

    Attributes:
        sizes_hw: Height and width in pixels of the pictures, each side from 32 to 16384.
        threads: Numbers of threads, each at most the processors that this process may use; by default one,
            and all.
        rows: Who is measured: names of `ROWS`, in any order.
        rounds: Everyone has so many turns, >= 1.
        turn_seconds: A turn makes calls until they have taken so long together, >= 0 and finite.
        budget: Seconds for all turns of a row in a cell, > 0 and finite: a slow row has fewer rounds, and is
            left out where a single call would take longer.
        limit: Seconds, > 0 and finite, after which who gives no answer is given up; None for three times the
            budget, and two minutes at least.
        picture: A picture of one's own, resized and cropped to cover each size; None composes a crowd.
        parts: Of `PARTS`.
        cold_runs: How many cold starts are counted, >= 1.

    Raises:
        ValueError: A value is out of range, or a name unknown.
        TypeError: A number is not one.
    """

    sizes_hw: Sequence[tuple[int, int]] = PAPER_SIZES
    threads: Sequence[int] = field(default_factory=_one_and_all)
    rows: Sequence[str | Row] = tuple(ROWS)
    rounds: int = 15
    turn_seconds: float = 0.25
    budget: float = 60.0
    limit: float | None = None
    picture: Path | None = None
    parts: Sequence[str] = PARTS
    cold_runs: int = 10

    def __post_init__(self) -> None:
        for name in ("sizes_hw", "threads", "rows", "parts"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one, got none")
        if isinstance(self.rows, str) or isinstance(self.parts, str):
            name = "rows" if isinstance(self.rows, str) else "parts"
            raise TypeError(f"{name} must be a sequence of names, got {getattr(self, name)!r}")
        for size in self.sizes_hw:
            height, width = (check_positive_int(side, "sizes_hw") for side in size)
            if not (_SMALLEST <= height <= _LARGEST and _SMALLEST <= width <= _LARGEST):
                raise ValueError(
                    f"sizes_hw must have sides from {_SMALLEST} to {_LARGEST} pixels, got {width}x{height}"
                )
        available = available_threads()
        for count in self.threads:
            if check_positive_int(count, "threads") > min(available, MOST_THREADS):
                raise ValueError(f"threads must be at most {available}, the processors here, got {count}")
        _check_names([row for row in self.rows if isinstance(row, str)], tuple(ROWS), "rows")
        others = [row.name for row in self.rows if isinstance(row, Row)]
        twice = next((name for name in others if others.count(name) > 1 or name in self.rows), None)
        if twice is not None:
            raise ValueError(f"rows must have different names, got {twice!r} more than once")
        _check_names(self.parts, PARTS, "parts")
        check_positive_int(self.rounds, "rounds")
        check_positive_int(self.cold_runs, "cold_runs")
        for name in ("turn_seconds", "budget", "limit"):
            value = getattr(self, name)
            if name == "limit" and value is None:
                continue
            # JSON has no infinity, and nobody would wait for it.
            _check_seconds(value, name, may_be_none=name == "turn_seconds")

    @classmethod
    def quick(cls, **changes: object) -> LatencyPlan:
        """Return what shows in less than a minute that it works: VGA, one thread, three rounds, fast rows."""
        settings = {
            "sizes_hw": PAPER_SIZES[:1],
            "threads": (1,),
            "rows": QUICK_ROWS,
            "rounds": 3,
            "turn_seconds": 0.06,
            "budget": 5.0,
            "cold_runs": 2,
        }
        return cls(**{**settings, **changes})  # type: ignore[arg-type]

    def chosen_rows(self) -> list[Row]:
        """The rows, each once, in the order of the tables."""
        names = {row for row in self.rows if isinstance(row, str)}
        others = [row for row in self.rows if isinstance(row, Row)]
        return [*(row for name, row in ROWS.items() if name in names), *others]

    def chosen_sizes(self) -> list[tuple[int, int]]:
        """The sizes, each once, smallest first, because what they need tells what larger ones will need."""
        return sorted(
            {(height, width) for height, width in self.sizes_hw}, key=lambda size: size[0] * size[1]
        )

    def chosen_threads(self) -> list[int]:
        """The numbers of threads, each once, in order."""
        return sorted(set(self.threads))

    def seconds_of_silence(self) -> float:
        """After so many seconds without an answer a process is given up."""
        return self.limit if self.limit is not None else max(120.0, 3 * self.budget)


def _check_seconds(value: object, name: str, *, may_be_none: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not math.isfinite(value) or not (value >= 0 if may_be_none else value > 0):
        least = "at least 0" if may_be_none else "greater than 0"
        raise ValueError(f"{name} must be {least} and finite, got {value}")


def _check_names(names: Sequence[str], known: Sequence[str], argument: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{argument} must be of {', '.join(known)}, got {name!r}")
