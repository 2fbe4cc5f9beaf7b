"""Contestants that misbehave, set up in the processes that measure."""

from __future__ import annotations

import atexit
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.latency.budget import LONG_CALL
from retinaface_fast.latency.contestants import Boxes, Detector, own_engine

if TYPE_CHECKING:
    from collections.abc import Callable


def _like_native(image: Any, threads: int, change: Callable[[Any], Boxes]) -> Detector:
    right = own_engine(image, threads, engine="native", device="cpu")
    return right._replace(read=lambda found: change(right.read(found)))


def right(image: Any, threads: int) -> Detector:
    return _like_native(image, threads, lambda boxes: boxes)


def shifted(image: Any, threads: int) -> Detector:
    """Beside the faces by more than anyone may be, but still on them."""
    return _like_native(image, threads, lambda boxes: Boxes(boxes.boxes + np.float32(3), boxes.scores))


def has_fewer_threads(image: Any, threads: int) -> Detector:
    return right(image, threads)._replace(doubt=lambda: "it takes 1 thread instead of 2")


def blind(image: Any, threads: int) -> Detector:
    return _like_native(image, threads, lambda boxes: Boxes(boxes.boxes[:0], boxes.scores[:0]))


def sees_ghosts(image: Any, threads: int) -> Detector:
    ghost = np.float32([[0, 0, 9, 9]])
    return _like_native(
        image,
        threads,
        lambda boxes: Boxes(np.concatenate([boxes.boxes, ghost]), np.append(boxes.scores, np.float32(0.9))),
    )


def cannot_be_set_up(image: Any, threads: int) -> Detector:
    raise ImportError("no module named so")


def _later(image: Any, threads: int, calls: int, ending: Callable[[], object]) -> Detector:
    """Right for some calls, and then something else."""
    detector = right(image, threads)
    left = [calls]

    def call() -> Any:
        if not left[0]:
            ending()
        left[0] -= 1
        return detector.call()

    return detector._replace(call=call)


def raises_in_a_round(image: Any, threads: int) -> Detector:
    def ending() -> None:
        raise RuntimeError("worn out\nand more")

    return _later(image, threads, 4, ending)


def dies_at_once(image: Any, threads: int) -> Detector:
    return _later(image, threads, 0, os.abort)


def leaves_in_a_round(image: Any, threads: int) -> Detector:
    return _later(image, threads, 3, lambda: os._exit(7))


def dies_at_exit(image: Any, threads: int) -> Detector:
    atexit.register(os._exit, 7)
    return right(image, threads)


def hangs(image: Any, threads: int) -> Detector:
    return _later(image, threads, 1, lambda: time.sleep(600))


def compiles(image: Any, threads: int) -> Detector:
    """Its first call takes longer than any other, and than what counts as long."""
    detector = right(image, threads)
    calls = [0]

    def call() -> Any:
        calls[0] += 1
        if calls[0] == 1:
            time.sleep(LONG_CALL + 0.2)
        return detector.call()

    return detector._replace(call=call)


def greedy(image: Any, threads: int) -> Detector:
    """Its memory grows by more than a kilobyte for each pixel."""
    detector = right(image, threads)
    kept: list[Any] = []

    def call() -> Any:
        if not kept:
            kept.append(np.ones((*image.shape[:2], 256), np.float32) + 1)
        return detector.call()

    return detector._replace(call=call)


def slow(image: Any, threads: int) -> Detector:
    detector = right(image, threads)

    def call() -> Any:
        time.sleep(0.1)
        return detector.call()

    return detector._replace(call=call)
