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

from retinaface_fast._files import write_whole
from retinaface_fast.cli import main
from retinaface_fast.cli.benchmark import ROW_HELP
from retinaface_fast.errors import WeightsError
from retinaface_fast.latency import ROWS, LatencyPlan, Row

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


def test_the_picture_is_not_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.png").write_bytes(b"mine")
    os.link("own.png", "same.png")  # by another name
    for name in ("own.png", "same.png"):
        assert benchmark(*SMALL, "--picture", "own.png", "--plot", name) == 2
        assert f"would overwrite the input {name}" in capsys.readouterr().err
    assert (here / "same.png").read_bytes() == b"mine"


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
    assert benchmark(*SMALL, "--rows", "native,broken", "--quiet") == 1
    assert "error: broken FAILED (120x90, 1 thread): ModuleNotFoundError" in capsys.readouterr().err


def test_what_is_not_installed_is_a_failure_where_it_was_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Row("absent", "absent", "nowhere:nothing", needs=(("no-such",),))
    monkeypatch.setitem(ROWS, "absent", absent)
    assert benchmark(*SMALL, "--rows", "native,absent") == 1
    printed = capsys.readouterr()
    assert "absent (no-such is not installed)" in printed.out
    assert "error: absent was asked for: no-such is not installed" in printed.err
    monkeypatch.setattr(LatencyPlan, "chosen_rows", lambda _: [ROWS["native"], absent])
    assert benchmark(*[part for part in SMALL if part not in ("--rows", "native")]) == 0
    printed = capsys.readouterr()
    assert "absent (no-such is not installed)" in printed.out
    assert "error" not in printed.err


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
        (["--budget", "inf"], "budget must be greater than 0 and finite"),
        (["--json", "x", "--markdown", "x"], "only one of --json and --markdown"),
        (["--json", "."], ". is a folder and not a file"),
        (["--plot", "times.png", "--parts", "cold"], "there are no times to draw"),
        (["--plot", "times.txt"], "must end in .png, .svg, .pdf"),
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
    printed = capsys.readouterr()
    assert "cannot write file/a.json" in printed.err
    assert printed.out == ""  # before anything was measured
    assert [path.name for path in here.iterdir()] == ["file"]


def test_a_target_that_can_be_written_no_more_spoils_no_other(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(target: str, text: str) -> None:
        if target == "a.json":
            raise OSError(28, "No space left on device")
        write_whole(target, text)

    monkeypatch.setattr("retinaface_fast.cli._benchmark.write_whole", broken)
    assert benchmark(*SMALL, "--json", "a.json", "--markdown", "b.md", "--plot", "c.svg") == 1
    printed = capsys.readouterr()
    assert "cannot write a.json: No space left on device" in printed.err
    assert "Detection, array to faces" in printed.out
    assert (here / "b.md").exists()
    assert (here / "c.svg").exists()


def test_an_error_in_a_run_loses_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise WeightsError("the cold start cannot be prepared")

    monkeypatch.setattr("retinaface_fast.latency.benchmark.cold_starts", broken)
    assert benchmark(*SMALL, "--parts", "times,cold", "--json", "a.json") == 1
    printed = capsys.readouterr()
    assert "the cold start cannot be prepared" in printed.err
    assert "Detection, array to faces" in printed.out
    record = json.loads((here / "a.json").read_text())
    assert record["interrupted"]
    assert record["cells"][0]["results"]["native"]["median"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a process there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_writes_what_it_has(here: Path, number: signal.Signals, code: int) -> None:
    temporary = here / "temporary"
    temporary.mkdir()
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
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,  # as a terminal does it, all processes of the run get the signal
    )
    deadline = time.monotonic() + 60
    try:
        # Its job has been started, and with it the run; there is nothing else to be seen from outside.
        while not list(temporary.glob("*/journal")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, err
    assert "interrupted after" in err
    assert "Traceback" not in err
    assert "INTERRUPTED" in out
    assert json.loads((here / "a.json").read_text())["interrupted"]
    assert not list(temporary.iterdir())


def test_the_help_names_every_row() -> None:
    assert ", ".join(ROWS) == ROW_HELP
