"""Has an operation become slower? Times as ratios to a reference kernel of the same run, beside stored ones.

    python -m benchmarks.guard [--json FILE] [--rounds N] [--processes N]    # half a minute
    python -m benchmarks.guard --update                  # store what is measured for this SIMD level
    RETINAFACE_FAST_SIMD=avx2 python -m benchmarks.guard # another level

The answer of every operation is compared first. Then all of them and the reference kernels, which are
NumPy's, have a turn in every round on one thread. What counts is the time of an operation over that of its
reference in the same round, so that a machine that is slower today makes no difference; of several processes,
because where a process has its memory counts as well, the median.

Slower or faster is what has changed by more than 8%, and by more than its spread now and when it was stored.
The spread is that of the rounds (between the quartiles, over the median) or, if larger, that of the processes
(from the least to the greatest). It is reported and fails nothing. Wrong answers do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import measure
from retinaface_fast.latency.turns import quartiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.operations import Operation

BASELINE = Path(__file__).parent / "baselines" / "ratios.json"
#: Runs of one build on a busy machine differed by up to so much, however close together their rounds were.
#: Smaller changes are for `benchmarks.instructions` to find.
LEAST_CHANGE = 0.08
#: A turn lasts at least this long, so that the clock does not count.
TURN_SECONDS = 3e-3


class Ratio(NamedTuple):
    """How many times as long as its reference an operation takes: median and spread of the rounds."""

    name: str
    reference: str
    ratio: float
    spread: float
    seconds: float


def checked(operations: Iterable[Operation]) -> tuple[list[Operation], dict[str, str]]:
    """Tell apart who answers rightly and who does not, with the reason. Nobody else is to be timed."""
    right: list[Operation] = []
    wrong: dict[str, str] = {}
    for operation in operations:
        reason = _complaint(operation.check)
        if reason is None:
            right.append(operation)
        else:
            wrong[operation.name] = reason
    return right, wrong


def _complaint(check: Callable[[], object]) -> str | None:
    try:
        check()
    except Exception as error:  # whatever it is, the others shall have their turns
        return f"{type(error).__name__}: {error}".strip()
    return None


def rounds_of(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    turn_seconds: float = TURN_SECONDS,
    clock: Callable[[], float] = measure.clock,
) -> dict[str, list[float]]:
    """Seconds of one call of everyone in every round; each round begins with another one.

    A turn begins with a call that is not timed, which brings back to the caches what the others have evicted.
    """
    loops: dict[str, int] = {}
    for name, call in calls.items():
        call()
        started = clock()
        call()
        loops[name] = max(1, round(turn_seconds / max(clock() - started, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds if names else 0):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            call = calls[name]
            call()
            started = clock()
            for _ in range(loops[name]):
                call()
            seconds[name].append((clock() - started) / loops[name])
    return seconds


def ratio_of(name: str, reference: str, seconds: Sequence[float], of_reference: Sequence[float]) -> Ratio:
    """The ratio of an operation from its rounds and those of its reference."""
    ratios = [own / other for own, other in zip(seconds, of_reference, strict=True)]
    low, middle, high = quartiles(ratios)
    return Ratio(name, reference, middle, (high - low) / middle, median(seconds))


def measure_ratios(
    operations: Sequence[Operation], references: Mapping[str, Callable[[], object]], **options: Any
) -> list[Ratio]:
    """Let everyone have their turns; `options` are those of `rounds_of`."""
    needed = {each.reference for each in operations}
    calls = {f"reference {name}": call for name, call in references.items() if name in needed}
    seconds = rounds_of(calls | {each.name: each.call for each in operations}, **options)
    return [
        ratio_of(each.name, each.reference, seconds[each.name], seconds[f"reference {each.reference}"])
        for each in operations
    ]


def verdict(now: Ratio, stored: Mapping[str, Any] | None) -> tuple[float | None, str]:
    """The change as a share of the stored ratio, and what to call it."""
    if stored is None:
        return None, "not stored"
    if stored["reference"] != now.reference:
        return None, f"stored against {stored['reference']}"
    change = now.ratio / stored["ratio"] - 1
    noise = max(LEAST_CHANGE, now.spread, stored["spread"])
    # A ratio of two thirds is as far away as one of three halves.
    if now.ratio > stored["ratio"] * (1 + noise):
        return change, "slower"
    if stored["ratio"] > now.ratio * (1 + noise):
        return change, "faster"
    return change, "as before"


def lines_of(ratios: Sequence[Ratio], stored: Mapping[str, Any]) -> list[str]:
    """The table."""
    head = f"{'operation':<26}{'us':>10}  {'reference':<10}{'ratio now':>11}{'stored':>11}{'change':>9}"
    lines = [f"{head}{'spread':>8}  verdict"]
    for each in ratios:
        entry = stored.get(each.name)
        change, word = verdict(each, entry)
        before = "" if change is None or entry is None else f"{entry['ratio']:.4f}"
        shown = "" if change is None else f"{change:+.1%}"
        measured = f"{each.name:<26}{each.seconds * 1e6:>10,.1f}  {each.reference:<10}{each.ratio:>11.4f}"
        lines.append(f"{measured}{before:>11}{shown:>9}{each.spread:>8.1%}  {word}")
    return lines


def record_of(machine: Mapping[str, str], ratios: Iterable[Ratio]) -> dict[str, Any]:
    """What is stored for a level."""
    found = {
        each.name: {
            "reference": each.reference,
            "ratio": round(each.ratio, 6),
            "spread": round(each.spread, 4),
        }
        for each in ratios
    }
    return {"machine": dict(machine), "ratios": found}


def merged(runs: Sequence[Sequence[Ratio]]) -> list[Ratio]:
    """Medians of what several processes have measured; the spread is at least that between the processes."""
    found = []
    for each in zip(*runs, strict=True):
        ratios = [run.ratio for run in each]
        middle = median(ratios)
        spread = max(median(run.spread for run in each), (max(ratios) - min(ratios)) / middle)
        seconds = median(run.seconds for run in each)
        found.append(each[0]._replace(ratio=middle, spread=spread, seconds=seconds))
    return found


class Run(NamedTuple):
    """What one process has measured, and who had a wrong answer, with the reason."""

    level: str
    machine: dict[str, str]
    ratios: list[Ratio]
    wrong: dict[str, str]


def run_here(rounds: int) -> Run:
    """Check and measure everything in this process.

    Raises:
        scenes.MissingError: Something that the inputs are made of is not installed.
    """
    from benchmarks import operations
    from retinaface_fast import ops
    from retinaface_fast.latency.machine import machine

    measure.use_one_thread()
    right, wrong = checked(operations.core_operations())
    references = {name: make() for name, make in operations.REFERENCES.items()}
    return Run(ops.simd_level(), machine(), measure_ratios(right, references, rounds=rounds), wrong)


def run_apart(rounds: int) -> Run:
    """The same in a process of its own, whose libraries know from the start that they have one thread.

    Raises:
        subprocess.CalledProcessError: It came to no end; what it says about that is on stderr.
    """
    command = [sys.executable, "-m", "benchmarks.guard", "--rounds", str(rounds), "--here"]
    environment = os.environ | measure.ONE_THREAD
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    level, where, ratios, wrong = json.loads(done.stdout)
    return Run(level, where, [Ratio(*each) for each in ratios], wrong)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--update", action="store_true", help=f"store it in {BASELINE.name}")
    parser.add_argument("--rounds", type=int, default=15, help="turns of everyone, %(default)s if not given")
    parser.add_argument(
        "--processes", type=int, default=3, help="one after another, %(default)s if not given"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 3:
        parser.error(f"--rounds: expected at least 3, from which a spread can be told, got {options.rounds}")
    if options.processes < 1:
        parser.error(f"--processes: expected at least 1, got {options.processes}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    if options.here:
        print(json.dumps(run_here(options.rounds)))
        return 0
    try:
        runs = [run_apart(options.rounds) for _ in range(options.processes)]
    except subprocess.CalledProcessError as error:
        print(f"Nothing was measured: the process ended with {error.returncode}", file=sys.stderr)
        return 1
    level, here = runs[0].level, runs[0].machine
    wrong = {name: reason for run in runs for name, reason in run.wrong.items()}
    ratios = merged([[each for each in run.ratios if each.name not in wrong] for run in runs])

    levels = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    stored = levels.get(level, {"machine": {}, "ratios": {}})
    where = ", ".join(f"{key} {value}" for key, value in here.items())
    print(f"{where}, core {level}; one thread, {options.rounds} rounds in each of {len(runs)} processes")
    for key, value in stored["machine"].items():
        if here.get(key, value) != value:
            print(f"Not like with like: {key} {here[key]!r} instead of {value!r}")
    print("\n".join(lines_of(ratios, stored["ratios"])))
    for name, reason in wrong.items():
        print(f"WRONG {name} has no times: {reason}")
    record = record_of(here, ratios)
    if options.json:
        options.json.write_text(json.dumps({"simd": level, **record}, indent=1) + "\n")
    if options.update and not wrong:
        BASELINE.parent.mkdir(exist_ok=True)
        BASELINE.write_text(json.dumps({**levels, level: record}, indent=1, sort_keys=True) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
