#!/usr/bin/env python3
"""The project's one-command loop: `python3 dev.py demo`, `python3 dev.py test`, `python3 dev.py check`.

Needs nothing but Python: it makes `.venv` beside this file, installs into it what the command at hand needs,
and runs the command there. A second run installs nothing unless the sources of the build have changed. What
pip is told through its environment and configuration (PIP_CONSTRAINT, a mirror, a proxy) holds here too.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 -- before anything that an old Python cannot run
    sys.exit(
        "dev.py needs Python 3.10 or newer and this is "
        + sys.version.split()[0]
        + ": run it with a newer one, for example python3.11 dev.py"
    )

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
PACKAGE = "retinaface_fast"

#: What `cpp` and `lint` configure the core with; it needs no Python package besides these two.
CPP_TOOLS = ("cmake>=3.18", "ninja>=1.11")

#: A change in one of these needs a new build. Python files take effect as they are (editable install), but a
#: new or deleted one needs the installation to be told.
BUILD_INPUTS = ("CMakeLists.txt", "pyproject.toml", "csrc", "src", "tools")

#: Extras that bring others along.
IMPLIED = {"dev": {"demo", "docs", "test"}, "test": {"demo"}}

BUNDLED_WEIGHTS = "weights/bundled/mobilenet0.25.safetensors"


class DevError(Exception):
    """A step cannot be done; the message says what to do about it."""


def say(text: str) -> None:
    """Announce a step on stderr, so that the standard output stays the command's own."""
    print(f"\033[1m==> {text}\033[0m" if sys.stderr.isatty() else f"==> {text}", file=sys.stderr, flush=True)


def shown(command: Iterable[str | Path]) -> str:
    """Return the command as one would type it."""
    words = [str(word) for word in command]
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a command and show it first.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    say(shown(command))
    subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **(env or {})}, check=True)


