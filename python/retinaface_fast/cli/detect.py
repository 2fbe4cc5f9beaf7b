"""`retinaface-fast detect`: faces in pictures, videos and camera streams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from retinaface_fast._validation import MOST_THREADS
from retinaface_fast.align import arcface_template

from ._options import Device, Engine, Model, Quiet, Recursive, Weights  # noqa: TC001 -- typer resolves them
from ._outputs import Inputs, names_a_file, plan
from ._sources import expand

_INPUT, _OUTPUT, _DETECTOR, _VIDEO = "Input", "Output", "Detector", "Video and camera"


def detect(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help='Pictures, videos, folders, or quoted patterns such as "photos/**/*.jpg".'),
    ] = None,
    *,
    recursive: Recursive = False,
    camera: Annotated[
        int | None,
        typer.Option(
            min=0, help="Look through this camera (0 is the first) until Ctrl-C.", rich_help_panel=_INPUT
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Look at every nth frame only.", rich_help_panel=_VIDEO)
    ] = 1,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many frames.", rich_help_panel=_VIDEO)
    ] = None,
    output_to: Annotated[
        str | None,  # a Path would forget the slash at its end
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write annotated pictures: a file for one picture, else a folder that keeps the structure.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write JSON lines, one for each picture or frame; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    csv_to: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write CSV, one row for each face; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write each face, aligned to the ArcFace template.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    crop_size: Annotated[
        int,
        typer.Option(
            min=1,
            max=4096,  # 48 MB a face; a slip of the finger must not take all memory
            help="Side of an aligned face: a multiple of 112 or of 128 pixels.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 112,
    quiet: Quiet = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first broken file.", rich_help_panel=_OUTPUT)
    ] = False,
    model: Model = "mobilenet0.25",
    weights: Weights = None,
    engine: Engine = "auto",
    device: Device = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_THREADS,
            help="Most threads for one picture; without it, what RETINAFACE_FAST_THREADS says, or as many as "
            "there are processors, 8 at most.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, which is the default, or float16 with the engine torch on a CUDA device.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    score_threshold: Annotated[
        float,
        typer.Option(
            "--score-threshold",
            "-t",
            help="Keep faces with a score above it, 0 to 1.",
            rich_help_panel=_DETECTOR,
        ),
    ] = 0.5,
    nms_threshold: Annotated[
        float, typer.Option(help="Of two boxes that overlap more, keep one.", rich_help_panel=_DETECTOR)
    ] = 0.4,
    top_k: Annotated[
        int, typer.Option(help="Candidates taken into the suppression.", rich_help_panel=_DETECTOR)
    ] = 5000,
    keep_top_k: Annotated[
        int, typer.Option(help="Most faces of one picture.", rich_help_panel=_DETECTOR)
    ] = 750,
    max_side: Annotated[
        int | None,
        typer.Option(help="Shrink larger pictures to this longest side.", rich_help_panel=_DETECTOR),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Search each picture at five sizes, and mirrored, and vote: more small faces, some 24 "
            "times slower.",
            rich_help_panel=_DETECTOR,
        ),
    ] = False,
    close_ups: Annotated[
        bool,
        typer.Option(
            help="Search large pictures a second time for faces that fill them.", rich_help_panel=_DETECTOR
        ),
    ] = True,
    tile_side: Annotated[
        int | None,
        typer.Option(
            help="Search larger pictures in tiles of this side, 1280 or more: bounded memory.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Refuse files with more pixels, before they are decoded; without it, what "
            "RETINAFACE_FAST_MAX_PIXELS says, or 268435456.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
) -> None:
    """Find faces in pictures, videos and camera streams.

    Goes on past broken files and ends with a summary. Exit code 0: all went well; 1: something failed;
    2: wrong usage; 130: interrupted.
    """
    if not sources and camera is None:
        raise typer.BadParameter("name at least one picture, video, folder or pattern, or a --camera")
    if json_to == csv_to == "-":
        raise typer.BadParameter("only one of --json and --csv can have the standard output")
    output = Path(output_to) if output_to is not None else None
    is_folder = output_to is not None and output_to.endswith(("/", os.sep))
    written = [folder for folder in (output, crops) if folder is not None]
    if crops is not None:
        if crops.exists() and not crops.is_dir():
            raise typer.BadParameter(f"{crops} is a file and not a folder", param_hint="--crops")
        try:
            arcface_template(crop_size)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--crop-size") from None
    found, missing = expand(sources or [], recursive=recursive, excluded=written)
    inputs = Inputs(found)
    for target, option in ((json_to, "--json"), (csv_to, "--csv")):
        if target is not None and target != "-":
            inputs.protect(Path(target), option)
    camera_target = None
    if camera is not None and output is not None:
        may_be_file = not found and not is_folder and not output.is_dir()
        is_file = may_be_file and names_a_file(output, is_video=True)
        camera_target = output if is_file else output / f"camera-{camera}.mp4"
    targets = None
    if output is not None and found:
        targets = plan(found, output, inputs, is_folder=is_folder, is_shared=camera is not None)

    from retinaface_fast.detector import FaceDetector
    from retinaface_fast.image import pixel_limit
    from retinaface_fast.tta import TTA

    from ._run import Plan, Run

    try:
        pixel_limit(max_pixels)  # reads the environment, which would else be an error of every picture
        detector = FaceDetector(
            model=model,
            weights=weights,
            engine=engine,
            device=device,
            threads=threads,
            precision=precision,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            top_k=top_k,
            keep_top_k=keep_top_k,
            max_side=max_side,
            max_pixels=max_pixels,
            tta=TTA() if tta else None,
            close_ups=close_ups,
            tile_side=tile_side,
        )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    run = Run(
        Plan(
            sources=found,
            missing=missing,
            camera=camera,
            targets=targets,
            camera_target=camera_target,
            crops=crops,
            crop_size=crop_size,
            max_pixels=max_pixels,
            json_to=json_to,
            csv_to=csv_to,
            every=every,
            max_frames=max_frames,
            fail_fast=fail_fast,
            quiet=quiet,
        ),
        detector,
    )
    raise typer.Exit(run())
