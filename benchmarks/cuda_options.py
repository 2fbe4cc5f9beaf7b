"""What `benchmarks.cuda` is asked for: its options, and what is refused before anything runs."""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import graphs

if TYPE_CHECKING:
    from collections.abc import Iterable

OUT = graphs.CACHE / "cuda"


class RefusedError(Exception):
    """An option cannot be served here; the message is one line that names it."""


def parser(description: str, parts: Iterable[str]) -> argparse.ArgumentParser:
    names = list(parts)
    found = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=description)
    found.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder for results.json and results.md, made where there is none (default: %(default)s)",
    )
    found.add_argument("--quick", action="store_true", help="small and few: whether it works here")
    found.add_argument(
        "--device", default="cuda:0", help="cuda:N, or cpu to try the script (default: %(default)s)"
    )
    found.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE_OR_FOLDER",
        help="photographs with faces, folders with all that is in them; crowds are composed of them "
        "(default: two pictures of scikit-image)",
    )
    found.add_argument(
        "--download",
        action="store_true",
        help="fetch published weights that are not here, unless RETINAFACE_FAST_OFFLINE forbids it",
    )
    found.add_argument(
        "--parts",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"what to run, in this order, of {', '.join(names)} (default: all of them)",
    )
    for hidden in ("--part", "--answer", "--child"):
        found.add_argument(hidden, help=argparse.SUPPRESS)
    return found


def check_device(device: str) -> str:
    """The device with its number.

    Raises:
        RefusedError: If it is neither the CPU nor a CUDA device that torch can use.
    """
    if device == "cpu":
        return device
    try:
        import torch
    except ImportError as error:
        raise RefusedError(f"device: torch is needed, and cannot be imported: {error}") from error
    named = re.fullmatch(r"cuda(?::(0|[1-9][0-9]*))?", device)
    with warnings.catch_warnings():  # about a driver that is too old or not there, which is said here
        warnings.simplefilter("ignore")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if named is None or int(named[1] or 0) >= count:
        raise RefusedError(f"device: expected cpu or cuda:N that torch sees, got {device!r}")
    return f"cuda:{named[1] or 0}"


def check_out(folder: Path) -> None:
    """Make the folder of the results, and see whether it can be written: the parts may take hours.

    Raises:
        RefusedError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RefusedError(
            f"--out: expected a folder that can be made and written, got {str(folder)!r}: "
            f"{error.strerror or error}"
        ) from error
