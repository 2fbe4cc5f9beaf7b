"""Text files of numbers: lines, tables and names, and errors that say which line is wrong."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from retinaface_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

#: Coordinates beyond this, in pixels, are damage: no picture is that large, and float32 would overflow later.
MOST_PIXELS = 1e9

#: A number as these files have them. Python's float() takes more, such as 1_000 and digits of other scripts.
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)

#: What would make a path of a name that is not below its folder, on any system.
_LEADS_AWAY = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|\\|^[A-Za-z]:")


class Lines:
    """The lines of a text file, without blanks at their ends and without empty ones at its end.

    Args:
        path: The file: UTF-8, any line ends.

    Raises:
        DatasetError: It cannot be read, or is no text.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = data.count(b"\n", 0, error.start) + 1
            raise DatasetError(
                f"{self.path}:{number}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}"
            ) from None
        # Not splitlines: it also splits at separators that a name may hold.
        self.lines = [line.rstrip() for line in text.rstrip().split("\n")] if text.strip() else []

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> str:
        return self.lines[index]

    def fail(self, index: int, expected: str, got: str | None = None) -> NoReturn:
        """Raise the error of one line.

        Args:
            index: The line, from 0; the message counts from 1. After the last line, the file ends early.
            expected: What the line should hold.
            got: What it holds; None quotes it.
        """
        if got is None:
            got = _quoted(self.lines[index]) if index < len(self.lines) else "the end of the file"
        raise DatasetError(f"{self.path}:{index + 1}: expected {expected}, got {got}")

    def count(self, index: int) -> int:
        """Return the number of faces that a line holds.

        Raises:
            DatasetError: It holds something else.
        """
        if index >= len(self.lines) or not re.fullmatch(r"\d{1,9}", self.lines[index].strip(), re.ASCII):
            self.fail(index, "the number of faces")
        return int(self.lines[index])

    def name(self, index: int, text: str | None = None) -> str:
        """Return the name of a picture, without .jpg.

        Args:
            index: The line it is on.
            text: The name, if the line holds more.

        Raises:
            DatasetError: It is none, or leads out of the folder of the pictures.
        """
        text = self.lines[index].strip() if text is None else text
        wrong = wrong_name(text.removesuffix(".jpg"))
        if wrong:
            self.fail(index, f"the name of a picture, such as event/name.jpg{wrong}")
        return text.removesuffix(".jpg")

    def table(self, indices: Sequence[int], columns: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return the numbers of some lines.

        Args:
            indices: Which lines.
            columns: How many numbers a line may have.

        Returns:
            (lines, most columns that any has) float64, finite; NaN where a line has fewer than another.

        Raises:
            DatasetError: A line has another number of columns, or something else than finite numbers.
        """
        if not len(indices):
            return np.empty((0, columns[0]))
        chosen = [self.lines[index] for index in indices]
        table: npt.NDArray[np.float64] = np.empty((0, 0))
        # Empty lines are wrong here; loadtxt would skip them, and warn where there is nothing else.
        if all(chosen):
            # Four times as fast as float() on each number, but it knows no line numbers.
            with contextlib.suppress(ValueError):
                table = np.loadtxt(chosen, dtype=np.float64, comments=None, ndmin=2)
        if len(table) == len(chosen) and table.shape[1] in columns and np.isfinite(table).all():
            return table
        rows = [self._numbers(index, columns) for index in indices]
        table = np.full((len(rows), max(map(len, rows))), np.nan)
        for row, numbers in zip(table, rows, strict=True):
            row[: len(numbers)] = numbers
        return table

    def _numbers(self, index: int, columns: Sequence[int]) -> list[float]:
        if index >= len(self.lines):
            self.fail(index, "a face")
        parts = self.lines[index].split()
        if len(parts) not in columns:
            wanted = f"{columns[0]} or more" if len(columns) > 2 else " or ".join(map(str, columns))
            self.fail(index, f"{wanted} numbers", f"{len(parts)}: {_quoted(self.lines[index])}")
        for number, part in enumerate(parts, start=1):
            if not _NUMBER.fullmatch(part) or not np.isfinite(float(part)):
                self.fail(index, f"a finite number in column {number}", _quoted(part))
        return [float(part) for part in parts]

    def boxes(
        self,
        table: npt.NDArray[np.float64],
        indices: Sequence[int],
        *,
        may_be_negative: bool = False,
    ) -> npt.NDArray[np.float64]:
        """Return the boxes of a table whose columns begin with x, y, width and height.

        Args:
            table: (N, 4 or more), from `table`.
            indices: The line of each row.
            may_be_negative: Whether a width or height below 0 is taken as it is.

        Returns:
            (N, 4) float64 xyxy.

        Raises:
            DatasetError: A width or height is negative, or a coordinate is out of all bounds.
        """
        rows = table[:, :4]
        self.check_pixels(rows, indices)
        if not may_be_negative:
            for row in np.flatnonzero((rows[:, 2:] < 0).any(axis=1))[:1]:
                self.fail(indices[row], "a width and height of at least 0")
        return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)

    def check_pixels(self, rows: npt.NDArray[np.float64], indices: Sequence[int]) -> None:
        """Check that coordinates may be those of a picture.

        Args:
            rows: (N, columns) in pixels.
            indices: The line of each row.

        Raises:
            DatasetError: One is out of all bounds.
        """
        for row in np.flatnonzero((np.abs(rows) > MOST_PIXELS).any(axis=1))[:1]:
            self.fail(indices[row], f"coordinates from {-MOST_PIXELS:.0f} to {MOST_PIXELS:.0f}")


def wrong_name(name: str) -> str:
    """Return what is wrong with `event/name`: an empty text if nothing is, so that it can be a path.

    Examples:
        >>> wrong_name("0--Parade/0_Parade_Parade_0_628"), wrong_name("../secret")
        ('', ' (inside the folder of the pictures)')
    """
    parts = name.split("/")
    if name.startswith("/") or _LEADS_AWAY.search(name):
        return " (inside the folder of the pictures)"
    if not name.isprintable() or any(not part or part != part.strip() for part in parts):
        return " (printable, no part of it empty)"
    return ""


def _quoted(text: str) -> str:
    """Return text as an error shows it: on one line, and not much of it."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
