"""RetinaFace face detection with a C++ core.

`retinaface_fast.detect(image)` finds the faces in a picture; `retinaface_fast.FaceDetector` holds a
configured detector for many pictures. Names are imported when they are first used, so that importing the
package costs little and needs neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ops as ops
    from .detections import Detections as Detections
    from .detections import Face as Face
    from .detector import FaceDetector as FaceDetector
    from .detector import detect as detect
    from .errors import DatasetError as DatasetError
    from .errors import EngineError as EngineError
    from .errors import ImageError as ImageError
    from .errors import MissingDependencyError as MissingDependencyError
    from .errors import RetinaFaceError as RetinaFaceError
    from .errors import WeightsError as WeightsError
    from .tta import TTA as TTA

    __version__: str

_HOMES = {
    "Detections": "detections",
    "Face": "detections",
    "FaceDetector": "detector",
    "detect": "detector",
    "DatasetError": "errors",
    "EngineError": "errors",
    "ImageError": "errors",
    "MissingDependencyError": "errors",
    "RetinaFaceError": "errors",
    "WeightsError": "errors",
    "TTA": "tta",
}

__all__ = [  # noqa: RUF022 -- the order of the documentation
    "detect",
    "FaceDetector",
    "Detections",
    "Face",
    "TTA",
    "ops",
    "RetinaFaceError",
    "WeightsError",
    "ImageError",
    "DatasetError",
    "EngineError",
    "MissingDependencyError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("retinaface-fast")
    if name == "ops":
        return import_module(".ops", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
