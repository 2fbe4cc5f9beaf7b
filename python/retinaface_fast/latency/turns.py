"""Timing of what may use several threads: by the wall, in turns, with a look at which threads really worked.

The CPU time of the calling thread says nothing about a pool of threads. Here everyone has a turn in every
round; before a turn the process must have come to rest, because the pools of some run times spin for a while
after their last call and would be timed as part of the next contestant.
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
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: The process has come to rest when it uses less than this share of a processor.
REST = 0.2
#: Nobody is waited for longer than this.
REST_SECONDS = 1.0
#: A thread was at work if it had this share of the time of the calls.
AT_WORK = 0.1
#: Processors busy, as a share of the number of threads, below and above which a turn is suspicious.
SUSPICIOUS = (0.75, 1.05)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who has turns.

    Attributes:
        call: What is timed.
        rounds: In so many of the rounds, evenly spread; None for all of them.
        warm_up: Whether each turn begins with a call that is not timed and wakes the threads.
        part: Seconds of a part of a call that its result tells, such as the network; None where it does not.
    """

    call: Callable[[], Any]
    rounds: int | None = None
    warm_up: bool = True
    part: Callable[[Any], float] | None = None

    def plays(self, turn: int, rounds: int) -> bool:
        """Whether it has a turn in this one of so many rounds."""
        own = rounds if self.rounds is None else min(self.rounds, rounds)
        return (turn + 1) * own // rounds > turn * own // rounds


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        round: Which round it was in, from 0.
        calls: How many calls were timed.
        seconds: Median of them.
        least: The fastest of them, in seconds.
        wall: Seconds of all of them together.
        cpu: CPU seconds of the process during them.
        workers: Threads that were at work; 0 where the system does not tell.
        part: Median seconds of the part; None where nobody tells.
    """

    round: int
    calls: int
    seconds: float
    least: float
    wall: float
    cpu: float
    workers: int
    part: float | None = None


@dataclass(slots=True)
class Turns:
    """What one contestant needed.

    Attributes:
        turns: Its turns, in order.
        failed: Why it has no more of them; None where nothing went wrong.
    """

    turns: list[Turn] = field(default_factory=list)
    failed: str | None = None

    def summary(self) -> dict[str, Any]:
        """Everything as plain numbers, in seconds.

        The spread is the distance of the quartiles over the median, and None of a single round.
        """
        rounds = [turn.seconds for turn in self.turns]
        low, middle, high = quartiles(rounds)
        found = {
            "median": middle,
            "quartiles": [low, high],
            "min": min(turn.least for turn in self.turns),
            "spread": (high - low) / middle if len(rounds) > 1 else None,
            "cpu": median(turn.cpu / turn.calls for turn in self.turns),
            "processors": sum(turn.cpu for turn in self.turns) / sum(turn.wall for turn in self.turns),
            "workers": max(turn.workers for turn in self.turns),
            "rounds": rounds,
            "at": [turn.round for turn in self.turns],
        }
        parts = [turn.part for turn in self.turns if turn.part is not None]
        if parts:
            low, middle, high = quartiles(parts)
            found |= {"part": middle, "part_quartiles": [low, high]}
        return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of at least one value."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


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
    contestants: Mapping[str, Callable[[], object] | Contestant],
    *,
    rounds: int,
    turn_seconds: float,
    watch: Callable[[str, int, Turn | str | None], object] | None = None,
) -> dict[str, Turns]:
    """Time everyone in every round, each round beginning with another one.

    Args:
        contestants: Who has turns, or what to call, by name.
        rounds: How many rounds there are, >= 1.
        turn_seconds: A turn makes calls until they have taken this long together; at least one.
        watch: Called with name and round before a turn, with None, and after it, with the turn or with why
            there is none.

    Returns:
        Times by name. Who raises has no further turns.
    """
    found = {name: Turns() for name in contestants}
    players = {
        name: contestant if isinstance(contestant, Contestant) else Contestant(contestant)
        for name, contestant in contestants.items()
    }
    names = list(contestants)
    tell = watch or (lambda name, turn, told: None)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if found[name].failed is not None or not players[name].plays(number, rounds):
                    continue
                tell(name, number, None)
                try:
                    turn = one_turn(players[name], number, turn_seconds)
                except Exception as error:  # whatever it is, the others shall have their turns
                    found[name].failed = said(error)
                    tell(name, number, found[name].failed)
                else:
                    found[name].turns.append(turn)
                    tell(name, number, turn)
    finally:
        if collecting:
            gc.enable()
    return found


def said(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]


def one_turn(contestant: Contestant, number: int, turn_seconds: float) -> Turn:
    """Rest, wake up, and time calls until they have taken so long together."""
    call, part = contestant.call, contestant.part
    rest()
    if contestant.warm_up:
        call()
    seconds: list[float] = []
    parts: list[float] = []
    threads, cpu, begin = _cpu_of_threads(), time.process_time(), time.perf_counter()
    end = begin
    while not seconds or end - begin < turn_seconds:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        seconds.append(end - start)
        if part is not None:
            parts.append(part(result))
    cpu = time.process_time() - cpu
    wall = end - begin
    at_work = sum(
        nanoseconds - threads.get(task, 0) > AT_WORK * wall * 1e9
        for task, nanoseconds in _cpu_of_threads().items()
    )
    return Turn(
        round=number,
        calls=len(seconds),
        seconds=median(seconds),
        least=min(seconds),
        wall=wall,
        cpu=cpu,
        workers=at_work,
        part=median(parts) if parts else None,
    )


def suspicion(summary: Mapping[str, Any], threads: int, *, least: float | None = None) -> str | None:
    """Why the times of a contestant may not be those of so many threads, or None.

    Args:
        summary: What `Turns.summary` gives.
        threads: At most so many may work.
        least: So many processors should be busy; None for as many as threads. 0 for a contestant that waits
            for another device.
    """
    few, many = SUSPICIOUS
    expected = threads if least is None else least
    if summary["workers"] > threads:
        return f"{summary['workers']} threads were at work instead of {threads}"
    if summary["processors"] > many * threads:
        return f"{summary['processors']:.2f} processors were busy instead of {threads}"
    if summary["processors"] < few * expected:
        return f"only {summary['processors']:.2f} processors of {expected:g} were busy"
    return None


def ratio(others: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float] | None:
    """How many times longer the others took, round by round: median, least and greatest.

    Only rounds in which both had a turn count; None where there is none.
    """
    mine = dict(zip(_numbers(ours), ours["rounds"], strict=True))
    ratios = [
        other / mine[number]
        for number, other in zip(_numbers(others), others["rounds"], strict=True)
        if number in mine
    ]
    if not ratios:
        return None
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def _numbers(summary: Mapping[str, Any]) -> Sequence[int]:
    numbers: Sequence[int] = summary.get("at", range(len(summary["rounds"])))
    return numbers


def processors() -> list[int]:
    """Processors that this process may use: one of each core first, so that the first n are n cores.

    Empty where processes cannot be pinned.
    """
    cores: set[str] = set()
    firsts: list[int] = []
    siblings: list[int] = []
    # From the end: the first processor is where most systems handle interrupts.
    for processor in sorted(_affinity(), reverse=True):
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
    _set_affinity(allowed[:threads])
    try:
        yield
    finally:
        _set_affinity(allowed)


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return list(os.sched_getaffinity(0))
    process = _psutil_process()
    return [] if process is None else process.cpu_affinity()


def _set_affinity(chosen: list[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)
        return
    process = _psutil_process()
    assert process is not None
    process.cpu_affinity(chosen)


def _psutil_process() -> Any:
    """This process for psutil, which can pin on Windows; None where nobody can."""
    try:
        import psutil
    except ImportError:
        return None
    process = psutil.Process()
    return process if hasattr(process, "cpu_affinity") else None
