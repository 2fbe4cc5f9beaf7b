"""Measuring that is hard to argue with: the same answer first, then one thread, interleaved, medians.

The clock is the CPU time of the thread where the system has a fine one, so that what else the machine does
is not counted; everything that is measured here runs in the calling thread.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Windows counts the CPU time of a thread in steps of 16 ms.
clock = time.perf_counter if platform.system() == "Windows" else time.thread_time
#: A round of one contestant lasts at least this long, so that the clock does not count.
ROUND_SECONDS = 2e-3


#: What libraries of linear algebra read when they are loaded.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def use_one_thread() -> None:
    """One thread for OpenCV and torch: ratios are of work, not of cores. For BLAS, see `ONE_THREAD`."""
    try:
        import cv2
    except ImportError:
        pass
    else:
        cv2.setNumThreads(1)
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    before: Callable[[], object] | None = None,
) -> dict[str, float]:
    """Median seconds of one call of each contestant; all take turns in every round.

    Args:
        contestants: What to call, by name.
        rounds: How many times each has its turn.
        before: Called before every single call and not timed (to evict caches, say); a turn is then one call.
    """
    loops = {}
    for name, call in contestants.items():
        call()
        started = clock()
        call()
        once = clock() - started
        loops[name] = 1 if before else max(1, round(ROUND_SECONDS / max(once, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        names = list(contestants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call = contestants[name]
            if before:
                before()
            started = clock()
            for _ in range(loops[name]):
                call()
            times[name].append((clock() - started) / loops[name])
    return {name: float(np.median(values)) for name, values in times.items()}


def assert_same_faces(found: Any, expected: Any, name: str) -> None:
    """The answer before the time: as many faces, the same order of scores, the same places to 1/100 pixel."""
    assert len(found.scores) == len(expected.scores), (
        f"{name} found {len(found.scores)} faces instead of {len(expected.scores)}"
    )
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, err_msg=name)
    # Scores that tie to the last place may come in another order: rows are matched by place.
    for part in ("boxes", "landmarks"):
        got = np.asarray(getattr(found, part)).reshape(len(found.scores), -1)
        wanted = np.asarray(getattr(expected, part)).reshape(len(found.scores), -1)
        rows, others = (np.lexsort(np.round(array[:, ::-1].T, 1)) for array in (got, wanted))
        if not np.allclose(got, wanted, rtol=1e-5, atol=1e-2):
            np.testing.assert_allclose(got[rows], wanted[others], rtol=1e-5, atol=1e-2, err_msg=name)


def read_bandwidth(megabytes: int = 256, rounds: int = 7) -> float:
    """Bytes per second that one thread reads from memory: the best of four ways that hardly compute."""
    room = np.ones(megabytes * 2**18, dtype=np.float32)
    raw = memoryview(room).cast("B")
    words = room.view(np.uint64)
    text = bytes(raw)
    ways: Sequence[Callable[[], object]] = (
        lambda: np.dot(room, room),
        words.max,
        lambda: np.bitwise_or.reduce(words),
        lambda: text.find(b"\xff"),
    )
    best = 0.0
    for way in ways:
        way()
        for _ in range(rounds):
            started = clock()
            way()
            best = max(best, room.nbytes / (clock() - started))
    return best


class Evict:
    """Reads and writes more than the caches hold."""

    def __init__(self, megabytes: int = 96) -> None:
        self._room: npt.NDArray[np.uint64] = np.zeros(megabytes * 2**17, dtype=np.uint64)

    def __call__(self) -> None:
        self._room += np.uint64(1)
