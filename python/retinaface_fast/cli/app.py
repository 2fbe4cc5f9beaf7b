"""The program: its subcommands, what holds for all of them, and how an error becomes an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence  # noqa: TC003
from typing import Annotated

import typer

import retinaface_fast
from retinaface_fast.errors import RetinaFaceError

from . import _console
from ._dlib import dlib_installed
from ._outputs import ResultsError
from .benchmark import benchmark
from .compare import compare
from .detect import detect
from .eval import app as eval_app
from .export import export
from .group import group
from .info import info
from .train import train
from .verify import verify
from .weights import app as weights_app

app = typer.Typer(
    name="retinaface-fast",
    help="Find faces in pictures, videos and camera streams.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback that leaves this package is a bug to be reported: in full and as plain text.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("detect")(detect)
app.command("compare", hidden=not dlib_installed())(compare)
app.command("verify", hidden=not dlib_installed())(verify)
app.command("group", hidden=not dlib_installed())(group)
app.command("benchmark")(benchmark)
app.command("train")(train)
app.command("export")(export)
app.command("info")(info)
app.add_typer(eval_app, name="eval")
app.add_typer(weights_app, name="weights")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retinaface-fast {retinaface_fast.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Find faces in pictures, videos and camera streams."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, see `retinaface_fast.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal's encoding lacks; that must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(list(arguments) if arguments is not None else None, prog_name="retinaface-fast")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except RetinaFaceError as error:
        _console.error(str(error))
        if isinstance(error, ResultsError):
            _console.abandon_stdout()
        return 1
    except ImportError as error:
        # The core cannot be imported where this variable names what the CPU or the build lacks.
        if "RETINAFACE_FAST_SIMD" not in str(error):
            raise
        _console.error(str(error))
        return 2
    return 0
