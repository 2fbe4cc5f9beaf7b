"""The work of `retinaface-fast train`: reading data, looking at it, the run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import typer

from retinaface_fast.errors import DatasetError, MissingDependencyError

from . import _console
from . import _train_report as report
from ._outputs import ResultsError, naming, write_file, write_picture
from ._report import plural
from ._train_landmarks import KeptLandmarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast.training import Recipe, Record, Validator

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


def read_plan(folder: Path) -> tuple[Plan, Recipe]:
    """The plan and the recipe of a run that was started before; the file of the recipe may be gone.

    Raises:
        DatasetError: The folder holds none.
        MissingDependencyError: A package that training needs is not there.
    """
    check_extra()
    from retinaface_fast.training import Recipe
    from retinaface_fast.training.run_folder import read_run

    record = read_run(folder)
    try:
        values = dict(record["arguments"])
        for name in _PATHS:
            if values[name] is not None:
                values[name] = Path(values[name])
        return Plan(**{**values, "output": folder}), Recipe.model_validate(record["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder / 'run.json'}: does not say how the run was started: {' '.join(str(error).split())}"
        ) from None


def print_recipes() -> None:
    """List the recipes of the package."""
    check_extra()
    from retinaface_fast.training import load_recipe, recipe_names

    report.print_recipes(_console.stdout(), [load_recipe(name) for name in recipe_names()])


def check(plan: Plan, *, recipe: Recipe | None = None, quiet: bool) -> int:
    """Look at the data and draw a batch of it, by the recipe of the plan or of the run that is there."""
    check_extra()
    from retinaface_fast.training import check_data, report_lines

    recipe = recipe or _recipe(plan)
    records, validation, faults = _records(plan)
    with report.bar(enabled=not quiet) as bar:
        found = check_data(
            records,
            faults,
            recipe=recipe,
            network=recipe.network.config(),
            seed=recipe.training.seed,
            progress=report.counter(bar, "pictures", len(records)),
        )
    target = plan.output / "check.png"
    write_picture(target, found.sheet)
    if found.faults:
        write_file(plan.output / "faults.txt", ("\n".join(found.faults) + "\n").encode())
    if quiet:
        return 1 if found.faults else 0
    lines = report_lines(found)
    if validation is not None:
        lines.append(f"validation: {plural(len(validation), 'picture')}")
    lines.append(f"a batch after augmentation: {target}")
    with naming("the standard output", ResultsError):
        for text in lines:
            _console.line(_console.stdout(), text)
    landmarks = _with_landmarks(records)
    validated = validation is not None or plan.val_gt is not None
    _warn(report.warnings(recipe, validated=validated, landmarks=landmarks))
    return 1 if found.faults else 0


def run(plan: Plan, *, resumed: Recipe | None = None, device: str | None, workers: int, quiet: bool) -> int:
    """Train, and say what it came to; `resumed` is the recipe of the run that is to go on."""
    check_extra()
    recipe = resumed or _recipe(plan)
    records, held_out, found = _records(plan)
    batch = recipe.training.batch_size
    if batch > len(records):
        raise typer.BadParameter(
            f"a batch is {batch} pictures and there are {len(records)} to train on: give more, or "
            f"--set training.batch_size={len(records)} or less",
            param_hint="--data",
        )
    validator = _validator(plan, held_out, device)
    from retinaface_fast.training import Trainer, plot_run

    shown = report.is_first_process() and not quiet
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(report.bar(enabled=shown))
        faults = report.Faults(bar.console, found if report.is_first_process() else (), quiet=quiet)
        stack.enter_context(faults.listening())
        conditions = {}
        if plan.landmarks_from is not None:
            kept = KeptLandmarks(plan.output, plan.landmarks_from, recipe, resumed=resumed is not None)
            records = kept.fill(
                records, device=device, progress=report.counter(bar, "landmarks", len(records))
            )
            conditions = kept.conditions
        try:
            trainer = Trainer(
                recipe,
                records,
                plan.output,
                init=plan.init,
                backbone_pixels=plan.backbone_pixels,
                resume=resumed is not None,
                validator=validator,
                device=device,
                workers=workers,
                on_fault=plan.on_fault,
                arguments=plan.to_dict(),
                conditions=conditions,
            )
        except ValueError as error:
            text = str(error)
            hint = "--init" if text.startswith("source: ") else None
            raise typer.BadParameter(text.removeprefix("source: "), param_hint=hint) from None
        stack.enter_context(faults.kept(plan.output / "faults.txt"))
        if shown:
            landmarks = _with_landmarks(records)
            validated = None if validator is None else len(validator.images)
            for text in report.beginning(trainer, records, validated=validated, landmarks=landmarks):
                _console.line(bar.console, text)
            _warn(report.warnings(recipe, validated=validator is not None, landmarks=landmarks))
        result = trainer.run(progress=report.teller(bar, trainer, quiet=quiet))
        for text in result.faults:
            faults.add(text)
    if trainer.is_first_process:
        if result.shares.pictures:
            with contextlib.suppress(DatasetError):  # stopped before anything was logged
                plot_run(plan.output, plan.output / "curves.png")
        if not quiet:
            with naming("the standard output", ResultsError):
                for text in report.ending(result, len(faults), plan.output):
                    _console.line(_console.stdout(), text)
    return 130 if result.stopped else 0


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        _console.line(_console.stderr(), f"warning: {text}", style="yellow")


def _with_landmarks(records: Sequence[Record]) -> int:
    """Faces that are trained on with at least one landmark."""
    return sum(
        int((~np.isnan(record.landmarks).all(axis=(1, 2)) & ~record.ignored).sum()) for record in records
    )


def _recipe(plan: Plan) -> Recipe:
    from retinaface_fast.training import load_recipe

    try:
        return load_recipe(plan.config, plan.overrides)
    except ValueError as error:
        raise typer.BadParameter(str(error).removeprefix("source: "), param_hint="--config") from None


def _records(plan: Plan) -> tuple[Sequence[Record], Sequence[Record] | None, tuple[str, ...]]:
    """Records to train on, those to validate on where there are any, and what was wrong."""
    from retinaface_fast.training import read_records

    found = read_records(plan.data, images=plan.images, names=plan.names, on_fault=plan.on_fault)
    records, validation, faults = found.records, None, found.faults
    if plan.val is not None:
        images = plan.val_images or (plan.images if plan.val.is_file() else None)
        read = read_records(plan.val, images=images, names=plan.val_names, on_fault=plan.on_fault)
        validation, faults = read.records, (*faults, *read.faults)
        if not any((~record.ignored).any() for record in validation):
            raise DatasetError(f"{plan.val}: there is no face to measure on")
    elif plan.val_share > 0:
        records, validation = _split(records, plan.val_share)
    if not any((~record.ignored).any() for record in records):
        raise DatasetError(f"{plan.data}: there is no face to train on")
    return records, validation, faults


def _split(records: tuple[Record, ...], share: float) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Hold out some pictures with faces: by name, so that each stays on its side when others are added."""
    order = {record: _fraction(record.image.name) for record in records if (~record.ignored).any()}
    held = {record for record, fraction in order.items() if fraction < share}
    if not held and len(order) > 1:
        held = {min(order, key=order.__getitem__)}
    rest = tuple(record for record in records if record not in held)
    if not held or len(held) == len(order):
        raise DatasetError(f"--val-share: {plural(len(order), 'picture')} with faces cannot be shared")
    return rest, tuple(record for record in records if record in held)


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _validator(plan: Plan, held_out: Sequence[Record] | None, device: str | None) -> Validator | None:
    import torch

    from retinaface_fast.training import records_validator, widerface_validator

    if device is None and torch.cuda.is_available():
        device = "cuda"  # as training does: a ResNet would take hours on the CPU, and the others wait
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
