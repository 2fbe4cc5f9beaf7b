"""`retinaface-fast train`: from annotated pictures to weights for `FaceDetector(weights=...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _console
from ._options import Quiet  # noqa: TC001 -- typer resolves them

_DATA, _VALIDATION, _RUN, _OUTPUT = "Data", "Validation", "Run", "Output"

#: What may be said again when a run goes on; the rest is in its folder.
_SAID_AGAIN = ("resume", "device", "workers", "check", "quiet")

_HELP = (
    "Train a network by a recipe, or go on with a run that was stopped.\n\n"
    "--data is a folder as WIDER FACE or RetinaFace publish theirs, a file of annotations "
    "(wider_face_train_bbx_gt.txt, label.txt with or without landmarks), or a COCO JSON file of boxes. "
    "--check looks at all of it first and trains nothing.\n\n"
    "In the folder of the run: best.safetensors and last.safetensors for detect --weights, curves.png, log/ "
    "for TensorBoard, checkpoints/ to go on from.\n\n"
    "Several processes, on one machine or many: torchrun --nproc-per-node N -m retinaface_fast train …\n\n"
    "Exit code 0: all went well; 1: something failed; 2: wrong usage; 130: interrupted, and --resume goes on."
)


def train(
    context: typer.Context,
    *,
    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", metavar="NAME|FILE", help="Recipe: a name, see --recipes, or a .toml file."
        ),
    ] = "biubug6-mobilenet0.25",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Replace a value of the recipe; several times."
        ),
    ] = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Pictures and faces, see above.", rich_help_panel=_DATA),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the pictures, if not beside the file.", rich_help_panel=_DATA
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="List of those to take, event/name on each line.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    landmarks_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|FILE",
            help="Give faces without landmarks those that these weights find, so that boxes alone do not "
            "make the network forget landmarks.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    on_fault: Annotated[
        str,
        typer.Option(
            metavar="skip|fail",
            help="What wrong data does: it is told and left out, or ends the run.",
            rich_help_panel=_DATA,
        ),
    ] = "skip",
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Pictures and faces to measure on, as --data.", rich_help_panel=_VALIDATION
        ),
    ] = None,
    val_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of their pictures; without it, --images.", rich_help_panel=_VALIDATION
        ),
    ] = None,
    val_names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="List of those to take.", rich_help_panel=_VALIDATION),
    ] = None,
    val_gt: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of wider_easy_val.mat and so on, in place of --val: AP by the official protocol.",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    val_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of --data that is measured on and not trained on, at most 0.5.",
            rich_help_panel=_VALIDATION,
        ),
    ] = 0.0,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|FILE",
            help="Initial weights: a model of retinaface-fast weights list, a RetinaFace file, or a backbone "
            "trained on ImageNet. Without it, random ones.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    backbone_pixels: Annotated[
        str,
        typer.Option(
            metavar="bgr|torchvision",
            help="Pixels that an ImageNet backbone was trained on.",
            rich_help_panel=_RUN,
        ),
    ] = "bgr",
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="cpu, cuda, cuda:N or mps; without it, cuda where there is one.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=256,
            help="Processes that load pictures; 0 loads in the loop.",
            rich_help_panel=_RUN,
        ),
    ] = 2,
    check: Annotated[
        bool,
        typer.Option("--check", help="Look at the data and draw a batch only.", rich_help_panel=_RUN),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Go on with the run in this folder; it knows the other options, but for "
            "--device and --workers.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the run; without it, train-NAME of the recipe.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network by a recipe; what `_HELP` says."""
    from . import _train as work
    from ._train_report import how_to_resume, is_first_process

    if recipes:
        work.print_recipes()
        return
    if device is not None:
        _check_device(device)
    if resume is not None:
        given = [name for name in context.params if _is_given(context, name) and name not in _SAID_AGAIN]
        if given:
            options = ", ".join(_option(name) for name in given)
            raise typer.BadParameter(f"the run knows its options: leave {options} out", param_hint="--resume")
        plan, recipe = work.read_plan(resume)
    else:
        if data is None:
            raise typer.BadParameter("name the pictures and faces to train on", param_hint="--data")
        _check_choices(on_fault, backbone_pixels, val_share)
        _check_together(context)
        recipe = None
        plan = work.Plan(
            config=config,
            overrides=work.parse_overrides(overrides or []),
            data=data,
            images=images,
            names=names,
            landmarks_from=landmarks_from,
            on_fault=on_fault,  # type: ignore[arg-type]  # checked above
            val=val,
            val_images=val_images,
            val_names=val_names,
            val_gt=val_gt,
            val_share=val_share,
            init=init,
            backbone_pixels=backbone_pixels,  # type: ignore[arg-type]  # checked above
            output=output or Path(f"train-{Path(config).stem if config.endswith('.toml') else config}"),
        )
    try:
        if check:
            code = work.check(plan, recipe=recipe, quiet=quiet)
        else:
            code = work.run(plan, resumed=recipe, device=device, workers=workers, quiet=quiet)
    except KeyboardInterrupt:  # the second Ctrl-C, or one before the first step
        code = 130
    if code == 130 and not check and is_first_process() and (plan.output / "run.json").is_file():
        _console.line(_console.stderr(), f"go on with: {how_to_resume(plan.output)}")
    raise typer.Exit(code)


def _option(name: str) -> str:
    return "--set" if name == "overrides" else f"--{name.replace('_', '-')}"


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_device(device: str) -> None:
    from retinaface_fast.engines.base import split_device

    try:
        split_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error).removeprefix("device: "), param_hint="--device") from None


def _check_choices(on_fault: str, backbone_pixels: str, val_share: float) -> None:
    if on_fault not in ("skip", "fail"):
        raise typer.BadParameter(f"expected skip or fail, got {on_fault}", param_hint="--on-fault")
    if backbone_pixels not in ("bgr", "torchvision"):
        raise typer.BadParameter(
            f"expected bgr or torchvision, got {backbone_pixels}", param_hint="--backbone-pixels"
        )
    if not 0 <= val_share <= 0.5:
        raise typer.BadParameter(f"expected 0 to 0.5, got {val_share:g}", param_hint="--val-share")


def _check_together(context: typer.Context) -> None:
    """Check that each option of the validation has what it belongs to, and is not one too many."""
    given = [name for name in ("val", "val_gt", "val_share") if _is_given(context, name)]
    if len(given) > 1:
        raise typer.BadParameter(f"only one of {' and '.join(map(_option, given))} can be given")
    for name in ("val_images", "val_names"):
        if _is_given(context, name) and given not in (["val"], ["val_gt"]):
            raise typer.BadParameter("belongs to --val or --val-gt", param_hint=_option(name))
    if _is_given(context, "backbone_pixels") and not _is_given(context, "init"):
        raise typer.BadParameter("belongs to --init", param_hint="--backbone-pixels")


train.__doc__ = _HELP
