"""The benchmark of a CUDA device as a command: what it refuses, Ctrl-C, and its report without a device."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")

from benchmarks import by_torchvision, cuda, cuda_options, cuda_report, cuda_ways

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def parts_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were started; none really is."""
    started: list[str] = []

    def start(part: str, _arguments: list[str]) -> dict[str, Any]:
        started.append(part)
        return {"missing": "only tried"}

    monkeypatch.setattr(cuda, "in_own_process", start)
    return started


def devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


@pytest.mark.parametrize("device", ["gpu", "cuda:2", "cuda:-1", "cuda:", "cuda:01", "cpu:0", "CPU", ""])
def test_a_device_that_torch_does_not_see_is_refused(
    device: str,
    tmp_path: Path,
    parts_run: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    devices(monkeypatch, 2)
    assert cuda.main(["--device", device, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err == f"device: expected cpu or cuda:N that torch sees, got {device!r}\n"
    assert said.out == ""
    assert parts_run == []
    assert not (tmp_path / "out").exists()


def test_without_cuda_no_number_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch, 0)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(cuda_options.RefusedError, match=f"got '{device}'$"):
            cuda_options.check_device(device)
    assert cuda_options.check_device("cpu") == "cpu"
    devices(monkeypatch, 11)
    for device, number in (("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:10", "cuda:10")):
        assert cuda_options.check_device(device) == number


def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, parts_run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for out in (file, file / "below"):
        assert cuda.main(["--device", "cpu", "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"--out: expected a folder that can be made and written, got {str(out)!r}: ")
        assert said.count("\n") == 1
    assert file.read_text(encoding="utf-8") == "mine"
    assert parts_run == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(cuda_options.RefusedError, match=r"No space left on device$"):
        cuda_options.check_out(tmp_path)


@pytest.mark.parametrize("finished", [0, 1])
def test_after_ctrl_c_it_is_said_what_is_done(
    finished: int,
    tmp_path: Path,
    parts_run: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = cuda.in_own_process

    def interrupted(part: str, arguments: list[str]) -> dict[str, Any]:
        if len(parts_run) == finished:
            raise KeyboardInterrupt
        return start(part, arguments)

    monkeypatch.setattr(cuda, "in_own_process", interrupted)
    report = tmp_path / "results.md"
    arguments = ["--device", "cpu", "--out", str(tmp_path), "--parts", "sanitizer", "times", "rates"]
    assert cuda.main(arguments) == 130
    so_far = f"what is done so far: {report}" if finished else "nothing is done so far"
    assert capsys.readouterr().err == f"interrupted; {so_far}\n"
    assert report.exists() == bool(finished)
    assert parts_run == ["sanitizer"][:finished]


def test_every_option_has_a_help_text() -> None:
    text = cuda_options.parser("", cuda.PARTS).format_help()
    for action in cuda_options.parser("", cuda.PARTS)._actions:
        assert action.help, action.option_strings
    assert "(default: cuda:0)" in text
    assert "--answer" not in text


# --- the report of a machine without a device


def test_who_is_not_there_has_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_torchvision, "is_here", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert cuda_ways.not_run("") == {"torchvision": "not installed"}
    spread = {"median": 0.002, "low": 0.001, "high": 0.003}
    row = {
        "case": "1 VGA image",
        "batch": 1,
        "options": {"score_threshold": 0.5, "top_k": 5000},
        "candidates": 1,
        "faces": 1,
        "partners": {},
        "failed": {},
        "seconds": {"torch path": {"wall": spread, "in_a_row": None}},
    }
    found = {"rows": [row], "not_run": cuda_ways.not_run(cuda.NEEDS_DEVICE)}
    report = cuda_report.markdown({"quick": True, "times": found})
    assert "1 candidate, at most 5,000 of each image, 1 face." in report
    assert report.split("quartiles).\n\n")[1].splitlines() == [
        "| who | alone, by the wall |  |",
        "| --- | --- | --- |",
        "| torch path | 2.000 (1.000 to 3.000) |  |",
        "| kernels |  | not run: needs a CUDA device |",
        "| torchvision |  | not run: not installed |",
        "",
    ]


def test_a_column_is_left_out_where_it_is_empty_in_every_row() -> None:
    assert cuda_report.table(["a", "b", "c"], [[0, "", ""], ["", "", 1]]).splitlines() == [
        "| a | c |",
        "| --- | --- |",
        "| 0 |  |",
        "|  | 1 |",
    ]
    assert cuda_report.table(["a", "b"], []) == "| a | b |\n| --- | --- |"


def test_the_machine_without_a_device_is_described_in_words() -> None:
    facts = cuda.machine(cuda_options.parser("", cuda.PARTS).parse_args(["--device", "cpu"]))
    facts |= {"torchvision": None, "architectures": []}
    report = cuda_report.markdown({"quick": False, "machine": facts})
    assert "| kernels | not in use: needs a CUDA device; this build has none |" in report
    assert "| torchvision | not installed |" in report
    facts |= {"kernels": "usable", "architectures": ["75", "90"], "device": "cuda:0"}
    assert "| kernels | usable; built for 75, 90 |" in cuda_report.markdown(
        {"quick": False, "machine": facts}
    )
