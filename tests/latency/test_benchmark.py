"""Whole runs on a small picture: what they record, and that nobody breaks them."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast.latency import ROWS, LatencyBenchmark, LatencyPlan, Row, main_tables, report_to_markdown
from retinaface_fast.latency.machine import available_threads
from retinaface_fast.latency.processes import Outcome, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytest.importorskip("matplotlib")
pytest.importorskip("psutil")

SIZE = (90, 120)


def run(rows: Sequence[str | Row], **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "sizes_hw": [SIZE],
        "threads": [1],
        "rounds": 2,
        "turn_seconds": 0.0,
        "parts": ["times"],
        "limit": 60.0,
    }
    return LatencyBenchmark(LatencyPlan(rows=rows, **{**settings, **changes}))()


def only_cell(record: dict[str, Any]) -> dict[str, Any]:
    [cell] = record["cells"]
    return cell["results"]


def assert_numbers(value: Any) -> None:
    """Nothing that JSON lacks."""
    json.dumps(value, allow_nan=False)


def test_everything_of_native() -> None:
    seen = []
    benchmark = LatencyBenchmark(
        LatencyPlan.quick(rows=["native", "native-default"], sizes_hw=[SIZE], cold_runs=1)
    )
    record = benchmark(seen.append)
    assert record is benchmark.record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["schema"] == 1
    assert not record["interrupted"]
    assert record["settings"]["sizes_hw"] == [[90, 120]]
    assert record["settings"]["limit"] == 120
    assert (record["settings"]["score_threshold"], record["settings"]["nms_threshold"]) == (0.5, 0.4)
    assert datetime.fromisoformat(record["date"]).tzinfo is not None
    assert record["rows"]["native"]["ours"]
    assert record["pictures"] == [{"size_hw": [90, 120], "content": "crowd of 1 face", "faces": 1}]
    cell = record["cells"][0]
    assert (cell["size_hw"], cell["threads"]) == ([90, 120], 1)
    native = cell["results"]["native"]
    assert native["faces"] == 1
    assert (native["found"], native["agreement"], native["disputed"]) == (1, None, None)
    assert native["at"] == [0, 1, 2]
    low, high = native["quartiles"]
    assert 0 < native["min"] <= low <= native["median"] <= high
    assert 0 < native["network"]["median"] < native["median"]
    assert native["times_native"] == {"median": 1, "min": 1, "max": 1}
    # It differs for large pictures only.
    assert "600 pixels" in cell["results"]["native-default"]["left_out"]
    memory = record["memory"][0]["results"]["native"]
    assert memory["loaded"] > 10e6
    assert memory["peak"] >= memory["loaded"]
    cold = record["cold"]["results"]
    assert set(cold) == {"native"}
    assert cold["native"]["median"]["total"] >= cold["native"]["median"]["import"] > 0
    assert [state.fraction for state in seen] == sorted(state.fraction for state in seen)
    assert 0 <= seen[0].fraction <= seen[-1].fraction <= 1
    assert any("round 3 of 3" in state.stage for state in seen)


def test_who_uses_one_thread_is_timed_once(fake_row: Callable[..., Row]) -> None:
    if available_threads() < 2:
        pytest.skip("there is one processor only")
    rows = ["native", fake_row("right", one_thread=True)]
    one, two = (cell["results"] for cell in run(rows, threads=[1, 2])["cells"])
    assert one["right"]["median"] > 0
    assert "it uses one thread" in two["right"]["left_out"]
    assert two["native"]["median"] > 0
    [two] = (cell["results"] for cell in run(rows, threads=[2])["cells"])
    assert two["right"]["median"] > 0


def test_for_cold_starts_nothing_is_composed_or_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it is not needed")

    monkeypatch.setattr("retinaface_fast.latency.benchmark.compose", fail)
    monkeypatch.setattr("retinaface_fast.latency.benchmark.run_job", fail)
    record = run(["native"], parts=["cold"], sizes_hw=[(1080, 1920)], cold_runs=1)
    assert record["cold"]["results"]["native"]["runs"] == 1
    assert record["pictures"] == []


def test_rows_of_ours_are_told_from_others() -> None:
    ours = {"native", "native-default", "torch", "torch-cuda", "torch-mps", "onnxruntime", "onnxruntime-cuda"}
    assert {name for name, row in ROWS.items() if row.is_ours} == ours


def test_who_says_that_it_has_other_threads_is_suspicious(fake_row: Callable[..., Row]) -> None:
    results = only_cell(run(["native", fake_row("has_fewer_threads")]))
    assert results["has_fewer_threads"]["suspicion"] == "it takes 1 thread instead of 2"
    assert results["has_fewer_threads"]["median"] > 0


def test_the_second_look_is_timed_where_it_differs() -> None:
    record = run(["native", "native-default"], sizes_hw=[(600, 640), (640, 640)])
    small, large = (cell["results"] for cell in record["cells"])
    assert small["native-default"] == {
        "left_out": "up to 600 pixels on the shorter side it is the same as native"
    }
    assert large["native-default"]["found"] == 1
    assert large["native-default"]["agreement"] is None  # it may find others
    assert len(large["native-default"]["rounds"]) == 2


def test_who_is_wrong_has_no_times(fake_row: Callable[..., Row]) -> None:
    names = ("right", "shifted", "blind", "sees_ghosts")
    results = only_cell(run(["native", *map(fake_row, names)]))
    assert results["right"]["median"] > 0
    assert results["right"]["times_native"]["median"] > 0
    assert results["right"]["agreement"] == 1
    assert "(compared with native)" in results["shifted"]["failed"]
    assert "found 0.0% of the 1 faces" in results["blind"]["failed"]
    assert "1 where there is none" in results["sees_ghosts"]["failed"]
    for name in names[1:]:
        assert "median" not in results[name]


def test_who_raises_dies_or_hangs_does_not_stop_the_others(fake_row: Callable[..., Row]) -> None:
    names = ("cannot_be_set_up", "raises_in_a_round", "dies_at_once", "leaves_in_a_round", "hangs")
    record = run([*map(fake_row, names), "native"], limit=6.0, rounds=3)
    results = only_cell(record)
    assert len(results["native"]["rounds"]) == 3
    assert results["cannot_be_set_up"]["failed"] == "ImportError: no module named so"
    assert results["raises_in_a_round"]["failed"] == "RuntimeError: worn out"
    assert results["leaves_in_a_round"]["failed"] == "its process ended with exit code 7"
    assert results["hangs"]["failed"] == "no answer within 6 s"
    if sys.platform != "win32":
        assert results["dies_at_once"]["failed"] == "its process was ended by SIGABRT"
    assert "dies at once FAILED (120x90, 1 thread)" in report_to_markdown(record)


def test_who_breaks_when_all_is_done_spoils_no_times(fake_row: Callable[..., Row]) -> None:
    record = run(["native", fake_row("dies_at_exit")], parts=["times", "memory"])
    for results in (only_cell(record), record["memory"][0]["results"]):
        assert not any("failed" in result for result in results.values())
    assert len(only_cell(record)["native"]["rounds"]) == 2
    assert record["cells"][0]["ended"] == "its process ended with exit code 7"
    assert "did not end well" in report_to_markdown(record)


def test_when_nobody_knows_who_broke_it_turns_are_kept(
    fake_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: dict[str, Any], *, on_event: Any, **options: Any) -> Any:
        def note(event: dict[str, Any]) -> None:
            if (event["event"], event.get("row")) != ("turn", "right"):
                on_event(event)

        run_job(job, on_event=note, **options)
        return Outcome(failed="its process was ended by SIGSEGV")

    monkeypatch.setattr("retinaface_fast.latency.benchmark.run_job", broken)
    results = only_cell(run(["native", fake_row("right")]))
    assert len(results["native"]["rounds"]) == 2
    assert results["right"] == {"failed": "its process was ended by SIGSEGV"}


def test_a_job_ends_when_nobody_waits_for_it(fake_row: Callable[..., Row], tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", np.zeros((*SIZE, 3), np.uint8))
    job = {
        "job": "memory",
        "row": dataclasses.asdict(fake_row("hangs")),
        "picture": str(tmp_path / "picture.npy"),
        "threads": 1,
        "budget": 60.0,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "journal").touch()
    command = [sys.executable, "-m", "retinaface_fast.latency.jobs"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "job.json"), str(tmp_path / "journal")], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        deadline = time.monotonic() + 60
        while "call 2" not in (tmp_path / "journal").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.stdin.close()  # as the system does it for a process that was killed
        assert process.wait(timeout=30) == 1
    finally:
        process.kill()
        process.wait()


def test_who_breaks_while_its_memory_is_measured_is_not_timed(fake_row: Callable[..., Row]) -> None:
    record = run(["native", fake_row("dies_at_once")], parts=["times", "memory"])
    assert record["memory"][0]["results"]["native"]["growth"] >= 0
    failed = record["memory"][0]["results"]["dies_at_once"]["failed"]
    assert only_cell(record)["dies_at_once"] == {"failed": failed}
    assert only_cell(record)["native"]["median"] > 0


def test_who_is_slow_has_fewer_rounds_and_is_left_out_at_larger_sizes(fake_row: Callable[..., Row]) -> None:
    record = run(["native", fake_row("slow")], sizes_hw=[(180, 240), SIZE], rounds=4, budget=0.3)
    small, large = record["cells"]
    assert small["size_hw"] == list(SIZE)  # smallest first
    assert len(small["results"]["slow"]["rounds"]) == 1
    assert small["results"]["slow"]["at"] == [3]
    assert len(small["results"]["native"]["rounds"]) == 4
    assert "the budget of a cell is 0.3 s" in large["results"]["slow"]["left_out"]
    assert large["results"]["native"]["median"] > 0
    [times, *_] = main_tables(record)
    assert times.rows[1][1].partition(" ")[0].rstrip("?").endswith("*")
    assert times.rows[1][2] == "-"


def test_memory_is_guarded_when_only_times_are_measured(
    fake_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinaface_fast.latency.benchmark.free_memory", lambda: 350_000_000)
    small, large = run(["native", fake_row("greedy")], sizes_hw=[(360, 480), SIZE])["cells"]
    assert small["results"]["greedy"]["median"] > 0
    assert "GB are free" in large["results"]["greedy"]["left_out"]
    assert large["results"]["native"]["median"] > 0


def test_rows_that_share_a_process_share_the_memory(
    fake_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinaface_fast.latency.benchmark.free_memory", lambda: 200_000_000)
    others = [dataclasses.replace(fake_row("right"), name=f"right {number}") for number in range(4)]
    cell = only_cell(run(["native", *others], parts=["times", "memory"]))
    assert cell["native"]["median"] > 0
    assert "of those before it" in cell["right 3"]["left_out"]


def test_a_slow_first_call_says_nothing_of_the_others(fake_row: Callable[..., Row]) -> None:
    record = run(["native", fake_row("compiles")], parts=["times", "memory"], rounds=3, budget=8.0)
    assert record["memory"][0]["results"]["compiles"]["seconds"] < 3
    assert len(only_cell(record)["compiles"]["rounds"]) == 3


def test_who_is_not_installed_is_left_out() -> None:
    row = Row("absent", "absent", "nowhere:nothing", needs=(("no-such-distribution", "nor-this"),))
    record = run([row, "native"])
    assert record["rows"]["absent"]["left_out"] == "no-such-distribution is not installed"
    assert set(only_cell(record)) == {"native"}


def test_a_device_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyBenchmark, "_devices", lambda self: {"torch": ["mps"]})
    monkeypatch.setattr(Row, "missing", lambda self: None)
    benchmark = LatencyBenchmark(LatencyPlan(rows=["torch-cuda", "torch-mps", "onnxruntime-cuda"]))
    benchmark._find_rows()
    reasons = {name: row["left_out"] for name, row in benchmark.record["rows"].items()}
    assert reasons == {
        "torch-cuda": "torch finds no device cuda",
        "torch-mps": None,
        "onnxruntime-cuda": "onnxruntime finds no device cuda",
    }


def test_what_was_measured_before_an_interruption_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = []

    def interrupted(job: dict[str, Any], *, on_event: Any, **options: Any) -> Any:
        def note(event: dict[str, Any]) -> None:
            on_event(event)
            turns.append(event["event"] == "turn")
            if sum(turns) == 3:
                raise KeyboardInterrupt

        return run_job(job, on_event=note, **options)

    monkeypatch.setattr("retinaface_fast.latency.benchmark.run_job", interrupted)
    plan = LatencyPlan(
        rows=["native"], sizes_hw=[SIZE], threads=[1], rounds=50, turn_seconds=0.0, parts=["times"]
    )
    benchmark = LatencyBenchmark(plan)
    with pytest.raises(KeyboardInterrupt):
        benchmark()
    assert benchmark.record["interrupted"]
    assert len(only_cell(benchmark.record)["native"]["rounds"]) == 3
    assert "INTERRUPTED" in report_to_markdown(benchmark.record)
    assert_numbers(benchmark.record)


def test_every_row_that_is_installed_finds_the_faces() -> None:
    names = [
        name
        for name, row in ROWS.items()
        if row.device == "cpu" and row.looks != "twice" and row.missing() is None
    ]
    results = only_cell(run(names, sizes_hw=[(240, 320)], rounds=1))
    assert list(results) == names
    for name, result in results.items():
        assert "failed" not in result, (name, result)
        assert result["faces"] == 1
        assert math.isfinite(result["median"])
        assert ("network" in result) == (name in ("native", "torch", "onnxruntime", "openvino"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ["natve"]}, "rows must be of native"),
        ({"rows": []}, "rows must hold at least one"),
        ({"sizes_hw": [(10, 20)]}, "sizes_hw must have sides from 32 to 16384 pixels, got 20x10"),
        ({"threads": [0]}, "threads must be at least 1"),
        ({"threads": [10**6]}, "threads must be at most"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"parts": ["heat"]}, "parts must be of times, memory, cold, got 'heat'"),
        ({"budget": 0.0}, "budget must be greater than 0"),
        ({"budget": math.nan}, "budget must be greater than 0"),
        ({"limit": -1.0}, "limit must be greater than 0"),
        ({"turn_seconds": -1.0}, "turn_seconds must be at least 0"),
        ({"turn_seconds": math.inf}, "turn_seconds must be at least 0 and finite, got inf"),
        ({"budget": math.inf}, "budget must be greater than 0 and finite"),
        ({"limit": math.inf}, "limit must be greater than 0 and finite"),
    ],
)
def test_plans_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyPlan(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "60"}, "budget must be a number of seconds, got '60'"),
        ({"turn_seconds": None}, "turn_seconds must be a number of seconds, got None"),
        ({"limit": True}, "limit must be a number of seconds, got True"),
        ({"rows": "native"}, "rows must be a sequence of names, got 'native'"),
        ({"parts": "times"}, "parts must be a sequence of names, got 'times'"),
        ({"sizes_hw": [(480.5, 640)]}, "sizes_hw must be"),
    ],
)
def test_plans_of_other_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        LatencyPlan(**changes)


def test_rows_must_be_told_apart(fake_row: Callable[..., Row]) -> None:
    for rows in ([fake_row("right"), fake_row("right")], ["native", fake_row("native")]):
        with pytest.raises(ValueError, match=r"rows must have different names, got '(right|native)'"):
            LatencyPlan(rows=rows)


def test_plan_puts_everything_in_order() -> None:
    plan = LatencyPlan(
        rows=["dlib-hog", "native", "native"], sizes_hw=[(480, 640), (90, 120), (480, 640)], threads=[1, 1]
    )
    assert [row.name for row in plan.chosen_rows()] == ["native", "dlib-hog"]
    assert plan.chosen_sizes() == [(90, 120), (480, 640)]
    assert plan.chosen_threads() == [1]
    assert plan.seconds_of_silence() == 180
