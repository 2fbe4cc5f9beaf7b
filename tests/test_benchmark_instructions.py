"""Counting instructions: what is read, compared and refused, with programs that are made up."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks import instructions, programs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the made-up programs are shell scripts")

SETTING = {"compiler": "GNU 12.2.0", "flags": "-O3", "valgrind": "3.19.0"}
HASH = "00000000000000ab"


def count(instructions_: int, *, name: str = "nms", level: str = "avx2", items: int = 100) -> Any:
    return instructions.Count(name, level, items, "boxes", instructions_)


def stored(*counts: Any, setting: dict[str, str] = SETTING) -> dict[str, Any]:
    return json.loads(json.dumps(instructions.record_of(setting, counts)))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_changes_are_shares_of_what_is_stored() -> None:
    before = stored(count(1000), count(3000, level="scalar"), count(500, name="vote", items=7))
    assert instructions.change(count(1030), before) == pytest.approx(0.03)
    assert instructions.change(count(3000, level="scalar"), before) == 0
    assert instructions.change(count(450, name="vote", items=7), before) == pytest.approx(-0.1)
    assert instructions.change(count(500, name="vote", items=8), before) == "stored for 7 boxes"
    assert instructions.change(count(1), None) == "not stored"
    assert instructions.change(count(1, level="neon"), before) == "not stored"
    assert instructions.change(count(1, name="new"), before) == "not stored"


def test_only_large_changes_are_named() -> None:
    before = stored(count(1000), count(1000, name="small"), count(1000, name="fewer"))
    now = [count(1021), count(1019, name="small"), count(900, name="fewer")]
    lines = instructions.lines_of(now, before)
    assert lines[1].split() == ["nms", "avx2", "1,021", "10.21", "boxes", "+2.10%"]
    assert lines[4:] == [
        "nms, avx2: 2.1% more instructions than stored",
        "fewer, avx2: 10.0% fewer instructions than stored",
    ]
    assert instructions.lines_of([count(1000)], before)[1].split()[-1] == "none"


def test_another_compiler_is_said() -> None:
    before = stored(setting=SETTING)
    assert instructions.differences(SETTING, before) == []
    assert instructions.differences({**SETTING, "compiler": "Clang 19.1.0"}, before) == [
        "compiler 'Clang 19.1.0' instead of 'GNU 12.2.0'"
    ]
    assert instructions.differences(SETTING, None) == []


def test_the_line_of_the_program() -> None:
    answer = instructions.parsed(f"avx2 100 boxes {HASH}\n")
    assert answer == ("avx2", 100, "boxes", HASH)
    for line in ("", "avx2 boxes", f"avx2 -1 boxes {HASH}", f"avx2 100 boxes {HASH} more"):
        with pytest.raises(instructions.CountError, match="got"):
            instructions.parsed(line)


def test_what_callgrind_has_collected() -> None:
    assert instructions.collected("events: Ir\n\nsummary: 41\nfn=(1)\ntotals: 42\n") == 42
    for report in ("", "totals: 0\n"):
        with pytest.raises(instructions.CountError, match="measured_operation"):
            instructions.collected(report)


def test_a_wrong_answer_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "counted"
    valgrind = script(tmp_path / "valgrind", f"touch {marker}")
    monkeypatch.setenv("PATH", f"{valgrind.parent}:/usr/bin:/bin")
    wrong = script(tmp_path / "program", "echo 'failed: kept == plain_nms' >&2; exit 1")
    with pytest.raises(instructions.WrongAnswerError, match=r"nms, avx2: failed: kept == plain_nms"):
        instructions.count(wrong, "nms", "avx2")
    assert not marker.exists()


FAKE_VALGRIND = """
for argument; do case $argument in --callgrind-out-file=*) echo 'totals: 42' > ${argument#*=};; esac; done
while [ "${1#-}" != "$1" ]; do shift; done
"$@"
"""


def test_the_answer_under_callgrind_is_the_checked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valgrind = script(tmp_path / "valgrind", FAKE_VALGRIND)
    monkeypatch.setenv("PATH", f"{valgrind.parent}:/usr/bin:/bin")
    right = script(tmp_path / "right", f"echo $RETINAFACE_FAST_SIMD 100 boxes {HASH}")
    assert instructions.count(right, "nms", "avx2") == count(42)
    other = script(
        tmp_path / "other", f"[ $1 = check ] && hash={HASH} || hash={HASH[::-1]}; echo avx2 100 boxes $hash"
    )
    with pytest.raises(instructions.WrongAnswerError, match="under callgrind"):
        instructions.count(other, "nms", "avx2")


def test_another_level_is_refused(tmp_path: Path) -> None:
    program = script(tmp_path / "program", f"echo scalar 100 boxes {HASH}")
    with pytest.raises(instructions.CountError, match="scalar instead of avx2"):
        instructions.answer_of(program, "check", "nms", "avx2")
    failing = script(tmp_path / "failing", "echo 'no such level' >&2; exit 2")
    with pytest.raises(instructions.CountError, match="exit code 2: no such level"):
        instructions.answer_of(failing, "check", "nms", "avx2")


def test_without_valgrind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    assert instructions.main([]) == 1
    printed = capsys.readouterr()
    assert "apt-get install valgrind" in printed.err
    assert not printed.out


def test_update_is_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        instructions.main(["--update", "-k", "nms"])
    assert stop.value.code == 2
    assert "leave out -k" in capsys.readouterr().err


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With valgrind made up, against stored counts of another compiler: reported, and no failure."""
    script(tmp_path / "valgrind", f"[ $1 = --version ] && echo valgrind-3.99 && exit\n{FAKE_VALGRIND}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = script(
        tmp_path / "program",
        "case $1 in list) echo nms;; build) printf 'GNU 12.2.0\\n-O3\\n';; "
        f"*) echo $RETINAFACE_FAST_SIMD 100 boxes {HASH};; esac",
    )
    baseline = tmp_path / "baselines" / "instructions.json"
    baseline.parent.mkdir()
    baseline.write_text(
        json.dumps(stored(count(40, level="scalar"), setting={**SETTING, "compiler": "Clang 19.1.0"}))
    )
    monkeypatch.setattr(instructions, "BASELINE", baseline)
    monkeypatch.setattr(instructions, "available_levels", lambda *, emulated: ["scalar"])
    monkeypatch.setattr(programs, "build", lambda name: program)
    assert instructions.main(["--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "Not like with like: compiler 'GNU 12.2.0' instead of 'Clang 19.1.0'" in printed
    assert "nms, scalar: 5.0% more instructions than stored" in printed
    assert json.loads(baseline.read_text())["setting"]["compiler"] == "Clang 19.1.0"
    assert instructions.main(["--update"]) == 0
    assert json.loads(baseline.read_text()) == json.loads((tmp_path / "out.json").read_text())


def test_stored_counts() -> None:
    record = json.loads(instructions.BASELINE.read_text())
    assert set(record["setting"]) == {"compiler", "flags", "processor", "libc", "valgrind"}
    assert "network 640x480" in record["operations"]
    for entry in record["operations"].values():
        assert entry["items"] > 0
        assert all(number > 0 for number in entry["instructions"].values())
        assert not instructions.NOT_EMULATED & set(entry["instructions"])


def test_levels_that_valgrind_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from retinaface_fast import ops

    monkeypatch.setattr(ops, "simd_levels", lambda: ("scalar", "avx2", "avx512"))
    assert instructions.available_levels(emulated=True) == ["scalar", "avx2"]
    assert instructions.available_levels(emulated=False) == ["scalar", "avx2", "avx512"]
