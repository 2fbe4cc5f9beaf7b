"""Instructions that the core operations execute: figures that repeat, beside times that do not.

    python -m benchmarks.instructions [--json FILE] [-k TEXT]    # counts, beside the stored ones; a minute
    python -m benchmarks.instructions --update                   # store them
    python -m benchmarks.instructions --check                    # only the answers, at every SIMD level

`csrc/bench` has the operations. Each is first run as it is, and its answer compared with a plain loop; then
under callgrind, which has to give the same answer and counts the instructions of one call. Callgrind needs
valgrind (Debian and Ubuntu: apt-get install valgrind), which does not know AVX-512: the levels are scalar and
AVX2, on ARM scalar and NEON.

A difference from the stored counts is reported and fails nothing. Wrong answers do.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from benchmarks import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

BASELINE = Path(__file__).parent / "baselines" / "instructions.json"
#: Changes up to this share are not worth a word: another C library moves some counts by as much.
WORTH_A_WORD = 0.02
#: What valgrind cannot run.
NOT_EMULATED = frozenset({"avx512"})
#: The same under every user and in every folder: what the environment holds moves the stack.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class WrongAnswerError(Exception):
    """An operation answers otherwise than it has to; the message says which."""


class CountError(Exception):
    """Nothing can be counted here; the message says why."""


class Answer(NamedTuple):
    """The line that the program prints."""

    level: str
    items: int
    unit: str
    digest: str


class Count(NamedTuple):
    """Instructions of one call."""

    name: str
    level: str
    items: int
    unit: str
    instructions: int


def answer_of(program: Path, mode: str, name: str, level: str, before: Sequence[str] = ()) -> Answer:
    """Run one operation.

    Args:
        program: `core_operations`.
        mode: "check" or "run".
        name: The operation.
        level: The SIMD level that it shall use.
        before: A command that the program is run by.

    Raises:
        WrongAnswerError: The program says that its answer is wrong.
        CountError: It cannot be run, or used another level.
    """
    environment = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
    done = subprocess.run(
        [*before, str(program), mode, name],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "RETINAFACE_FAST_SIMD": level},
    )
    if done.returncode == 1 and mode == "check":
        raise WrongAnswerError(f"{name}, {level}: {done.stderr.strip()}")
    if done.returncode:
        raise CountError(f"{name}, {level}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    answer = parsed(done.stdout)
    if answer.level != level:
        raise CountError(f"{name} ran with {answer.level} instead of {level}")
    return answer


def parsed(line: str) -> Answer:
    """Read the line of the program.

    Raises:
        CountError: It is another one.
    """
    match = re.fullmatch(r"(\w+) (\d+) (\w+) ([0-9a-f]{16})\s*", line)
    if match is None:
        raise CountError(f"expected a level, a number, a unit and a hash from core_operations, got {line!r}")
    level, items, unit, digest = match.groups()
    return Answer(level, int(items), unit, digest)


def collected(report: str) -> int:
    """Instructions in a file of callgrind.

    Raises:
        CountError: There are none: nothing went through the function that is counted.
    """
    match = re.search(r"^totals: (\d+)$", report, re.MULTILINE)
    if match is None or int(match.group(1)) == 0:
        raise CountError("callgrind has counted nothing: is measured_operation stripped from the program?")
    return int(match.group(1))


def count(program: Path, name: str, level: str) -> Count:
    """Instructions of one call, after its answer has been checked.

    Raises:
        WrongAnswerError: The answer is wrong, or another one under callgrind.
        CountError: It cannot be run under callgrind.
    """
    checked = answer_of(program, "check", name, level)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "callgrind"
        callgrind = (
            *("valgrind", "--tool=callgrind", "-q"),
            *("--toggle-collect=measured_operation", f"--callgrind-out-file={report}"),
        )
        counted = answer_of(program, "run", name, level, callgrind)
        if counted != checked:
            raise WrongAnswerError(f"{name}, {level}: under callgrind {counted} instead of {checked}")
        return Count(name, level, checked.items, checked.unit, collected(report.read_text()))


def names_of(program: Path) -> list[str]:
    done = subprocess.run([program, "list"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def setting(program: Path) -> dict[str, str]:
    """What counts depend on besides the source."""
    done = subprocess.run([program, "build"], capture_output=True, text=True, check=True)
    compiler, flags = done.stdout.splitlines()
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return {
        "compiler": compiler,
        "flags": flags,
        "processor": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.stdout.strip().removeprefix("valgrind-"),
    }


def available_levels(*, emulated: bool) -> list[str]:
    """SIMD levels of this machine; `emulated`: those of them that valgrind can run."""
    from retinaface_fast import ops

    levels = ops.simd_levels()
    return [level for level in levels if not (emulated and level in NOT_EMULATED)]


def record_of(found: Mapping[str, str], counts: Iterable[Count]) -> dict[str, Any]:
    """What is stored: the setting, and instructions by operation and level."""
    operations: dict[str, dict[str, Any]] = {}
    for each in counts:
        entry = operations.setdefault(each.name, {"items": each.items, "unit": each.unit, "instructions": {}})
        entry["instructions"][each.level] = each.instructions
    return {"setting": dict(found), "operations": operations}


def change(each: Count, stored: Mapping[str, Any] | None) -> float | str:
    """The change as a share of the stored count, or in words why there is none."""
    entry = (stored or {}).get("operations", {}).get(each.name)
    if entry is None or each.level not in entry["instructions"]:
        return "not stored"
    if entry["items"] != each.items:
        return f"stored for {entry['items']:,} {entry['unit']}"
    before: int = entry["instructions"][each.level]
    return each.instructions / before - 1


def differences(found: Mapping[str, str], stored: Mapping[str, Any] | None) -> list[str]:
    """What else is different from where the stored counts were made."""
    before = (stored or {}).get("setting", {})
    return [
        f"{key} {value!r} instead of {before[key]!r}"
        for key, value in found.items()
        if before.get(key, value) != value
    ]


def lines_of(counts: Sequence[Count], stored: Mapping[str, Any] | None) -> list[str]:
    """The table, and what has changed."""
    lines = [f"{'operation':<32}{'level':<8}{'instructions':>14}{'per item':>12}  {'of':<12}{'change':>9}"]
    changed = []
    for each in counts:
        delta = change(each, stored)
        shown = delta if isinstance(delta, str) else f"{delta:+.2%}" if delta else "none"
        lines.append(
            f"{each.name:<32}{each.level:<8}{each.instructions:>14,}"
            f"{each.instructions / each.items:>12.2f}  {each.unit:<12}{shown:>9}"
        )
        if isinstance(delta, float) and abs(delta) > WORTH_A_WORD:
            word = "more" if delta > 0 else "fewer"
            changed.append(f"{each.name}, {each.level}: {abs(delta):.1%} {word} instructions than stored")
    return lines + changed


def _levels_and_names(parsed_arguments: argparse.Namespace, program: Path) -> list[tuple[str, str]]:
    names = [name for name in names_of(program) if parsed_arguments.k in name]
    levels = available_levels(emulated=not parsed_arguments.check)
    return [(name, level) for name in names for level in levels]


def _or_error(call: Callable[[], T]) -> T | WrongAnswerError:
    try:
        return call()
    except WrongAnswerError as error:
        return error


def check_answers(program: Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Print which answers are right; the exit code is 1 where one is not."""
    wrong = 0
    for name, level in pairs:
        answer = _or_error(functools.partial(answer_of, program, "check", name, level))
        if isinstance(answer, WrongAnswerError):
            print(f"WRONG {answer}")
            wrong += 1
        else:
            print(f"right {name}, {level}: {answer.items:,} {answer.unit}")
    return 1 if wrong else 0


