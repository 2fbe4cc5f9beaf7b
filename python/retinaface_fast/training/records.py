"""What is trained on: pictures and their faces, read from the layouts in which such data comes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from retinaface_fast.data import read_annotations, read_coco, read_labels, read_names
from retinaface_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinaface_fast._typing import BoolArray, FloatArray, IntArray
    from retinaface_fast.data import Annotation

__all__ = ["OnFault", "Record", "RecordSet", "read_records"]

#: What is done about data that is wrong: left out and noted, or an error.
OnFault: TypeAlias = Literal["skip", "fail"]

_LAYOUTS = (
    "wider_face_split/wider_face_train_bbx_gt.txt beside WIDER_train/images, or label.txt beside images/"
)
#: Names in a file that must be there, and of which some are quoted if they are not.
_QUOTED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A picture and its faces.

    Attributes:
        image: The picture.
        boxes: (N, 4) float32 xyxy in pixels of the upright picture, each with an area. They may leave it.
        landmarks: (N, 5, 2) float32, x and y in pixels likewise; NaN where unknown.
        ignored: (N,) bool: neither face nor background, such as a face that is marked as invalid.
        source: Where the picture is named, as `file:line`; `file:image id` for COCO, whose lines say nothing.
        numbers: (N,) int64, the line of each face, or its annotation's id; `place` puts it into words. Empty
            where they have none.
    """

    image: Path
    boxes: FloatArray
    landmarks: FloatArray
    ignored: BoolArray
    source: str
    numbers: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def place(self, row: int) -> str:
        """Where face `row` is written, as `source` says it of the picture."""
        if row >= len(self.numbers):
            return self.source
        file, _, number = self.source.rpartition(":")
        kind = "annotation " if number.startswith("image ") else ""
        return f"{file}:{kind}{self.numbers[row]}"


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Pictures, and what was wrong with the data.

    Attributes:
        records: The pictures, those without any face among them: they count in a training run only where
            the recipe's `loss.min_negatives` is above 0.
        faults: What was left out and why, each as `file:line: what`.
    """

    records: tuple[Record, ...]
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)


def read_records(
    data: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    on_fault: OnFault = "skip",
) -> RecordSet:
    """Read training data, in whichever of these layouts it is.

    - A folder with `wider_face_split/wider_face_train_bbx_gt.txt` and `WIDER_train/images`, the official one;
      each may lie a folder deeper, as some archives unpack.
    - A folder with `label.txt` and `images/`, that of the RetinaFace authors.
    - A text file of either kind: one whose first line begins with `#` is a `label.txt`.
    - A `.json` file in COCO's format: boxes alone, `iscrowd` ones ignored.

    Faces that WIDER FACE marks as invalid are ignored. No picture is opened here: one that cannot be decoded,
    and a box outside its picture, are found by `check_data` and by `TrainingDataset`.

    Args:
        data: The folder or file.
        images: The folder of the pictures; None takes that of the layout, or for a file `images/` beside it
            if that is there, else its own folder.
        names: A list of the pictures to take, `event/name` in each line; None takes all.
        on_fault: What is done about a line that is malformed, a box without area or a picture that is not
            there: "skip" leaves it out and notes it, "fail" makes the first an error. A face whose landmarks
            alone are malformed is kept without them.

    Returns:
        The pictures in the order of the file, or of `names`, and the faults.

    Raises:
        DatasetError: There is no such data, its structure is damaged, it does not know one of `names`, no
            picture is left, or there is a fault and `on_fault` is "fail".
        ValueError: `on_fault` is neither.
    """
    check_on_fault(on_fault)
    file, folder = _find(Path(data), None if images is None else Path(images))
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected the folder of the pictures of {file}, got no such folder")
    faults: list[str] = []
    annotations, suffix = _read(file, faults)
    if names is not None:
        annotations = _choose(annotations, file, names)
    records = tuple(_records(annotations, file, folder, suffix, faults))
    if on_fault == "fail" and faults:
        raise DatasetError(faults[0])
    if not records:
        reason = f": {faults[0]}" if faults else ""
        raise DatasetError(f"{file}: expected at least one picture that is there, got none{reason}")
    return RecordSet(records, tuple(faults))


def check_on_fault(value: object) -> None:
    """Say that `on_fault` must be "skip" or "fail", unless it is."""
    if value not in ("skip", "fail"):
        raise ValueError(f'on_fault must be "skip" or "fail", got {value!r}')


def _find(data: Path, images: Path | None) -> tuple[Path, Path]:
    """The file of annotations and the folder of the pictures."""
    if data.is_file():
        beside = data.parent / "images"
        return data, images or (beside if beside.is_dir() else data.parent)
    if not data.is_dir():
        raise DatasetError(f"{data}: expected training data, a folder or a file, got no such path")
    file = _first(data, "wider_face_split/wider_face_train_bbx_gt.txt")
    if file is not None:
        return file, images or _first(data, "WIDER_train/images") or data / "WIDER_train" / "images"
    file = _first(data, "label.txt")
    if file is not None:
        return file, images or file.parent / "images"
    raise DatasetError(f"{data}: expected {_LAYOUTS}, got a folder without; a file may be given, too")


def _first(folder: Path, name: str) -> Path | None:
    """The path in this folder or, first by name, one level down."""
    below = sorted(path / name for path in folder.iterdir() if path.is_dir())
    return next((path for path in (folder / name, *below) if path.exists()), None)


def _read(file: Path, faults: list[str]) -> tuple[list[Annotation], str]:
    """The pictures of a file, and what is missing at the ends of their names."""
    if file.suffix.lower() == ".json":
        return read_coco(file, faults=faults), ""
    try:
        with file.open("rb") as opened:
            is_label = opened.readline(4).removeprefix(b"\xef\xbb\xbf").startswith(b"#")
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror or error}") from None
    return (read_labels if is_label else read_annotations)(file, faults=faults), ".jpg"


def _choose(annotations: list[Annotation], file: Path, names: str | os.PathLike[str]) -> list[Annotation]:
    known = {annotation.name.removesuffix(".jpg"): annotation for annotation in annotations}
    wanted = read_names(names)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        quoted = ", ".join(unknown[:_QUOTED]) + (", …" if len(unknown) > _QUOTED else "")
        raise DatasetError(
            f"{os.fspath(names)}: expected pictures of {file}, which does not know {len(unknown)} of "
            f"{len(wanted)}: {quoted}"
        )
    return [known[name] for name in wanted]


def _records(
    annotations: list[Annotation], file: Path, folder: Path, suffix: str, faults: list[str]
) -> Iterator[Record]:
    is_coco = not suffix
    for annotation in annotations:
        source = f"{file}:{'image ' if is_coco else ''}{annotation.line}"
        image = folder / f"{annotation.name}{suffix}"
        if not image.is_file():
            faults.append(f"{source}: expected the picture {image}, got no such file")
            continue
        boxes = annotation.boxes
        has_area: BoolArray = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        ignored = annotation.attributes.get("invalid", np.zeros(len(boxes), np.int8)) != 0
        landmarks = annotation.landmarks
        if landmarks is None:
            landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
        record = Record(
            image=image,
            boxes=boxes,
            landmarks=landmarks,
            ignored=ignored,
            source=source,
            numbers=annotation.face_lines,
        )
        for row in np.flatnonzero(~has_area).tolist():
            x1, y1, x2, y2 = boxes[row].tolist()
            faults.append(
                f"{record.place(row)}: expected a box with an area, got {x2 - x1:g} x {y2 - y1:g} pixels"
            )
        yield record if has_area.all() else keep_faces(record, has_area)


def keep_faces(record: Record, kept: BoolArray) -> Record:
    """The record with some of its faces; `kept` is (N,) bool."""
    return replace(
        record,
        boxes=record.boxes[kept],
        landmarks=record.landmarks[kept],
        ignored=record.ignored[kept],
        numbers=record.numbers[kept] if len(record.numbers) else record.numbers,
    )
