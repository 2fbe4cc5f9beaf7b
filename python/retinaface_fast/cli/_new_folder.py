"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ._outputs import write_file

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class NewFolder:
    """A new or empty folder to write to; where its `with` ends early, what was written is removed again.

    Else the next run would find a folder that is not empty, and refuse it.

    Args:
        path: The folder. It is made by the first file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []

    def __enter__(self) -> NewFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        for path in reversed(self._made):
            with contextlib.suppress(OSError):  # what somebody else put there stays, and its folder
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Args:
            name: Of the file, with its folders.
            data: What it is to hold.

        Raises:
            OutputError: It cannot be written.
        """
        target = self.path / name
        missing = [folder for folder in target.parents if not folder.exists()]
        self._made += [*reversed(missing), target]
        write_file(target, data)
