"""What an earlier `retinaface-fast compare` has left in its folder, which the next one may replace."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

REPORT, SUMMARY, SHEETS = "report.html", "comparison.json", "pictures"


def earlier_sheets(out: Path) -> list[Path]:
    """Return the side-by-side pictures that an earlier run wrote, as its `comparison.json` lists them.

    Raises:
        typer.BadParameter: There is something where this run would write that no earlier run wrote.
    """
    if not out.exists():
        return []
    summary = _read(out / SUMMARY)
    if summary is None:
        sheets = out / SHEETS
        foreign = [out / name for name in (REPORT, SUMMARY) if (out / name).exists()]
        if sheets.exists() and (not sheets.is_dir() or any(sheets.iterdir())):
            foreign.append(sheets)
        if foreign:
            raise typer.BadParameter(
                f"{foreign[0]} is not of an earlier comparison that came to its end: name another folder, or "
                "move it away",
                param_hint="--out",
            )
        return []
    listed = [each.get("sheet") for each in summary["pictures"] if isinstance(each, dict)]
    return [path for sheet in listed if (path := _sheet(out, sheet)) is not None]


def _read(path: Path) -> dict[str, Any] | None:
    """Return a `comparison.json`; None for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"format": int, "version": str, "reference": str, "detectors": list, "pictures": list}
    if isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        return found
    return None


def _sheet(out: Path, sheet: object) -> Path | None:
    """Return where a listed sheet is; None where that is no place of a sheet, for it may be deleted."""
    if not isinstance(sheet, str) or not sheet.endswith(".jpg") or "\0" in sheet:
        return None
    parts = PurePosixPath(sheet).parts
    if parts[0] != SHEETS or ".." in parts:
        return None
    path = out.joinpath(*parts)
    # On Windows a part may hold a drive or backslashes; anywhere a folder may be a link to another place.
    return path if path.parent.resolve().is_relative_to((out / SHEETS).resolve()) else None
