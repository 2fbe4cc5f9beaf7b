"""How many threads one call of an engine may use: the argument, else the environment variable."""

from __future__ import annotations

import os

from retinaface_fast import _core
from retinaface_fast._validation import MOST_THREADS, check_optional_positive_int

__all__ = ["THREADS_VARIABLE", "check_threads", "default_threads", "threads_from_environment"]

#: Environment variable with the number of threads of engines that were not told another one.
THREADS_VARIABLE = "RETINAFACE_FAST_THREADS"

#: The number of threads where nobody says another, if there are as many processors.
_USUAL = 8


def check_threads(threads: object) -> int | None:
    """Return the argument `threads` as an int or None, or say that it must be a number of threads.

    Raises:
        TypeError: If it is neither an integer nor None.
        ValueError: If it is not within [1, 1024].
    """
    count = check_optional_positive_int(threads, "threads")
    if count is not None and count > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {count}")
    return count


def threads_from_environment() -> int | None:
    """Return the number that `RETINAFACE_FAST_THREADS` holds, or None where it is not set or empty.

    Raises:
        ValueError: If it holds anything else than a whole number within [1, 1024].
    """
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return None
    # Digits of other scripts are decimal, too, and int reads thousands of digits slowly or not at all.
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= MOST_THREADS):
        raise ValueError(f"{THREADS_VARIABLE} must be a whole number from 1 to {MOST_THREADS}, got {text!r}")
    return int(text)


def default_threads() -> int:
    """Return what `RETINAFACE_FAST_THREADS` says, else the processors that this process may use, 8 at most.

    The affinity mask of the process and, on Linux, the quota of its control group count.

    Raises:
        ValueError: If the variable holds no number of threads.
    """
    return threads_from_environment() or min(_core.available_processors(), _USUAL)
