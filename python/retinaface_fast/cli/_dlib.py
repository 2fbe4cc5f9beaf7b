"""Whether dlib is there: the commands that need it are only offered then."""

from __future__ import annotations

import importlib.util


def dlib_installed() -> bool:
    """Return whether dlib can be found, without importing it: that takes a while."""
    return importlib.util.find_spec("dlib") is not None
