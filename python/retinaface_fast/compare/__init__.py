"""RetinaFace beside dlib: dlib's detectors behind the same interface, and what both find in a picture.

Names are imported when they are first used, and dlib only where one of its models is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import ComparedPicture as ComparedPicture
    from .comparison import Contestant as Contestant
    from .comparison import Detector as Detector
    from .comparison import Search as Search
    from .comparison import compare_picture as compare_picture
    from .comparison import warm_up as warm_up
    from .dlib_detector import DlibDetector as DlibDetector
    from .dlib_models import DLIB_MODELS as DLIB_MODELS
    from .dlib_models import DlibModel as DlibModel
    from .dlib_models import find_dlib_model as find_dlib_model
    from .embedding import SAME_PERSON_DISTANCE as SAME_PERSON_DISTANCE
    from .embedding import FaceEmbedder as FaceEmbedder
    from .embedding import can_be_embedded as can_be_embedded
    from .embedding import embedding_crops as embedding_crops
    from .embedding import embedding_distance as embedding_distance
    from .embedding import embedding_distances as embedding_distances
    from .grouping import GROUPING_DISTANCE as GROUPING_DISTANCE
    from .grouping import group_faces as group_faces
    from .pairing import FacePairs as FacePairs
    from .pairing import pair_faces as pair_faces
    from .report import render_report as render_report
    from .summary import summarize_comparison as summarize_comparison

_HOMES = {
    "DLIB_MODELS": "dlib_models",
    "GROUPING_DISTANCE": "grouping",
    "SAME_PERSON_DISTANCE": "embedding",
    "ComparedPicture": "comparison",
    "Contestant": "comparison",
    "Detector": "comparison",
    "DlibDetector": "dlib_detector",
    "DlibModel": "dlib_models",
    "FaceEmbedder": "embedding",
    "FacePairs": "pairing",
    "Search": "comparison",
    "can_be_embedded": "embedding",
    "compare_picture": "comparison",
    "embedding_crops": "embedding",
    "embedding_distance": "embedding",
    "embedding_distances": "embedding",
    "find_dlib_model": "dlib_models",
    "group_faces": "grouping",
    "pair_faces": "pairing",
    "render_report": "report",
    "summarize_comparison": "summary",
    "warm_up": "comparison",
}

__all__ = [
    "DLIB_MODELS",
    "GROUPING_DISTANCE",
    "SAME_PERSON_DISTANCE",
    "ComparedPicture",
    "Contestant",
    "Detector",
    "DlibDetector",
    "DlibModel",
    "FaceEmbedder",
    "FacePairs",
    "Search",
    "can_be_embedded",
    "compare_picture",
    "embedding_crops",
    "embedding_distance",
    "embedding_distances",
    "find_dlib_model",
    "group_faces",
    "pair_faces",
    "render_report",
    "summarize_comparison",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
