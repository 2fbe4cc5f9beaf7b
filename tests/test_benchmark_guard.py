"""The guard's arithmetic, on clocks that are made up: what it calls slower, and what it does not."""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING

import pytest
from benchmarks import guard
from benchmarks.operations import Operation

#: Made-up programs are shell scripts.
needs_a_shell = pytest.mark.skipif(sys.platform == "win32", reason="there is no shell")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class Machine:
    """A machine whose clock only moves when something is called, and whose speed changes from turn to turn.

    Attributes:
        now: Seconds.
        calls: Who was called, in order.
    """

    def __init__(self, slowness: Iterator[float] | None = None) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self._slowness = slowness or itertools.repeat(1.0)

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += seconds * next(self._slowness)

        return call


def ratios(costs: Mapping[str, float], slowness: Iterator[float] | None = None) -> dict[str, guard.Ratio]:
    """What the guard measures where operations and a reference of one second cost so many seconds."""
    machine = Machine(slowness)
    operations = [
        Operation(name, "reference", machine.call(name, seconds), lambda: None)
        for name, seconds in costs.items()
    ]
    found = guard.measure_ratios(
        operations,
        {"reference": machine.call("reference", 1.0), "nobody's": machine.call("nobody's", 1.0)},
        rounds=9,
        turn_seconds=0.0,
        clock=machine.clock,
    )
    assert "nobody's" not in machine.calls
    return {each.name: each for each in found}


def stored(costs: Mapping[str, float]) -> dict[str, dict[str, object]]:
    return guard.record_of({}, ratios(costs).values())["ratios"]


