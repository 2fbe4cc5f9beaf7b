"""The run of `retinaface-fast eval widerface`: from pictures to average precision, protocol by protocol."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from retinaface_fast._files import write_whole
from retinaface_fast.data import SUBSETS, read_ground_truth, read_names, read_predictions
from retinaface_fast.errors import DatasetError, MissingDependencyError
from retinaface_fast.evaluation import (
    PROTOCOLS,
    DetectionRun,
    build_report,
    evaluate,
    plot_curves,
    report_to_markdown,
    reports_to_table,
    sheet_of_false_positives,
    sheet_of_misses,
)
from retinaface_fast.evaluation.runner import is_done

from . import _console
from ._outputs import ResultsError, Stream, naming
from ._report import plural, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinaface_fast.data import GroundTruth
    from retinaface_fast.evaluation import RunProgress, RunSummary, Scores

#: Failures that are listed; the rest is counted.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call of the command is to do.

    Attributes:
        truth: The faces to be found.
        names: List of the pictures; None for all of the set.
        images: Folder of the pictures; None where predictions are scored and no contact sheets made.
        predictions: Folder of predictions to score; None detects.
        outputs: The folder of each protocol by its name; of the predictions by that of their folder.
        detector: Model, weights, engine, device and workers, as `DetectionRun` takes them.
        quiet: Print errors only.
    """

    truth: GroundTruth
    names: Path | None
    images: Path | None
    predictions: Path | None
    outputs: dict[str, Path]
    detector: dict[str, Any]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a protocol has come to.

    Attributes:
        name: Of the protocol, or of the folder of the predictions.
        folder: Where its files are.
        scores: How good its predictions are.
        run: How they were made, as JSON takes it.
        summary: What the run has done; None where nothing was detected.
        workers: Pictures that it has searched at the same time.
        names: List of the pictures; None for all of the set.
    """

    name: str
    folder: Path
    scores: Scores
    run: dict[str, Any]
    summary: RunSummary | None = None
    workers: int | None = None
    names: Path | None = None

    def report(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        timing = None
        # A rate over the pictures that were left says nothing about the first ones.
        if self.summary is not None and not self.summary.kept:
            timing = {
                "seconds": round(self.summary.seconds, 3),
                "pictures_per_second": round(self.summary.pictures_per_second, 3),
                "workers": self.workers,
            }
        names = {} if self.names is None else {"names": self.names.name}
        return build_report(self.scores, name=self.name, run={**self.run, **names}, timing=timing)


def check_extra() -> None:
    """Check that what draws the results is there, before anyone waits for them.

    Raises:
        MissingDependencyError: It is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("matplotlib", purpose="drawing the results", extra="eval")


def read_truth(folder: Path, names: Path | None) -> GroundTruth:
    """Read the ground truth of the pictures of a list, or of all.

    Raises:
        DatasetError: A file is missing or damaged.
        typer.BadParameter: The list holds pictures that the ground truth does not know.
    """
    wanted = None if names is None else read_names(names)
    try:
        return read_ground_truth(folder, wanted)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--names") from None


def check_pictures(images: Path, names: Sequence[str]) -> None:
    """Check that all pictures are there.

    Raises:
        DatasetError: Some are not; the message counts them and says what to do.
    """
    missing = [name for name in names if not (images / f"{name}.jpg").is_file()]
    if not missing:
        return
    if (images / "images" / f"{missing[0]}.jpg").is_file():
        advice = f"they are in {images / 'images'}"
    elif len(missing) == len(names):
        advice = "name the folder in which those of the events are"
    else:
        advice = "name those that are there with --names, to evaluate a part of the set"
    raise DatasetError(
        f"{images}: {len(missing):,} of {plural(len(names), 'picture')} are missing, such as "
        f"{missing[0]}.jpg: {advice}"
    )


def evaluate_each(plan: Plan) -> tuple[list[Outcome], int]:
    """Detect and score, one protocol after another.

    Returns:
        What was scored, and the exit code: 0, 1 where pictures of a protocol failed, 130 after Ctrl-C.
    """
    if plan.predictions is not None:
        [(name, folder)] = plan.outputs.items()
        if (folder / "run.json").exists():
            raise DatasetError(f"{folder} holds the results of a run of its own: name another --output")
        run = {"predictions": plan.predictions.resolve().name}
        outcomes = [Outcome(name, folder, _score(plan, plan.predictions), run, names=plan.names)]
        write_results(outcomes[0], plan.images)
        return outcomes, 0
    outcomes, code = [], 0
    for name, folder in plan.outputs.items():
        try:
            outcome = _run(plan, name, folder)
        except KeyboardInterrupt:
            pictures = plan.truth.names
            done = sum(is_done(folder, each) for each in pictures)
            _console.error(
                f"interrupted: {done:,} of {plural(len(pictures), 'picture')} are done with {name}; the same "
                "command goes on from there"
            )
            return outcomes, 130
        if outcome is None:
            code = 1
        else:
            write_results(outcome, plan.images)
            outcomes.append(outcome)
    return outcomes, code