def count_all(program: Path, pairs: Sequence[tuple[str, str]]) -> tuple[list[Count], list[str]]:
    """Counts in order, and what was wrong. Several at once: a count does not mind company."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # The network takes valgrind longer than all others together, and is the last of them: it begins.
        calls = [functools.partial(count, program, *pair) for pair in reversed(pairs)]
        found = list(pool.map(_or_error, calls))[::-1]
    counts = [each for each in found if isinstance(each, Count)]
    return counts, [str(each) for each in found if isinstance(each, WrongAnswerError)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    parser.add_argument("-k", default="", metavar="TEXT", help="only operations whose name holds this")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--update", action="store_true", help=f"store the counts in {BASELINE.name}")
    choice.add_argument("--check", action="store_true", help="check the answers and count nothing")
    options = parser.parse_args(arguments)
    if options.update and options.k:
        parser.error("--update stores the counts of all operations: leave out -k")
    if not options.check and shutil.which("valgrind") is None:
        print(
            "valgrind is not installed, so nothing can be counted (Debian and Ubuntu: apt-get install "
            "valgrind; there is none for Windows). --check works without it.",
            file=sys.stderr,
        )
        return 1
    try:
        program = programs.build("core_operations")
        pairs = _levels_and_names(options, program)
        if options.check:
            return check_answers(program, pairs)
        counts, wrong = count_all(program, pairs)
        where = setting(program)
    except (programs.BuildError, CountError) as error:
        print(error, file=sys.stderr)
        return 1
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else None
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    for difference in differences(where, stored):
        print(f"Not like with like: {difference}")
    print("\n".join(lines_of(counts, stored)))
    for error_text in wrong:
        print(f"WRONG {error_text}")
    text = json.dumps(record_of(where, counts), indent=1) + "\n"
    if options.json:
        options.json.write_text(text)
    if options.update and not wrong:
        BASELINE.parent.mkdir(exist_ok=True)
        BASELINE.write_text(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
