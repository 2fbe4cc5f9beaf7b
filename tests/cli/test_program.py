"""The program around the subcommands, and the subcommands `info` and `weights`."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import retinaface_fast
from retinaface_fast import ops
from retinaface_fast.cli import main
from retinaface_fast.cli.detect import detect
from retinaface_fast.engines.threads import default_threads
from retinaface_fast.weights import REGISTRY, bundled_path

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, and a terminal wide enough for every table."""
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RETINAFACE_FAST_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path / "cache"


def put(cache: Path, name: str, data: bytes) -> Path:
    cache.mkdir(exist_ok=True)
    path = cache / REGISTRY[name].filename
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------------ the program


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"retinaface-fast {retinaface_fast.__version__}\n"


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: retinaface-fast" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["detect"],
        ["eval"],
        ["eval", "widerface"],
        ["export"],
        ["info"],
        ["weights"],
        ["weights", "download"],
    ],
)
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-h"]) == 0
    assert "Usage: " in capsys.readouterr().out


def test_help_says_what_values_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    assert main(["detect", "-h"]) == 0
    out = capsys.readouterr().out
    for part in ("score above it, 0 to 1.", "cpu, cuda, cuda:N or mps.", "--max-pixels", "1<=x<=1024"):
        assert part in out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find"]) == 2
    assert "find" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["info"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"needs {module}" in err
    assert 'pip install "retinaface-fast[cli]"' in err


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retinaface_fast", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"retinaface-fast {retinaface_fast.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["detect", "--help"], ["info"], ["weights", "list"]])
def test_what_needs_no_engine_imports_none(arguments: list[str]) -> None:
    code = (
        "import sys; from retinaface_fast.cli import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'cv2', 'onnxruntime', 'onnx', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["info"], ["detect", "a.jpg"]])
def test_a_wrong_simd_level_is_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retinaface_fast", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "RETINAFACE_FAST_SIMD": "mmx"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: the environment variable RETINAFACE_FAST_SIMD is 'mmx'")


def test_another_import_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("something else")

    monkeypatch.setattr("retinaface_fast.cli.info.collect", fail)
    with pytest.raises(ImportError, match="something else"):
        main(["info"])


def test_the_defaults_are_those_of_the_detector() -> None:
    detector = inspect.signature(retinaface_fast.FaceDetector).parameters
    command = inspect.signature(detect).parameters
    shared = (
        "model",
        "engine",
        "device",
        "threads",
        "precision",
        "score_threshold",
        "nms_threshold",
        "top_k",
        "keep_top_k",
        "max_side",
        "max_pixels",
        "close_ups",
        "tile_side",
    )
    for name in shared:
        assert command[name].default == detector[name].default, name


# ------------------------------------------------------------------------------------------ info


