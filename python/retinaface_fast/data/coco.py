"""Boxes in COCO's format, as annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.errors import DatasetError

from ._text import MOST_PIXELS, wrong_name
from .records import Annotation

if TYPE_CHECKING:
    import os

__all__ = ["read_coco"]


def read_coco(path: str | os.PathLike[str], *, faults: list[str] | None = None) -> list[Annotation]:
    """Read `images[].file_name` and `annotations[].bbox`; keypoints are not read.

    Args:
        path: The file.
        faults: Where malformed annotations are noted, as `path:annotation id: what`; they are left out. None
            makes the first of them an error.

    Returns:
        The pictures in the order of the file, with their whole file names, `iscrowd` as the attribute
        `invalid`, and ids in place of lines.

    Raises:
        DatasetError: The file cannot be read, is no such file, or is malformed.
    """
    path = Path(path)
    images, annotations = _load(path)
    names: dict[int, str] = {}
    for index, image in enumerate(images):
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int) or number in names or not isinstance(name, str) or wrong_name(name):
            raise DatasetError(
                f"{path}: expected an id of its own and a file_name inside the folder of the pictures in "
                f"images[{index}], got {number!r} and {name!r}"
            )
        names[number] = name
    faces: dict[int, list[tuple[list[float], bool, int]]] = {number: [] for number in names}
    for index, annotation in enumerate(annotations):
        number = annotation.get("id", index)
        if not _is_int(number):
            number = index
        try:
            faces[_image_of(annotation, names)].append(
                (_box(annotation.get("bbox")), bool(annotation.get("iscrowd", 0)), number)
            )
        except ValueError as error:
            fault = f"{path}:annotation {number}: {error}"
            if faults is None:
                raise DatasetError(fault) from None
            faults.append(fault)
    return [_annotation(names[number], number, rows) for number, rows in faces.items()]


def _load(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}: expected JSON, {error.msg}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or a number of thousands of digits
        raise DatasetError(f"{path}: expected JSON: {error}") from None
    lists = []
    for key in ("images", "annotations"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DatasetError(f"{path}: expected a list of objects as {key}, as COCO has it")
        lists.append(entries)
    return lists[0], lists[1]


def _image_of(annotation: dict[str, Any], names: dict[int, str]) -> int:
    number = annotation.get("image_id")
    if not isinstance(number, int) or number not in names:
        raise ValueError(f"expected the id of a picture as image_id, got {number!r}")
    return number


def _box(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected x, y, width and height as bbox, got {value!r}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"expected numbers as bbox, got {value!r}")
        if not abs(number) <= MOST_PIXELS:  # NaN neither
            raise ValueError(f"expected coordinates from {-MOST_PIXELS:.0f} to {MOST_PIXELS:.0f} as bbox")
    x, y, width, height = map(float, value)
    if width < 0 or height < 0:
        raise ValueError(f"expected a width and height of at least 0, got {value!r}")
    return [x, y, x + width, y + height]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _annotation(name: str, number: int, rows: list[tuple[list[float], bool, int]]) -> Annotation:
    return Annotation(
        name,
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        {"invalid": np.array([crowd for _, crowd, _ in rows], np.int8)},
        line=number,
        face_lines=np.array([face for _, _, face in rows], np.int64),
    )
