"""The machine's peak: float32 multiply-adds of one core in a second, by the program in `csrc/bench`.

Built when it is first needed, with CMake and GCC or Clang; `benchmarks/requirements.txt` has CMake and
Ninja.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks import graphs
from retinaface_fast.latency import turns

ROOT = Path(__file__).resolve().parents[1]


class UnknownPeakError(Exception):
    """The program cannot be built or run; the message says why."""


def build() -> Path:
    """The program, built where it is out of date.

    Raises:
        UnknownPeakError: There is no CMake or no compiler that it can be built with.
    """
    cmake, ninja = graphs.program("cmake"), graphs.program("ninja")
    if cmake is None:
        raise UnknownPeakError("CMake is not installed")
    folder = graphs.CACHE / "cmake"
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), "-DRETINAFACE_BUILD_BENCHMARKS=ON", *generator],
        [cmake, "--build", str(folder), "--target", "peak_fma", "--config", "Release"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnknownPeakError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-1500:]}")
    found = [
        path for path in (folder / "bench").rglob("peak_fma*") if os.access(path, os.X_OK) and path.is_file()
    ]
    if not found:
        raise UnknownPeakError("the compiler cannot build peak_fma: it needs GCC or Clang")
    return found[0]


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
