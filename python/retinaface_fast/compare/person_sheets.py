"""Contact sheets of persons: a row for each, with its faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._imports import import_cv2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retinaface_fast._typing import UInt8Array

# Pixels; colours are blue, green, red.
_TILE, _GAP, _CAPTION = 96, 8, 24
_PAPER, _INK = (29, 24, 22), (243, 243, 242)
#: Faces of one person on a sheet, and persons.
_FACES, _PERSONS = 12, 20


def person_sheets(persons: Sequence[tuple[int, Sequence[bytes]]]) -> Iterator[UInt8Array]:
    """Draw the persons, twenty on a sheet, and of each the first twelve faces.

    Args:
        persons: Their numbers, and their faces as encoded pictures.

    Yields:
        (H, W, 3) uint8 BGR.
    """
    for start in range(0, len(persons), _PERSONS):
        yield _sheet(persons[start : start + _PERSONS])


def _sheet(persons: Sequence[tuple[int, Sequence[bytes]]]) -> UInt8Array:
    cv2 = import_cv2("contact sheets")
    row = _CAPTION + _TILE + _GAP
    columns = max(4, min(_FACES, max(len(faces) for _, faces in persons)))
    width = columns * (_TILE + _GAP) + _GAP
    sheet = np.full((len(persons) * row + _GAP, width, 3), _PAPER, np.uint8)
    for index, (person, faces) in enumerate(persons):
        top = index * row + _GAP
        text = f"person {person}: {len(faces):,} face{'' if len(faces) == 1 else 's'}"
        if len(faces) > _FACES:
            text += f", the first {_FACES}"
        cv2.putText(
            sheet, text, (_GAP, top + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, lineType=cv2.LINE_AA
        )
        for column, data in enumerate(faces[:_FACES]):
            face = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            left = _GAP + column * (_TILE + _GAP)
            down = top + _CAPTION
            sheet[down : down + _TILE, left : left + _TILE] = cv2.resize(
                face, (_TILE, _TILE), interpolation=cv2.INTER_AREA
            )
    return sheet
