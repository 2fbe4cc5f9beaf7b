"""What `retinaface-fast compare` is to do: the pictures, the ground truth, the detectors."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from retinaface_fast.compare.comparison import Contestant
from retinaface_fast.compare.dlib_models import DLIB_MODELS, import_dlib
from retinaface_fast.compare.pairing import DEFAULT_MIN_IOU
from retinaface_fast.compare.report import check_report_packages
from retinaface_fast.data import read_ground_truth, read_names
from retinaface_fast.evaluation import PROTOCOLS
from retinaface_fast.image import pixel_limit

from ._compare_out import REPORT, SHEETS, SUMMARY
from ._outputs import Inputs, unique
from ._sources import NotFound, Source, expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.data import GroundTruth
    from retinaface_fast.detections import Detections
    from retinaface_fast.detector import FaceDetector

#: How the pictures are searched that average precision is computed on.
PROTOCOL = PROTOCOLS["original"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to compare on.

    Attributes:
        name: What it is called in the report; `event/name` where there is ground truth.
        source: Where it is.
        target: Where its side-by-side version goes.
    """

    name: str
    source: Source
    target: Path


def check_extra() -> None:
    """Check that dlib and what makes the report are there, before anyone waits.

    Raises:
        MissingDependencyError: One is not.
    """
    import_dlib("comparing with it")
    check_report_packages()


def find_pictures(
    sources: Sequence[str],
    *,
    recursive: bool,
    out: Path,
    images: Path | None,
    names: Path | None,
    named_by_event: bool,
) -> tuple[list[Picture], list[NotFound]]:
    """List the pictures, and what leads to none.

    Raises:
        DatasetError: The list of names cannot be read.
        typer.BadParameter: The run would write over a picture.
    """
    found, missing = expand(sources, recursive=recursive, excluded=[out, out / SHEETS])
    missing += [
        NotFound(str(source.path), "a video: compare takes pictures")
        for source in found
        if source.is_video and source.is_named
    ]
    found = [source for source in found if not source.is_video]
    if images is not None and names is not None:
        listed = [f"{name}.jpg" for name in read_names(names)]
        absent = [name for name in listed if not (images / name).is_file()]
        missing += [NotFound(str(images / name), "no such file") for name in absent]
        gone = set(absent)
        found += [Source(images / name, Path(name)) for name in listed if name not in gone]
    inputs = Inputs(found)
    for name in (REPORT, SUMMARY):
        inputs.protect(out / name, "--out")
    taken: set[Path] = set()
    pictures = []
    for source, short_name in zip(found, _names(found), strict=True):
        name, relative = short_name, source.relative
        if named_by_event:
            place = source.path.absolute()
            name = f"{place.parent.name}/{place.stem}"
            relative = Path(place.parent.name) / place.name
        target = unique(out / SHEETS / relative.with_name(f"{relative.name}.jpg"), taken)
        pictures.append(Picture(name, source, inputs.protect(target, "--out")))
    return pictures, missing


def _names(sources: Sequence[Source]) -> list[str]:
    """Return a short name for each, and the whole path of those that would share one.

    Examples:
        >>> paths = ["x/a.png", "y/a.png", "o/x/a.png", "o/b.png"]
        >>> shorts = ["a.png", "a.png", "x/a.png", "b.png"]
        >>> sources = [Source(Path(path), Path(short)) for path, short in zip(paths, shorts)]
        >>> [Path(name).as_posix() for name in _names(sources)]
        ['x/a.png', 'y/a.png', 'o/x/a.png', 'b.png']
    """
    names = [str(source.relative) for source in sources]
    while True:
        counts = Counter(names)
        longer = [
            str(source.path) if counts[name] > 1 else name
            for source, name in zip(sources, names, strict=True)
        ]
        # The whole path of one may be the short name of another.
        if longer == names:
            return names
        names = longer


