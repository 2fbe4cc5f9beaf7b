"""Weights: where to get them, how to read them, how to be sure of them.

Nothing here imports torch or onnx until a file in their format is read.
"""

from __future__ import annotations

from .cache import cache_dir, is_offline
from .downloads import Progress, download
from .loader import bundled_path, load_weights, save_weights
from .model_weights import ModelWeights
from .registry import REGISTRY, RegistryEntry

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
