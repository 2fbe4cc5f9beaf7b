"""Processes of `benchmarks.cuda`, which go with everything that they have started if they take too long."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


def run(
    command: list[str], *, seconds: float, grace: float = 5.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with text, in a session of its own: whatever ends the wait ends the whole of it.

    Otherwise only the first process would be killed, and compute-sanitizer or pytest leave the one behind
    that uses the device.

    From being asked to end until it is made to, a group has `grace` seconds. Whoever starts a process that
    starts others by this gives it more of them than it gives those.

    Raises:
        subprocess.TimeoutExpired: After so many seconds.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            said, complained = process.communicate(timeout=seconds)
        except BaseException:  # the timeout, or Ctrl-C, which no other session hears
            end_group(process, grace)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def end_group(process: subprocess.Popen[str], grace: float) -> None:
    """First so that a part can end the groups that it has started itself, then for certain."""
    if not hasattr(os, "killpg"):  # Windows, which has no groups of this kind
        process.kill()
        return
    try:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(grace)
    finally:  # after a second Ctrl-C, too
        with contextlib.suppress(ProcessLookupError):  # the leader may be gone and others of its group not
            os.killpg(process.pid, signal.SIGKILL)


def end_orderly() -> None:
    """Make it an exception if this process is asked to end, so that `run` ends what it waits for."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
