"""What `retinaface-fast train` says: recipes, what a run begins with, how far it is, what it came to."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from retinaface_fast._files import write_whole

from . import _console
from ._outputs import ResultsError, naming
from ._report import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from retinaface_fast.training import Recipe, Record, Trainer, TrainingProgress, TrainingResult

#: Faults that are printed; all are in faults.txt.
_LISTED = 10

#: The logger of what is wrong with the data.
_FAULTS = "retinaface_fast.training.faults"

#: The folders of a path in a text.
_FOLDERS = re.compile(r"[^\s:]*[/\\]")

#: What the recipes of the package are, in the words of a table.
RECIPES = {
    "biubug6-mobilenet0.25": "published weights",
    "biubug6-resnet50": "published weights",
    "finetune": "fine-tuning",
    "paper-resnet152": "the paper",
    "quick-mobilenet0.25": "a first training",
    "sr": "more small faces",
}


def is_first_process() -> bool:
    """Whether this is the process that prints: that of rank 0, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


def how_to_resume(folder: Path) -> str:
    """The command that goes on with a run, as a shell takes it; under torchrun, that of torchrun."""
    path = subprocess.list2cmdline([str(folder)]) if os.name == "nt" else shlex.quote(str(folder))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return f"retinaface-fast train --resume {path}"
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    # Where the machines meet, torchrun keeps to itself.
    options = "" if machines == "1" else f" --nnodes {machines} --rdzv-…"
    return f"torchrun{options} --nproc-per-node {processes} -m retinaface_fast train --resume {path}"