def test_info_for_programs(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == retinaface_fast.__version__
    assert facts["simd_level"] == ops.simd_level()
    assert facts["simd_levels"] == list(ops.simd_levels())
    assert {"torch", "onnxruntime"} <= facts["engines"].keys()
    assert facts["engines"]["native"] == retinaface_fast.__version__
    assert facts["threads"] == default_threads()
    assert facts["cache_dir"] == str(cache)
    assert facts["offline"] is True
    assert [entry["name"] for entry in facts["weights"]] == list(REGISTRY)


def test_info_for_people(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for part in (
        *(retinaface_fast.__version__, ops.simd_level(), f"{default_threads()} for one picture"),
        *(f"native {retinaface_fast.__version__}", "torch", f"{cache} (offline)", *REGISTRY),
    ):
        assert part in out


@pytest.mark.parametrize("has_torch", [True, False], ids=["torch", "no torch"])
@pytest.mark.parametrize(
    ("kernels", "would_use", "words", "about_kernels"),
    [
        (
            (None, "not built"),
            "torch",
            "post-processing on cuda:0 would be by torch operations (built without CUDA kernels)",
            "built without CUDA kernels",
        ),
        (
            (("75", "80", "90"), None),
            "cuda",
            "post-processing on cuda:0 would be by CUDA kernels for sm_75, sm_80, sm_90",
            "CUDA kernels for sm_75, sm_80, sm_90",
        ),
        (
            (("90",), "no device"),
            "torch",
            "post-processing on cuda:0 would be by torch operations (CUDA kernels for sm_90: no device)",
            "CUDA kernels for sm_90: no device",
        ),
        (
            (("90",), ImportError("no libcudart")),
            None,
            "no post-processing (CUDA kernels: cannot be loaded: no libcudart)",
            "CUDA kernels: cannot be loaded: no libcudart",
        ),
    ],
    ids=["not built", "usable", "no device", "broken"],
)
def test_info_says_what_would_make_the_faces_on_a_gpu(
    kernels: tuple[tuple[str, ...] | None, str | ImportError | None],
    would_use: str | None,
    words: str,
    about_kernels: str,
    *,
    has_torch: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    architectures, obstacle = kernels

    def look(_device: int) -> str | None:
        if isinstance(obstacle, ImportError):
            raise obstacle
        return obstacle

    module = SimpleNamespace(
        is_built=lambda: architectures is not None,
        architectures=lambda: architectures or (),
        obstacle=look,
    )
    monkeypatch.setattr(ops, "cuda", module, raising=False)
    monkeypatch.setattr(
        "retinaface_fast.engines._installed_version",
        lambda name: None if name == "torch" and not has_torch else "1.2",
    )
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["gpu_postprocessing"]
    assert facts["would_use"] == (would_use if has_torch else None)
    assert facts["kernels"] is (architectures is not None)
    assert str(facts["obstacle"]).endswith(str(obstacle))
    assert facts["architectures"] == ([] if would_use is None else list(architectures or ()))
    assert main(["info"]) == 0
    if not has_torch:
        words = f"CUDA no post-processing, because torch is not installed ({about_kernels})"
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("precision", "code", "message"),
    [("half", 2, "precision: expected 'float32' or 'float16', got 'half'"), ("float16", 1, "'float16'")],
)
def test_a_precision_that_cannot_be(
    precision: str, code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"")
    assert main(["detect", str(picture), "--device", "cpu", "--precision", precision]) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_number_of_threads_may_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "5")
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "2000"], "1024"),
        (["--threads", "2", "--engine", "torch"], "threads must be None"),
    ],
)
def test_threads_that_cannot_be_are_wrong_usage(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"")
    assert main(["detect", "a.jpg", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["detect", "a.jpg"]])
def test_a_wrong_number_of_threads_is_wrong_usage(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"")
    monkeypatch.setenv("RETINAFACE_FAST_THREADS", "many")
    assert main(command) == 2
    assert "RETINAFACE_FAST_THREADS must be a whole number" in " ".join(capsys.readouterr().err.split())


# ------------------------------------------------------------------------------------------ weights


def test_list(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    put(cache, "resnet34", b"damaged")
    assert main(["weights", "list", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert records["resnet18"]["state"] == "absent"
    assert records["resnet18"]["sha256"] == REGISTRY["resnet18"].sha256
    assert records["resnet18"]["file_sha256"] is None
    assert records["resnet50"]["size_bytes"] == 109_497_761
    assert records["resnet34"]["state"] == "damaged"
    assert records["resnet34"]["file_sha256"] == hashlib.sha256(b"damaged").hexdigest()
    bundled = bundled_path()
    if bundled is not None:
        assert records["mobilenet0.25"]["state"] == "bundled"
        assert records["mobilenet0.25"]["path"] == str(bundled)
        assert records["mobilenet0.25"]["file_sha256"] == hashlib.sha256(bundled.read_bytes()).hexdigest()
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert "damaged" in rows["resnet34"]
    assert " 109.5 " in rows["resnet50"]
    assert REGISTRY["resnet34"].size_bytes is not None or rows["resnet34"].split()[2] == "-"
    assert max(len(row) for row in rows.values() if str(cache) not in row) <= 80
    assert str(cache) in out


def test_path(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["weights", "path", "resnet18"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "retinaface-fast weights download resnet18" in err
    path = put(cache, "resnet18", b"x")
    assert main(["weights", "path", "resnet18"]) == 0
    assert capsys.readouterr().out == f"{path}\n"


def test_download_prints_the_path(
    capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinaface_fast.weights.download", lambda name: cache / REGISTRY[name].filename)
    assert main(["weights", "download", "resnet18", "resnet34"]) == 0
    names = ("resnet18", "resnet34")
    assert capsys.readouterr().out.splitlines() == [str(cache / REGISTRY[name].filename) for name in names]
    assert main(["weights", "download", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(REGISTRY)


def test_download_offline_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "download", "resnet18"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "RETINAFACE_FAST_OFFLINE" in err


@pytest.mark.parametrize(
    "arguments",
    [["download"], ["download", "resnet99"], ["path", "resnet99"], ["path"], ["delete"]],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", *arguments]) == 2
    assert capsys.readouterr().out == ""
