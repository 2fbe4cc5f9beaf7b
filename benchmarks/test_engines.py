"""The network and the whole call, ours and everyone's; `benchmarks.engines` and
`retinaface-fast benchmark` have the careful tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import jobs, runtimes
from retinaface_fast.latency.answers import assert_same_faces
from retinaface_fast.latency.contestants import make_detector
from retinaface_fast.latency.rows import ROWS
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from benchmarks.graphs import UInt8Array

OURS = [f"{runtimes.OURS}{name}" for name in runtimes.own_engines()]
OPPONENTS = [name for name, version in runtimes.versions().items() if version is not None]
#: Whole detections of everyone else are measured by `retinaface-fast benchmark`.
DETECTORS = [
    name
    for name, row in ROWS.items()
    if row.looks == "once" and row.device == "cpu" and row.missing() is None
]
SIZES = [(480, 640), (1080, 1920)]


def _picture(size_hw: tuple[int, int]) -> UInt8Array:
    pytest.importorskip("onnxruntime", reason="everyone's answer is compared with that of onnxruntime")
    pytest.importorskip("onnx", reason="onnxruntime runs a graph that onnx writes")
    return jobs.picture(size_hw)[0]


def _label(benchmark: Any, who: str, group: str) -> None:
    benchmark.group = group
    benchmark.extra_info["who"] = who.removeprefix(runtimes.OURS)


@pytest.mark.parametrize("size_hw", SIZES, ids="{0[1]}x{0[0]}".format)
@pytest.mark.parametrize("who", [*OURS, *OPPONENTS])
def test_network(benchmark: Any, who: str, size_hw: tuple[int, int]) -> None:
    image = _picture(size_hw)
    runtime = runtimes.make(who, load_weights("mobilenet0.25"), size_hw, threads=1)
    runtime.show(image)
    runtime.prepare()
    for _ in range(2):
        runtime.run()
    error = jobs.error_of(runtime.outputs(), jobs.reference(image))
    assert error <= (jobs.TOLERANCE if who in OURS else jobs.TOLERANCE_OF_OPPONENTS)
    _label(benchmark, who, f"network, {size_hw[1]}x{size_hw[0]}, one thread")
    benchmark(runtime.run)


@pytest.mark.parametrize("size_hw", SIZES, ids="{0[1]}x{0[0]}".format)
@pytest.mark.parametrize("who", DETECTORS)
def test_detect(benchmark: Any, who: str, size_hw: tuple[int, int]) -> None:
    image = _picture(size_hw)
    judge = make_detector(ROWS["onnxruntime"], image, threads=1)
    detector = make_detector(ROWS[who], image, threads=1)
    assert_same_faces(detector.read(detector.call()), judge.read(judge.call()), who)
    _label(benchmark, who, f"detect, {size_hw[1]}x{size_hw[0]}, one thread")
    benchmark(detector.call)
