"""`retinaface-fast group`: the faces of many pictures, by person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import Quiet, Recursive  # noqa: TC001 -- typer resolves them
from ._outputs import Inputs
from ._recognition import (
    MIN_FACE,
    Detector,
    DetectorKind,
    DlibLandmarks,
    MaxMemory,
    ScoreThreshold,
    Upsample,
    make_detector,
)
from ._sources import NotFound, expand

_INPUT, _OUTPUT, _DETECTOR, _GROUPS = "Input", "Output", "Detector", "Groups"


def group(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES", help='Pictures, folders, or quoted patterns such as "photos/**/*.jpg".'
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for the persons, which must be new or empty.",
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
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            "-t",
            help="Groups that are nearer than this on average are one person.",
            rich_help_panel=_GROUPS,
        ),
    ] = 0.5,
    min_face: Annotated[
        int,
        typer.Option(min=1, help="Leave out faces that are less wide, in pixels.", rich_help_panel=_GROUPS),
    ] = MIN_FACE,
    min_size: Annotated[
        int,
        typer.Option(
            min=1, help="A person with fewer faces gets a number, but no folder.", rich_help_panel=_GROUPS
        ),
    ] = 2,
    collages: Annotated[
        bool,
        typer.Option(
            "--collages",
            help="Two faces of one picture may be one person, which is else ruled out.",
            rich_help_panel=_GROUPS,
        ),
    ] = False,
    detector: Detector = DetectorKind.retinaface,
    landmarks: DlibLandmarks = None,
    score_threshold: ScoreThreshold = None,
    upsample: Upsample = 0,
    max_memory: MaxMemory = None,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write groups.json there, too; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Sort the faces of many pictures by person.

    Writes a folder of aligned faces for each person, each picture with the numbers of its persons, contact
    sheets, groups.json and groups.csv. Embeddings are not kept, and nothing leaves this machine. Groups are
    hints and no proof.

    Goes on past broken files. Exit code 0: all went well; 1: something failed; 2: wrong usage; 130:
    interrupted.
    """
    from retinaface_fast.compare.grouping import HIGHEST_THRESHOLD

    if not 0 < threshold <= HIGHEST_THRESHOLD:
        raise typer.BadParameter(
            f"must be above 0 and at most {HIGHEST_THRESHOLD:,}, got {threshold}", param_hint="--threshold"
        )
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is a file and not a folder", param_hint="--out")
    if out.is_dir() and any(out.iterdir()):
        # Folders of persons that another run found would lie among those of this one.
        raise typer.BadParameter(f"{out} is not empty; name a new folder", param_hint="--out")
    found, missing = expand(sources, recursive=recursive, excluded=[out])
    missing += [
        NotFound(str(source.path), "a video; group takes pictures")
        for source in found
        if source.is_video and source.is_named
    ]
    found = [source for source in found if not source.is_video]
    if json_to is not None and json_to != "-":
        if Path(json_to).is_dir():
            raise typer.BadParameter(f"{json_to} is a folder and not a file", param_hint="--json")
        target, folder = Path(json_to).resolve(), out.resolve()
        if folder == target or folder in target.parents or target in folder.parents:
            raise typer.BadParameter(
                f"{json_to} is in --out, where groups.json is anyway, or in its way",
                param_hint="--json",
            )
        Inputs(found).protect(Path(json_to), "--json")

    from retinaface_fast.compare import FaceEmbedder

    from ._group import GroupRun, Plan

    plan = Plan(
        sources=found,
        missing=missing,
        out=out,
        threshold=threshold,
        min_face=min_face,
        min_size=min_size,
        collages=collages,
        max_pixels=max_pixels,
        json_to=json_to,
        quiet=quiet,
    )
    finder = make_detector(
        detector,
        landmarks=landmarks,
        upsample=upsample,
        score_threshold=score_threshold,
        max_pixels=max_pixels,
        max_memory=max_memory,
    )
    raise typer.Exit(GroupRun(plan, finder, FaceEmbedder())())
