"""Weights: where to get them, how to read them, how to be sure of them.

Nothing here imports torch or onnx until a file in their format is read, nor what a download needs (HTTP, TLS)
until there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cache import cache_dir, is_offline
from .loader import bundled_path, load_weights, save_weights
from .model_weights import ModelWeights
from .registry import REGISTRY, RegistryEntry

if TYPE_CHECKING:
    from .downloads import Progress, download

__all__ = [
    "REGISTRY",
    "ModelWeights",
    "Progress",
    "RegistryEntry",
    "bundled_path",
    "cache_dir",
    "download",
    "is_offline",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name in ("Progress", "download"):
        from . import downloads

        return getattr(downloads, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
