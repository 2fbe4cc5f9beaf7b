"""The run of `retinaface-fast compare`: from pictures to the report."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich import box
from rich.table import Table

from retinaface_fast._files import write_whole
from retinaface_fast.compare.comparison import Contestant, compare_picture, warm_up
from retinaface_fast.compare.dlib_models import import_dlib
from retinaface_fast.compare.pairing import DEFAULT_MIN_IOU
from retinaface_fast.compare.panels import draw_panels, encode_jpeg, panel_side, side_by_side
from retinaface_fast.compare.report import check_report_packages, render_report
from retinaface_fast.compare.summary import summarize_comparison
from retinaface_fast.data import SUBSETS, read_ground_truth, read_names
from retinaface_fast.evaluation import PROTOCOLS
from retinaface_fast.image import pixel_limit

from . import _console
from ._outputs import Inputs, OutputError, ResultsError, naming, unique
from ._report import plural, progress_bar
from ._sources import NotFound, Source, expand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.compare.comparison import ComparedPicture
    from retinaface_fast.data import GroundTruth
    from retinaface_fast.detections import Detections
    from retinaface_fast.detector import FaceDetector

#: How the pictures are searched that average precision is computed on.
_PROTOCOL = PROTOCOLS["original"]
#: dlib keeps what has a score above this for average precision: the lower, the better for it. HOG on 284
#: pictures of WIDER FACE: 37.0 / 22.1 / 9.4 % above 0, 49.1 / 29.4 / 12.5 % above -1, 50.0 / 29.9 / 12.7 %
#: above -2, where a picture has 113 boxes and takes 3 % longer than above -1. The CNN gives nothing below 0.
_SCORED_ABOVE = {"hog": -2.0, "cnn": 0.0}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to compare on.

    Attributes:
        name: What it is called in the report; `event/name` where there is ground truth.
        source: Where it is.
        target: Where its side-by-side version goes.
    """

    name: str
    source: Source
    target: Path


def check_extra() -> None:
    """Check that dlib and what makes the report are there, before anyone waits.

    Raises:
        MissingDependencyError: One is not.
    """
    import_dlib("comparing with it")
    check_report_packages()


def find_pictures(
    sources: Sequence[str],
    *,
    recursive: bool,
    out: Path,
    images: Path | None,
    names: Path | None,
    named_by_event: bool,
) -> tuple[list[Picture], list[NotFound]]:
    """List the pictures, and what leads to none.

    Raises:
        DatasetError: The list of names cannot be read.
        typer.BadParameter: The run would write over a picture.
    """
    found, missing = expand(sources, recursive=recursive, excluded=[out])
    missing += [
        NotFound(str(source.path), "a video: compare takes pictures")
        for source in found
        if source.is_video and source.is_named
    ]
    found = [source for source in found if not source.is_video]
    if images is not None and names is not None:
        listed = [f"{name}.jpg" for name in read_names(names)]
        absent = [name for name in listed if not (images / name).is_file()]
        missing += [NotFound(str(images / name), "no such file") for name in absent]
        gone = set(absent)
        found += [Source(images / name, Path(name)) for name in listed if name not in gone]
    inputs = Inputs(found)
    for name in ("report.html", "comparison.json"):
        inputs.protect(out / name, "--out")
    short = [source.relative for source in found]
    taken: set[Path] = set()
    pictures = []
    for source in found:
        name = str(source.path if short.count(source.relative) > 1 else source.relative)
        relative = source.relative
        if named_by_event:
            place = source.path.absolute()
            name = f"{place.parent.name}/{place.stem}"
            relative = Path(place.parent.name) / place.name
        target = unique(out / "pictures" / relative.with_name(f"{relative.name}.jpg"), taken)
        pictures.append(Picture(name, source, inputs.protect(target, "--out")))
    return pictures, missing


class Truth:
    """The ground truth of the pictures; calling it reads that of some.

    Args:
        folder: Where the MATLAB files are.
        pictures: All pictures of the run.

    Raises:
        DatasetError: A file is missing or damaged.
        typer.BadParameter: It does not know a picture, or one is there twice.
    """

    def __init__(self, folder: Path, pictures: Sequence[Picture]) -> None:
        self._folder = folder
        try:
            self(tuple(picture.name for picture in pictures))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--gt") from None

    def __call__(self, names: Sequence[str]) -> GroundTruth:
        """Return the faces of the pictures of these names."""
        return read_ground_truth(self._folder, names)


@dataclass(frozen=True, slots=True)
class _ByProtocol:
    """A RetinaFace detector that searches as `_PROTOCOL` says."""

    detector: FaceDetector

    def detect(self, image: UInt8Array, /) -> Detections:
        return _PROTOCOL.detect(self.detector, image)


