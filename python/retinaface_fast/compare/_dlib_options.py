"""The options of `DlibDetector`: each in its plain type, or an error that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._validation import (
    check_number,
    check_optional_path,
    check_optional_positive_int,
    check_positive_int,
    check_str,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = ("hog", "cnn")
_LANDMARKS = ("68", "5", "none")
_MOST_UPSAMPLE = 2


def checked_options(**options: Any) -> dict[str, Any]:
    """Return all options of `DlibDetector`, checked."""
    checked = {name: check(options[name], name) for name, check in _CHECKS.items()}
    if checked["landmarks"] == "none" and checked["landmarks_path"] is not None:
        path = checked["landmarks_path"]
        raise ValueError(f"landmarks_path must be None where landmarks is 'none', got {str(path)!r}")
    return checked


def _check_kind(value: object, name: str) -> str:
    return _check_choice(value, name, _KINDS)


def _check_landmarks(value: object, name: str) -> str:
    return _check_choice(value, name, _LANDMARKS)


def _check_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    text = check_str(value, name)
    if text not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {text!r}")
    return text


def _check_upsample(value: object, name: str) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if not 0 <= value <= _MOST_UPSAMPLE:
        raise ValueError(f"{name} must be from 0 to {_MOST_UPSAMPLE}, got {value}")
    return int(value)


#: Every option, with what checks it.
_CHECKS: dict[str, Callable[[object, str], Any]] = {
    "kind": _check_kind,
    "upsample": _check_upsample,
    "score_threshold": check_number,
    "landmarks": _check_landmarks,
    "detector_path": check_optional_path,
    "landmarks_path": check_optional_path,
    "max_pixels": check_optional_positive_int,
    "max_memory": check_positive_int,
}
