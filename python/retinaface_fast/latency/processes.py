"""Jobs in fresh processes that may fail, die or hang without anything else coming to harm.

A job writes what happens into a journal, line by line, as JSON. So it is known whose turn it was when a
process ended, and what was measured until then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Outcome", "environment", "last_line", "run_job", "thread_limits"]

#: What libraries read when they are loaded: of linear algebra, and of our own engine.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RETINAFACE_FAST_THREADS",
)
#: What the libraries of GPUs read: without it, some of them shorten the factors to ten bits.
_FLOAT32 = {"NVIDIA_TF32_OVERRIDE": "0"}
_POLL_SECONDS = 0.05
#: Before its first event a process imports, which may have to come from a slow disk.
_START_SECONDS = 120.0
#: After its last event a process has nothing to do but to end.
_END_SECONDS = 20.0


@dataclass(slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        events: What it wrote into its journal, in order.
        failed: Why it did not come to its end; None if it did.
        row: Whose turn it was when it ended; None if nobody's.
        note: What went wrong after it had come to its end; None if nothing did.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None
    row: str | None = None
    note: str | None = None

    @property
    def done(self) -> bool:
        """Whether it came to its end, whatever happened while its process was taken down."""
        return bool(self.events) and self.events[-1]["event"] == "done"

    @property
    def answer(self) -> dict[str, Any]:
        """The event that a job ends with."""
        return self.events[-1]


def thread_limits(threads: int) -> dict[str, str]:
    """Environment in which libraries take so many threads."""
    return dict.fromkeys(_VARIABLES, str(threads))


def environment() -> dict[str, str]:
    """The environment for a process that works in another folder: modules are found where they were."""
    found = dict(os.environ)
    if found.get("PYTHONPATH"):
        folders = found["PYTHONPATH"].split(os.pathsep)
        found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, folders))
    return found


def run_job(
    job: Mapping[str, Any],
    *,
    threads: int,
    limit: float,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> Outcome:
    """Run a job of `jobs` in a process of its own, pinned to as many processors as it may use threads.

    Args:
        job: What is to be done, as JSON takes it.
        threads: At most so many threads may work.
        limit: Seconds without an event after which the process is ended; it has two minutes to start.
        on_event: Called with each event.
    """
    outcome = Outcome()

    def note(event: dict[str, Any]) -> None:
        outcome.events.append(event)
        outcome.row = event.get("row") if event["event"] == "step" else None
        if on_event is not None:
            on_event(event)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        question, journal, said = folder / "job.json", folder / "journal", folder / "said"
        question.write_text(json.dumps(job), encoding="utf-8")
        journal.touch()
        output = stack.enter_context(said.open("wb"))
        started: list[subprocess.Popen[bytes]] = []

        @stack.callback
        def _clean_up() -> None:
            for process in started:
                _end(process)

        with turns.pinned(threads):
            process = subprocess.Popen(
                [sys.executable, "-m", "retinaface_fast.latency.jobs", str(question), str(journal)],
                env={**environment(), **thread_limits(threads), **_FLOAT32},
                cwd=folder,  # where nothing lies that could be taken for a module
                stdin=subprocess.PIPE,  # its end tells the job that nobody waits for it any more
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            started.append(process)
        lines = stack.enter_context(journal.open(encoding="utf-8"))
        heard, pending, hung = time.monotonic(), "", False
        while True:
            ended = process.poll() is not None
            pending += lines.read()
            *whole, pending = pending.split("\n")
            for line in whole:
                note(json.loads(line))
                heard = time.monotonic()
            if ended:
                break
            allowed = limit if outcome.events else max(limit, _START_SECONDS)
            if outcome.done:
                allowed = min(limit, _END_SECONDS)
            if time.monotonic() - heard > allowed:
                hung = True
                _end(process)
                break
            time.sleep(_POLL_SECONDS)  # waiting for the process would wake up more often
        why = None
        if hung:
            why = f"no answer within {allowed:,g} s"
        elif process.returncode or not outcome.done:
            output.flush()
            why = _reason(process.returncode, said.read_text(encoding="utf-8", errors="replace"))
        if outcome.done:
            outcome.note = why  # libraries that fall apart at exit spoil no number
        else:
            outcome.failed = why
    return outcome


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _reason(code: int, said: str) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    if code in (1, 0) and said.strip():  # an exception says more than its exit code
        return last_line(said.splitlines())
    return (
        f"its process ended with exit code {code & 0xFFFFFFFF:#x}"
        if abs(code) > 255
        else (f"its process ended with exit code {code}")
    )


def last_line(lines: Sequence[str]) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
