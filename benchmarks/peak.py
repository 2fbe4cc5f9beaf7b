"""The machine's peak: float32 multiply-adds of one core in a second, by the program in `csrc/bench`."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from benchmarks import programs
from retinaface_fast.latency import turns

if TYPE_CHECKING:
    from pathlib import Path


class UnknownPeakError(Exception):
    """The program cannot be built or run; the message says why."""


def build() -> Path:
    """The program, built where it is out of date.

    Raises:
        UnknownPeakError: There is no CMake or no compiler that it can be built with.
    """
    try:
        return programs.build("peak_fma")
    except programs.BuildError as error:
        raise UnknownPeakError(str(error)) from error


def measure(program: Path, seconds: float = 0.5) -> tuple[str, float]:
    """The instruction set that was fastest, and multiply-adds per second of one core.

    Raises:
        UnknownPeakError: The program failed.
    """
    with turns.pinned(1):
        done = subprocess.run([program, str(seconds)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnknownPeakError(f"{program} failed with exit code {done.returncode}: {done.stderr}")
    name, rate = done.stdout.split()
    return name, float(rate) * 1e9
