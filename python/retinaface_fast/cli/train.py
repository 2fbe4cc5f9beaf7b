"""`retinaface-fast train`: from annotated pictures to weights for `FaceDetector(weights=...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _console
from ._options import Quiet  # noqa: TC001 -- typer resolves them

_DATA, _VALIDATION, _RUN, _OUTPUT = "Data", "Validation", "Run", "Output"

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
            min=0.0,
            max=0.5,
            help="Share of --data that is measured on and not trained on, where there is no --val.",
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
        str | None, typer.Option(help="cpu, cuda, cuda:N or mps.", rich_help_panel=_RUN)
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0, max=256, help="Processes that load pictures; 0 loads in the loop.", rich_help_panel=_RUN
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
            help="Go on with the run in this folder.",
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

    if recipes:
        work.print_recipes()
        return
    if on_fault not in ("skip", "fail"):
        raise typer.BadParameter(f"expected skip or fail, got {on_fault}", param_hint="--on-fault")
    if backbone_pixels not in ("bgr", "torchvision"):
        raise typer.BadParameter(
            f"expected bgr or torchvision, got {backbone_pixels}", param_hint="--backbone-pixels"
        )
    if resume is not None:
        if data is not None or output is not None:
            raise typer.BadParameter("--resume knows data and folder: leave --data and --output out")
        plan = work.read_plan(resume)
    else:
        if data is None:
            raise typer.BadParameter("name the pictures and faces to train on", param_hint="--data")
        if val is not None and val_gt is not None:
            raise typer.BadParameter("only one of --val and --val-gt can be given")
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
    code = (
        work.check(plan, quiet=quiet)
        if check
        else work.run(plan, device=device, workers=workers, quiet=quiet)
    )
    if code == 130:
        _console.line(_console.stderr(), f"go on with: retinaface-fast train --resume {plan.output}")
    raise typer.Exit(code)


train.__doc__ = _HELP