def _run(plan: Plan, name: str, folder: Path) -> Outcome | None:
    """Detect and score by one protocol; None if there are pictures in which nothing could be detected."""
    assert plan.images is not None
    try:
        run = DetectionRun(PROTOCOLS[name], images=plan.images, output=folder, **plan.detector)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    console = _console.stderr()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar(console, enabled=not plan.quiet))
        task = bar.add_task(name, total=len(plan.truth), faces=0)

        def _show(state: RunProgress) -> None:
            bar.update(task, completed=state.finished, faces=state.faces)

        summary = run(plan.truth.names, progress=_show)
    if not plan.quiet:
        _console.line(console, f"{name}: {_closing(summary)}", style="red" if summary.failed else "green")
    if not summary.failed:
        scores = _score(plan, run.predictions)
        return Outcome(name, folder, scores, run.record, summary, run.workers, plan.names)
    for failure in summary.failed[:_LISTED]:
        says_all = failure.name in failure.reason
        _console.error(failure.reason if says_all else f"{failure.name}: {failure.reason}")
    if len(summary.failed) > _LISTED:
        _console.error(f"and {len(summary.failed) - _LISTED:,} more")
    failed = plural(len(summary.failed), "picture")
    _console.error(f"{name} is not scored without {failed}: mend and run again, or leave out with --names")
    return None


def _closing(summary: RunSummary) -> str:
    """Return the closing line of a run."""
    kept = f" ({summary.kept:,} from before)" if summary.kept else ""
    parts = [f"{plural(summary.kept + summary.done, 'picture')}{kept}"]
    if summary.done:
        found = f"{plural(summary.faces, 'face')}{f' in {summary.done:,} of them' if summary.kept else ''}"
        parts += [found, f"in {summary.seconds:.1f} s ({summary.pictures_per_second:.1f}/s)"]
    if summary.failed:
        parts.insert(1, f"{len(summary.failed):,} failed")
    return ", ".join(parts)


def _score(plan: Plan, folder: Path) -> Scores:
    started = time.perf_counter()
    predictions = read_predictions(folder, plan.truth.names)
    read = time.perf_counter()
    scores = evaluate(predictions, plan.truth)
    if not plan.quiet:
        now = time.perf_counter()
        took = f"scored in {1000 * (now - read):.0f} ms, read in {1000 * (read - started):.0f} ms"
        _console.line(_console.stderr(), f"{plural(len(scores.scores), 'face')} {took}")
    return scores


def write_results(outcome: Outcome, images: Path | None) -> None:
    """Write all files of an outcome into its folder.

    Args:
        outcome: What to write.
        images: Folder of the pictures; without it there are no contact sheets.

    Raises:
        OutputError: A file cannot be written.
    """
    report = outcome.report()
    _write(outcome.folder / "results.json", f"{json.dumps(report, indent=2)}\n")
    _write(outcome.folder / "results.md", report_to_markdown(report))
    with naming(outcome.folder):
        plot_curves({outcome.name: outcome.scores.curves}, outcome.folder)
    if images is None:
        return
    for name, make in (("misses.jpg", sheet_of_misses), ("false_positives.jpg", sheet_of_false_positives)):
        sheet = make(outcome.scores, images)
        with naming(outcome.folder / name):
            sheet.save(outcome.folder / name)


def _write(path: Path, text: str) -> None:
    with naming(path):
        write_whole(path, text)


def write_all(
    outcomes: Sequence[Outcome], *, json_to: str | None, markdown_to: str | None, curves_to: Path | None
) -> None:
    """Write the results of all protocols to the targets of the command line.

    Raises:
        ResultsError: JSON or Markdown cannot be written.
        OutputError: A figure cannot be written.
    """
    reports = [outcome.report() for outcome in outcomes]
    if json_to is not None:
        with Stream(json_to) as stream:
            stream.write(f"{json.dumps({'results': reports}, indent=2)}\n".encode())
    if markdown_to is not None:
        with Stream(markdown_to) as stream:
            stream.write(f"{reports_to_table(reports)}\n".encode())
    if curves_to is not None and len(outcomes) > 1:
        with naming(curves_to):
            plot_curves({outcome.name: outcome.scores.curves for outcome in outcomes}, curves_to)


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print average precision of each protocol, in percent, and where its files are."""
    console = _console.stdout()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("AP, %", no_wrap=True, max_width=40)  # a folder may have any name
    for heading in ("pictures", *SUBSETS):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        counted = outcome.scores.truth.counted
        figures = (
            f"{100 * outcome.scores.ap[subset]:.2f}" if counted[subset].any() else "-" for subset in SUBSETS
        )
        table.add_row(Text(outcome.name), f"{len(outcome.scores.truth):,}", *figures)
    with naming("the standard output", ResultsError):
        console.print(table)
        for outcome in outcomes:
            _console.line(console, f"{outcome.name}: {outcome.folder / 'results.md'}")
