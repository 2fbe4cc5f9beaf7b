"""`retinaface-fast benchmark`: what it writes and refuses, on small pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from retinaface_fast.cli import main
from retinaface_fast.cli.benchmark import ROW_HELP
from retinaface_fast.latency import ROWS, Row

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import UInt8Array

pytest.importorskip("matplotlib")
pytest.importorskip("psutil")

SMALL = ("--rows", "native", "--sizes", "120x90", "--parts", "times", "--rounds", "2", "--threads", "1")


def benchmark(*options: str) -> int:
    return main(["benchmark", *options])


def test_quick_with_everything_that_it_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = benchmark(
        "--quick", "--only", "native", "--json", "a/b.json", "--markdown", "b.md", "--plot", "c.svg"
    )
    assert code == 0
    printed = capsys.readouterr()
    record: dict[str, Any] = json.loads((here / "a" / "b.json").read_text())
    assert [cell["size_hw"] for cell in record["cells"]] == [[480, 640]]
    native = record["cells"][0]["results"]["native"]
    assert native["faces"] == 12
    assert len(native["rounds"]) == 3
    assert "Detection, array to faces" in printed.out
    assert "paper, table 5" in printed.out
    assert "Cold start" in printed.out
    assert "measured in" in printed.err
    assert (here / "b.md").read_text().startswith("# Detection benchmark")
    assert (here / "c.svg").stat().st_size > 1000


def test_json_on_the_standard_output_is_alone_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark(*SMALL, "--json", "-", "--quiet") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["settings"]["parts"] == ["times"]
    assert printed.err == ""


def test_a_picture_of_ones_own(
    here: Path, astronaut_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("astronaut.png", astronaut_bgr)
    assert benchmark(*SMALL, "--sizes", "160x160", "--picture", "astronaut.png", "--json", "a.json") == 0
    record = json.loads((here / "a.json").read_text())
    assert record["settings"]["picture"] == "astronaut.png"
    assert record["pictures"] == [{"size_hw": [160, 160], "content": "astronaut.png", "faces": None}]
    assert record["cells"][0]["results"]["native"]["faces"] == 1
    assert "astronaut.png; 2 rounds" in capsys.readouterr().out


def test_a_broken_picture_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.jpg").write_bytes(b"no picture")
    assert benchmark(*SMALL, "--picture", "broken.jpg") == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_who_fails_makes_the_exit_code_1(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS, "broken", Row("broken", "broken", "nowhere:nothing"))
    assert benchmark(*SMALL, "--rows", "native,broken") == 1
    printed = capsys.readouterr().out
    assert "broken FAILED (120x90, 1 thread): ModuleNotFoundError" in printed


def test_what_is_not_installed_is_no_failure(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS, "absent", Row("absent", "absent", "nowhere:nothing", needs=(("no-such",),)))
    assert benchmark(*SMALL, "--rows", "native,absent") == 0
    assert "absent (no-such is not installed)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "640"], "640 is no size like 640x480"),
        (["--sizes", "1x1"], "sizes_hw must have sides from 32"),
        (["--sizes", ","], "sizes_hw must hold at least one"),
        (["--threads", "some"], "some is no number of threads, or all"),
        (["--threads", "0"], "at least 1"),
        (["--threads", "99999"], "threads must be at most"),
        (["--rows", "natve"], "rows must be of native"),
        (["--parts", "heat"], "parts must be of times, memory, cold"),
        (["--rounds", "0"], "Invalid value for '--rounds'"),
        (["--budget", "0"], "budget must be greater than 0"),
        (["--json", "x", "--markdown", "x"], "only one of --json and --markdown"),
        (["--json", "."], ". is a folder and not a file"),
        (["--plot", "times.txt"], "must end in .png, .svg, .pdf"),
        (["--picture", "own.png", "--plot", "own.png"], "would overwrite the picture own.png"),
        (["--plot", "a.png", "--json", "./a.png"], "is given twice"),
    ],
)
def test_wrong_usage(
    here: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark("--quick", *options) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(here.iterdir())


@pytest.mark.parametrize("name", ["matplotlib", "psutil"])
def test_without_the_extra(
    here: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "retinaface_fast.cli._benchmark.importlib.util.find_spec",
        lambda asked: None if asked == name else asked,
    )
    assert benchmark("--quick") == 1
    assert f"{name} is needed for" in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").touch()
    assert benchmark(*SMALL, "--json", "file/a.json") == 1
    assert "cannot write file/a.json" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a process there")
def test_an_interrupted_run_writes_what_it_has(here: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "retinaface_fast",
            "benchmark",
            *SMALL,
            "--rounds",
            "10000",
            "--json",
            "a.json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does it, all processes of the run get the signal
    )
    time.sleep(4)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted after" in err
    assert "Traceback" not in err
    assert "INTERRUPTED" in out
    assert json.loads((here / "a.json").read_text())["interrupted"]


def test_the_help_names_every_row() -> None:
    assert ", ".join(ROWS) == ROW_HELP
