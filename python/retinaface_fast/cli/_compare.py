"""The run of `retinaface-fast compare`: from pictures to the report."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table

from retinaface_fast._files import write_whole
from retinaface_fast.compare.comparison import compare_picture, failures, warm_up
from retinaface_fast.compare.panels import draw_panels, encode_jpeg, panel_side, side_by_side
from retinaface_fast.compare.report import render_report
from retinaface_fast.compare.summary import summarize_comparison
from retinaface_fast.data import SUBSETS

from . import _console
from ._compare_out import REPORT, SUMMARY
from ._compare_plan import PROTOCOL
from ._outputs import OutputError, ResultsError, naming, try_folder, write_picture
from ._report import plural, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.compare.comparison import ComparedPicture, Contestant

    from ._compare_plan import Picture, Truth
    from ._sources import NotFound


@dataclass(slots=True)
class Run:
    """A run in progress; call it once.

    Attributes:
        pictures: What to compare on, in order.
        missing: Arguments that lead to nothing: each counts as failed.
        contestants: The detectors, RetinaFace first.
        out: Folder to write to.
        earlier: Sheets of an earlier run there: deleted in the end, unless this run has written or read them.
        truth: Ground truth; None without average precision.
        show: Most pictures in the report.
        min_iou: Least overlap of a pair.
        max_pixels: Refuse files with more pixels.
        quiet: Print errors only.
    """

    pictures: Sequence[Picture]
    missing: Sequence[NotFound]
    contestants: Sequence[Contestant]
    out: Path
    earlier: Sequence[Path]
    truth: Truth | None
    show: int
    min_iou: float
    max_pixels: int | None
    quiet: bool
    _done: list[ComparedPicture] = field(default_factory=list)
    _sheets: dict[int, Path] = field(default_factory=dict)
    _images: dict[int, dict[str, bytes]] = field(default_factory=dict)
    _failed: int = 0
    _faces: int = 0

    def __call__(self) -> int:
        """Do the work and return the exit code: 0, 1 if anything failed, 130 if it was interrupted."""
        started, console = time.perf_counter(), _console.stderr()
        interrupted = False
        for absent in self.missing:
            self._fail(f"{absent.argument}: {absent.reason}")
        try_folder(self.out)
        claimed = self._claim()
        try:
            self._search_all()
        except KeyboardInterrupt:
            interrupted = True
        if self._done:
            interrupted = self._write() or interrupted
        elif claimed:
            (self.out / SUMMARY).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is something else in it
                self.out.rmdir()
        if not self.quiet:
            how = plural(len(self._done), "picture")
            if interrupted:
                how = f"interrupted: {len(self._done):,} of {plural(len(self.pictures), 'picture')}"
            failed = f", {self._failed:,} failed" if self._failed else ""
            text = f"{how}{failed}, in {time.perf_counter() - started:.1f} s"
            _console.line(console, text, style="red" if self._failed else "green")
        if interrupted:
            return 130
        return 1 if self._failed else 0

    def _claim(self) -> bool:
        """Say in a new folder whose it is and what will be in it, should this run be killed."""
        if (self.out / SUMMARY).exists():
            return False
        summary = summarize_comparison(self.contestants, [], min_iou=self.min_iou)
        sheets = [{"sheet": picture.target.relative_to(self.out).as_posix()} for picture in self.pictures]
        self._write_text(SUMMARY, json.dumps({**summary, "pictures": sheets, "unfinished": True}) + "\n")
        return True

    def _fail(self, message: str) -> None:
        self._failed += 1
        _console.error(message)

    def _search_all(self) -> None:
        shown = set(_spread(len(self.pictures), self.show))
        side = panel_side(len(shown) * len(self.contestants))
        with self._bar() as advance:
            # A file that cannot be read is reported in its turn.
            any(
                warm_up(each.source.path, self.contestants, max_pixels=self.max_pixels)
                for each in self.pictures
            )
            for index, picture in enumerate(self.pictures):
                compared, pixels = compare_picture(
                    picture.name,
                    picture.source.path,
                    self.contestants,
                    scored=self.truth is not None,
                    min_iou=self.min_iou,
                    max_pixels=self.max_pixels,
                )
                self._report_errors(compared)
                self._done.append(compared)
                if pixels is not None:
                    try:
                        self._draw(index, compared, pixels, side if index in shown else None)
                    except OutputError as error:
                        self._fail(str(error))
                    except failures() as error:
                        reason = str(error) or type(error).__name__
                        self._fail(f"{picture.name}: cannot be drawn: {reason}")
                advance(compared)

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Any]:
        with progress_bar(_console.stderr(), enabled=not self.quiet) as bar:
            task = bar.add_task("pictures", total=len(self.pictures), faces=0)

            def _advance(compared: ComparedPicture) -> None:
                searches = compared.searches.values()
                self._faces += sum(len(each.detections) for each in searches if each.detections is not None)
                bar.update(task, completed=len(self._done), faces=self._faces)

            yield _advance

    def _report_errors(self, compared: ComparedPicture) -> None:
        if compared.error is not None:
            says_all = compared.name in compared.error
            self._fail(compared.error if says_all else f"{compared.name}: {compared.error}")
        for contestant in self.contestants:
            search = compared.searches.get(contestant.name)
            if search is not None and search.error is not None:
                self._fail(f"{compared.name}: {contestant.label}: {search.error}")
            if search is not None and search.scored_error is not None:
                reason = f"for average precision: {search.scored_error}"
                self._fail(f"{compared.name}: {contestant.label}: {reason}")

    def _draw(self, index: int, compared: ComparedPicture, pixels: UInt8Array, side: int | None) -> None:
        target = self.pictures[index].target
        write_picture(target, side_by_side(pixels, compared, self.contestants))
        self._sheets[index] = target
        if side is not None:
            panels = draw_panels(pixels, compared, max_side=side)
            self._images[index] = {name: encode_jpeg(panel) for name, panel in panels.items()}

    def _write(self) -> bool:
        """Write what was found and then the report; return whether the second was interrupted."""
        summary = summarize_comparison(
            self.contestants,
            self._done,
            min_iou=self.min_iou,
            truth=self.truth,
            protocol=None if self.truth is None else PROTOCOL.name,
        )
        for index, sheet in self._sheets.items():
            summary["pictures"][index]["sheet"] = sheet.relative_to(self.out).as_posix()
        if not self.quiet:
            print_summary(summary)
        self._delete_earlier()
        # First what took hours and cannot be had again without them.
        self._write_text(SUMMARY, json.dumps(summary, allow_nan=False) + "\n")
        try:
            self._write_text(REPORT, render_report(summary, self._images))
        except KeyboardInterrupt:
            return True
        if not self.quiet:
            _console.line(_console.stdout(), f"{self.out / REPORT}")
        return False

    def _delete_earlier(self) -> None:
        kept = {path.resolve() for path in self._sheets.values()}
        kept |= {picture.source.path.resolve() for picture in self.pictures}
        for path in self.earlier:
            if path.resolve() not in kept:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._fail(f"cannot delete {path} of an earlier run: {error.strerror or error}")

    def _write_text(self, name: str, text: str) -> None:
        with naming(self.out / name):
            write_whole(self.out / name, text)


def _spread(number: int, most: int) -> list[int]:
    """Return at most so many indices, evenly spread.

    Examples:
        >>> _spread(3, 24), _spread(10, 4), _spread(10, 0)
        ([0, 1, 2], [0, 3, 6, 9], [])
    """
    if number <= most:
        return list(range(number))
    return sorted(set(np.linspace(0, number - 1, most).round().astype(int).tolist()))


def print_summary(summary: dict[str, Any]) -> None:
    """Print a line for each detector."""
    truth = summary["ground_truth"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("detector", no_wrap=True)
    subsets = () if truth is None else SUBSETS
    # On two lines, so that all of it fits into 80 columns.
    ap_headings = [f"AP\n{subset}" for subset in subsets]
    for heading in ("faces", "matched", "missed", "extra", "ms", "threads", *ap_headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for detector in summary["detectors"]:
        pairs = summary["pairs"].get(detector["name"])
        counts = ["-"] * 3
        if pairs is not None and pairs["pictures"]:
            counts = [f"{pairs[key]:,}" for key in ("matched", "only_first", "only_second")]
        seconds = detector["median_seconds"]
        figures = [] if truth is None else [truth["ap"][detector["name"]][subset] for subset in subsets]
        table.add_row(
            detector["label"],
            f"{detector['faces']:,}" if detector["pictures"] else "-",
            *counts,
            "-" if seconds is None else f"{1000 * seconds:,.1f}",
            "-" if seconds is None else str(detector["settings"].get("threads") or "-"),
            *("-" if ap is None else f"{100 * ap:.2f}" for ap in figures),
        )
    with naming("the standard output", ResultsError):
        _console.stdout().print(table)
