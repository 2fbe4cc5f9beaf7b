"""The work of `retinaface-fast train`: reading data, the run with its progress, and what it came to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from retinaface_fast.errors import DatasetError, MissingDependencyError

from . import _console
from ._report import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retinaface_fast.training import Recipe, Record, TrainingProgress, TrainingResult, Validator

#: Faults that are printed; the rest is counted, and all are in faults.txt.
_LISTED = 10

_PATHS = ("data", "images", "names", "val", "val_images", "val_names", "val_gt", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one call of the command is to do; the options of the same names."""

    config: str
    overrides: dict[str, str]
    data: Path
    images: Path | None
    names: Path | None
    landmarks_from: str | None
    on_fault: Literal["skip", "fail"]
    val: Path | None
    val_images: Path | None
    val_names: Path | None
    val_gt: Path | None
    val_share: float
    init: str | None
    backbone_pixels: Literal["bgr", "torchvision"]
    output: Path

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON takes it, with paths that hold from any folder."""
        values = dataclasses.asdict(self)
        for name in _PATHS:
            if values[name] is not None:
                values[name] = str(Path(values[name]).resolve())
        for name in ("config", "init", "landmarks_from"):
            if values[name] is not None and Path(values[name]).is_file():
                values[name] = str(Path(values[name]).resolve())
        return values


def check_extra() -> None:
    """Check that what training needs is there.

    Raises:
        MissingDependencyError: It is not.
    """
    import importlib.util

    for module, package in (
        ("torch", "torch"),
        ("lightning_fabric", "lightning-fabric"),
        ("pydantic", "pydantic"),
        ("tensorboard", "tensorboard"),
        ("matplotlib", "matplotlib"),
    ):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(package, purpose="training", extra="train")


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Read SECTION.KEY=VALUE.

    Raises:
        typer.BadParameter: One is not of this form.
    """
    overrides = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "." not in key or not value:
            raise typer.BadParameter(f"expected SECTION.KEY=VALUE, got {text}", param_hint="--set")
        overrides[key.strip()] = value.strip()
    return overrides


def read_plan(folder: Path) -> Plan:
    """The plan of a run that was started before.

    Raises:
        DatasetError: The folder holds none.
    """
    record = folder / "run.json"
    try:
        values = json.loads(record.read_text(encoding="utf-8"))["arguments"]
        for name in _PATHS:
            if values[name] is not None:
                values[name] = Path(values[name])
        return Plan(**{**values, "output": folder})
    except FileNotFoundError:
        raise DatasetError(f"{folder}: there is no run to go on with: {record.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{record}: does not say how the run was started: {error}") from None


def print_recipes() -> None:
    """List the recipes of the package."""
    check_extra()
    from retinaface_fast.training import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        _console.line(
            _console.stdout(),
            f"{name:26} {recipe.network.name}, {recipe.augmentation.side} pixels, "
            f"{plural(recipe.schedule.epochs, 'epoch')}, batch {recipe.training.batch_size}",
        )


def check(plan: Plan, *, quiet: bool) -> int:
    """Look at the data and draw a batch of it."""
    check_extra()
    import cv2

    from retinaface_fast.training import check_data, report_lines

    recipe = _recipe(plan)
    records, validation, faults = _records(plan)
    report = check_data(
        records, faults, recipe=recipe, network=recipe.network.config(), seed=recipe.training.seed
    )
    out = _console.stdout()
    if not quiet:
        for text in report_lines(report):
            _console.line(out, text)
        if validation is not None:
            _console.line(out, f"validation: {plural(len(validation), 'picture')}")
    plan.output.mkdir(parents=True, exist_ok=True)
    target = plan.output / "check.png"
    if not cv2.imwrite(str(target), report.sheet):
        raise DatasetError(f"cannot write {target}")
    if not quiet:
        _console.line(out, f"a batch after augmentation: {target}")
    return 1 if report.faults else 0


def run(plan: Plan, *, device: str | None, workers: int, quiet: bool) -> int:
    """Train, and say what it came to."""
    check_extra()
    recipe = _recipe(plan)
    records, held_out, faults = _records(plan)
    _print_faults(faults)
    from retinaface_fast.training import Trainer, fill_landmarks, plot_run

    if plan.landmarks_from is not None:
        records = fill_landmarks(records, detector=_detector(plan.landmarks_from, device))
    trainer = Trainer(
        recipe,
        records,
        plan.output,
        init=plan.init,
        backbone_pixels=plan.backbone_pixels,
        validator=_validator(plan, held_out, device),
        device=device,
        workers=workers,
        on_fault=plan.on_fault,
        arguments=plan.to_dict(),
    )
    shown = trainer.is_first_process and not quiet
    console = _console.stderr()
    if shown:
        for text in _beginning(trainer, recipe, records):
            _console.line(console, text)
    with _bar(enabled=shown) as bar:
        result = trainer.run(progress=_teller(bar, trainer), fault=lambda text: _console.error(text, console))
    if trainer.is_first_process:
        all_faults = [*faults, *result.faults]
        if all_faults:
            (plan.output / "faults.txt").write_text("\n".join(all_faults) + "\n", encoding="utf-8")
        if result.progress.step:
            plot_run(plan.output, plan.output / "curves.png")
        if not quiet:
            for text in _ending(result, len(all_faults), plan.output):
                _console.line(_console.stdout(), text)
    return 130 if result.stopped else 0