class Venv:
    """The project's virtual environment, made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / ("Scripts" if WINDOWS else "bin")
        self.python = self.bin / ("python.exe" if WINDOWS else "python")
        self._stamp = directory / "retinaface-fast-installed.json"

    def tool(self, name: str) -> Path:
        """Return the path of a program that a package has put into the environment."""
        return self.bin / (f"{name}.exe" if WINDOWS else name)

    def ensure(self) -> None:
        """Create the environment, or check that the one which is there can be used.

        Raises:
            DevError: Python has no venv module, or what lies there is not a working environment.
        """
        if self.python.exists():
            probe = subprocess.run(
                [self.python, "-c", "import sys, pip; print(sys.version_info >= (3, 10))"],
                capture_output=True,
                text=True,
                check=False,
            )
            if probe.stdout.strip() == "True":
                return
            raise DevError(
                f"{self.directory} has no working Python >= 3.10 with pip: delete it, run this again"
            )
        say(f"create {self.directory}")
        try:
            import ensurepip  # noqa: F401  -- Debian splits venv in two: the module is there, pip's wheel is not
            import venv
        except ImportError:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise DevError(
                f"this Python ({sys.executable}) cannot make virtual environments: on Debian and Ubuntu "
                f"apt-get install python{version}-venv"
            ) from None
        venv.EnvBuilder(with_pip=True, symlinks=not WINDOWS).create(self.directory)

    def pip(self, *arguments: str) -> None:
        """Run the environment's pip.

        Raises:
            DevError: pip failed.
        """
        # With a terminal, pip's progress shows that the minutes of torch's download are not a hang.
        environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if not sys.stdout.isatty():
            environment["PIP_QUIET"] = os.environ.get("PIP_QUIET", "1")
        try:
            run(self.python, "-m", "pip", *arguments, env=environment)
        except subprocess.CalledProcessError as error:
            raise DevError(
                f"pip failed with exit code {error.returncode}; its own message is above.\n"
                "  No space left? The tests need torch, 3 GB with CUDA: CONTRIBUTING.md says how to\n"
                "  take the CPU build.\n"
                "  Build failed? It needs a C++17 compiler and Python's headers (Debian and Ubuntu:\n"
                "  apt-get install g++ python3-dev; macOS: xcode-select --install)."
            ) from None

    def install(self, *extras: str) -> None:
        """Install the project with extras, editable, unless exactly that is already there.

        Raises:
            DevError: There is no compiler, or pip failed.
        """
        self.ensure()
        stamp = self._stamp
        done = (
            json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {"extras": [], "digest": ""}
        )
        digest = build_digest()
        wanted = {*done["extras"], *extras}
        wanted = {e for e in wanted if not any(e in IMPLIED.get(other, ()) for other in wanted)}
        if done["digest"] == digest and wanted == set(done["extras"]):
            return
        need_compiler()
        stamp.unlink(missing_ok=True)
        self.pip("install", "--editable", f".[{','.join(sorted(wanted))}]")
        stamp.write_text(json.dumps({"extras": sorted(wanted), "digest": digest}), encoding="utf-8")


def build_digest() -> str:
    """Return a hash that changes when the installed project has to be built again."""
    digest = hashlib.sha256()
    for entry in BUILD_INPUTS:
        path = ROOT / entry
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    for file in sorted((ROOT / "python").rglob("*.py*")):
        if "__pycache__" not in file.parts:
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
    return digest.hexdigest()


def need_compiler() -> None:
    """Say so before pip starts if there is no C++ compiler.

    Raises:
        DevError: None of the usual names is on PATH. (Windows compilers are not on PATH: CMake finds those.)
    """
    asked = os.environ.get("CXX", "")
    if WINDOWS or asked or any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return
    raise DevError(
        "no C++ compiler was found: on Debian and Ubuntu apt-get install g++, on Fedora dnf install gcc-c++, "
        "on macOS xcode-select --install (or set CXX to yours)"
    )


# ---------------------------------------------------------------------------------------------- commands

_FIND_ASTRONAUT = """
from importlib.metadata import files
found = [f for f in files("scikit-image") or () if f.as_posix() == "skimage/data/astronaut.png"]
print(found[0].locate() if found else "")
"""


def demo(venv: Venv, arguments: Sequence[str]) -> None:
    """Detect the face in a photograph, print the table and write faces.jpg (other pictures can be named)."""
    venv.install("demo")
    pictures = list(arguments)
    if not pictures:
        # Read from where pip put it: importing scikit-image would be slow, and its own loader may download.
        found = subprocess.run(
            [venv.python, "-c", _FIND_ASTRONAUT], capture_output=True, text=True, check=True
        ).stdout.strip()
        if not found or not Path(found).is_file():
            raise DevError("the installed scikit-image has no astronaut.png: use dev.py demo FILE")
        pictures = [found]
    output = ROOT / "faces.jpg" if len(pictures) == 1 and Path(pictures[0]).is_file() else ROOT / "faces"
    run(venv.tool("retinaface-fast"), "detect", *pictures, "--output", output)
    say(f"the annotated picture is {output}")


def test(venv: Venv, arguments: Sequence[str]) -> None:
    """Run the Python tests and doctests (further arguments go to pytest)."""
    venv.install("test")
    run(venv.python, "-m", "pytest", *arguments)


def cpp(venv: Venv, arguments: Sequence[str]) -> None:
    """Build the C++ core alone, sanitized, warnings as errors, and run its tests (arguments go to ctest)."""
    build = configure(venv)
    run(venv.tool("cmake"), "--build", build)
    run(
        venv.tool("ctest"),
        *("--test-dir", build / "csrc", "--output-on-failure", "--no-tests=error"),
        *("--parallel", str(os.cpu_count() or 1)),
        *arguments,
        env={
            # An error must fail the test and not only be printed.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_stack_use_after_return=1"),
            "UBSAN_OPTIONS": os.environ.get("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1"),
        },
    )


def cuda(venv: Venv, arguments: Sequence[str]) -> None:
    """Compile the CUDA kernels where nvcc is, and run them on the CPU in tests (arguments go to pytest)."""
    venv.install("test")
    if not all(venv.tool(name).exists() for name in ("cmake", "ninja", "pybind11-config")):
        venv.pip("install", *CPP_TOOLS, "pybind11>=2.13")
    run(venv.python, ROOT / "tools" / "try_cuda.py", *arguments)


def configure(venv: Venv) -> Path:
    """Configure the core's test build and return its directory."""
    venv.ensure()
    need_compiler()
    if not (venv.tool("cmake").exists() and venv.tool("ninja").exists()):
        venv.pip("install", *CPP_TOOLS)
    build = ROOT / "build" / "cpp"
    run(
        venv.tool("cmake"),
        *("-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={venv.tool('ninja').as_posix()}"),
        # -O1 keeps the sanitizers' stack traces readable and the tests of every size quick.
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"),
        *("-DRETINAFACE_BUILD_TESTS=ON", "-DRETINAFACE_WERROR=ON"),
        f"-DRETINAFACE_SANITIZE={'OFF' if WINDOWS else 'ON'}",
    )
    return build


def lint(venv: Venv, arguments: Sequence[str]) -> None:
    """Check style, types and C++ (ruff, mypy, clang-format, clang-tidy); --fix rewrites what can be."""
    venv.install("dev")
    fix = "--fix" in arguments
    steps: dict[str, Callable[[], None]] = {
        "ruff check": lambda: run(venv.tool("ruff"), "check", *(["--fix"] if fix else []), "."),
        "ruff format": lambda: run(venv.tool("ruff"), "format", *([] if fix else ["--check"]), "."),
        "mypy": lambda: run(venv.python, "-m", "mypy"),
        "clang-format": lambda: clang_format(venv, fix=fix),
        "clang-tidy": lambda: clang_tidy(venv),
    }
    failures: list[str] = []
    for name, step in steps.items():  # all of them: one round should show everything that is wrong
        try:
            step()
        except subprocess.CalledProcessError:  # noqa: PERF203
            failures.append(name)
    if failures:
        raise DevError("found something: " + ", ".join(failures))


