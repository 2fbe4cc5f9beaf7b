"""The run: sizes and numbers of threads one after another, each in a process of its own."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import retinaface_fast

from .budget import History
from .cell import BASELINE, Cell
from .cold import cold_starts
from .contestants import NMS_THRESHOLD, SCORE_THRESHOLD
from .machine import describe_machine, free_memory
from .plan import PAPER_SIZES
from .processes import Outcome, run_job
from .scene import compose, cover

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plan import LatencyPlan
    from .rows import Row

__all__ = ["SCHEMA", "LatencyBenchmark", "LatencyProgress"]

#: Version of the form of the record.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LatencyProgress:
    """Where a run is.

    Attributes:
        stage: What is being measured, in words.
        fraction: How much of the run is done, from 0 to 1.
    """

    stage: str
    fraction: float


class LatencyBenchmark:
    """Measures how long detection takes, ours and everyone's. Call it once.

    Everyone's faces are compared before anyone is timed. Rows take turns in every round, in a process for
    each size and number of threads that is pinned to as many processors. Who raises, dies or hangs has
    failed, and the others go on.

    Args:
        plan: What is to be measured.

    Attributes:
        plan: As given.
        record: What has been measured so far, as JSON takes it; complete once the call returns.

    Examples:
        >>> from retinaface_fast.latency import LatencyPlan
        >>> plan = LatencyPlan.quick(rows=["native"], sizes_hw=[(120, 160)], parts=["times"])
        >>> record = LatencyBenchmark(plan)()                                       # doctest: +SKIP
        >>> record["cells"][0]["results"]["native"]["median"]                       # doctest: +SKIP
        0.00056
    """

    def __init__(self, plan: LatencyPlan) -> None:
        self.plan = plan
        self._rows = plan.chosen_rows()
        self._history = History()
        self._progress: Callable[[LatencyProgress], object] | None = None
        self._stage = ""
        self._done = 0.0
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "retinaface_fast": retinaface_fast.__version__,
            "machine": describe_machine(),
            "settings": {
                "sizes_hw": [list(size) for size in plan.chosen_sizes()],
                "threads": plan.chosen_threads(),
                "rounds": plan.rounds,
                "turn_seconds": plan.turn_seconds,
                "budget": plan.budget,
                "limit": plan.seconds_of_silence(),
                "score_threshold": SCORE_THRESHOLD,
                "nms_threshold": NMS_THRESHOLD,
                "picture": "composed" if plan.picture is None else plan.picture.name,
                "parts": list(plan.parts),
            },
            "rows": {},
            "pictures": [],
            "cells": [],
            "memory": [],
            "cold": None,
            "interrupted": False,
        }

    def __call__(self, progress: Callable[[LatencyProgress], object] | None = None) -> dict[str, Any]:
        """Measure.

        Args:
            progress: Called with where the run is, several times a second at most.

        Returns:
            The record.

        Raises:
            KeyboardInterrupt: It was interrupted; `record` has what was measured until then.
            ImageError: The picture cannot be read.
            MissingDependencyError: matplotlib or OpenCV, which the picture is made with, is not installed.
        """
        self._progress = progress
        try:
            self._measure()
        except BaseException:  # whatever it is, what has been measured until then is worth having
            self.record["interrupted"] = True
            raise
        return self.record

    def _measure(self) -> None:
        self._find_rows()
        if {"times", "memory"} & set(self.plan.parts):
            self._measure_sizes()
        if "cold" in self.plan.parts:
            self._cold()

    def _measure_sizes(self) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            sizes = self.plan.chosen_sizes()
            probe = self._size_to_probe()
            if probe is not None:
                self._probe(probe, self._show(probe, folder), {})
            for size in sizes:
                scene = self._show(size, folder)
                self.record["pictures"].append(
                    {
                        "size_hw": list(size),
                        "content": scene.content,
                        "faces": None if scene.places is None else len(scene.places),
                    }
                )
                broken = self._memory(size, scene) if "memory" in self.plan.parts else {}
                if "times" in self.plan.parts:
                    for threads in self.plan.chosen_threads():
                        self._times(size, threads, scene, broken)

    # Rows

    def _find_rows(self) -> None:
        """Tell who can be measured here from who cannot, and why."""
        devices: dict[str, list[str]] | None = None
        for row in self._rows:
            missing = row.missing()
            left_out = None if missing is None else f"{missing} is not installed"
            if left_out is None and row.device != "cpu":
                if devices is None:
                    self._tell("devices", 0)
                    devices = self._devices()
                if row.device not in devices.get(row.options["engine"], []):
                    left_out = f"{row.options['engine']} finds no device {row.device}"
            self.record["rows"][row.name] = {
                "label": row.label,
                "device": row.device,
                "ours": row.is_ours,
                "versions": row.versions(),
                "left_out": left_out,
            }
        self._rows = [row for row in self._rows if self.record["rows"][row.name]["left_out"] is None]

    def _devices(self) -> dict[str, list[str]]:
        outcome = run_job({"job": "devices"}, threads=1, limit=self.plan.seconds_of_silence())
        found: dict[str, list[str]] = {} if outcome.failed else outcome.answer["devices"]
        return found

    def _why_not(
        self,
        row: Row,
        size_hw: tuple[int, int],
        threads: int | None,
        *,
        free: int | None,
        held: float = 0.0,
    ) -> str | None:
        """Why a row is left out at a size, or None."""
        if row.from_short_side is not None and min(size_hw) <= row.from_short_side:
            return f"up to {row.from_short_side} pixels on the shorter side it is the same as {BASELINE}"
        if row.one_thread and threads is not None and threads > 1 and 1 in self.plan.threads:
            return "it uses one thread however many there are: see its times there"
        pixels = size_hw[0] * size_hw[1]
        return self._history.why_not(row.name, threads, pixels, budget=self.plan.budget, free=free, held=held)

    def _size_to_probe(self) -> tuple[int, int] | None:
        """The size that tells what larger ones will need.

        None where its memory is measured anyway, or where none is larger.
        """
        sizes = self.plan.chosen_sizes()
        smallest = min(sizes[0], PAPER_SIZES[0], key=math.prod)
        measured = "memory" in self.plan.parts and smallest == sizes[0]
        return smallest if not measured and math.prod(sizes[-1]) > math.prod(smallest) else None

    # Pictures

    def _show(self, size_hw: tuple[int, int], folder: Path) -> _Shown:
        """Make the picture of a size, and put it where the jobs can load it without what it is made with."""
        scene = compose(size_hw) if self.plan.picture is None else cover(self.plan.picture, size_hw)
        path = folder / f"{size_hw[1]}x{size_hw[0]}.npy"
        np.save(path, scene.image)
        return _Shown(path, scene.places, scene.content)

    # Parts

    def _memory(self, size_hw: tuple[int, int], scene: _Shown) -> dict[str, str]:
        """Measure the memory of every row; returns those that have failed, and why."""
        results: dict[str, Any] = {}
        threads = self.plan.chosen_threads()[-1]
        self.record["memory"].append({"size_hw": list(size_hw), "threads": threads, "results": results})
        self._probe(size_hw, scene, results)
        return {name: row["failed"] for name, row in results.items() if "failed" in row}

    def _probe(self, size_hw: tuple[int, int], scene: _Shown, results: dict[str, Any]) -> None:
        threads, pixels = self.plan.chosen_threads()[-1], size_hw[0] * size_hw[1]
        for row in self._rows:
            reason = self._why_not(row, size_hw, None, free=free_memory())
            if reason is not None:
                results[row.name] = {"left_out": reason}
                continue
            self._tell(f"{_named(size_hw)}: memory of {row.label}", self._weight(size_hw))
            job = {"job": "memory", "row": dataclasses.asdict(row), "picture": str(scene.path)}
            outcome = self._run({**job, "threads": threads, "budget": self.plan.budget}, threads)
            if outcome.failed is not None:
                results[row.name] = {"failed": outcome.failed}
                continue
            answer = {name: value for name, value in outcome.answer.items() if name != "event"}
            results[row.name] = answer
            self._history.took(row.name, threads, pixels, answer["seconds"])
            # Where the growth is not known, it was no more than what there was above the loaded state.
            growth = answer["growth"] if answer["growth"] is not None else answer["peak"] - answer["loaded"]
            self._history.needed(row.name, pixels, max(0, growth), answer["loaded"])

    def _times(self, size_hw: tuple[int, int], threads: int, scene: _Shown, broken: dict[str, str]) -> None:
        cell = Cell(size_hw, threads)
        # All rows of a cell share a process, and what one has needed is not given back.
        free, held = free_memory(), 0.0
        for row in self._rows:
            reason = self._why_not(row, size_hw, threads, free=free, held=held)
            if row.name in broken:
                cell.results[row.name] = {"failed": broken[row.name]}
            elif reason is not None:
                cell.results[row.name] = {"left_out": reason}
            else:
                held += self._history.needs(row.name, size_hw[0] * size_hw[1])
        try:
            self._time_rows(cell, scene)
        finally:
            self.record["cells"].append(cell.finish(self._rows))
        pixels = size_hw[0] * size_hw[1]
        for name, answer in cell.answers.items():
            self._history.took(name, threads, pixels, answer["call"])

    def _time_rows(self, cell: Cell, scene: _Shown) -> None:
        """Do the job until nobody breaks it."""
        title = f"{_named(cell.size_hw)}, {_threads(cell.threads)}"
        labels = {row.name: row.label for row in self._rows}
        unit = self._weight(cell.size_hw)

        def note(event: dict[str, Any]) -> None:
            cell.note(event)
            if event["event"] == "step":
                self._tell(f"{title}: {labels[event['row']]}, {event['doing']}", 0)
            elif event["event"] in ("turn", "answered"):
                self._tell(None, unit)

        while True:
            rows = [row for row in self._rows if row.name not in cell.results]
            if not rows:
                return
            cell.forget()
            outcome = self._run(
                {
                    "job": "times",
                    "rows": [dataclasses.asdict(row) for row in rows],
                    "picture": str(scene.path),
                    "places": None if scene.places is None else scene.places.tolist(),
                    "threads": cell.threads,
                    "rounds": self.plan.rounds,
                    "turn_seconds": self.plan.turn_seconds,
                    "budget": self.plan.budget,
                },
                cell.threads,
                note,
            )
            if outcome.failed is None:
                cell.ended = outcome.note
                return
            if outcome.row is None:
                cell.abandon(rows, outcome.failed)
                return
            cell.results.setdefault(outcome.row, {"failed": outcome.failed})

    def _run(
        self,
        job: dict[str, Any],
        threads: int,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Outcome:
        return run_job(job, threads=threads, limit=self.plan.seconds_of_silence(), on_event=on_event)

    def _cold(self) -> None:
        results: dict[str, dict[str, Any]] = {}
        self.record["cold"] = {"runs": self.plan.cold_runs, "results": results}
        cold_starts(
            self._rows,
            self.plan.cold_runs,
            limit=self.plan.seconds_of_silence(),
            results=results,
            on_run=lambda row, turn: self._tell(f"cold start of {row.label}", 1),
        )

    # Progress

    def _weight(self, size_hw: tuple[int, int]) -> float:
        return size_hw[0] * size_hw[1] / (640 * 480)

    def _total(self) -> float:
        plan = self.plan
        calls = len(plan.chosen_threads()) * (plan.rounds + 1) * ("times" in plan.parts) + (
            "memory" in plan.parts
        )
        pixels = sum(map(self._weight, plan.chosen_sizes()))
        return len(self._rows) * (pixels * calls + (plan.cold_runs + 1) * ("cold" in plan.parts))

    def _tell(self, stage: str | None, units: float) -> None:
        if self._progress is not None:
            if stage is not None:
                self._stage = stage
            self._progress(LatencyProgress(self._stage, min(1.0, self._done / max(self._total(), 1e-9))))
        self._done += units


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture in a file: what `Scene` holds otherwise."""

    path: Path
    places: Any
    content: str


def _named(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
