"""Many pictures: one after another, as a batch, and from threads of the caller's; pictures per second."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from benchmarks import runtimes, scenes
from benchmarks.scenes import UInt8Array
from retinaface_fast import Detections, FaceDetector
from retinaface_fast.latency.machine import available_threads

PICTURES = 16
SIZES = {"640x480": [(480, 640)], "mixed sizes": [(480, 640), (360, 480), (720, 1280), (600, 400)]}
THREADS = available_threads()


Call = Callable[[list[UInt8Array]], list[Detections]]


def one_by_one(engine: str) -> tuple[FaceDetector, Call]:
    """All threads on each picture in turn."""
    detector = FaceDetector(engine=engine)
    return detector, lambda pictures: [detector.detect(picture) for picture in pictures]


def batch(engine: str) -> tuple[FaceDetector, Call]:
    detector = FaceDetector(engine=engine)
    return detector, detector.detect_batch


def from_threads(engine: str) -> tuple[FaceDetector, Call]:
    """A thread of the caller's for each processor, on one detector with one thread."""
    detector = FaceDetector(engine=engine, threads=1)
    pool = ThreadPoolExecutor(THREADS)
    return detector, lambda pictures: list(pool.map(detector.detect, pictures))


WAYS = {"detect": one_by_one, "detect_batch": batch, "threads": from_threads}
#: torch counts its threads for the process, so that threads of the caller's are no fair contest.
PAIRS = [
    (engine, way)
    for engine in runtimes.own_engines()
    for way in WAYS
    if not (engine == "torch" and way == "threads")
]


@functools.cache
def _pictures(kind: str) -> list[UInt8Array]:
    sizes = SIZES[kind]
    try:
        return [
            scenes.crowd(sizes[index % len(sizes)], sides=(72, 110, 160), seed=index)
            for index in range(PICTURES)
        ]
    except (scenes.MissingError, ImportError) as error:
        pytest.skip(str(error))


@functools.cache
def _expected(kind: str) -> list[Detections]:
    """Each picture by a call of its own, of the native engine on one thread."""
    detector = FaceDetector(engine="native", threads=1)
    return [detector.detect(picture) for picture in _pictures(kind)]


def _assert_same(found: list[Detections], expected: list[Detections], *, exact: bool) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 0
        for part in ("boxes", "scores", "landmarks"):
            got, wanted = getattr(one, part), getattr(other, part)
            if exact:
                np.testing.assert_array_equal(got, wanted)
            else:
                np.testing.assert_allclose(got, wanted, atol=0.05)


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize(("engine", "way"), PAIRS)
def test_throughput(benchmark: Any, engine: str, way: str, kind: str) -> None:
    pictures = _pictures(kind)
    detector, call = WAYS[way](engine)
    found = call(pictures)
    _assert_same(found, [detector.detect(picture) for picture in pictures], exact=True)
    _assert_same(found, _expected(kind), exact=engine == "native")
    benchmark.group = f"{PICTURES} pictures, {kind}, {THREADS} threads"
    benchmark.extra_info["who"] = f"{engine}, {way}"
    benchmark.pedantic(call, args=(pictures,), rounds=5 if engine == "native" else 2)
    if benchmark.stats is not None:  # --benchmark-disable
        benchmark.extra_info["pictures_per_second"] = PICTURES / benchmark.stats.stats.median