def print_recipes(console: Console, recipes: Sequence[Recipe]) -> None:
    """Print a table that fits into 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("recipe", no_wrap=True)
    table.add_column("network", no_wrap=True)
    for heading in ("side", "epochs", "batch"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is")
    for recipe in recipes:
        table.add_row(
            recipe.name,
            recipe.network.name,
            str(recipe.augmentation.side),
            str(recipe.schedule.epochs),
            str(recipe.training.batch_size),
            RECIPES.get(recipe.name, ""),
        )
    with naming("the standard output", ResultsError):
        console.print(table)


class Faults(logging.Handler):
    """What is wrong with the data: the first are printed as they are found, and all kept.

    A logger is where training tells them all: pictures to train on, to validate on, and to find landmarks in.
    What training warns of besides is printed as a warning, and is not kept.

    Args:
        console: Where they are printed.
        first: Those that reading the data found.
        quiet: Print none.
    """

    def __init__(self, console: Console, first: Iterable[str], *, quiet: bool) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._quiet = quiet
        self._printed = 0
        self._all: dict[str, str] = {}
        for text in first:
            self.add(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Take what training has logged."""
        if record.name == _FAULTS:
            self.add(record.getMessage())
        elif not self._quiet:
            _console.line(self._console, f"warning: {record.getMessage()}", style="yellow")

    def add(self, text: str) -> None:
        """Take one, and print it unless there were many."""
        if self._keep(text):
            return
        if self._quiet or self._printed > _LISTED:
            return
        self._printed += 1
        said = f"left out: {text}" if self._printed <= _LISTED else "and more, see faults.txt in the end"
        _console.line(self._console, said, style="yellow")

    def __len__(self) -> int:
        return len(self._all)

    def _keep(self, text: str) -> bool:
        """Keep one; True if it was there. A run that goes on from another folder spells paths otherwise."""
        key = _FOLDERS.sub("", text)
        known = key in self._all
        self._all.setdefault(key, text)
        return known

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take what training logs in the meantime."""
        logger = logging.getLogger("retinaface_fast.training")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    @contextlib.contextmanager
    def kept(self, target: Path) -> Iterator[None]:
        """Have all of them in a file at the beginning and at the end, however that comes.

        A run that goes on does not meet again what it was told before: what the file holds stays.
        """
        if target.is_file():
            with naming(target):
                before = target.read_text(encoding="utf-8", errors="replace").splitlines()
            for text in before:
                self._keep(text)
        try:
            self._write(target)
            yield
        finally:
            self._write(target)

    def _write(self, target: Path) -> None:
        if self._all and is_first_process():
            with naming(target):
                write_whole(target, "\n".join(self._all.values()) + "\n")


def bar(*, enabled: bool) -> Progress:
    """A progress bar; nothing is drawn where there is no terminal."""
    console = _console.stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (enabled and console.is_terminal),
    )


def counter(progress: Progress, what: str, total: int) -> Callable[[int, int], None]:
    """Show how many pictures are done before the first step."""
    task = progress.add_task(what, total=total, state="")

    def tell(done: int, _: int) -> None:
        progress.update(task, completed=done, visible=done < total)

    return tell


def teller(progress: Progress, trainer: Trainer, *, quiet: bool) -> Callable[[TrainingProgress], None]:
    """Show progress: a bar on a terminal, a line for each epoch elsewhere, and each validation.

    The loss is the mean of the steps of the epoch so far.
    """
    task = progress.add_task("training", total=trainer.steps, completed=trainer.step, state="")
    started = time.monotonic()
    console = progress.console
    losses: list[float] = []  # of the steps of an epoch

    def tell(state: TrainingProgress) -> None:
        if quiet:
            return
        epoch = f"epoch {state.epoch + 1}/{state.epochs}"
        seconds = f"{time.monotonic() - started:,.0f} s"
        rate = f"{state.pictures_per_second:.1f} pictures/s"
        if not state.losses:  # after a validation
            # "ap" alone is that of data without the subsets of WIDER FACE.
            named = {name if name != "ap" else "": ap for name, ap in (state.ap or {}).items()}
            figures = ", ".join(f"{name} {100 * ap:.2f}".strip() for name, ap in named.items())
            _console.line(console, f"{epoch}: AP {figures} %, {seconds}")
            return
        losses.append(state.losses["loss"])
        loss = f"loss {sum(losses) / len(losses):.3f}"
        best = f" best {100 * state.best:.2f}" if state.best is not None else ""
        progress.update(task, completed=state.step, description=epoch, state=f"{loss} {rate}{best}")
        if state.step % (state.steps // state.epochs) == 0:
            losses.clear()
            if not console.is_terminal:
                _console.line(console, f"{epoch}: {loss}, {rate}, {seconds}")

    return tell


def beginning(
    trainer: Trainer, records: Sequence[Record], *, validated: int | None, landmarks: int
) -> list[str]:
    """What a run begins with.

    Args:
        trainer: The run.
        records: What is trained on.
        validated: Pictures that are measured on; None without validation.
        landmarks: Faces with landmarks.
    """
    faces = sum(int((~record.ignored).sum()) for record in records)
    recipe = trainer.recipe
    start = f"goes on from step {trainer.step:,} of {trainer.steps:,}" if trainer.resumed else trainer.initial
    epochs, batch = recipe.schedule.epochs, recipe.training.batch_size
    steps = plural(trainer.steps // epochs, "step")
    lines = [
        f"{recipe.name}: {plural(epochs, 'epoch')} of {steps}, batch {batch}",
        f"data: {plural(len(records), 'picture')} with {plural(faces, 'face')}, {landmarks:,} with landmarks",
    ]
    if validated is not None:
        lines.append(f"validation: {plural(validated, 'picture')}")
    return [*lines, f"weights: {start}"]


def warnings(recipe: Recipe, *, validated: bool, landmarks: int) -> list[str]:
    """What a run will lack."""
    texts = []
    if not landmarks and recipe.loss.landmark_weight > 0:
        texts.append(
            "no face has landmarks: the network does not learn them, and forgets those it knows; "
            "--landmarks-from MODEL takes them from other weights"
        )
    if not validated:
        texts.append("no validation: there will be no best.safetensors; see --val, --val-gt and --val-share")
    return texts


def ending(result: TrainingResult, faults: int, folder: Path) -> list[str]:
    """What a run has come to."""
    progress, shares = result.progress, result.shares
    state = "interrupted" if result.stopped else "done"
    if not result.stopped and progress.step < progress.steps:
        state = "ended early, without a new best for long"
    steps = f"{progress.step:,} of {plural(progress.steps, 'step')}"
    if not shares.pictures and not result.stopped:
        lines = [f"nothing is left to do: {steps}"]
    else:
        lines = [f"{state}: {steps}, {shares.pictures_per_second:.1f} pictures/s"]
    if shares.pictures:
        parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.of_work().items())
        lines.append(f"work: {parts}; waiting for pictures {100 * shares.waiting / shares.total:.0f} %")
    if progress.best is not None:
        lines.append(f"best validation: {100 * progress.best:.2f} %")
    if faults:
        lines.append(f"{plural(faults, 'fault')} in the data: {folder / 'faults.txt'}")
    lines.extend(f"weights: {path}" for path in (result.best, result.last) if path is not None)
    return lines