def contestants(
    options: dict[str, Any], kinds: Sequence[str], dlib_options: dict[str, Any], *, scored: bool
) -> list[Contestant]:
    """Build the detectors, RetinaFace first.

    Args:
        options: Of `FaceDetector`.
        kinds: Of dlib's detectors.
        dlib_options: Of `DlibDetector`.
        scored: Whether average precision is wanted.

    Raises:
        typer.BadParameter: An option is out of range.
        RetinaFaceError: A detector cannot be had.
    """
    from retinaface_fast.compare.dlib_detector import DlibDetector
    from retinaface_fast.detector import FaceDetector

    try:
        detector = FaceDetector(**options)
        by_protocol = _ByProtocol(detector.replace(**_PROTOCOL.options())) if scored else None
        found = [
            Contestant(
                name="retinaface",
                label="RetinaFace",
                detector=detector,
                scorer=by_protocol,
                settings={
                    "model": detector.model,
                    "engine": detector.engine,
                    "device": detector.device,
                    "threads": detector.threads,
                    "score_threshold": detector.score_threshold,
                    **({"scored_above": _PROTOCOL.score_threshold} if scored else {}),
                },
            )
        ]
        for kind in kinds:
            other = DlibDetector(kind, **dlib_options)
            scorer = None
            if scored and _SCORED_ABOVE[kind] < other.score_threshold:
                # Landmarks of false alarms would only take time.
                scorer = other.replace(score_threshold=_SCORED_ABOVE[kind], landmarks="none")
            found.append(
                Contestant(
                    name=f"dlib-{kind}",
                    label=f"dlib {kind.upper()}",
                    detector=other,
                    scorer=scorer,
                    settings={
                        "dlib": str(import_dlib("comparing with it").__version__),
                        "device": other.device,
                        "threads": 1,
                        "upsample": other.upsample,
                        "landmarks": other.landmarks,
                        "score_threshold": other.score_threshold,
                        **({"scored_above": (scorer or other).score_threshold} if scored else {}),
                    },
                )
            )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return found


def checked_min_iou(value: float | None) -> float:
    """Return the least overlap of a pair.

    Raises:
        typer.BadParameter: It is out of range.
    """
    if value is None:
        return DEFAULT_MIN_IOU
    if not 0 < value <= 1:
        raise typer.BadParameter(f"must be above 0 and at most 1, got {value}", param_hint="--min-iou")
    return value


def checked_max_pixels(value: int | None) -> int | None:
    """Return the limit, after a look at the environment: a bad one would else be an error of every picture.

    Raises:
        typer.BadParameter: The environment variable is no number.
    """
    try:
        pixel_limit(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


@dataclass(slots=True)
class Run:
    """A run in progress; call it once.

    Attributes:
        pictures: What to compare on, in order.
        missing: Arguments that lead to nothing: each counts as failed.
        contestants: The detectors, RetinaFace first.
        out: Folder to write to.
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
    truth: Truth | None
    show: int
    min_iou: float
    max_pixels: int | None
    quiet: bool
    _done: list[ComparedPicture] = field(default_factory=list)
    _images: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _failed: int = 0

    def __call__(self) -> int:
        """Do the work and return the exit code: 0, 1 if anything failed, 130 if it was interrupted."""
        started, console = time.perf_counter(), _console.stderr()
        interrupted = False
        for absent in self.missing:
            self._fail(f"{absent.argument}: {absent.reason}")
        try:
            self._search_all()
        except KeyboardInterrupt:
            interrupted = True
        if self._done:
            self._write()
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
                if pixels is not None:
                    try:
                        self._draw(picture, compared, pixels, side if index in shown else None)
                    except OutputError as error:
                        self._fail(str(error))
                self._done.append(compared)
                advance()

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Any]:
        with progress_bar(_console.stderr(), enabled=not self.quiet) as bar:
            task = bar.add_task("pictures", total=len(self.pictures), faces=0)

            def _advance() -> None:
                faces = sum(
                    len(search.detections)
                    for picture in self._done
                    for search in picture.searches.values()
                    if search.detections is not None
                )
                bar.update(task, completed=len(self._done), faces=faces)

            yield _advance

    def _report_errors(self, compared: ComparedPicture) -> None:
        if compared.error is not None:
            says_all = compared.name in compared.error
            self._fail(compared.error if says_all else f"{compared.name}: {compared.error}")
        for contestant in self.contestants:
            search = compared.searches.get(contestant.name)
            if search is not None and search.error is not None:
                self._fail(f"{compared.name}: {contestant.label}: {search.error}")

    def _draw(
        self, picture: Picture, compared: ComparedPicture, pixels: UInt8Array, side: int | None
    ) -> None:
        sheet = encode_jpeg(side_by_side(pixels, compared, self.contestants), quality=90)
        with naming(picture.target):
            picture.target.parent.mkdir(parents=True, exist_ok=True)
            picture.target.write_bytes(sheet)
        if side is not None:
            panels = draw_panels(pixels, compared, max_side=side)
            self._images[picture.name] = {name: encode_jpeg(panel) for name, panel in panels.items()}

    def _write(self) -> None:
        summary = summarize_comparison(
            self.contestants,
            self._done,
            min_iou=self.min_iou,
            truth=self.truth,
            protocol=None if self.truth is None else _PROTOCOL.name,
        )
        for name, text in (
            ("comparison.json", json.dumps(summary, allow_nan=False) + "\n"),
            ("report.html", render_report(summary, self._images)),
        ):
            with naming(self.out / name):
                write_whole(self.out / name, text)
        if not self.quiet:
            print_summary(summary)
            _console.line(_console.stdout(), f"{self.out / 'report.html'}")


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
    ap_headings = [f"AP {subset}" for subset in subsets]
    for heading in ("faces", "matched", "missed", "own", "ms", *ap_headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for detector in summary["detectors"]:
        pairs = summary["pairs"].get(detector["name"])
        counts = ["-"] * 3
        if pairs is not None:
            counts = [f"{pairs[key]:,}" for key in ("matched", "only_first", "only_second")]
        seconds = detector["median_seconds"]
        figures = [] if truth is None else [truth["ap"][detector["name"]][subset] for subset in subsets]
        table.add_row(
            detector["label"],
            f"{detector['faces']:,}",
            *counts,
            "-" if seconds is None else f"{1000 * seconds:,.1f}",
            *("-" if ap is None else f"{100 * ap:.2f}" for ap in figures),
        )
    with naming("the standard output", ResultsError):
        _console.stdout().print(table)