def cpp_files() -> list[Path]:
    """Return every C++ file of the project."""
    kinds = {".cpp", ".hpp", ".inl", ".cu", ".cuh", ".h"}
    return sorted(p for d in ("csrc", "src") for p in (ROOT / d).rglob("*") if p.suffix in kinds)


def clang_format(venv: Venv, *, fix: bool) -> None:
    """Check, or with fix rewrite, the layout of the C++ files."""
    files = cpp_files()
    if files:
        mode = ["-i"] if fix else ["--dry-run", "--Werror"]
        run(venv.tool("clang-format"), *mode, *[f.relative_to(ROOT) for f in files])


def clang_tidy(venv: Venv) -> None:
    """Run clang-tidy over what the core's test build compiles, a file to a processor.

    Raises:
        subprocess.CalledProcessError: A file has a finding; .clang-tidy makes each an error.
    """
    build = configure(venv)
    entries = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    files = sorted({Path(entry["directory"], entry["file"]).resolve() for entry in entries})
    # The core itself: tests may seed their random numbers, and repeat what a kernel must not.
    core = ROOT / "csrc"
    ours = [str(f.relative_to(ROOT)) for f in files if core in f.parents and core / "tests" not in f.parents]
    command = [str(venv.tool("clang-tidy")), "--quiet", "-p", str(build)]
    say(shown([*command, *ours]))

    def check(file: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        return file, subprocess.run([*command, file], cwd=ROOT, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(check, ours))
    for file, result in results:
        if result.returncode:
            print(f"{file}:\n{result.stdout}{result.stderr}", flush=True)
    if any(result.returncode for _, result in results):
        raise subprocess.CalledProcessError(1, command)


def docs(venv: Venv, arguments: Sequence[str]) -> None:
    """Build the documentation into site/; --serve shows it while it is written."""
    venv.install("docs")
    command = ["serve"] if "--serve" in arguments else ["build", "--strict"]
    run(venv.python, "-m", "mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})  # the theme's advertisement


def bench(venv: Venv, arguments: Sequence[str]) -> None:
    """Run the benchmarks (arguments go to pytest; "guard" and "instructions" are commands of their own)."""
    venv.install("test")
    if arguments and arguments[0] in ("guard", "instructions"):
        if not (venv.tool("cmake").exists() and venv.tool("ninja").exists()):
            venv.pip("install", *CPP_TOOLS)
        run(venv.python, "-m", f"benchmarks.{arguments[0]}", *arguments[1:])
        return
    run(venv.python, "-m", "pytest", "benchmarks", "--benchmark-only", *arguments)


def package(venv: Venv, arguments: Sequence[str]) -> None:
    """Build the sdist, the wheel from that sdist, and detect with it where only its requirements are."""
    del arguments
    venv.ensure()
    need_compiler()
    dist = ROOT / "dist"
    if dist.exists():
        shutil.rmtree(dist)
    if not venv.tool("pyproject-build").exists():
        venv.pip("install", "build>=1")
    run(venv.python, "-m", "build", "--outdir", dist, ROOT)
    (wheel,) = dist.glob("*.whl")
    # A build that cannot have the weights only warns, so that it works anywhere; here it has to have them.
    if not any(name.endswith(BUNDLED_WEIGHTS) for name in zipfile.ZipFile(wheel).namelist()):
        raise DevError(f"{wheel.name} holds no {BUNDLED_WEIGHTS}: CMake's warning above says why")
    bare = Venv(ROOT / "build" / "wheel-venv")
    if bare.directory.exists():
        shutil.rmtree(bare.directory)
    bare.ensure()
    bare.pip("install", str(wheel))
    run(bare.python, ROOT / ".ci" / "smoke_test.py", cwd=dist)


def check(venv: Venv, arguments: Sequence[str]) -> None:
    """Run lint, cpp, cuda, docs, package and test: what has to pass before a push."""
    del arguments
    report: list[tuple[str, str, float]] = []
    for command in (lint, cpp, cuda, docs, package, test):
        started = time.monotonic()
        try:
            command(venv, [])
        except (DevError, subprocess.CalledProcessError) as error:
            print(f"{command.__name__}: {error}", file=sys.stderr)
            verdict = "FAILED"
        else:
            verdict = "ok"
        report.append((command.__name__, verdict, time.monotonic() - started))
    for name, verdict, seconds in report:
        print(f"{name:8} {verdict:7} {seconds:6.0f} s", file=sys.stderr)
    if any(verdict != "ok" for _, verdict, _ in report):
        raise DevError("not everything passed")


COMMANDS: dict[str, Callable[[Venv, Sequence[str]], None]] = {
    command.__name__: command for command in (demo, test, lint, cpp, cuda, docs, bench, package, check)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="dev.py",
        description="Work on retinaface_fast: each command makes .venv and installs what it needs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            ["commands:", *(f"  {n:9}{str(c.__doc__).splitlines()[0]}" for n, c in COMMANDS.items())]
        ),
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR", help="default: .venv")
    parser.add_argument("command", choices=COMMANDS, metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on, see the command")
    options = parser.parse_args(argv)
    try:
        COMMANDS[options.command](Venv(options.venv.resolve()), options.arguments)
    except DevError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
