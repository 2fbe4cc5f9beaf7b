"""Checks of arguments: the value in its plain type, or an error with its name, what was wanted, what came."""

from __future__ import annotations

import contextlib
import math
import os
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import EngineError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Most threads that may be asked for: more processors than any one machine has; what is above is a slip and
#: would only cost memory.
MOST_THREADS = 1024


def check_positive_int(value: object, name: str) -> int:
    """Return `value` as an int, or say that the argument `name` must be a positive one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def check_fraction(value: object, name: str) -> float:
    """Return `value` as a float, or say that the argument `name` must be a number from 0 to 1."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    number = float(value)
    if math.isnan(number) or not 0 <= number <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {number}")
    return number


def check_number(value: object, name: str) -> float:
    """Return `value` as a float, or say that the argument `name` must be a finite number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def check_color(value: object) -> None:
    """Say that the argument `color` must be one of the two channel orders, unless `value` is."""
    if not (isinstance(value, str) and value in ("bgr", "rgb")):
        raise ValueError(f'color must be "bgr" or "rgb", got {value!r}')


def check_optional_positive_int(value: object, name: str) -> int | None:
    """Like `check_positive_int`, and None for no limit."""
    return None if value is None else check_positive_int(value, name)


def check_bool(value: object, name: str) -> bool:
    """Return `value` as a bool, or say that the argument `name` must be one."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r}")
    return bool(value)


def check_str(value: object, name: str) -> str:
    """Return `value`, or say that the argument `name` must be a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__} {value!r}")
    return value


def check_optional_path(value: object, name: str) -> Path | None:
    """Return `value` as a path, and None as it is, or say that the argument `name` must be one of them."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path or None, got {type(value).__name__} {value!r}")
    if not os.fspath(value):
        raise ValueError(f"{name} must be the path of a file, got an empty one")
    return Path(value)


def check_pictures(value: object) -> None:
    """Say that the argument `images` must be an iterable of pictures, unless `value` may be one."""
    if isinstance(value, str | bytes | bytearray | memoryview | os.PathLike) or not hasattr(
        value, "__iter__"
    ):
        raise TypeError(f"images must be an iterable of pictures, got {type(value).__name__}")
    if isinstance(value, np.ndarray) and value.ndim < 4:
        raise TypeError(
            f"images must be an iterable of pictures, got one array of shape {value.shape}; put it in a list"
        )


@contextlib.contextmanager
def naming(label: str) -> Iterator[None]:
    """Put a label in front of the message of an error, which keeps its class."""
    kinds = (ImageError, EngineError, TypeError, ValueError)
    try:
        yield
    except kinds as error:
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"{label}: {error}") from error
