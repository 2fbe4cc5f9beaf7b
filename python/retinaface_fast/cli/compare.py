"""`retinaface-fast compare`: RetinaFace beside dlib."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path  # noqa: TC003 -- typer resolves it
from typing import Annotated

import typer

from retinaface_fast._validation import MOST_THREADS

from ._options import (  # noqa: TC001 -- typer resolves them
    Quiet,
    Recursive,
    RetinaFaceDevice,
    RetinaFaceEngine,
    RetinaFaceModel,
    RetinaFaceWeights,
)

_INPUT, _OUTPUT, _RETINAFACE, _DLIB, _TRUTH = "Input", "Output", "RetinaFace", "dlib", "Ground truth"


class Kind(str, Enum):
    """Detectors of dlib."""

    hog = "hog"
    cnn = "cnn"


class Landmarks(str, Enum):
    """Landmark predictors of dlib."""

    all_68 = "68"
    only_5 = "5"
    none = "none"


def compare(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help='Pictures, folders, or quoted patterns such as "photos/**/*.jpg".'),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for report.html, comparison.json and pictures/; replaces those of an earlier run.",
            rich_help_panel=_OUTPUT,
        ),
    ],
    recursive: Recursive = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Refuse files with more pixels, before they are decoded.", rich_help_panel=_INPUT
        ),
    ] = None,
    gt: Annotated[
        Path | None,
        typer.Option(
            "--gt",
            metavar="DIR",
            help="Folder of wider_easy_val.mat, wider_medium_val.mat and wider_hard_val.mat: also compute "
            "average precision. The pictures are <event>/<name>.jpg.",
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the pictures that --names lists.", rich_help_panel=_TRUTH
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="List of the pictures to take from --images, event/name on each line.",
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    show: Annotated[
        int,
        typer.Option(
            min=0,
            help="Show at most so many pictures in the report, spread over all; all are counted.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 24,
    min_iou: Annotated[
        float | None,
        typer.Option(
            help="Least overlap of two boxes of the same face, above 0; without it, 0.3.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Quiet = False,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(
            help="Detector of dlib; may be given twice. Without it, both: the CNN takes seconds for each "
            "picture.",
            rich_help_panel=_DLIB,
        ),
    ] = None,
    upsample: Annotated[
        int,
        typer.Option(
            min=0,
            max=2,
            help="Double pictures so many times before dlib searches them: smaller faces, four times the "
            "time and memory each time.",
            rich_help_panel=_DLIB,
        ),
    ] = 0,
    max_memory: Annotated[
        float,
        typer.Option(
            metavar="GIB",
            help="Refuse pictures for which dlib would need more memory; 4 without it.",
            show_default=False,
            rich_help_panel=_DLIB,
        ),
    ] = 4.0,
    landmarks: Annotated[
        Landmarks,
        typer.Option(
            help="Landmark predictor of dlib: 68, trained on iBUG 300-W, whose licence excludes commercial "
            "use; 5, without a mouth; or none.",
            rich_help_panel=_DLIB,
        ),
    ] = Landmarks.all_68,
    dlib_threshold: Annotated[
        float,
        typer.Option(
            help="Keep what dlib gives a score above it; HOG's go below 0, the CNN's do not.",
            rich_help_panel=_DLIB,
        ),
    ] = 0.0,
    model: RetinaFaceModel = "mobilenet0.25",
    weights: RetinaFaceWeights = None,
    engine: RetinaFaceEngine = "auto",
    device: RetinaFaceDevice = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_THREADS,
            help="Most threads for one picture. dlib uses one.",
            rich_help_panel=_RETINAFACE,
        ),
    ] = None,
    score_threshold: Annotated[
        float,
        typer.Option(
            "--score-threshold",
            "-t",
            help="Keep faces with a score above it, 0 to 1.",
            rich_help_panel=_RETINAFACE,
        ),
    ] = 0.5,
) -> None:
    """Compare RetinaFace with dlib's detectors on pictures, in a report to look at.

    Goes on past broken files and ends with a summary. Exit code 0: all went well; 1: something failed;
    2: wrong usage; 130: interrupted, with a report of what was done until then, if anything was.
    """
    if (images is None) != (names is None):
        raise typer.BadParameter("--images and --names go together")
    if not sources and names is None:
        raise typer.BadParameter("name at least one picture, folder or pattern")
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is a file and not a folder", param_hint="--out")
    if not math.isfinite(dlib_threshold):
        raise typer.BadParameter("must be a number", param_hint="--dlib-threshold")

    max_bytes = max_memory * 2**30
    if not 1 <= max_bytes < math.inf:
        raise typer.BadParameter(f"must be above 0, got {max_memory}", param_hint="--max-memory")

    from . import _compare_plan as plan
    from ._compare import Run
    from ._compare_out import earlier_sheets

    plan.check_extra()
    earlier = earlier_sheets(out)
    kinds = list(dict.fromkeys(each.value for each in kind or Kind))
    pictures, missing = plan.find_pictures(
        sources or [], recursive=recursive, out=out, images=images, names=names, named_by_event=gt is not None
    )
    for picture in pictures:
        if picture.target.exists() and picture.target not in earlier:
            raise typer.BadParameter(
                f"{picture.target} is not of an earlier comparison: name another folder, or move it away",
                param_hint="--out",
            )
    truth = None if gt is None else plan.Truth(gt, pictures)
    options = {
        "model": model,
        "weights": weights,
        "engine": engine,
        "device": device,
        "threads": threads,
        "score_threshold": score_threshold,
    }
    dlib_options = {
        "upsample": upsample,
        "landmarks": landmarks.value,
        "score_threshold": dlib_threshold,
        "max_memory": int(max_bytes),
    }
    run = Run(
        pictures=pictures,
        missing=missing,
        contestants=plan.contestants(options, kinds, dlib_options, scored=truth is not None),
        out=out,
        earlier=earlier,
        truth=truth,
        show=show,
        min_iou=plan.checked_min_iou(min_iou),
        max_pixels=plan.checked_max_pixels(max_pixels),
        quiet=quiet,
    )
    raise typer.Exit(run())
