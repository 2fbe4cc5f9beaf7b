"""The network and the whole call, ours and everyone's; `benchmarks.engines` and
`retinaface-fast benchmark` have the careful tables."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import jobs, runtimes
from retinaface_fast.latency.answers import assert_same_faces
from retinaface_fast.latency.contestants import make_detector
from retinaface_fast.latency.rows import ROWS
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from benchmarks.graphs import FloatArray, UInt8Array
    from retinaface_fast.latency.contestants import Boxes

OURS = [f"{runtimes.OURS}{name}" for name in runtimes.own_engines()]
OPPONENTS = [name for name, version in runtimes.versions().items() if version is not None]
#: Whole detections of everyone else are measured by `retinaface-fast benchmark`.
DETECTORS = [
    name
    for name, row in ROWS.items()
    if row.looks == "once" and row.device == "cpu" and row.missing() is None
]
#: VGA, HD and 4K of the paper's table 5, and how often each is timed: all of them within minutes.
ROUNDS = {(480, 640): 20, (1080, 1920): 5, (2160, 4096): 2}
sizes = pytest.mark.parametrize("size_hw", ROUNDS, ids="{0[1]}x{0[0]}".format)


@functools.cache
def _picture(size_hw: tuple[int, int]) -> UInt8Array:
    pytest.importorskip("onnxruntime", reason="everyone's answer is compared with that of onnxruntime")
    pytest.importorskip("onnx", reason="onnxruntime runs a graph that onnx writes")
    return jobs.picture(size_hw)[0]


@functools.cache
def _outputs(size_hw: tuple[int, int]) -> list[FloatArray]:
    return jobs.reference(_picture(size_hw))


@functools.cache
def _faces(size_hw: tuple[int, int]) -> Boxes:
    judge = make_detector(ROWS["onnxruntime"], _picture(size_hw), threads=1)
    return judge.read(judge.call())


def _label(benchmark: Any, who: str, what: str, size_hw: tuple[int, int]) -> None:
    benchmark.group = f"{what}, {size_hw[1]}x{size_hw[0]}, one thread"
    benchmark.extra_info["who"] = who.removeprefix(runtimes.OURS)


@sizes
@pytest.mark.parametrize("who", [*OURS, *OPPONENTS])
def test_network(benchmark: Any, who: str, size_hw: tuple[int, int]) -> None:
    runtime = runtimes.make(who, load_weights("mobilenet0.25"), size_hw, threads=1)
    runtime.show(_picture(size_hw))
    runtime.prepare()
    for _ in range(2):
        runtime.run()
    error = jobs.error_of(runtime.outputs(), _outputs(size_hw))
    assert error <= (jobs.TOLERANCE if who in OURS else jobs.TOLERANCE_OF_OPPONENTS)
    _label(benchmark, who, "network", size_hw)
    benchmark.pedantic(runtime.run, rounds=ROUNDS[size_hw])


@sizes
@pytest.mark.parametrize("who", DETECTORS)
def test_detect(benchmark: Any, who: str, size_hw: tuple[int, int]) -> None:
    detector = make_detector(ROWS[who], _picture(size_hw), threads=1)
    assert_same_faces(detector.read(detector.call()), _faces(size_hw), who)
    _label(benchmark, who, "detect", size_hw)
    benchmark.pedantic(detector.call, rounds=ROUNDS[size_hw])
