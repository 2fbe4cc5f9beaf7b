"""Options that several commands have, with the same names and the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

#: `--recursive`.
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Search folders at every depth.", rich_help_panel="Input")
]
#: `--quiet`.
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel="Output")]


def _model(panel: str) -> Any:
    return typer.Option(help="Name of a model, see retinaface-fast weights list.", rich_help_panel=panel)


def _weights(panel: str) -> Any:
    return typer.Option(
        metavar="FILE", help="Weights of your own (.safetensors, .onnx, .pth).", rich_help_panel=panel
    )


def _engine(panel: str) -> Any:
    return typer.Option(help="auto, or one that retinaface-fast info lists.", rich_help_panel=panel)


def _device(panel: str) -> Any:
    return typer.Option(help="cpu, cuda, cuda:N or mps.", rich_help_panel=panel)


#: `--model`, `--weights`, `--engine` and `--device`, of a command with one detector.
Model = Annotated[str, _model("Detector")]
Weights = Annotated[Path | None, _weights("Detector")]
Engine = Annotated[str, _engine("Detector")]
Device = Annotated[str | None, _device("Detector")]

#: The same of RetinaFace, where there are other detectors.
RetinaFaceModel = Annotated[str, _model("RetinaFace")]
RetinaFaceWeights = Annotated[Path | None, _weights("RetinaFace")]
RetinaFaceEngine = Annotated[str, _engine("RetinaFace")]
RetinaFaceDevice = Annotated[str | None, _device("RetinaFace")]
