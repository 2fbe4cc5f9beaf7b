"""The C++ programs of `csrc/bench`, built when they are first needed.

With CMake and a compiler; `benchmarks/requirements.txt` has CMake and Ninja.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks import graphs

ROOT = Path(__file__).resolve().parents[1]


class BuildError(Exception):
    """A program cannot be built; the message says why."""


def build(name: str) -> Path:
    """The program of that name, built where it is out of date.

    Raises:
        BuildError: There is no CMake or no compiler that it can be built with.
    """
    cmake, ninja = graphs.program("cmake"), graphs.program("ninja")
    if cmake is None:
        raise BuildError("CMake is not installed")
    folder = graphs.CACHE / "cmake"
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    options = ["-DRETINAFACE_BUILD_BENCHMARKS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), *options, *generator],
        [cmake, "--build", str(folder), "--target", name, "--config", "Release"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-1500:]}")
    found = [
        path for path in (folder / "bench").rglob(f"{name}*") if os.access(path, os.X_OK) and path.is_file()
    ]
    if not found:
        raise BuildError(f"this compiler cannot build {name}: csrc/bench/CMakeLists.txt says what it needs")
    return found[0]
