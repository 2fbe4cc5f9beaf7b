"""The one-command loop: when it installs, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

DEV = Path(__file__).parents[1] / "dev.py"

if not DEV.is_file():  # the tests of an installed package, without the checkout around them
    pytest.skip("dev.py is not here", allow_module_level=True)


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """dev.py, working on a small project of its own."""
    spec = importlib.util.spec_from_file_location("dev", DEV)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "project"
    for name in ("csrc/a.cpp", "src/module.cpp", "tools/t.py", "python/retinaface_fast/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1", encoding="utf-8")
    (root / "pyproject.toml").write_text("", encoding="utf-8")
    (root / "CMakeLists.txt").write_text("", encoding="utf-8")
    monkeypatch.setattr(module, "ROOT", root)
    return module


@pytest.mark.parametrize(
    "name", ["csrc/a.cpp", "src/module.cpp", "tools/t.py", "pyproject.toml", "CMakeLists.txt"]
)
def test_a_change_of_what_is_built_needs_a_new_build(dev: ModuleType, name: str) -> None:
    before = dev.build_digest()
    (dev.ROOT / name).write_text("2", encoding="utf-8")
    assert dev.build_digest() != before


def test_a_change_of_python_needs_none_but_a_new_file_does(dev: ModuleType) -> None:
    package = dev.ROOT / "python" / "retinaface_fast"
    before = dev.build_digest()
    (package / "__init__.py").write_text("2", encoding="utf-8")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"")
    (dev.ROOT / "csrc" / "__pycache__").mkdir()
    (dev.ROOT / "csrc" / "__pycache__" / "x.pyc").write_bytes(b"")
    assert dev.build_digest() == before
    (package / "new.py").write_text("", encoding="utf-8")
    assert dev.build_digest() != before


def test_installs_once_and_adds_extras(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(dev.Venv, "ensure", lambda self: self.directory.mkdir(exist_ok=True))
    monkeypatch.setattr(dev.Venv, "pip", lambda self, *arguments: calls.append(arguments))
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    venv = dev.Venv(tmp_path / "venv")
    for extra in ("demo", "demo", "docs", "demo", "test", "docs", "demo"):
        venv.install(extra)
    assert [call[-1] for call in calls] == [".[demo]", ".[demo,docs]", ".[docs,test]"]
    (dev.ROOT / "csrc" / "a.cpp").write_text("2", encoding="utf-8")
    venv.install("demo")
    venv.install("dev")
    venv.install("test")
    assert [call[-1] for call in calls[3:]] == [".[docs,test]", ".[dev]"]
    assert {call[:2] for call in calls} == {("install", "--editable")}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_extras_bring_along_what_the_loop_believes(dev: ModuleType) -> None:
    import tomllib

    project = tomllib.loads((DEV.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def requirements(extra: str) -> set[str]:
        found: set[str] = set()
        for requirement in project["optional-dependencies"][extra]:
            if requirement.startswith("retinaface-fast["):
                found.update(*(requirements(e) for e in requirement[len("retinaface-fast[") : -1].split(",")))
            else:
                found.add(requirement)
        return found

    for extra, others in dev.IMPLIED.items():
        for other in others:
            assert requirements(extra) >= requirements(other), (extra, other)


def test_a_failed_install_is_tried_again(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def broken(self: object, *arguments: str) -> None:
        calls.append(arguments[-1])
        raise dev.DevError("no network")

    monkeypatch.setattr(dev.Venv, "ensure", lambda self: self.directory.mkdir(exist_ok=True))
    monkeypatch.setattr(dev.Venv, "pip", broken)
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    venv = dev.Venv(tmp_path / "venv")
    for _ in range(2):
        with pytest.raises(dev.DevError):
            venv.install("demo")
    assert calls == [".[demo]", ".[demo]"]


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are not on PATH on Windows")
def test_no_compiler_is_told_before_pip_starts(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(dev.DevError, match=r"no C\+\+ compiler"):
        dev.need_compiler()
    monkeypatch.setenv("CXX", "my-compiler")
    dev.need_compiler()


def test_a_broken_environment_is_told(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = dev.Venv(tmp_path / "venv")
    venv.python.parent.mkdir(parents=True)
    venv.python.write_text("", encoding="utf-8")

    def probe(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", probe)
    with pytest.raises(dev.DevError, match="delete it"):
        venv.ensure()


def test_an_old_python_is_told() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 0, 'final', 0); sys.version = '3.9.0'\n"
        f"sys.argv = ['dev.py', 'test']; runpy.run_path({json.dumps(str(DEV))}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dev.py needs Python 3.10 or newer and this is 3.9.0")


def test_help_lists_every_command(dev: ModuleType) -> None:
    done = subprocess.run([sys.executable, str(DEV), "--help"], capture_output=True, text=True, check=True)
    for command in dev.COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_the_cuda_stage_brings_its_tools(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    ran: list[tuple[object, ...]] = []
    venv = dev.Venv(tmp_path / "venv")
    venv.bin.mkdir(parents=True)

    def pip(*arguments: str) -> None:
        installed.extend(arguments[1:])
        for name in ("cmake", "ninja", "pybind11-config"):
            venv.tool(name).touch()

    monkeypatch.setattr(venv, "install", lambda *extras: installed.extend(extras))
    monkeypatch.setattr(venv, "pip", pip)
    monkeypatch.setattr(dev, "run", lambda *command: ran.append(command))
    for _ in range(2):
        dev.cuda(venv, ["-x"])
    assert installed == ["test", *dev.CPP_TOOLS, "pybind11>=2.13", "test"]
    assert ran == [(venv.python, dev.ROOT / "tools" / "try_cuda.py", "-x")] * 2


def test_cuda_sources_are_cpp_files(dev: ModuleType) -> None:
    for name in ("csrc/cuda/a.cu", "csrc/cuda/a.cuh", "csrc/cuda/CMakeLists.txt", "csrc/tests/on_cpu/a.h"):
        (dev.ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (dev.ROOT / name).touch()
    names = [file.name for file in dev.cpp_files()]
    assert names == ["a.cpp", "a.cu", "a.cuh", "a.h", "module.cpp"]
