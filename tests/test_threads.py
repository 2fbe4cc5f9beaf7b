"""One detector, many threads: everybody gets the faces of their own picture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import retinaface_fast
from retinaface_fast import Detections, FaceDetector


@pytest.fixture(scope="module", params=["native", "torch", "onnxruntime"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param != "native":
        pytest.importorskip(request.param)
    return FaceDetector(engine=request.param, score_threshold=0.1)


@pytest.fixture
def pictures(astronaut_bgr: np.ndarray) -> list[np.ndarray]:
    """Pictures of many sizes, most with a face, each in another place."""
    rng = np.random.default_rng(7)
    views = []
    for _ in range(24):
        top, left = rng.integers(0, 60), rng.integers(0, 150)
        height, width = rng.integers(130, 300), rng.integers(130, 280)
        step = int(rng.integers(1, 3))
        views.append(astronaut_bgr[top : top + height : step, left : left + width : step])
    return views


def test_threads_give_what_one_thread_gives(detector: FaceDetector, pictures: list[np.ndarray]) -> None:
    thresholds = [0.1, 0.3, 0.6]
    jobs = [(index, thresholds[index % 3]) for index in range(len(pictures))]
    serial = [detector.detect(pictures[index], score_threshold=threshold) for index, threshold in jobs]
    assert sum(len(result) for result in serial) > 12
    assert len({result.boxes.tobytes() for result in serial if len(result)}) > 8
    barrier = threading.Barrier(8)

    def work(seed: int) -> list[tuple[int, Detections]]:
        order = np.random.default_rng(seed).permutation(len(jobs))
        barrier.wait()
        return [
            (int(number), detector.detect(pictures[jobs[number][0]], score_threshold=jobs[number][1]))
            for number in order
        ]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            for number, result in results:
                assert result == serial[number], jobs[number]


def test_threads_share_the_function_detect(pictures: list[np.ndarray]) -> None:
    serial = [retinaface_fast.detect(picture, score_threshold=0.1) for picture in pictures[:8]]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda p: retinaface_fast.detect(p, score_threshold=0.1), pictures[:8]))
    assert threaded == serial


def test_batches_in_threads(detector: FaceDetector, pictures: list[np.ndarray]) -> None:
    serial = detector.detect_batch(pictures[:6])
    with ThreadPoolExecutor(4) as pool:
        for batch in pool.map(detector.detect_batch, [pictures[:6]] * 4):
            assert batch == serial


FORKED = """
import multiprocessing, sys, threading
import numpy as np
from retinaface_fast import FaceDetector

picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
options = {"threads": 2} if sys.argv[1] == "native" else {}
detector = FaceDetector(engine=sys.argv[1], score_threshold=0.02, **options)
expected = detector.detect(picture)


def from_two_threads(_):
    results = []
    threads = [threading.Thread(target=lambda: results.append(detector.detect(picture))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(results), all(np.allclose(result.boxes, expected.boxes, atol=1e-2) for result in results)


with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(from_two_threads, range(3)) == [(2, True)] * 3
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("engine", ["native", "torch", "onnxruntime"])
def test_a_detector_works_in_forked_children(engine: str) -> None:
    # Threads of its own for the parent: the child must not wait for those, which it does not have.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", FORKED, engine], check=True, timeout=120, env=environment)
