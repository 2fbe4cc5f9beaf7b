"""`retinaface-fast verify`: whether two pictures show the same person."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 -- typer resolves it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _console
from ._options import Quiet  # noqa: TC001 -- typer resolves them
from ._outputs import ResultsError, naming
from ._recognition import (
    MIN_FACE,
    Detector,
    DetectorKind,
    DlibLandmarks,
    MaxMemory,
    ScoreThreshold,
    Upsample,
    largest,
    make_detector,
)
from ._report import plural

if TYPE_CHECKING:
    from retinaface_fast._typing import FloatArray

#: What the exit code says of two different persons; 1 and 2 are those of all commands.
OTHER_PERSON = 3

_DETECTOR, _OUTPUT = "Detector", "Output"


@dataclass(frozen=True, slots=True)
class _Subject:
    """The face of one picture.

    Attributes:
        source: The picture.
        index: Of the face, as `retinaface-fast detect` counts.
        count: Faces in the picture.
        width: Of its box, in pixels.
        record: The face as JSON takes it.
        embedding: (128,) float32.
    """

    source: Path
    index: int
    count: int
    width: float
    record: dict[str, Any]
    embedding: FloatArray


def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="A picture.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    *,
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", help="Nearer than this is the same person.")
    ] = 0.6,
    face_a: Annotated[
        int | None,
        typer.Option(
            min=0, help="Which face of A, 0 for the one with the highest score; without it, the largest."
        ),
    ] = None,
    face_b: Annotated[int | None, typer.Option(min=0, help="Which face of B.")] = None,
    detector: Detector = DetectorKind.retinaface,
    landmarks: DlibLandmarks = None,
    score_threshold: ScoreThreshold = None,
    upsample: Upsample = 0,
    max_memory: MaxMemory = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse larger files before they are decoded.", rich_help_panel=_DETECTOR),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_OUTPUT)
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Say whether two pictures show the same person.

    Compares one face of each by dlib's face embedding. Nothing leaves this machine. A short distance is a
    hint and no proof: people on one group photograph, relatives and children are often nearer than 0.6.

    Exit code 0: the same person; 3: another person; 1: it cannot be said, there is no (such) face or a
    picture is broken; 2: wrong usage.
    """
    if not 0 < threshold < math.inf:
        raise typer.BadParameter(f"must be above 0, got {threshold}", param_hint="--threshold")
    from retinaface_fast.compare import FaceEmbedder, embedding_distance

    finder = make_detector(
        detector,
        landmarks=landmarks,
        upsample=upsample,
        score_threshold=score_threshold,
        max_pixels=max_pixels,
        max_memory=max_memory,
    )
    embedder = FaceEmbedder()
    subjects = [
        _subject(path, index, finder, embedder, max_pixels)
        for path, index in ((first, face_a), (second, face_b))
    ]
    a, b = subjects
    if a is None or b is None:
        raise typer.Exit(1)
    distance = embedding_distance(a.embedding, b.embedding)
    is_same = distance < threshold
    with naming("the standard output", ResultsError):
        if as_json:
            record = {
                "same_person": is_same,
                "distance": distance,
                "threshold": threshold,
                "detector": finder.model,
                "faces": [
                    {"source": str(s.source), "face": s.index, "of": s.count, **s.record} for s in (a, b)
                ],
            }
            _console.line(_console.stdout(), json.dumps(record, allow_nan=False))
        elif not quiet:
            _print(a, b, distance, threshold, chosen=(face_a, face_b))
    if not quiet:
        for subject in (a, b):
            if subject.width < MIN_FACE:
                _console.line(
                    _console.stderr(),
                    f"note: the face in {subject.source} is {subject.width:.0f} pixels wide; below "
                    f"{MIN_FACE} the distance says little",
                    style="yellow",
                )
    raise typer.Exit(0 if is_same else OTHER_PERSON)


def _print(
    a: _Subject, b: _Subject, distance: float, threshold: float, *, chosen: tuple[int | None, int | None]
) -> None:
    out = _console.stdout()
    for subject, choice in zip((a, b), chosen, strict=True):
        which = f"face {subject.index} of {subject.count}"
        if choice is None and subject.count > 1:
            which = f"the largest of {plural(subject.count, 'face')}, number {subject.index}"
        elif subject.count == 1:
            which = "the only face"
        _console.line(out, f"{subject.source}: {which}, {subject.width:.0f} pixels wide")
    # Not 0.600 for what is above or below it: the line would contradict itself.
    digits = next((d for d in (3, 4, 5) if round(distance, d) != threshold), 6)
    if distance < threshold:
        text, style = f"same person: distance {distance:.{digits}f}, below {threshold:g}", "bold green"
    else:
        text, style = f"another person: distance {distance:.{digits}f}, not below {threshold:g}", "bold"
    _console.line(out, text, style=style)


def _subject(
    path: Path, index: int | None, finder: Any, embedder: Any, max_pixels: int | None
) -> _Subject | None:
    """The face of a picture; None, and an error on the standard error, if there is none."""
    from retinaface_fast.compare.comparison import failures
    from retinaface_fast.image import read_image

    try:
        pixels = read_image(path, max_pixels=max_pixels).to_color("bgr")
        faces = finder.detect(pixels)
        if not len(faces):
            _console.error(f"{path}: no face with a score above {finder.score_threshold:g}")
            return None
        if index is not None and index >= len(faces):
            _console.error(
                f"{path}: there is no face {index} with a score above {finder.score_threshold:g}, the last "
                f"is {len(faces) - 1}"
            )
            return None
        chosen = largest(faces) if index is None else index
        face = faces[chosen]
        return _Subject(
            source=path,
            index=chosen,
            count=len(faces),
            width=face.width,
            record=face.to_dict(),
            embedding=embedder.embed(pixels, faces[[chosen]])[0],
        )
    except failures() as error:
        text = str(error) or type(error).__name__
        _console.error(text if str(path) in text else f"{path}: {text}")
        return None