class Truth:
    """The ground truth of the pictures; calling it reads that of some.

    Args:
        folder: Where the MATLAB files are.
        pictures: All pictures of the run.

    Raises:
        DatasetError: A file is missing or damaged.
        typer.BadParameter: It does not know a picture, or one is there twice.
    """

    def __init__(self, folder: Path, pictures: Sequence[Picture]) -> None:
        self._folder = folder
        try:
            self(tuple(picture.name for picture in pictures))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--gt") from None

    def __call__(self, names: Sequence[str]) -> GroundTruth:
        """Return the faces of the pictures of these names."""
        return read_ground_truth(self._folder, names)


@dataclass(frozen=True, slots=True)
class _ByProtocol:
    """A RetinaFace detector that searches as `PROTOCOL` says."""

    detector: FaceDetector

    def detect(self, image: UInt8Array, /) -> Detections:
        return PROTOCOL.detect(self.detector, image)


def contestants(
    options: dict[str, Any], kinds: Sequence[str], dlib_options: dict[str, Any], *, scored: bool
) -> list[Contestant]:
    """Build the detectors, RetinaFace first.

    Args:
        options: Of `FaceDetector`.
        kinds: Of dlib's detectors.
        dlib_options: Of `DlibDetector`.
        scored: Whether average precision is wanted.

    Raises:
        typer.BadParameter: An option is out of range.
        RetinaFaceError: A detector cannot be had.
    """
    from retinaface_fast.compare.dlib_detector import SCORED_ABOVE, DlibDetector
    from retinaface_fast.detector import FaceDetector

    try:
        detector = FaceDetector(**options)
        by_protocol = _ByProtocol(detector.replace(**PROTOCOL.options())) if scored else None
        found = [
            Contestant(
                name="retinaface",
                label="RetinaFace",
                detector=detector,
                scorer=by_protocol,
                settings={
                    "model": detector.model,
                    "engine": detector.engine,
                    "device": detector.device,
                    "threads": detector.threads,
                    **_weights_record(options.get("weights")),
                    "score_threshold": detector.score_threshold,
                    **({"scored_above": PROTOCOL.score_threshold} if scored else {}),
                },
            )
        ]
        for kind in kinds:
            other = DlibDetector(kind, **dlib_options)
            scorer = None
            if scored and SCORED_ABOVE[kind] < other.score_threshold:
                # Landmarks of false alarms would only take time.
                scorer = other.replace(score_threshold=SCORED_ABOVE[kind], landmarks="none")
            found.append(
                Contestant(
                    name=f"dlib-{kind}",
                    label=f"dlib {kind.upper()}",
                    detector=other,
                    scorer=scorer,
                    settings={
                        "dlib": str(import_dlib("comparing with it").__version__),
                        "device": other.device,
                        "threads": 1,
                        "upsample": other.upsample,
                        "landmarks": other.landmarks,
                        **_licence_record(other.landmarks),
                        "score_threshold": other.score_threshold,
                        **({"scored_above": (scorer or other).score_threshold} if scored else {}),
                    },
                )
            )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return found


def _weights_record(path: Path | None) -> dict[str, str]:
    """Say which file of weights; its folder is nobody's business."""
    if path is None:
        return {}
    return {"weights": path.name, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _licence_record(landmarks: str) -> dict[str, str]:
    """Say what may be done with a predictor of landmarks."""
    model = DLIB_MODELS.get(f"landmarks-{landmarks}")
    return {} if model is None else {"landmarks_licence": model.licence}


def checked_min_iou(value: float | None) -> float:
    """Return the least overlap of a pair.

    Raises:
        typer.BadParameter: It is out of range.
    """
    if value is None:
        return DEFAULT_MIN_IOU
    if not 0 < value <= 1:
        raise typer.BadParameter(f"must be above 0 and at most 1, got {value}", param_hint="--min-iou")
    return value


def checked_max_pixels(value: int | None) -> int | None:
    """Return the limit, after a look at the environment: a bad one would else be an error of every picture.

    Raises:
        typer.BadParameter: The environment variable is no number.
    """
    try:
        pixel_limit(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value
