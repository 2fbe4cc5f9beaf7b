"""The comparison of the engines: what it tells apart, and that it runs at all, on a picture small enough."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks import detectors, engines, graphs, jobs, peak, runtimes, turns
from benchmarks.report import Report

from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = (45, 70)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "CACHE", tmp_path)


def test_multiplications_of_the_known_size() -> None:
    assert graphs.multiplications((480, 640)) == 735_859_200


def test_multiplications_agree_with_the_graph() -> None:
    """Counted from the shapes that ONNX infers, at a size that no stride divides."""
    onnx = pytest.importorskip("onnx")
    model = graphs.float_graph(load_weights("mobilenet0.25"), SIZE)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    weights = {constant.name: list(constant.dims) for constant in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 56
    assert graphs.multiplications(SIZE) == sum(
        math.prod(shapes[node.output[0]]) * math.prod(weights[node.input[1]][1:]) for node in convolutions
    )
    assert onnx.checker.check_model(model) is None


@pytest.mark.parametrize("name", [f"{runtimes.OURS}onnxruntime", "ONNX Runtime"])
def test_contestants_give_the_reference(name: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    found = jobs.network([name], SIZE, threads=1, rounds=2, turn_seconds=0.0)["results"][name]
    assert found["error"] < 1e-5
    assert len(found["rounds"]) == 2
    assert 0 < found["min"] <= found["median"]


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    class Wrong(runtimes.OnnxRuntime):
        def outputs(self) -> list[np.ndarray]:
            first, *others = super().outputs()
            first[0, -1, 0] += 0.01 * np.ptp(first)
            return [first, *others]

    monkeypatch.setitem(runtimes.OPPONENTS, "wrong", (Wrong, ("onnxruntime",), "onnxruntime"))
    found = jobs.network(["wrong"], SIZE, threads=1, rounds=1, turn_seconds=0.0)["results"]["wrong"]
    assert "off by" in found["failed"]
    assert "median" not in found


def test_error_is_of_the_range_of_a_head() -> None:
    rng = np.random.default_rng(3)
    outputs = [rng.uniform(-1, 1, (1, 50, n)).astype(np.float32) for n in (2, 2, 2, 4, 4, 4, 10, 10, 10)]
    changed = [array.copy() for array in outputs]
    changed[4][0, 7, 2] += 0.5
    boxes = np.concatenate([array.ravel() for array in outputs[3:6]])
    assert jobs.error_of(changed, outputs) == pytest.approx(0.5 / np.ptp(boxes), rel=1e-5)
    assert jobs.error_of(outputs, outputs) == 0
    changed[4][0, 7, 2] = np.nan
    assert jobs.error_of(changed, outputs) == math.inf


def test_same_faces_in_another_order_and_not_others() -> None:
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 500, (40, 2)).astype(np.float32)
    expected = detectors.Boxes(
        np.concatenate([corners, corners + 50], axis=1), rng.uniform(0.6, 1, 40).astype(np.float32)
    )
    order = rng.permutation(40)
    near = detectors.Boxes(expected.boxes[order] + np.float32(0.7), expected.scores[order])
    assert detectors.assert_same_faces(near, expected, "someone") == 1
    # One that is hardly above the threshold may be missing, three others may not.
    expected.scores[5] = detectors.SCORE_THRESHOLD + detectors.UNDECIDED / 2
    without = np.delete(np.arange(40), 5)
    fewer = detectors.Boxes(expected.boxes[without], expected.scores[without])
    assert detectors.assert_same_faces(fewer, expected, "someone") == 1
    with pytest.raises(AssertionError, match="37 faces, expected 40"):
        detectors.assert_same_faces(
            detectors.Boxes(expected.boxes[3:], expected.scores[3:]), expected, "someone"
        )
    with pytest.raises(AssertionError, match="someone"):
        detectors.assert_same_faces(
            detectors.Boxes(expected.boxes + np.float32(1.5), expected.scores), expected, "someone"
        )


def test_everyone_has_a_turn_in_every_round_and_another_begins() -> None:
    order: list[str] = []
    contestants = {name: (lambda name=name: order.append(name)) for name in "abc"}
    found = turns.take_turns(contestants, rounds=4, turn_seconds=0.0)
    assert [name for name, _ in itertools.groupby(order)][::3] == ["a", "b", "c", "a"]
    assert order == list("aabbccbbccaaccaabbaabbcc")  # the first of each pair is not timed
    assert [len(times.rounds) for times in found.values()] == [4, 4, 4]


def test_more_threads_than_agreed_are_noticed() -> None:
    hashed = bytes(2_000_000)

    def work() -> None:
        import hashlib  # releases the GIL

        for _ in range(8):
            hashlib.sha256(hashed).digest()

    alone, both = turns.Turns(), turns.Turns()
    turns._turn(work, alone, 0.0)
    if not alone.workers:
        pytest.skip("this system does not tell what threads do")
    assert alone.workers == 1
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [work() for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        turns._turn(work, both, 0.2)
    finally:
        stop.set()
        busy.join()
    assert both.workers == 2
    assert "2 threads were at work instead of 1" in str(turns.suspicion(both.summary(), 1))
    idle = turns.Turns()
    turns._turn(lambda: time.sleep(0.02), idle, 0.0)
    assert "of 1 were busy" in str(turns.suspicion(idle.summary(), 1))


def test_a_thread_that_ends_while_threads_are_listed_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = turns._cpu_of_threads()
    if not before:
        pytest.skip("this system does not tell what threads do")
    listed = Path.iterdir

    def with_one_that_has_ended(directory: Path) -> Iterator[Path]:
        yield directory / "0"
        yield from listed(directory)

    monkeypatch.setattr(Path, "iterdir", with_one_that_has_ended)
    assert set(before) <= set(turns._cpu_of_threads())


def test_ratios_are_taken_round_by_round() -> None:
    ratio = turns.ratio({"rounds": [2.0, 9.0, 3.0]}, {"rounds": [1.0, 3.0, 2.0]})
    assert ratio == {"median": 2.0, "min": 1.5, "max": 3.0}


def test_a_pinned_process_sees_its_processors() -> None:
    allowed = turns.processors()
    if not allowed:
        pytest.skip("this system cannot pin processes")
    with turns.pinned(1):
        assert turns.processors() == allowed[:1]
    assert turns.processors() == allowed


def test_report_tells_met_from_missed(capsys: pytest.CaptureFixture[str]) -> None:
    def row(seconds: float) -> dict[str, object]:
        times = turns.Turns([seconds] * 3, [seconds] * 3, seconds, 3 * seconds, 3 * seconds, 1)
        return {"error": 1e-6, **times.summary()}

    report = Report(f"{runtimes.OURS}native")
    report.record["peak"] = {"simd": "avx2", "macs_per_second": 1e9}
    for slower in (2.5, 1.5):
        results = {
            report.ours: row(0.5),
            "quick": row(0.5 * slower),
            "lame": row(5.0),
            "broken": {"failed": "why"},
        }
        report.times("network", (480, 640), 1, {"results": results, "multiplications": 10**9})
    report.promises()
    met = [
        (promise["met"], promise["what"].rpartition("thread: ")[2]) for promise in report.record["promises"]
    ]
    assert met == [
        (True, "2.50 times quick, promised 1.9"),
        (True, "0.50 of the floor, promised less than 1"),
        (False, "1.50 times quick, promised 1.9"),
        (True, "0.50 of the floor, promised less than 1"),
    ]
    printed = capsys.readouterr().out
    assert "broken has no times: why" in printed
    assert "MISSED Network, 640x480, 1 thread: 1.50 times quick" in printed
    assert "suspicious" not in printed
    assert "| quick " in report.markdown()
    json.dumps(report.record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "640"], "sizes like 640x480"),
        (["--sizes", "0x480"], "sizes like 640x480"),
        (["--threads", "none"], "numbers from 1, or all"),
        (["--threads", "100000"], "may use"),
        (["--rounds", "-1"], "at least 1"),
    ],
)
def test_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        engines.arguments_of(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_peak_is_unknown_without_cmake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "program", lambda name: None)
    assert engines.peak_rate(0.1) == {"failed": "CMake is not installed"}
    monkeypatch.setattr(peak, "build", lambda: "/bin/false")
    with pytest.raises(peak.UnknownPeakError):
        peak.measure(peak.build())  # type: ignore[arg-type]