def _recipe(plan: Plan) -> Recipe:
    from retinaface_fast.training import load_recipe

    try:
        return load_recipe(plan.config, plan.overrides)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--config") from None


def _detector(source: str, device: str | None) -> Any:
    from retinaface_fast.detector import FaceDetector
    from retinaface_fast.weights import load_weights

    return FaceDetector(weights=load_weights(source), device=device, score_threshold=0.3)


def _records(plan: Plan) -> tuple[Sequence[Record], Sequence[Record] | None, tuple[str, ...]]:
    """Records to train on, those to validate on where there are any, and what was wrong."""
    from retinaface_fast.training import read_records

    found = read_records(plan.data, images=plan.images, names=plan.names, on_fault=plan.on_fault)
    if not found.records:
        raise DatasetError(f"{plan.data}: there is no picture to train on")
    faults = found.faults
    if plan.val is not None:
        images = plan.val_images or (plan.images if plan.val.is_file() else None)
        validation = read_records(plan.val, images=images, names=plan.val_names, on_fault=plan.on_fault)
        return found.records, validation.records, (*faults, *validation.faults)
    if plan.val_gt is None and plan.val_share > 0:
        # By name, so that a picture stays on its side when others are added.
        held = [_fraction(record.image.name) < plan.val_share for record in found.records]
        rest = [record for record, out in zip(found.records, held, strict=True) if not out]
        return rest, [record for record, out in zip(found.records, held, strict=True) if out], faults
    return found.records, None, faults


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _validator(plan: Plan, held_out: Sequence[Record] | None, device: str | None) -> Validator | None:
    from retinaface_fast.training import records_validator, widerface_validator

    if plan.val_gt is not None:
        from retinaface_fast.data import read_ground_truth, read_names

        names = None if plan.val_names is None else read_names(plan.val_names)
        images = plan.val_images or plan.images
        if images is None:
            raise typer.BadParameter("name the folder of the pictures", param_hint="--val-images")
        try:
            truth = read_ground_truth(plan.val_gt, names)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--val-names") from None
        return widerface_validator(images, truth, device=device)
    return records_validator(held_out, device=device) if held_out else None


def _print_faults(faults: Sequence[str]) -> None:
    console = _console.stderr()
    for text in faults[:_LISTED]:
        _console.line(console, f"left out: {text}", style="yellow")
    if len(faults) > _LISTED:
        _console.line(console, f"and {len(faults) - _LISTED:,} more, see faults.txt", style="yellow")


def _beginning(trainer: Any, recipe: Recipe, records: Sequence[Record]) -> list[str]:
    faces = sum(len(record.boxes) for record in records)
    start = f"goes on from step {trainer.step:,} of {trainer.steps:,}" if trainer.resumed else trainer.initial
    return [
        f"{recipe.name}: {plural(recipe.schedule.epochs, 'epoch')}",
        f"data: {plural(len(records), 'picture')} with {plural(faces, 'face')}",
        f"weights: {start}",
    ]


def _bar(*, enabled: bool) -> Progress:
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


def _teller(bar: Progress, trainer: Any) -> Callable[[TrainingProgress], None]:
    """Show progress: a bar on a terminal, a line for each validation elsewhere."""
    task = bar.add_task("training", total=trainer.steps, completed=trainer.step, state="")
    seen: list[Any] = [None]
    started = time.monotonic()

    def tell(state: TrainingProgress) -> None:
        loss = f"loss {state.losses['loss']:.3f} " if state.losses else ""
        best = f" best {100 * state.best:.2f}" if state.best is not None else ""
        bar.update(
            task,
            completed=state.step,
            description=f"epoch {state.epoch + 1}/{state.epochs}",
            state=f"{loss}{state.pictures_per_second:.1f} pictures/s{best}",
        )
        if state.ap is not seen[0] and not state.losses:
            seen[0] = state.ap
            figures = ", ".join(f"{name} {100 * ap:.2f}" for name, ap in (state.ap or {}).items())
            _console.line(
                bar.console,
                f"epoch {state.epoch + 1}/{state.epochs}: AP {figures} %, "
                f"{time.monotonic() - started:,.0f} s",
            )

    return tell


def _ending(result: TrainingResult, faults: int, folder: Path) -> list[str]:
    progress, shares = result.progress, result.shares
    state = "interrupted" if result.stopped else "done"
    lines = [
        f"{state}: {progress.step:,} of {progress.steps:,} steps, {shares.pictures_per_second:.1f} pictures/s"
    ]
    if shares.pictures:
        parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.of_work().items())
        lines.append(f"work: {parts}; waiting for pictures {100 * shares.waiting / shares.total:.0f} %")
    if progress.best is not None:
        lines.append(f"best validation: {100 * progress.best:.2f} %")
    if faults:
        lines.append(f"{plural(faults, 'fault')} in the data: {folder / 'faults.txt'}")
    lines.extend(f"weights: {path}" for path in (result.best, result.last) if path is not None)
    return lines