def verdicts(now: Mapping[str, guard.Ratio], before: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    return {name: guard.verdict(each, before.get(name))[1] for name, each in now.items()}


def test_a_slowed_operation_is_reported() -> None:
    before = stored({"nms": 0.5, "anchors": 0.25, "decode": 3.0})
    now = ratios({"nms": 0.5, "anchors": 0.3, "decode": 2.0, "new": 1.0})
    assert verdicts(now, before) == {
        "nms": "as before",
        "anchors": "slower",
        "decode": "faster",
        "new": "not stored",
    }
    change, _ = guard.verdict(now["anchors"], before["anchors"])
    assert change == pytest.approx(0.2)
    lines = guard.lines_of(list(now.values()), before)
    (line,) = (line for line in lines if line.startswith("anchors"))
    assert line.split() == [
        "anchors",
        "300,000.0",
        "reference",
        "0.3000",
        "0.2500",
        "+20.0%",
        "0.0%",
        "slower",
    ]


def test_a_slow_machine_is_not_a_slow_operation() -> None:
    before = stored({"nms": 0.5, "anchors": 0.25})
    now = ratios({"nms": 0.5, "anchors": 0.25}, itertools.repeat(2.7))
    assert set(verdicts(now, before).values()) == {"as before"}
    assert now["nms"].seconds == pytest.approx(0.5 * 2.7)
    assert now["nms"].ratio == pytest.approx(0.5)


def test_the_noise_of_the_rounds_hides_small_changes() -> None:
    """The same 20%: seen where the rounds agree, not where they differ by more."""
    before = stored({"nms": 0.5})
    assert verdicts(ratios({"nms": 0.6}), before) == {"nms": "slower"}
    noisy = ratios({"nms": 0.6}, itertools.cycle([1.0, 1.0, 1.0, 1.7, 1.0, 1.4, 1.0]))
    assert noisy["nms"].spread > 0.2
    assert verdicts(noisy, before) == {"nms": "as before"}
    before["nms"]["spread"] = 0.25
    assert verdicts(ratios({"nms": 0.6}), before) == {"nms": "as before"}


@pytest.mark.parametrize(
    ("ratio", "word"),
    [(1.079, "as before"), (1.081, "slower"), (1 / 1.079, "as before"), (1 / 1.081, "faster")],
)
def test_the_least_change(ratio: float, word: str) -> None:
    now = guard.Ratio("nms", "search", ratio, 0.0, 1.0)
    assert guard.verdict(now, {"reference": "search", "ratio": 1.0, "spread": 0.0})[1] == word


def test_another_reference_is_not_compared() -> None:
    now = guard.Ratio("nms", "search", 9.0, 0.0, 1.0)
    entry = {"reference": "multiply", "ratio": 1.0, "spread": 0.0}
    assert guard.verdict(now, entry) == (None, "stored against multiply")


def test_everyone_has_a_turn_in_every_round() -> None:
    machine = Machine()
    costs = {"a": 1.0, "b": 2.0, "c": 4.0}
    calls = {name: machine.call(name, seconds) for name, seconds in costs.items()}
    found = guard.rounds_of(calls, rounds=4, turn_seconds=4.0, clock=machine.clock)
    assert found == {name: [seconds] * 4 for name, seconds in costs.items()}
    # Two calls to find out how many make a turn; then four, two or one, and one before the clock starts.
    turns = {"a": "a" * 5, "b": "b" * 3, "c": "c" * 2}
    rounds = ("abc", "bca", "cab", "abc")
    assert "".join(machine.calls) == "aabbcc" + "".join(turns[name] for order in rounds for name in order)


def test_a_wrong_answer_is_not_timed() -> None:
    def refuse() -> None:
        raise AssertionError("17 boxes instead of 18")

    def fail() -> None:
        raise OSError("no such file")

    def call() -> None:
        raise AssertionError("called without an answer")

    operations = [
        Operation("wrong", "search", call, refuse),
        Operation("right", "search", lambda: None, lambda: None),
        Operation("broken", "search", call, fail),
    ]
    right, wrong = guard.checked(operations)
    assert [each.name for each in right] == ["right"]
    assert wrong == {
        "wrong": "AssertionError: 17 boxes instead of 18",
        "broken": "OSError: no such file",
    }


def test_stored_ratios_are_of_operations_and_references_that_there_are() -> None:
    from benchmarks.operations import REFERENCES

    levels = json.loads(guard.BASELINE.read_text())
    assert set(levels) <= {"scalar", "neon", "avx2", "avx512"}
    names = [set(level["ratios"]) for level in levels.values()]
    assert all(each == names[0] for each in names)
    for level in levels.values():
        assert set(level["machine"]) == {"cpu", "python", "numpy"}
        for entry in level["ratios"].values():
            assert entry["reference"] in REFERENCES
            assert entry["ratio"] > 0
            assert entry["spread"] >= 0


def _the_command(
    monkeypatch: pytest.MonkeyPatch, baseline: Path, check: Callable[[], None], arguments: list[str]
) -> int:
    from benchmarks import operations

    machine = Machine()
    one = Operation("nms", "search", machine.call("nms", 0.5), check)
    monkeypatch.setattr(operations, "core_operations", lambda: [one])
    monkeypatch.setattr(operations, "REFERENCES", {"search": lambda: machine.call("search", 1.0)})
    monkeypatch.setattr(guard, "BASELINE", baseline)
    real = guard.rounds_of
    monkeypatch.setattr(
        guard,
        "rounds_of",
        lambda calls, *, rounds: real(calls, rounds=rounds, turn_seconds=0.0, clock=machine.clock),
    )
    monkeypatch.setattr(guard, "run_apart", guard.run_here)
    return guard.main(["--rounds", "3", *arguments])


def test_update_keeps_the_other_levels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, out = tmp_path / "new" / "ratios.json", tmp_path / "out.json"
    assert _the_command(monkeypatch, baseline, lambda: None, ["--update", "--json", str(out)]) == 0
    (level,) = json.loads(baseline.read_text())
    entry = {"reference": "search", "ratio": 0.5, "spread": 0.0}
    assert json.loads(out.read_text())["ratios"] == {"nms": entry}
    other = {"machine": {"cpu": "another"}, "ratios": {}}
    slow = {"machine": {"cpu": "another"}, "ratios": {"nms": {**entry, "ratio": 0.4}}}
    baseline.write_text(json.dumps({"other": other, level: slow}))
    monkeypatch.undo()
    capsys.readouterr()
    # Slower, and the exit code is 0 all the same.
    assert _the_command(monkeypatch, baseline, lambda: None, ["--update"]) == 0
    printed = capsys.readouterr().out
    assert "+25.0%" in printed
    assert "slower" in printed
    assert "Not like with like: cpu" in printed
    levels = json.loads(baseline.read_text())
    assert levels["other"] == other
    assert levels[level]["ratios"] == {"nms": entry}


def test_nothing_is_stored_where_an_answer_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise AssertionError("other boxes")

    assert _the_command(monkeypatch, tmp_path / "ratios.json", refuse, ["--update"]) == 1
    assert "WRONG nms has no times: AssertionError: other boxes" in capsys.readouterr().out
    assert not (tmp_path / "ratios.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "2"], "--rounds: expected at least 3"), (["--processes", "0"], "--processes: expected")],
)
def test_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        guard.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_processes_are_merged() -> None:
    def run(ratio: float, spread: float, seconds: float) -> list[guard.Ratio]:
        return [guard.Ratio("nms", "search", ratio, spread, seconds)]

    assert guard.merged([run(2.0, 0.1, 5.0), run(2.05, 0.02, 4.0), run(1.95, 0.2, 9.0)]) == [
        guard.Ratio("nms", "search", 2.0, 0.1, 5.0)
    ]
    # Each is sure of itself, and they differ.
    ((_, _, ratio, spread, _),) = guard.merged(
        [run(2.0, 0.01, 1.0), run(3.0, 0.01, 1.0), run(2.5, 0.01, 1.0)]
    )
    assert (ratio, spread) == (2.5, pytest.approx(0.4))


@needs_a_shell
def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guard.sys, "executable", "/bin/false")
    assert guard.main([]) == 1
    assert "Nothing was measured: the process ended with 1" in capsys.readouterr().err


@needs_a_shell
def test_what_a_process_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = guard.Run("avx2", {"cpu": "c"}, [guard.Ratio("nms", "search", 0.5, 0.1, 2.0)], {"vote": "wrong"})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n[ $OMP_NUM_THREADS = 1 ] && echo '{json.dumps(run)}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(guard.sys, "executable", str(program))
    assert guard.run_apart(7) == run
