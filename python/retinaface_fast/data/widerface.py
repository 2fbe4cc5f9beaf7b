"""The text files of WIDER FACE: annotations, landmarks, predictions, and lists of pictures.

All of them have their pictures as `event/name.jpg` below a folder, and here as `event/name`. What is
malformed is a `DatasetError` that begins with `path:line:`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from retinaface_fast._files import write_whole
from retinaface_fast.errors import DatasetError

from ._text import MOST_PIXELS, Lines, wrong_name
from .records import ATTRIBUTES, Annotation, Prediction

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

__all__ = [
    "read_annotations",
    "read_labels",
    "read_names",
    "read_prediction",
    "read_predictions",
    "write_prediction",
]

_ANNOTATION_COLUMNS = (4 + len(ATTRIBUTES),)
_NO_FACE = ["0"] * (4 + len(ATTRIBUTES))
#: x, y, width, height; x, y and state of each of five landmarks; how sharp the face is.
_LABEL_COLUMNS = (4, 4 + 5 * 3 + 1)
_PREDICTION_COLUMNS = range(5, 1000)
_WITH_LANDMARKS = 15

_Parsed = TypeVar("_Parsed")


def read_annotations(path: str | os.PathLike[str], *, faults: list[str] | None = None) -> list[Annotation]:
    """Read the official annotations, `wider_face_train_bbx_gt.txt` or `wider_face_val_bbx_gt.txt`.

    A picture is its name, the number of its faces, and a line for each: x, y, width, height, blur,
    expression, illumination, invalid, occlusion, pose. Where there is no face, a line of ten zeros follows,
    which some copies lack.

    Args:
        path: The file.
        faults: Where the malformed lines of faces are noted, as `path:line: what`; such faces are left out.
            None makes the first of them an error. A file whose pictures cannot be told apart is one always.

    Returns:
        The pictures in the order of the file, with all boxes that it has: also those without area, and those
        that are marked as invalid.

    Raises:
        DatasetError: The file cannot be read or is malformed; the message names it and the line.
    """
    lines = Lines(path)
    faces: list[int] = []
    try:
        names = _records(lines, faces)
    except DatasetError:
        # A count that is too high takes the next picture for a face: then that line is the one to name.
        lines.table(faces, _ANNOTATION_COLUMNS)
        raise
    (boxes, attributes), faces = _parse(_annotated, lines, faces, faults)
    return [
        Annotation(
            name,
            boxes[part],
            {attribute: values[part] for attribute, values in attributes.items()},
            line=line,
            face_lines=face_lines,
        )
        for name, line, part, face_lines in _by_picture(names, faces)
    ]


def _annotated(
    lines: Lines, faces: Sequence[int]
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.int8]]]:
    table = lines.table(faces, _ANNOTATION_COLUMNS)
    boxes = lines.boxes(table, faces).astype(np.float32)
    return boxes, _attributes(lines, table[:, 4:], faces)


def _parse(
    parse: Callable[[Lines, Sequence[int]], _Parsed],
    lines: Lines,
    faces: list[int],
    faults: list[str] | None,
) -> tuple[_Parsed, list[int]]:
    """Return what `parse` makes of the lines of faces, and the lines of which it makes something."""
    if faults is not None:
        try:
            return parse(lines, faces), faces
        except DatasetError:
            faces = [index for index in faces if _is_sound(parse, lines, index, faults)]
    return parse(lines, faces), faces


def _is_sound(
    parse: Callable[[Lines, Sequence[int]], object], lines: Lines, index: int, faults: list[str]
) -> bool:
    try:
        parse(lines, [index])
    except DatasetError as error:
        if lines[index].endswith(".jpg"):  # the number of faces before it is wrong: whose are they?
            raise
        columns = lines[index].split()
        if len(columns) == _LABEL_COLUMNS[1]:
            # Without its box, a face whose landmarks alone are wrong would be trained on as background.
            lines.lines[index] = " ".join(columns[:4])
            if _is_sound(parse, lines, index, []):
                faults.append(f"{error}; the face is taken without landmarks")
                return True
        faults.append(str(error))
        return False
    return True


def _by_picture(
    names: Mapping[str, int], faces: Sequence[int]
) -> Iterator[tuple[str, int, slice, npt.NDArray[np.int64]]]:
    """Name and line of each picture, its part of the rows of all faces, and their lines; lines from 1."""
    rows = np.array(faces, np.int64)
    offsets = [*np.searchsorted(rows, list(names.values())).tolist(), len(rows)]
    for (name, index), start, end in zip(names.items(), offsets, offsets[1:], strict=False):
        yield name, index + 1, slice(start, end), rows[start:end] + 1


def _records(lines: Lines, faces: list[int]) -> dict[str, int]:
    """Find the pictures of a file of annotations.

    Args:
        lines: The file.
        faces: Is filled with the lines of faces, as far as they were found when something is wrong.

    Returns:
        The names, with their lines.
    """
    names: dict[str, int] = {}
    index = 0
    while index < len(lines):
        if not lines[index].endswith(".jpg"):
            lines.fail(index, "the name of a picture, such as event/name.jpg")
        _add_name(lines, names, index, lines.name(index))
        count = lines.count(index + 1)
        first, index = index + 2, index + 2 + count
        faces.extend(range(first, min(index, len(lines))))
        if index > len(lines):
            lines.fail(len(lines), f"{count} faces of {lines[first - 2]}")
        if not count and index < len(lines) and lines[index].split() == _NO_FACE:
            index += 1
    return names


def _attributes(
    lines: Lines, table: npt.NDArray[np.float64], faces: Sequence[int]
) -> dict[str, npt.NDArray[np.int8]]:
    whole = (table >= 0) & (table <= 127) & (table == np.floor(table))
    for row, column in np.argwhere(~whole)[:1]:
        lines.fail(faces[row], f"a whole number from 0 to 127 as {ATTRIBUTES[column]}")
    columns = np.ascontiguousarray(table.T.astype(np.int8))
    return dict(zip(ATTRIBUTES, columns, strict=True))


def _add_name(lines: Lines, names: dict[str, int], index: int, name: str) -> None:
    if name in names:
        lines.fail(index, "another picture than before", f"{name} again, of line {names[name] + 1}")
    names[name] = index


def read_labels(path: str | os.PathLike[str], *, faults: list[str] | None = None) -> list[Annotation]:
    """Read `label.txt` of the RetinaFace authors: boxes with five landmarks, or boxes alone.

    A picture is a line `# event/name.jpg`, and a line for each face: x, y, width, height, then x, y and state
    of the left eye, right eye, nose, left and right corner of the mouth as seen in the image, then how sharp
    the face is. A state of 0 is visible and 1 occluded; where it is negative, or x and y are both -1, nobody
    has annotated the landmark. The validation set has lines of x, y, width and height only.

    Args:
        path: The file.
        faults: Where malformed lines of faces are noted, as `path:line: what`. Such a face is left out; if
            its box can be read, it stays, without landmarks. None makes the first of them an error. A file
            whose pictures cannot be told apart is one always.

    Returns:
        The pictures in the order of the file, each with `landmarks`, NaN where there are none.

    Raises:
        DatasetError: The file cannot be read or is malformed; the message names it and the line.
    """
    lines = Lines(path)
    names: dict[str, int] = {}
    faces: list[int] = []
    for index, line in enumerate(lines.lines):
        if line.startswith("#"):
            _add_name(lines, names, index, lines.name(index, line[1:].strip()))
        elif line:
            if not names:
                lines.fail(index, "a picture, such as # event/name.jpg")
            faces.append(index)
    (boxes, landmarks), faces = _parse(_labelled, lines, faces, faults)
    return [
        Annotation(name, boxes[part], landmarks=landmarks[part], line=line, face_lines=face_lines)
        for name, line, part, face_lines in _by_picture(names, faces)
    ]


def _labelled(lines: Lines, faces: Sequence[int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    table = lines.table(faces, _LABEL_COLUMNS)
    boxes = lines.boxes(table, faces).astype(np.float32)
    return boxes, _landmarks(lines, table, faces)


def _landmarks(lines: Lines, table: npt.NDArray[np.float64], faces: Sequence[int]) -> npt.NDArray[np.float32]:
    if table.shape[1] < _LABEL_COLUMNS[1]:
        return np.full((len(table), 5, 2), np.nan, dtype=np.float32)
    marks = table[:, 4:19].reshape(-1, 5, 3)
    lines.check_pixels(marks[:, :, :2].reshape(len(marks), 10), faces)
    points = marks[:, :, :2].astype(np.float32)
    points[(marks[:, :, 2] < 0) | (points == -1).all(axis=2)] = np.nan
    return points


def write_prediction(
    path: str | os.PathLike[str],
    name: str,
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    landmarks: npt.ArrayLike | None = None,
) -> None:
    """Write what was found in one picture, in the format that the official evaluation reads.

    The file holds the name of the picture, the number of faces, and for each a line of x, y, width, height
    and score, best first as they came; then x and y of five landmarks, if there are any: programs that take
    the first five numbers are not disturbed. Pixels are written with six decimals and scores with nine
    digits, so that a float32 score comes back as it was.

    Args:
        path: The file, whole or as it was before: it is written under another name and then renamed. Its
            folder is made if need be.
        name: The picture, `event/name`.
        boxes: (N, 4) xyxy in pixels.
        scores: (N,).
        landmarks: (N, 5, 2) in pixels. None are written where one of them is unknown, NaN: the format has no
            word for it.

    Raises:
        ValueError: A shape does not fit, a number is not finite or beyond 1e9, or the name is none.
        OSError: The file cannot be written.
    """
    if wrong_name(name):
        raise ValueError(f"name must be event/name{wrong_name(name)}, got {name!r}")
    corners = _checked(boxes, "boxes", (-1, 4))
    values = _checked(scores, "scores", (len(corners),))
    points = np.empty((len(corners), 0))
    if landmarks is not None and not np.isnan(np.asarray(landmarks, np.float64)).any():
        points = _checked(landmarks, "landmarks", (len(corners), 5, 2)).reshape(len(corners), 10)
    sides = corners[:, 2:] - corners[:, :2]
    pixels = np.concatenate([corners[:, :2], sides, points], axis=1)
    layout = " ".join(["%.6f"] * 4 + ["%.9g"] + ["%.6f"] * points.shape[1])
    rows = np.insert(pixels, 4, values, axis=1).tolist()
    text = "\n".join([f"{name}.jpg", str(len(rows)), *(layout % tuple(row) for row in rows)]) + "\n"
    write_whole(path, text)


def _checked(values: npt.ArrayLike, argument: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 and shape[0] <= 0:
        array = array.reshape(0, *shape[1:])
    if array.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("N" if n < 0 else str(n) for n in shape)
        raise ValueError(f"{argument} must have the shape ({wanted}), got {array.shape}")
    fits = np.abs(array) <= MOST_PIXELS  # False for NaN, too
    if not fits.all():
        raise ValueError(
            f"{argument} must be from {-MOST_PIXELS:.0f} to {MOST_PIXELS:.0f}, got {array[~fits][0]}"
        )
    return array


def read_prediction(path: str | os.PathLike[str]) -> Prediction:
    """Read what was found in one picture, as `write_prediction` or the program of another detector wrote it.

    The first line, a name, is not looked at. Faces may have more columns than x, y, width, height and score:
    ten more are five landmarks, others are left out.

    Args:
        path: The file.

    Returns:
        The faces in the order of the file.

    Raises:
        DatasetError: The file cannot be read or is malformed; the message names it and the line.
    """
    lines = Lines(path)
    if not len(lines):
        lines.fail(0, "the name of a picture")
    count = lines.count(1)
    if len(lines) != 2 + count:
        last = min(len(lines), 2 + count)
        lines.fail(last, f"{count} faces as line 2 says" if last == len(lines) else "the end of the file")
    faces = range(2, len(lines))
    table = lines.table(faces, _PREDICTION_COLUMNS)
    boxes = lines.boxes(table, faces, may_be_negative=True)
    landmarks = None
    if table.shape[1] == _WITH_LANDMARKS:
        landmarks = table[:, 5:].reshape(-1, 5, 2)
    return Prediction(boxes, table[:, 4].copy(), landmarks)


def read_predictions(folder: str | os.PathLike[str], names: Iterable[str]) -> list[Prediction]:
    """Read what was found in many pictures.

    Args:
        folder: Where the files `<event>/<name>.txt` are.
        names: The pictures, `event/name`.

    Returns:
        A prediction for each name, in order.

    Raises:
        DatasetError: A file is missing or malformed; the message names it.
    """
    names = list(names)
    paths = [Path(folder) / f"{name}.txt" for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{missing[0]}: there is no such file ({len(missing):,} of {len(names):,} pictures have none)"
        )
    return [read_prediction(path) for path in paths]


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of pictures: a line `event/name` or `event/name.jpg` for each, also with a `/` before it.

    Args:
        path: The file; empty lines are skipped.

    Returns:
        The pictures as `event/name`, in the order of the file.

    Raises:
        DatasetError: The file cannot be read, holds nothing, or a line is no name or one that was there.
    """
    lines = Lines(path)
    names: dict[str, int] = {}
    for index, line in enumerate(lines.lines):
        if line:
            _add_name(lines, names, index, lines.name(index, line.strip().removeprefix("/")))
    if not names:
        lines.fail(0, "the name of a picture")
    return list(names)
