"""The run of `retinaface-fast benchmark`: what is asked for, progress, and what is written."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from retinaface_fast._files import write_whole
from retinaface_fast.errors import MissingDependencyError, RetinaFaceError
from retinaface_fast.latency import (
    PLOT_SUFFIXES,
    LatencyBenchmark,
    LatencyPlan,
    has_failed,
    machine_lines,
    main_tables,
    notes,
    plot_latency,
    report_to_markdown,
)
from retinaface_fast.latency.machine import available_threads

from . import _console
from ._outputs import Inputs, ResultsError, naming, part_of
from ._sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from retinaface_fast.latency import LatencyProgress

_OPTIONS = {"sizes_hw": "--sizes", "cold_runs": "--parts"}


@dataclass(frozen=True, slots=True)
class Targets:
    """Where results go.

    Attributes:
        json_to: File for JSON, or `-`.
        markdown_to: File for Markdown, or `-`.
        plot_to: File for the plot.
    """

    json_to: str | None
    markdown_to: str | None
    plot_to: Path | None

    def check(self, picture: Path | None) -> None:
        """Refuse what cannot be written, before anyone waits for it.

        Raises:
            typer.BadParameter: A target is a folder, has the wrong suffix, or is the picture or another one.
        """
        inputs = Inputs([] if picture is None else [Source(picture, picture)])
        taken: set[Path] = set()
        options = {"--json": self.json_to, "--markdown": self.markdown_to, "--plot": self.plot_to}
        for option, target in options.items():
            if target is None or target == "-":
                continue
            path = Path(target)
            if path.is_dir():
                raise typer.BadParameter(f"{target} is a folder and not a file", param_hint=option)
            inputs.protect(path, option)
            if path.resolve() in taken:
                raise typer.BadParameter(f"{target} is given twice", param_hint=option)
            taken.add(path.resolve())
        if self.plot_to is not None and self.plot_to.suffix.lower() not in PLOT_SUFFIXES:
            raise typer.BadParameter(
                f"{self.plot_to} must end in {', '.join(PLOT_SUFFIXES)}", param_hint="--plot"
            )

    def try_out(self) -> None:
        """Make a file where each target will be, and remove it: nobody shall wait for what cannot be written.

        Raises:
            ResultsError: One cannot be made.
        """
        for target in (self.json_to, self.markdown_to, self.plot_to):
            if target is None or target == "-":
                continue
            part = part_of(Path(target))
            with naming(target, ResultsError):
                part.parent.mkdir(parents=True, exist_ok=True)
                try:
                    part.touch()
                finally:
                    part.unlink(missing_ok=True)

    def write(self, record: Mapping[str, Any]) -> bool:
        """Write everything, each target whatever becomes of the others; returns whether all went well."""
        writers: list[tuple[str, Callable[[], object]]] = []
        if self.json_to is not None:
            json_to = self.json_to
            writers.append(
                (json_to, lambda: _write(json_to, f"{json.dumps(record, indent=1, allow_nan=False)}\n"))
            )
        if self.markdown_to is not None:
            markdown_to = self.markdown_to
            writers.append((markdown_to, lambda: _write(markdown_to, report_to_markdown(record))))
        if self.plot_to is not None:
            writers.append((str(self.plot_to), lambda: self._plot(record)))
        # Whoever reads the standard output may have gone away, which ends everything: files come first.
        writers.sort(key=lambda entry: entry[0] == "-")
        went_well = [_went_well(target, write) for target, write in writers]  # all of them, always
        return all(went_well)

    def _plot(self, record: Mapping[str, Any]) -> None:
        assert self.plot_to is not None
        if not any("median" in result for cell in record["cells"] for result in cell["results"].values()):
            _console.error(f"{self.plot_to} is not drawn: no times were measured")
            return
        with naming(self.plot_to, ResultsError):
            plot_latency(record, self.plot_to)


def _went_well(target: str, write: Callable[[], object]) -> bool:
    try:
        write()
    except BrokenPipeError:
        raise
    except Exception as error:  # the other targets hold what took so long to measure
        known = isinstance(error, RetinaFaceError)
        _console.error(str(error) if known else f"cannot write {target}: {error}")
        return False
    return True


def _write(target: str, text: str) -> None:
    if target == "-":
        with naming("the standard output", ResultsError):
            typer.echo(text, nl=False)
        return
    with naming(target, ResultsError):
        write_whole(target, text)


def check_extra() -> None:
    """Check that the extra is there, before anyone waits.

    Raises:
        MissingDependencyError: It is not.
    """
    for name, purpose in (
        ("matplotlib", "the picture that is searched"),
        ("psutil", "describing the machine"),
    ):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(name, purpose=purpose, extra="benchmark")


def parse_names(text: str) -> list[str]:
    """Return the names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Return height and width of each size in a list like 640x480,1920x1080.

    Raises:
        typer.BadParameter: It is no such list.
    """
    sizes = []
    for name in parse_names(text):
        width, cross, height = name.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal() and len(name) < 20):
            raise typer.BadParameter(f"{name} is no size like 640x480", param_hint="--sizes")
        sizes.append((int(height), int(width)))
    return sizes


def parse_threads(text: str) -> list[int]:
    """Return the numbers of threads in a list like 1,all.

    Raises:
        typer.BadParameter: It is no such list.
    """
    numbers = []
    for name in parse_names(text):
        if name != "all" and not (name.isdecimal() and len(name) < 6):
            raise typer.BadParameter(f"{name} is no number of threads, or all", param_hint="--threads")
        numbers.append(available_threads() if name == "all" else int(name))
    return numbers


def make_plan(quick: bool, changes: Mapping[str, Any]) -> LatencyPlan:
    """Return what is to be measured.

    Raises:
        typer.BadParameter: It cannot be.
    """
    try:
        return LatencyPlan.quick(**changes) if quick else LatencyPlan(**changes)
    except (ValueError, TypeError) as error:
        name = str(error).partition(" ")[0]
        raise typer.BadParameter(str(error), param_hint=_OPTIONS.get(name, f"--{name}")) from None


def measure(plan: LatencyPlan, targets: Targets, *, asked_for: Sequence[str], quiet: bool) -> int:
    """Measure, write and print; returns the exit code.

    Args:
        plan: What is to be measured.
        targets: What is to be written.
        asked_for: Rows that were asked for by their names: that they cannot be had is a failure.
        quiet: Print errors only.

    Raises:
        RetinaFaceError: A target cannot be written, or the picture not be read.
    """
    targets.try_out()
    console = _console.stderr()
    benchmark = LatencyBenchmark(plan)
    started = time.perf_counter()
    bar = Progress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        # A bar that moves while others are timed takes their time: it is redrawn when something happens.
        auto_refresh=False,
        disable=quiet or not console.is_terminal,
    )
    code = 0
    failure: Exception | None = None
    with bar, _terminated_as_interrupted() as terminated:
        task = bar.add_task("", total=1.0)

        def _show(state: LatencyProgress) -> None:
            bar.update(task, completed=state.fraction, description=state.stage, refresh=True)

        try:
            benchmark(_show)
        except KeyboardInterrupt:
            code = 143 if terminated else 130
        except Exception as error:  # what was measured before is written all the same
            failure = error
    record = benchmark.record
    if failure is not None and not (record["cells"] or record["memory"] or record["cold"]):
        raise failure
    went_well = targets.write(record)
    if not quiet:
        if "-" not in (targets.json_to, targets.markdown_to):
            _print(record)
        seconds = time.perf_counter() - started
        _console.line(console, f"{'interrupted after' if code or failure else 'measured in'} {seconds:.0f} s")
    if failure is not None:
        raise failure
    if code:
        return code
    lacking = [
        f"{name} was asked for: {record['rows'][name]['left_out']}"
        for name in asked_for
        if record["rows"][name]["left_out"] is not None
    ]
    # Without the table nobody else tells.
    failed = [note for note in notes(record) if " FAILED" in note] if quiet else []
    for line in (*lacking, *failed):
        _console.error(line)
    return 1 if lacking or has_failed(record) or not went_well else 0


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[list[int]]:
    """Take SIGTERM for Ctrl-C, so that what was measured is written and nothing is left behind.

    Yields:
        The signals that have come.
    """
    came: list[int] = []

    def _interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # others cannot have signals
        yield came
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(record: Mapping[str, Any]) -> None:
    console = _console.stdout()
    with naming("the standard output", ResultsError):
        for line in machine_lines(record):
            _console.line(console, line)
        for table in main_tables(record):
            title, *lines = table.to_text().splitlines()
            _console.line(console, "")
            _console.line(console, title, style="bold")
            for line in lines:
                _console.line(console, line)
        found = notes(record)
        if found:
            _console.line(console, "")
        for note in found:
            loud = note.startswith(("INTERRUPTED", "THE MACHINE IS NOT QUIET")) or "FAILED" in note
            _console.line(console, note, style="red" if loud else "")
