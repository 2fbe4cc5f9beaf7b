"""Where downloaded weights live, and whether anything may be downloaded."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "OFFLINE_VARIABLE", "cache_dir", "is_offline"]

#: Environment variable that names the folder of downloaded weights.
CACHE_VARIABLE = "RETINAFACE_FAST_CACHE"

#: Environment variable that forbids every download, unless it is empty, 0, no, off or false.
OFFLINE_VARIABLE = "RETINAFACE_FAST_OFFLINE"


def cache_dir() -> Path:
    """The folder of downloaded weights, which need not exist yet.

    It is `RETINAFACE_FAST_CACHE` if that is set, else the user's cache folder of this operating system.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("retinaface_fast", appauthor=False) / "weights"


def is_offline() -> bool:
    """Whether `RETINAFACE_FAST_OFFLINE` forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "no", "off", "false")
