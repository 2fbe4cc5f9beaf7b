"""RetinaFace beside dlib: dlib's detectors behind the same interface, and what both find in a picture.

Names are imported when they are first used, and dlib only where one of its models is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dlib_detector import DlibDetector as DlibDetector
    from .dlib_models import DLIB_MODELS as DLIB_MODELS
    from .dlib_models import DlibModel as DlibModel
    from .dlib_models import find_dlib_model as find_dlib_model

_HOMES = {
    "DLIB_MODELS": "dlib_models",
    "DlibDetector": "dlib_detector",
    "DlibModel": "dlib_models",
    "find_dlib_model": "dlib_models",
}

__all__ = ["DLIB_MODELS", "DlibDetector", "DlibModel", "find_dlib_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
