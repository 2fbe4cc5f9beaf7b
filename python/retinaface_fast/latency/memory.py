"""Peak memory of this process over its loaded state."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["peak_of"]


def peak_of(calls: Callable[[], object]) -> dict[str, Any]:
    """Measure what calls need beside what the process holds already.

    Returns:
        Bytes: `loaded` before the calls, `peak` during them, and `growth`, their difference. Where the system
        cannot forget an earlier peak and that was higher, `growth` is None and `why_not` says so.
    """
    _give_back()
    loaded = _resident()
    before = _reset_peak()
    calls()
    peak = _peak()
    if before is not None and peak <= before:
        return {
            "loaded": loaded,
            "peak": peak,
            "growth": None,
            "why_not": f"the peak of loading was higher, {before / 1e6:,.0f} MB, and is not forgotten here",
        }
    return {"loaded": loaded, "peak": peak, "growth": max(0, peak - loaded)}


def _give_back() -> None:
    """Free memory that loading has left in the heap would hide what the calls need."""
    with contextlib.suppress(
        OSError, AttributeError, TypeError
    ):  # other C libraries have nothing of the kind
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> int | None:
    """Forget the peak so far; where that cannot be done, what it was."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return None


def _peak() -> int:
    status = _status("VmHWM")
    if status is not None:
        return status
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _resident() -> int:
    status = _status("VmRSS")
    if status is not None:
        return status
    import psutil

    return int(psutil.Process().memory_info().rss)


def _status(name: str) -> int | None:
    """Bytes of a line of the process's status, where Linux has it."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
