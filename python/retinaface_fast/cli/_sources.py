"""What to look at: files, folders and patterns become a list of pictures and videos."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: What is taken from a folder. A file that is named is tried whatever its name says.
PICTURE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or video to look at.

    Attributes:
        path: Where it is.
        relative: Where it lies below the folder or pattern it was found by: its place below `--output`.
        is_named: The user gave this very file, and not a folder or pattern that holds it.
    """

    path: Path
    relative: Path
    is_named: bool = False

    @property
    def is_video(self) -> bool:
        """Whether the name is a video's."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, slots=True)
class NotFound:
    """An argument that leads to nothing, and why."""

    argument: str
    reason: str


def expand(
    arguments: Iterable[str], *, recursive: bool = False, excluded: Sequence[Path] = ()
) -> tuple[list[Source], list[NotFound]]:
    """List the pictures and videos that arguments of the command line stand for.

    Args:
        arguments: Files, folders and patterns (`*`, `?`, `[...]`, and `**` for any depth). What exists is
            taken as it is, also if its name has a star.
        recursive: Whether folders are searched below their first level.
        excluded: Folders that this run writes to: left out where they lie below what is searched.

    Returns:
        The sources, each file once, a folder's in the order of their names; and the arguments that lead to
        nothing.
    """
    sources: dict[Path, Source] = {}
    missing: list[NotFound] = []
    barred = {path.resolve() for path in excluded}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = list(_in_folder(path, recursive=recursive, barred=barred))
            if not found:
                below = "" if recursive else " (its subfolders are searched with --recursive)"
                missing.append(NotFound(argument, f"no picture or video in this folder{below}"))
        elif path.exists():
            found = [Source(path, Path(path.name), is_named=True)]
        elif glob.has_magic(argument):
            found = list(_by_pattern(argument, barred=barred))
            if not found:
                missing.append(NotFound(argument, "no file matches this pattern"))
        else:
            found = []
            missing.append(NotFound(argument, "no such file or folder"))
        for source in found:
            sources.setdefault(source.path.absolute(), source)
    return list(sources.values()), missing


def _in_folder(folder: Path, *, recursive: bool, barred: set[Path]) -> Iterator[Source]:
    for directory, subfolders, names in os.walk(folder):
        here = Path(directory)
        for name in sorted(names):
            path = here / name
            # A link that leads nowhere is reported when it is read. A pipe that nobody writes to would be
            # read for ever; who names one means it.
            if Path(name).suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES and (
                path.is_file() or not path.exists()
            ):
                yield Source(path, path.relative_to(folder))
        # os.walk goes on with what is left in this list.
        subfolders[:] = sorted(s for s in subfolders if recursive and (here / s).resolve() not in barred)


def _by_pattern(pattern: str, *, barred: set[Path]) -> Iterator[Source]:
    parts = Path(pattern).parts
    first_magic = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:first_magic])
    # Only what lies below the base: `"photos/*.jpg" --output .` is no reason to skip the photos.
    barred_below = {folder for folder in barred if base.resolve() in folder.parents}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 -- takes absolute ones too
        path = Path(name)
        if path.is_file() and not barred_below.intersection(path.resolve().parents):
            yield Source(path, path.relative_to(base))
