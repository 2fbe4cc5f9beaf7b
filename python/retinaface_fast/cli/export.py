"""`retinaface-fast export`: weights in another file format, compared before they are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import Quiet  # noqa: TC001 -- typer resolves them

if TYPE_CHECKING:
    from retinaface_fast.engines import ExportCheck
    from retinaface_fast.weights import ModelWeights

_SUFFIXES = (".onnx", ".safetensors")
_LAYOUTS = ("family", "pixels")


def export(
    weights: Annotated[
        str, typer.Argument(help="Name of a model, or a file: .safetensors, .onnx, .pth.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="File to write, .onnx or .safetensors.", show_default=False)],
    *,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT",
            help="Of an .onnx file: family, what the published ones have and other programs read; or pixels, "
            "uint8 pictures to logits and deltas. Without it, family.",
            rich_help_panel="Output",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Run an .onnx file on random pictures and compare it with another engine first.",
            rich_help_panel="Output",
        ),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file.", rich_help_panel="Output")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write weights as ONNX, for other programs, or as safetensors, which any engine here loads at once.

    An ONNX file takes any batch, height and width. It is run by ONNX Runtime on random pictures and compared
    with the native engine, or with torch where that does not run the network; where they differ, there is no
    file. Licence and provenance of the weights go along. Needs the extra onnxruntime.

    Exit code 0: the file is there; 1: it is not, and why; 2: wrong usage.
    """
    from retinaface_fast.weights import load_weights

    from . import _console
    from ._outputs import Inputs, ResultsError, naming
    from ._sources import Source

    if out.suffix not in _SUFFIXES:
        raise typer.BadParameter(f"{out} must end in {' or '.join(_SUFFIXES)}", param_hint="OUT")
    if layout is not None and out.suffix != ".onnx":
        raise typer.BadParameter("only an .onnx file has a layout", param_hint="--layout")
    if layout is not None and layout not in _LAYOUTS:
        raise typer.BadParameter(f"expected {' or '.join(_LAYOUTS)}, got {layout}", param_hint="--layout")
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder and not a file", param_hint="OUT")
    Inputs([Source(Path(weights), Path(weights))]).protect(out, "OUT")
    if out.exists() and not force:
        raise typer.BadParameter(f"{out} is there already; --force replaces it", param_hint="OUT")
    try:
        loaded = load_weights(weights)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="WEIGHTS") from None
    with naming(out, ResultsError):
        said = _write(loaded, out, layout or "family", verify=verify)
    if quiet:
        return
    for line in said:
        _console.line(_console.stdout(), line)


def _write(weights: ModelWeights, out: Path, layout: str, *, verify: bool) -> list[str]:
    """Write the file; returns what there is to say about it."""
    if out.suffix == ".onnx":
        from retinaface_fast.engines import export_onnx

        check = export_onnx(weights, out, layout="pixels" if layout == "pixels" else "family", verify=verify)
        told = _verified(check)
    else:
        from retinaface_fast.weights import save_weights

        out.parent.mkdir(parents=True, exist_ok=True)
        save_weights(weights, out)
        told = []
    licence = weights.metadata.get("licence", "the weights name none")
    return [
        f"{out}: {weights.config.name}, {out.stat().st_size / 1e6:.1f} MB",
        *told,
        f"licence: {licence}",
    ]


def _verified(check: ExportCheck) -> list[str]:
    if check.reference is None:
        return ["not verified"]
    sizes = ", ".join(
        f"{width}x{height}" + (f" ({batch} at once)" if batch > 1 else "")
        for batch, height, width in check.sizes
    )
    largest: dict[str, float] = {}
    for name, difference in check.differences.items():
        head = name.partition(".")[0]  # the layout "pixels" has an output for each level of it
        largest[head] = max(largest.get(head, 0.0), difference)
    differences = ", ".join(f"{head} {difference:.1e}" for head, difference in largest.items())
    return [
        f"run by ONNX Runtime and compared with the engine {check.reference}, on noise of {sizes}",
        f"largest differences: {differences}; allowed: {check.tolerance:.0e} of the largest value, or of 1",
    ]
