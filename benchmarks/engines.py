"""The comparison of the network in the engines and run times, as tables and as JSON.

    python -m benchmarks.engines [--quick] [--json FILE] [--markdown FILE] [--benchmark FILE]

Measured are the network alone, the peak memory of the others, and what a core can do at most. Answers are
compared first; everyone who can run here takes turns in every round; ratios are taken round by round.

Whole detections, their memory and the cold start are measured by `retinaface-fast benchmark`. With
`--benchmark`, the JSON file that it has written, what the project promises of them is looked up there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import graphs, peak, programs, runtimes
from benchmarks.report import Report
from retinaface_fast.latency import PAPER_SIZES, turns
from retinaface_fast.latency.machine import describe_machine
from retinaface_fast.latency.processes import last_line, thread_limits
from retinaface_fast.latency.report import QUIET_LOAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS = ("network", "memory")


def run_job(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run a job in a fresh process that is pinned to as many processors as it may use threads."""
    with tempfile.TemporaryDirectory() as folder, turns.pinned(threads):
        question, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        question.write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.jobs", str(question), str(answer)],
            env=os.environ | thread_limits(threads),
            cwd=programs.ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode or not answer.exists():
            return {"failed": last_line(done.stderr.splitlines()) or f"exit code {done.returncode}"}
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def peak_rate(seconds: float) -> dict[str, Any]:
    """The peak of one core so far, or why it is not known."""
    try:
        name, rate = peak.measure(peak.build(), seconds)
    except peak.UnknownPeakError as error:
        return {"failed": str(error)}
    return {"simd": name, "macs_per_second": rate}


def higher(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The better of two measurements of the peak: what a core can do, it can do."""
    return max(one, other, key=lambda found: found.get("macs_per_second", 0.0))


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument(
        "--quick", action="store_true", help="640x480 on one thread and few rounds: does it work"
    )
    parser.add_argument("--rounds", type=int, help="turns of everyone (default: 15, quick 3)")
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help="default: 640x480 1920x1080 4096x2160")
    parser.add_argument("--threads", nargs="+", metavar="N", help="numbers, or all (default: 1 2 all)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--benchmark", type=Path, metavar="FILE", help="what retinaface-fast benchmark --json has written"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the others, only these")
    parsed = parser.parse_args(arguments)
    try:
        parsed.sizes = [
            tuple(int(side) for side in reversed(text.split("x")))
            for text in parsed.sizes
            or [f"{width}x{height}" for height, width in PAPER_SIZES[: 1 if parsed.quick else None]]
        ]
        if any(len(size) != 2 or min(size) < 1 for size in parsed.sizes):
            raise ValueError
    except ValueError:
        parser.error("--sizes takes sizes like 640x480")
    available = len(turns.processors()) or os.cpu_count() or 1
    wanted = parsed.threads or (["1"] if parsed.quick else ["1", "2", "all"])
    if not all(text == "all" or (text.isdecimal() and int(text) > 0) for text in wanted):
        parser.error("--threads takes numbers from 1, or all")
    numbers = {available if text == "all" else int(text) for text in wanted}
    parsed.threads = sorted(number for number in numbers if number <= available)
    parsed.too_many = sorted(number for number in numbers if number > available)
    if not parsed.threads:
        parser.error(f"--threads: this process may use {available} processors")
    parsed.rounds = parsed.rounds or (3 if parsed.quick else 15)
    if parsed.rounds < 1:
        parser.error("--rounds: at least 1")
    return parsed


def left_out(
    record: dict[str, Any], versions: dict[str, str | None], too_many: Sequence[int]
) -> Iterator[str]:
    """What is not measured here, and why."""
    for name, found in versions.items():
        if found is None:
            yield f"{name} is not installed and left out"
    for number in too_many:
        yield f"{number} threads are left out: this process may use {record['machine']['processors']}"
    if "failed" in record["peak"]:
        yield f"The peak rate of a core is not known: {record['peak']['failed']}"


def main(arguments: list[str] | None = None) -> int:
    parsed = arguments_of(arguments)
    turn_seconds = 0.06 if parsed.quick else 0.25
    ours = [f"{runtimes.OURS}{name}" for name in runtimes.own_engines()]
    versions = runtimes.versions()
    report = Report(ours[0])
    record = report.record
    record["machine"] = describe_machine()
    record["versions"] = versions
    record["peak"] = peak_rate(0.2 if parsed.quick else 1.0)
    report.head(QUIET_LOAD)
    for line in left_out(record, versions, parsed.too_many):
        report.line(line)
    opponents = [
        name
        for name, found in versions.items()
        if found is not None and (parsed.only is None or name in parsed.only)
    ]
    if "network" in parsed.parts:
        for threads in parsed.threads:
            for size in parsed.sizes:
                job = {"job": "network", "names": [*ours, *opponents], "size_hw": size, "threads": threads}
                found = run_job(job | {"rounds": parsed.rounds, "turn_seconds": turn_seconds}, threads)
                record["peak"] = higher(record["peak"], peak_rate(0.2))
                found["multiplications"] = graphs.multiplications(size)
                report.times(size, threads, found)
    if "memory" in parsed.parts:
        threads, size = parsed.threads[-1], parsed.sizes[-1]
        results = {}
        for name in opponents:
            job = {"job": "memory", "name": name, "size_hw": size, "threads": threads}
            results[name] = run_job(job, threads)
        report.memory(size, threads, results)
    if parsed.benchmark:
        report.look_up(json.loads(parsed.benchmark.read_text(encoding="utf-8")))
    report.promises()
    if parsed.json:
        parsed.json.write_text(json.dumps(record, indent=1))
    if parsed.markdown:
        parsed.markdown.write_text(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
