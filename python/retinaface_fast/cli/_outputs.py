"""What is written: annotated pictures, crops, JSON lines and CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import typer

from retinaface_fast._imports import import_cv2
from retinaface_fast.detections import LANDMARK_NAMES
from retinaface_fast.errors import ImageError, RetinaFaceError

from ._sources import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from retinaface_fast._typing import UInt8Array
    from retinaface_fast.detections import Detections

#: Suffixes that OpenCV writes. A picture of another kind is annotated as PNG, another kind of video as MP4.
WRITABLE_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
WRITABLE_VIDEOS = {".avi": "MJPG", ".m4v": "mp4v", ".mov": "mp4v", ".mp4": "mp4v"}


class OutputError(RetinaFaceError):
    """An annotated picture, video or crop cannot be written: the fault of its target, not of its source."""


class ResultsError(RetinaFaceError):
    """JSON, CSV or tables cannot be written: there is no use in going on."""


@contextlib.contextmanager
def naming(target: Path | str, kind: type[RetinaFaceError] = OutputError) -> Iterator[None]:
    """Turn an OSError into one that names the output as the user knows it, not the name it has meanwhile.

    A reader of a pipe that has gone away stays a BrokenPipeError: that ends the run without a message.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise kind(f"cannot write {target}: {error.strerror or error}") from None


