"""Timing of what may use several threads: by the wall, in turns, with a look at which threads really worked.

`measure.interleaved` counts the CPU time of the calling thread, which says nothing about a pool of threads.
Here everyone has a turn in every round; before a turn the process must have come to rest, because the pools
of some run times spin for a while after their last call and would be timed as part of the next contestant.
"""

from __future__ import annotations

import gc
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The process has come to rest when it uses less than this share of a processor.
REST = 0.2
#: Nobody is waited for longer than this.
REST_SECONDS = 1.0
#: A thread was at work if it had this share of the time of the calls.
AT_WORK = 0.1
#: Processors busy, as a share of the number of threads, below and above which a turn is suspicious.
SUSPICIOUS = (0.75, 1.05)


@dataclass
class Turns:
    """What one contestant needed.

    Attributes:
        rounds: Median seconds of a call, of each round.
        cpu_rounds: CPU seconds of the process for a call, on average, of each round.
        least: Seconds of the fastest call of all.
        wall: Seconds of all timed calls together.
        cpu: CPU seconds of the process during them.
        workers: The most threads that were at work in a turn; 0 where the system does not tell.
    """

    rounds: list[float] = field(default_factory=list)
    cpu_rounds: list[float] = field(default_factory=list)
    least: float = float("inf")
    wall: float = 0.0
    cpu: float = 0.0
    workers: int = 0

    def summary(self) -> dict[str, Any]:
        """Everything as plain numbers, in seconds; the spread is between the quartiles, over the median."""
        middle = median(self.rounds)
        low, _, high = quantiles(self.rounds, n=4) if len(self.rounds) > 1 else (middle,) * 3
        return {
            "median": middle,
            "min": self.least,
            "spread": (high - low) / middle,
            "cpu": median(self.cpu_rounds),
            "processors": self.cpu / self.wall,
            "workers": self.workers,
            "rounds": self.rounds,
        }


def rest() -> None:
    """Wait until no thread of this process is busy."""
    deadline = time.monotonic() + REST_SECONDS
    while time.monotonic() < deadline:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(0.003)
        if time.process_time() - cpu < REST * (time.perf_counter() - wall):
            return


def _cpu_of_threads() -> dict[str, int]:
    """Nanoseconds on a processor of every thread of the process; empty where the system does not tell."""
    found = {}
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:
        return {}
    for task in tasks:
        # A joined thread may be listed for a moment and be gone when its file is opened: the others count.
        with suppress(OSError, ValueError, IndexError):
            found[task.name] = int((task / "schedstat").read_text().split()[0])
    return found


def take_turns(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, turn_seconds: float
) -> dict[str, Turns]:
    """Time everyone in every round, each round beginning with another one.

    Args:
        contestants: What to call, by name.
        rounds: How many times each has its turn, >= 1.
        turn_seconds: A turn makes calls until they have taken this long together; at least one.

    Returns:
        Times by name. Each turn begins with a call that is not timed and wakes the threads.
    """
    found = {name: Turns() for name in contestants}
    names = list(contestants)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                rest()
                contestants[name]()
                _turn(contestants[name], found[name], turn_seconds)
    finally:
        if collecting:
            gc.enable()
    return found


def _turn(call: Callable[[], object], turns: Turns, turn_seconds: float) -> None:
    seconds: list[float] = []
    threads, cpu, begin = _cpu_of_threads(), time.process_time(), time.perf_counter()
    end = begin
    while not seconds or end - begin < turn_seconds:
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        seconds.append(end - start)
    cpu = time.process_time() - cpu
    wall = end - begin
    at_work = sum(
        nanoseconds - threads.get(task, 0) > AT_WORK * wall * 1e9
        for task, nanoseconds in _cpu_of_threads().items()
    )
    turns.rounds.append(median(seconds))
    turns.cpu_rounds.append(cpu / len(seconds))
    turns.least = min(turns.least, *seconds)
    turns.wall += wall
    turns.cpu += cpu
    turns.workers = max(turns.workers, at_work)


def suspicion(summary: Mapping[str, Any], threads: int) -> str | None:
    """Why the times of a contestant may not be those of so many threads, or None."""
    few, many = SUSPICIOUS
    if summary["workers"] > threads:
        return f"{summary['workers']} threads were at work instead of {threads}"
    if summary["processors"] > many * threads:
        return f"{summary['processors']:.2f} processors were busy instead of {threads}"
    if summary["processors"] < few * threads:
        return f"only {summary['processors']:.2f} processors of {threads} were busy"
    return None


def ratio(others: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """How many times longer the others took, round by round: median, least and greatest."""
    ratios = [other / our for other, our in zip(others["rounds"], ours["rounds"], strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def processors() -> list[int]:
    """Processors that this process may use: one of each core first, so that the first n are n cores.

    Empty where processes cannot be pinned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores: set[str] = set()
    firsts, siblings = [], []
    # From the end: the first processor is where most systems handle interrupts.
    for processor in sorted(os.sched_getaffinity(0), reverse=True):
        listing = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            core = listing.read_text()
        except OSError:
            core = str(processor)
        (siblings if core in cores else firsts).append(processor)
        cores.add(core)
    return firsts + siblings


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Processes that are started inside may use so many processors only, where the system can do that."""
    allowed = processors()
    if not allowed:
        yield
        return
    os.sched_setaffinity(0, allowed[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
