"""Many threads at once, many calls in a row: nobody sees another's faces, and memory stays where it was."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retinaface_fast import ops
from tests.ops.agreement import P3_P5, assert_same_bits, assert_same_faces
from tests.ops.samples import random_outputs, random_scores, sparse

SIZES_HW = [(1, 1), (31, 33), (64, 64), (97, 130), (160, 120), (240, 320), (333, 217)]


def test_eight_threads_get_what_one_gets(rng: np.random.Generator) -> None:
    work = []
    for size in SIZES_HW:
        for batch, threads, threshold in ((1, 1, 0.02), (3, 1, 0.3), (4, 2, 0.02)):
            raw = random_outputs(rng, size, batch=batch)
            boxes, scores = sparse(rng, 40 * size[0] % 1500), random_scores(rng, 40 * size[0] % 1500)
            work.append((raw, size, threads, threshold, boxes, scores))

    def run(index: int) -> tuple[list[ops.Faces], np.ndarray, np.ndarray]:
        raw, size, threads, threshold, boxes, scores = work[index]
        faces = ops.postprocess(*raw, size, score_threshold=threshold, threads=threads)
        return faces, ops.nms(boxes, scores), ops.generate_anchors(size)

    serial = [run(index) for index in range(len(work))]
    together = threading.Barrier(8)

    def worker(seed: int) -> int:
        order = np.random.default_rng(seed).permutation(np.tile(np.arange(len(work)), 6))
        together.wait()
        for index in order:
            faces, kept, anchors = run(int(index))
            assert_same_faces(faces, serial[index][0])
            assert_same_bits(kept, serial[index][1])
            assert_same_bits(anchors, serial[index][2])
        return len(order)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(worker, range(8))) == 8 * 6 * len(work)


def test_the_gil_is_released(rng: np.random.Generator) -> None:
    # While one thread suppresses half a second's worth of boxes, this one goes on.
    count = 300_000
    boxes, scores = sparse(rng, count), random_scores(rng, count)
    started, finished = threading.Event(), threading.Event()

    def suppress() -> None:
        started.set()
        ops.nms(boxes, scores, iou_threshold=0.9)
        finished.set()

    thread = threading.Thread(target=suppress)
    thread.start()
    started.wait()
    turns = 0
    while not finished.is_set():
        turns += 1
    thread.join()
    # With the GIL held, the loop would get a turn before and after at most: a switch interval of 5 ms is some
    # hundred thousand rounds, the whole call many times that. Two intervals apart is all that is asked.
    assert turns > 1000


def _resident_bytes() -> int:
    psutil = pytest.importorskip("psutil", reason="psutil is needed to read the memory of the process")
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def test_memory_is_flat_over_a_thousand_calls(rng: np.random.Generator) -> None:
    samples = [(random_outputs(rng, size, batch=batch), size) for size in SIZES_HW for batch in (1, 2, 5)]

    def calls(count: int) -> None:
        for index in range(count):
            raw, size = samples[index % len(samples)]
            ops.postprocess(*raw, size, score_threshold=(0.0, 0.02, 0.5)[index % 3], threads=1 + index % 3)

    calls(200)
    before = _resident_bytes()
    calls(1000)
    assert _resident_bytes() - before < 4 * 2**20


def test_memory_of_a_large_call_is_given_back(rng: np.random.Generator) -> None:
    size = (1500, 1500)
    raw = random_outputs(rng, size)
    before = _resident_bytes()
    for _ in range(20):
        # Every anchor a candidate: work space for a hundred thousand of them.
        faces = ops.postprocess(
            *raw, size, score_threshold=0.0, nms_threshold=1.0, top_k=None, keep_top_k=None
        )
    assert len(faces[0].scores) == P3_P5.count(size)
    del faces
    assert _resident_bytes() - before < 24 * 2**20


def test_refused_calls_leak_nothing() -> None:
    arrays = [np.zeros((1, 18, columns), np.float32) for columns in (2, 4, 10)]

    def refuse(count: int) -> None:
        for _ in range(count):
            with pytest.raises(ValueError, match="nms_threshold"):
                ops.postprocess(*arrays, (16, 24), nms_threshold=2.0)
            with pytest.raises(TypeError, match="boxes"):
                ops.nms(np.zeros((1000, 4)), arrays[0][0, :, 0])

    refuse(200)
    before = _resident_bytes()
    refuse(2000)
    assert _resident_bytes() - before < 2 * 2**20
