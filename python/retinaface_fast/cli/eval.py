"""`retinaface-fast eval`: how good a detector is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _console
from ._options import Device, Engine, Model, Quiet, Weights  # noqa: TC001 -- typer resolves them

app = typer.Typer(help="Measure how good a detector is.", no_args_is_help=True)

_INPUT, _OUTPUT, _DETECTOR = "Input", "Output", "Detector"
#: More pictures at a time than any machine has processors for is a slip that costs memory.
_MOST_WORKERS = 256


@app.callback()
def _root() -> None:
    """Measure how good a detector is."""


#: The protocols for the help, which is shown without importing what searches and scores.
PROTOCOL_HELP = {
    "original": "once, at its own size",
    "default": "as FaceDetector does: large ones a second time, for close-ups",
    "short1600": "once, short side 1600 pixels, long side 2150 at most",
    "vga": "once, fitted into 640x480",
    "paper": "at five sizes, each also mirrored, with box voting",
    "paper-compat": "at the same sizes; candidates vote unsuppressed, as in the code of the paper",
    "ensemble": "as paper; scores depend on how many searches agree",
}
_HELP = (
    "Average precision on the WIDER FACE validation set, by the official protocol.\n\n"
    "What is found is kept, and a run that was interrupted goes on. Exit code 0: all went well; 1: "
    "something failed; 2: wrong usage; 130: interrupted.\n\n"
    "A protocol says how each picture is searched:\n\n"
) + "\n".join(f"{name:12}  {text}" for name, text in PROTOCOL_HELP.items())


@app.command(help=_HELP)
def widerface(
    *,
    gt: Annotated[
        Path,
        typer.Option(
            "--gt",
            metavar="DIR",
            help="Folder of wider_easy_val.mat, wider_medium_val.mat and wider_hard_val.mat.",
            rich_help_panel=_INPUT,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the pictures, <event>/<name>.jpg. With --predictions for contact sheets only.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="List of the pictures to take, event/name on each line; without it, all 3,226 of the set.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Score what any detector has found, <event>/<name>.txt, and detect nothing.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="How pictures are searched, see above. May be given several times; without it, original.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for predictions and results; with several protocols, each has a folder in it. "
            "Without it, widerface-NAME for each protocol.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write all results as JSON; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    markdown_to: Annotated[
        str | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Write a table of all results as Markdown; - is the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Quiet = False,
    model: Model = "mobilenet0.25",
    weights: Weights = None,
    engine: Engine = "auto",
    device: Device = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST_WORKERS,
            help="Pictures searched at the same time; without it, as many as there are processors.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
) -> None:
    """Average precision on the WIDER FACE validation set; what `_HELP` says."""
    from . import _widerface as work

    if json_to is not None and json_to == markdown_to:
        what = "the standard output" if json_to == "-" else json_to
        raise typer.BadParameter(f"only one of --json and --markdown can have {what}")
    for target, option in ((json_to, "--json"), (markdown_to, "--markdown")):
        if target is not None and Path(target).is_dir():
            raise typer.BadParameter(f"{target} is a folder and not a file", param_hint=option)
    protocols = protocol or ["original"]
    if predictions is None:
        if images is None:
            raise typer.BadParameter("name the folder of the pictures", param_hint="--images")
        _check_protocols(protocols)
        if output is None:
            outputs = {name: Path(f"widerface-{name}") for name in protocols}
        else:
            outputs = {name: output / name if len(protocols) > 1 else output for name in protocols}
    else:
        if protocol:
            raise typer.BadParameter("--predictions detects nothing: leave --protocol out")
        outputs = {predictions.resolve().name: output or Path("widerface-predictions")}
    try:
        work.check_extra()
        truth = work.read_truth(gt, names)
        if images is not None:
            work.check_pictures(images, truth.names)
        plan = work.Plan(
            truth=truth,
            names=names,
            images=images,
            predictions=predictions,
            outputs=outputs,
            detector={
                "model": model,
                "weights": weights,
                "engine": engine,
                "device": device,
                "workers": workers,
            },
            quiet=quiet,
        )
        outcomes, code = work.evaluate_each(plan)
        work.write_all(outcomes, json_to=json_to, markdown_to=markdown_to, curves_to=output)
        if outcomes and not quiet and "-" not in (json_to, markdown_to):
            work.print_table(outcomes)
    except KeyboardInterrupt:
        _console.error("interrupted; the same command goes on with what is done")
        code = 130
    raise typer.Exit(code)


def _check_protocols(names: list[str]) -> None:
    from retinaface_fast.evaluation import PROTOCOLS

    for index, name in enumerate(names):
        if name not in PROTOCOLS:
            raise typer.BadParameter(f"{name} is none of {', '.join(PROTOCOLS)}", param_hint="--protocol")
        if name in names[:index]:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--protocol")
