"""What `verify` and `group` have in common: which detector, and which faces are worth an embedding."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

if TYPE_CHECKING:
    from retinaface_fast._typing import BoolArray
    from retinaface_fast.detections import Detections

#: Faces that are less wide say little. Of 42 portraits made smaller, compared with other portraits of the
#: same persons at full size: 32 px wide, all pairs stayed below 0.6; at 24 px, 7 % were above it, at 20 px
#: 31 %, at 16 px 48 %.
MIN_FACE = 32

#: Faces of RetinaFace with a score above this. With less, parts of a face that fills a picture are found,
#: too, and blurred ones look alike to the embedding: in 74 portraits and groups they became four persons. Of
#: the faces at least 32 px wide in 250 pictures of WIDER FACE, 82 % are found above 0.9 with 1.3 % false
#: alarms; 89 % above 0.5 with 4.8 %.
MIN_SCORE = 0.9


class DetectorKind(str, Enum):
    """What finds the faces."""

    retinaface = "retinaface"
    hog = "hog"
    cnn = "cnn"


class LandmarkModel(str, Enum):
    """Which of dlib's predictors gives the landmarks of dlib's faces."""

    all_68 = "68"
    only_5 = "5"


#: The option `--detector`.
Detector = Annotated[
    DetectorKind,
    typer.Option(help="Finds the faces: retinaface, or dlib's hog or cnn.", rich_help_panel="Detector"),
]
#: The option `--landmarks`.
DlibLandmarks = Annotated[
    LandmarkModel | None,
    typer.Option(
        help="With hog and cnn: dlib's model of 68 landmarks, whose licence excludes commercial use, or "
        "that of 5; without it, that of 68.",
        rich_help_panel="Detector",
    ),
]
#: The option `--score-threshold`.
ScoreThreshold = Annotated[
    float | None,
    typer.Option(
        help=f"Faces with a score above it; without it, {MIN_SCORE} for retinaface, and 0 for hog and cnn.",
        rich_help_panel="Detector",
    ),
]
#: The option `--upsample`.
Upsample = Annotated[
    int,
    typer.Option(
        min=0,
        max=2,
        help="With hog and cnn: double the picture so many times, for smaller faces.",
        rich_help_panel="Detector",
    ),
]
#: The option `--max-memory`.
MaxMemory = Annotated[
    float | None,
    typer.Option(
        metavar="GIB",
        help="Refuse pictures for which dlib would need more memory; 4 without it.",
        rich_help_panel="Detector",
    ),
]


def make_detector(
    kind: DetectorKind,
    *,
    landmarks: LandmarkModel | None,
    upsample: int,
    score_threshold: float | None,
    max_pixels: int | None,
    max_memory: float | None,
) -> Any:
    """Return a detector with `detect`; `max_memory` is in GiB.

    Raises:
        typer.BadParameter: The options make no sense.
        RetinaFaceError: It cannot be had.
    """
    from retinaface_fast.image import pixel_limit

    try:
        pixel_limit(max_pixels)  # reads the environment, which would else be an error of every picture
        if kind is DetectorKind.retinaface:
            if upsample:
                raise typer.BadParameter("only dlib's detectors double pictures", param_hint="--upsample")
            if landmarks is not None:
                raise typer.BadParameter("is for dlib's detectors only", param_hint="--landmarks")
            if max_memory is not None:
                raise typer.BadParameter("is for dlib's detectors only", param_hint="--max-memory")
            from retinaface_fast.detector import FaceDetector

            score = MIN_SCORE if score_threshold is None else score_threshold
            return FaceDetector(score_threshold=score, max_pixels=max_pixels)
        from retinaface_fast.compare import DlibDetector

        limit: dict[str, Any] = {} if max_memory is None else {"max_memory": _bytes_of(max_memory)}
        return DlibDetector(
            kind.value,
            upsample=upsample,
            score_threshold=0.0 if score_threshold is None else score_threshold,
            landmarks=(landmarks or LandmarkModel.all_68).value,
            max_pixels=max_pixels,
            **limit,
        )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None


def _bytes_of(gib: float) -> int:
    # Below a byte there is nothing left, and of NaN and infinity there is no int.
    if not (math.isfinite(gib) and gib * 2**30 >= 1):
        raise typer.BadParameter(f"must be above 0, got {gib}", param_hint="--max-memory")
    return int(gib * 2**30)


def wide_enough(faces: Detections, min_face: int) -> BoolArray:
    """Say of each face whether its box is at least so many pixels wide."""
    wide: BoolArray = faces.boxes[:, 2] - faces.boxes[:, 0] >= min_face
    return wide


def largest(faces: Detections) -> int:
    """Return the index of the face whose box has the largest area."""
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    return int(np.argmax(sides.prod(axis=1)))