class Inputs:
    """The files that must not be written, recognised through links and other spellings."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._identities = {identity for s in sources if (identity := _identity(s.path)) is not None}

    def protect(self, target: Path, option: str) -> Path:
        """Return the target if it is none of the inputs.

        Raises:
            typer.BadParameter: It is one.
        """
        if _identity(target) in self._identities:
            raise typer.BadParameter(f"would overwrite the input {target}", param_hint=option)
        return target


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def names_a_file(output: Path, *, is_video: bool) -> bool:
    """Return whether an `--output` for one picture, video or camera is the file to write, not a folder.

    Raises:
        typer.BadParameter: It has a suffix, but none that can be written. A folder of that name is hardly
            what was meant; one that exists, or a slash at the end, says so.
    """
    suffix = output.suffix.lower()
    writable = WRITABLE_VIDEOS.keys() if is_video else WRITABLE_PICTURES
    if suffix and suffix not in writable:
        raise typer.BadParameter(
            f"{output}: a {'video' if is_video else 'picture'} can be written as "
            f"{', '.join(sorted(writable))}; for a folder of this name, end it in a slash",
            param_hint="--output",
        )
    return bool(suffix)


def refuse_file_name(output: Path) -> None:
    """Refuse an `--output` for several pictures that looks like one picture or video.

    Raises:
        typer.BadParameter: It does.
    """
    if output.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        raise typer.BadParameter(
            f"{output} looks like a file, but only one named picture or video can be written to a file; "
            "for a folder of this name, end it in a slash",
            param_hint="--output",
        )


def plan(
    sources: Sequence[Source],
    output: Path,
    inputs: Inputs,
    *,
    is_folder: bool = False,
    is_shared: bool = False,
) -> dict[Path, Path]:
    """Decide where the annotated version of each source goes.

    One named picture goes to `output` itself if that has the suffix of a picture; everything else goes below
    the folder `output`, each at its place below the folder it was found in.

    Args:
        sources: What is read.
        output: The `--output` of the command line.
        inputs: What must not be overwritten.
        is_folder: `output` is a folder whatever its suffix: it was given with a slash at its end.
        is_shared: A camera writes there, too, so that it has to be a folder.

    Returns:
        The target of each source's path.

    Raises:
        typer.BadParameter: A target is an input, `output` is a file where a folder is needed, or it has a
            suffix that fits neither.
    """
    if not is_folder and not output.is_dir():
        if len(sources) > 1 or not sources[0].is_named or is_shared:
            refuse_file_name(output)
        elif names_a_file(output, is_video=sources[0].is_video):
            return {sources[0].path: inputs.protect(output, "--output")}
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is a file and not a folder", param_hint="--output")
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for source in sources:
        kinds, fallback = (WRITABLE_VIDEOS, ".mp4") if source.is_video else (WRITABLE_PICTURES, ".png")
        target = output / source.relative
        if target.suffix.lower() not in kinds:
            target = target.with_name(target.name + fallback)  # keeps a.gif and a.avif apart
        target = unique(target, taken)
        targets[source.path] = inputs.protect(target, "--output")
    return targets


def unique(path: Path, taken: set[Path]) -> Path:
    """Return the path, with a number in its name if this run has given it away, and note it as taken.

    Examples:
        >>> taken = set()
        >>> [unique(Path("a.jpg"), taken).name for _ in range(3)]
        ['a.jpg', 'a-2.jpg', 'a-3.jpg']
    """
    free, number = path, 1
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    taken.add(free)
    return free


def part_of(target: Path) -> Path:
    """Return the name that a file has until it is whole, beside its target and of the same format."""
    return target.with_name(f".{target.stem}.part{os.getpid()}{target.suffix}")


def write_picture(target: Path, pixels: UInt8Array) -> None:
    """Write a picture, whole or not at all.

    Args:
        target: Its suffix says the format. Its folder is made if need be.
        pixels: (H, W, 3) uint8, BGR.

    Raises:
        ImageError: The format cannot hold it.
        MissingDependencyError: OpenCV cannot be imported.
        OutputError: The file cannot be written.
    """
    cv2 = import_cv2("writing pictures")
    try:
        done, data = cv2.imencode(target.suffix.lower(), pixels)
    except cv2.error as error:
        raise ImageError(f"cannot write {target}: {error.err}") from None
    if not done:
        raise ImageError(
            f"cannot write {target}: {pixels.shape[1]}x{pixels.shape[0]} does not fit this format"
        )
    # Not cv2.imwrite, which takes no name outside the code page on Windows.
    write_file(target, data.tobytes())


def write_file(target: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Args:
        target: Where. Its folder is made if need be.
        data: What it is to hold.

    Raises:
        OutputError: It cannot be written.
    """
    part = part_of(target)
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def try_folder(folder: Path) -> None:
    """Find out whether a folder can be written to, before hours are spent on what is to lie in it.

    Args:
        folder: It need not exist, and does not afterwards if it did not before.

    Raises:
        OutputError: It cannot be written to.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    probe = part_of(folder / "probe")
    try:
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()


class Stream:
    """A file for results, or the standard output for `-`, which stays open.

    The file is made by the first write: a run that ends before has no empty file to leave behind.

    Args:
        target: The `--json` or `--csv` of the command line.
    """

    def __init__(self, target: str) -> None:
        self._name = "the standard output" if target == "-" else target
        self._path = Path(target) if target != "-" else None
        self._stream: BinaryIO | None = None

    def _open(self) -> BinaryIO:
        if self._path is None:
            return typer.get_binary_stream("stdout")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("wb")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._path is not None and self._stream is not None:
            with naming(self._name, ResultsError):
                self._stream.close()

    def write(self, data: bytes) -> None:
        """Write, so that a reader has it at once.

        Raises:
            ResultsError: It cannot be written; so does the end of the `with`, if the file cannot be finished.
        """
        with naming(self._name, ResultsError):
            if self._stream is None:
                self._stream = self._open()
            self._stream.write(data)
            self._stream.flush()


class Records(Protocol):
    """A writer of results."""

    def write(self, origin: dict[str, Any], detections: Detections) -> None:
        """Write the faces of one picture or frame; `origin` says which: source, and frame and seconds."""
        ...

    def write_error(self, source: str, message: str) -> None:
        """Write that a source could not be read."""
        ...


class JsonLines:
    """One JSON object a line for each picture or frame, and for each failure."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, origin: dict[str, Any], detections: Detections) -> None:
        """Write the faces of one picture or frame."""
        self._line({**origin, **detections.to_dict()})

    def write_error(self, source: str, message: str) -> None:
        """Write that a source could not be read."""
        self._line({"source": source, "error": message})

    def _line(self, record: dict[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:  # a file name that is no text: escaped, the bytes can still be found again
            data = json.dumps(record).encode("ascii")
        self._stream.write(data + b"\n")


class Csv:
    """One row for each face: a picture without one has no row, and failures are on the standard error.

    The cells of a landmark that is unknown are empty.
    """

    HEADER = (
        *("source", "frame", "face", "score", "x1", "y1", "x2", "y2"),
        *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    )

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rows([self.HEADER])

    def write(self, origin: dict[str, Any], detections: Detections) -> None:
        """Write the faces of one picture or frame."""
        self._rows(
            [
                origin["source"],
                origin.get("frame", ""),
                index,
                f"{float(face.score):.6f}",
                *(f"{float(v):.3f}" for v in face.box),
                *("" if np.isnan(v) else f"{float(v):.3f}" for v in face.landmarks.ravel()),
            ]
            for index, face in enumerate(detections)
        )

    def write_error(self, source: str, message: str) -> None:
        """Write nothing: a table of faces has no place for it."""

    def _rows(self, rows: Iterable[Iterable[object]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
