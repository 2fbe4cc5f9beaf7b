"""What the numbers were measured on, as far as it says."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import retinaface_fast
from retinaface_fast import _core, ops

from . import turns

__all__ = ["available_threads", "describe_machine", "free_memory", "machine"]

#: The control group of this process, as a container sees it.
_GROUP = Path("/sys/fs/cgroup")


def machine() -> dict[str, str]:
    """CPU, Python and NumPy, for a line below a table."""
    return {
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def describe_machine() -> dict[str, Any]:
    """Everything about the machine that its times depend on.

    Returns:
        Processors and bytes as numbers; None for what the system does not tell. `load_before` is the number
        of processors that were busy for half a second; `pinned` and `peak_memory` say whether processes can
        be pinned, and whether the peak of memory can be reset.
    """
    memory, physical, logical, load = None, None, os.cpu_count(), None
    try:
        import psutil
    except ImportError:
        pass
    else:
        memory, physical = psutil.virtual_memory().total, psutil.cpu_count(logical=False)
        # Not the system's own load: for minutes that still counts what ran before.
        load = psutil.cpu_percent(interval=0.5) / 100 * (psutil.cpu_count() or 1)
    return {
        **machine(),
        "retinaface_fast": retinaface_fast.__version__,
        "simd_level": ops.simd_level(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "processors_physical": physical,
        "processors_logical": logical,
        "processors": available_threads(),
        "memory": memory,
        "load_before": load,
        "pinned": bool(turns.processors()),
        "peak_memory": "reset" if Path("/proc/self/clear_refs").exists() else "since the start",
    }


def available_threads() -> int:
    """Processors that this process may use: affinity and, on Linux, the quota of its control group count."""
    pinnable = len(turns.processors())
    available: int = _core.available_processors()
    return min(pinnable, available) if pinnable else available


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell.

    On Linux, the limit of the control group counts: in a container there may be less than in the machine.
    """
    try:
        import psutil
    except ImportError:
        return None
    available = int(psutil.virtual_memory().available)
    try:
        most, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        used -= int(kept.get("inactive_file", 0))  # files that were read: given up when memory is needed
    except (OSError, ValueError):  # no such group, or "max"
        return available
    return min(available, max(0, most - used))


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        found = next((value.strip() for name, value in lines if name.strip() == "model name"), "")
        if found:
            return found
    if platform.system() == "Darwin":
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()
