"""What runs in fresh processes: `python -m retinaface_fast.latency.jobs JOB JOURNAL`.

A job is pinned to its processors by the process that starts it, before anything here is imported, so that
every library counts as many processors as it may use threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import turns
from .answers import judge
from .budget import LONG_CALL, rounds_within
from .contestants import Boxes, make_detector
from .memory import peak_of
from .rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinaface_fast._typing import UInt8Array

    from .contestants import Detector

    Emit = Callable[..., None]


def times(
    emit: Emit,
    *,
    rows: list[dict[str, Any]],
    picture: str,
    places: list[list[float]] | None,
    threads: int,
    rounds: int,
    turn_seconds: float,
    budget: float,
) -> None:
    """Times from an array to faces, once everyone's faces have been compared."""
    image = np.load(picture)
    known = None if places is None else np.array(places, np.float32).reshape(-1, 4)
    playing, answers, seconds = {}, {}, {}
    for row in (Row(**keywords) for keywords in rows):
        try:
            detector, answers[row.name], seconds[row.name] = _first_calls(emit, row, image, threads, budget)
        except Exception as error:  # whatever it is, the others shall have their turns
            emit("failed", row=row.name, why=turns.said(error))
            continue
        playing[row.name] = row, detector
        faces, doubt = len(answers[row.name].scores), detector.doubt()
        emit("answered", row=row.name, seconds=seconds[row.name], faces=faces, doubt=doubt)
    verdicts, wrong = judge([row for row, _ in playing.values()], answers, known)
    for name, why in wrong.items():
        emit("failed", row=name, why=why)
    contestants = {
        name: turns.Contestant(
            playing[name][1].call,
            rounds=rounds_within(budget, seconds[name], rounds=rounds, turn_seconds=turn_seconds),
            warm_up=seconds[name] < LONG_CALL,
            part=playing[name][1].network,
        )
        for name in verdicts
    }
    for name, verdict in verdicts.items():
        emit("right", row=name, rounds=contestants[name].rounds, **dataclasses.asdict(verdict))

    def watch(name: str, number: int, told: turns.Turn | str | None) -> None:
        if told is None:
            emit("step", row=name, doing=f"round {number + 1} of {rounds}")
        elif isinstance(told, str):
            emit("failed", row=name, why=told)
        else:
            emit("turn", row=name, turn=dataclasses.asdict(told))

    if contestants:
        turns.take_turns(contestants, rounds=rounds, turn_seconds=turn_seconds, watch=watch)
    emit("done")


def memory(emit: Emit, *, row: dict[str, Any], picture: str, threads: int, budget: float) -> None:
    """Peak memory of the process over its loaded state, and what a call takes."""
    contestant = Row(**row)
    image = np.load(picture)
    emit("step", row=contestant.name, doing="set up")
    detector = make_detector(contestant, image, threads)
    _limit(threads)
    seconds = 0.0

    def calls() -> None:
        nonlocal seconds
        for number in range(3):
            emit("step", row=contestant.name, doing=f"call {number + 1}")
            started = time.perf_counter()
            detector.call()
            seconds = time.perf_counter() - started
            # The first one may have compiled, or loaded a GPU's libraries: it alone says nothing.
            if seconds >= (LONG_CALL if number else budget):
                break

    found = peak_of(calls)
    emit("done", **found, seconds=seconds)


def devices(emit: Emit) -> None:
    """Which devices beside the CPU the engines can use."""
    found: dict[str, list[str]] = {"torch": [], "onnxruntime": []}
    try:
        import torch
    except Exception:  # it may be broken in many ways, and is then not used
        pass
    else:
        found["torch"] += ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    try:
        import onnxruntime
    except Exception:
        pass
    else:
        found["onnxruntime"] += ["cuda"] * ("CUDAExecutionProvider" in onnxruntime.get_available_providers())
    emit("done", devices=found)


def _first_calls(
    emit: Emit, row: Row, image: UInt8Array, threads: int, budget: float
) -> tuple[Detector, Boxes, float]:
    """Set up and call: the detector, what it finds, and how long a call takes."""
    emit("step", row=row.name, doing="set up")
    detector = make_detector(row, image, threads)
    _limit(threads)
    seconds = 0.0
    for number in ("first", "second"):
        emit("step", row=row.name, doing=f"{number} call")
        started = time.perf_counter()
        result = detector.call()
        seconds = time.perf_counter() - started
        if seconds >= budget:  # the first one may have compiled; if only that was slow, the second one tells
            break
    # A copy: what a call returns may be overwritten by the next one.
    found = Boxes(*(np.array(array, np.float32) for array in detector.read(result)))
    return detector, found, seconds


def _limit(threads: int) -> None:
    """Tell OpenCV, which counts its threads for the whole process, where someone has loaded it."""
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(threads)


def _end_with_parent() -> None:
    """Leave when the process that has started this one is gone, however that came about."""
    # The system closes its end of the pipe. `sys.stdin` would be locked when the interpreter ends.
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


JOBS: dict[str, Callable[..., None]] = {"times": times, "memory": memory, "devices": devices}


def main(question: str, journal: str) -> None:
    """Do a job."""
    # Ctrl-C is for the process that has started this one, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(question).read_text(encoding="utf-8"))
    with Path(journal).open("a", encoding="utf-8") as lines:

        def emit(event: str, **values: Any) -> None:
            lines.write(json.dumps({"event": event, **values}) + "\n")
            lines.flush()

        JOBS[job.pop("job")](emit, **job)


if __name__ == "__main__":
    main(*sys.argv[1:])
