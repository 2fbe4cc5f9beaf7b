#!/usr/bin/env python3
"""What can be known of the CUDA kernels on a machine without a GPU: `python3 dev.py cuda`.

Where there is nvcc, kernels, library and extension module are built with warnings as errors, the module is
loaded, and `inspect_cuda.py` looks into what was compiled. What nvcc made of the kernels for each processor,
turned into C++ by `ptx_to_cpp.py`, then runs in their tests. In any case the same kernels and what launches
them, compiled for the CPU, run in the tests of the bindings and of the engine. (Their tests in C++ are in
`dev.py cpp`.)

Needs CMake, Ninja and pybind11 in the environment of the Python that runs it; arguments go to pytest.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import inspect_cuda  # beside this file

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "cuda"

#: What has tests that need the kernels, be it on the CPU; all else is in `dev.py test`.
TESTS = (
    *sorted((ROOT / "tests" / "ops").glob("test_cuda*.py")),
    ROOT / "tests" / "engines" / "test_torch_engine.py",
    ROOT / "tests" / "test_benchmark_cuda.py",
)

#: Loads the module as the package would, and asks it what does not need a device.
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("retinaface_fast._cuda", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
count = module.device_count()
print(f"loads: {module.architectures()}, {count} devices; device 0: {module.obstacle(0) or 'usable'}")
sys.exit(not (module.architectures() and (count or module.obstacle(0))))
"""


def run(*command: str | Path, **environment: str) -> None:
    """Run a command in the project's folder and show it first.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    words = [str(word) for word in command]
    print(f"==> {shlex.join(words)}", file=sys.stderr, flush=True)
    subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, check=True)


def module(target: str, folder: Path) -> Path:
    """The extension module of a target, built."""
    run("cmake", "--build", BUILD, "--target", target)
    (found,) = folder.glob("_cuda.*")
    return found


def main(arguments: list[str]) -> int:
    if sys.platform != "linux":
        print("the CUDA kernels are tried on Linux only")
        return 0
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    nvcc = inspect_cuda.find_nvcc()
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    ptx = [BUILD / "ptx" / f"sm_{architecture}.ptx" for architecture in inspect_cuda.ARCHITECTURES]
    try:
        run(
            *("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"),
            *("-DRETINAFACE_WERROR=ON", "-DRETINAFACE_BUILD_PYTHON=ON", "-DRETINAFACE_CUDA_ON_CPU=ON"),
            *(f"-DRETINAFACE_CUDA={'ON' if nvcc else 'OFF'}", f"-Dpybind11_DIR={pybind11}"),
            f"-DPython_EXECUTABLE={sys.executable}",
            *([f"-DCMAKE_CUDA_COMPILER={nvcc}"] if nvcc else []),
            f"-DRETINAFACE_PTX={';'.join(map(str, ptx)) if nvcc else ''}",
        )
        if nvcc:
            run(sys.executable, "-c", LOAD, module("_cuda", BUILD / "src"))
            run(sys.executable, ROOT / "tools" / "inspect_cuda.py", "--build", BUILD, "--ptx", BUILD / "ptx")
            programs = [f"test_cuda_postprocess_{file.stem}" for file in ptx]
            run("cmake", "--build", BUILD, "--target", *programs)
            for program in programs:
                run(BUILD / "csrc" / "tests" / program)
        else:
            print("no nvcc: the kernels are compiled for the CPU only")
        on_cpu = str(module("_cuda_on_cpu", BUILD / "src" / "cuda_on_cpu"))
        run(sys.executable, "-m", "pytest", *TESTS, *arguments, RETINAFACE_FAST_CUDA_ON_CPU=on_cpu)
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
