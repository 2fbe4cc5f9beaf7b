"""One size on one number of threads: what its job tells, and what becomes of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rows import Row

__all__ = ["BASELINE", "Cell"]

#: The row that the others are compared with.
BASELINE = "native"
#: What `answers.Verdict` holds.
_VERDICT = ("found", "agreement", "disputed")
_INTERRUPTED = "interrupted before it was measured"


@dataclass(slots=True)
class Cell:
    """What is known of one size on one number of threads while it is measured.

    Attributes:
        size_hw: Height and width of the picture in pixels.
        threads: At most so many work.
        results: What is known for good, by row.
        turns: The turns of the job that runs, by row.
        answers: What its rows have found, and how long a call takes.
        ended: What went wrong in the process after its turns, or without being anyone's fault.
    """

    size_hw: tuple[int, int]
    threads: int
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    turns: dict[str, turns.Turns] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: str | None = None

    def note(self, event: dict[str, Any]) -> None:
        """Take an event of the job into account."""
        kind, row = event["event"], event.get("row", "")
        if kind == "answered":
            self.answers[row] = {
                "faces": event["faces"],
                "call": event["seconds"],
                "doubt": event["doubt"],
            }
        elif kind == "right":
            self.answers[row] |= {name: event[name] for name in _VERDICT}
            self.answers[row]["rounds_planned"] = event["rounds"]
        elif kind == "failed":
            self.results[row] = {"failed": event["why"]}
        elif kind == "turn":
            self.turns.setdefault(row, turns.Turns()).turns.append(turns.Turn(**event["turn"]))

    def forget(self) -> None:
        """Before the job is done again: only who has failed has an end."""
        self.turns.clear()
        self.answers.clear()

    def abandon(self, rows: Sequence[Row], why: str) -> None:
        """A job has broken, and nobody knows who did it: who has turns keeps them, the others have failed."""
        self.ended = why
        for row in rows:
            if row.name not in self.turns:
                self.results.setdefault(row.name, {"failed": why})

    def finish(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        for row in rows:
            if row.name in self.results:
                continue
            timed = self.turns.get(row.name)
            if timed is None:
                self.results[row.name] = {"left_out": _INTERRUPTED}
                continue
            summary = timed.summary()
            if "part" in summary:
                summary["network"] = {
                    "median": summary.pop("part"),
                    "quartiles": summary.pop("part_quartiles"),
                }
            least = 0 if row.device != "cpu" else 1 if row.one_thread or row.serial else None
            known = self.answers[row.name]
            answer = {name: known[name] for name in ("faces", *_VERDICT, "rounds_planned")}
            suspicion = known["doubt"] or turns.suspicion(summary, self.threads, least=least)
            self.results[row.name] = summary | answer | {"suspicion": suspicion}
        ours = self.results.get(BASELINE, {})
        for result in self.results.values():
            if "median" in result:
                result["times_native"] = turns.ratio(result, ours) if "median" in ours else None
        return {
            "size_hw": list(self.size_hw),
            "threads": self.threads,
            "ended": self.ended,
            "results": {row.name: self.results[row.name] for row in rows},
        }
