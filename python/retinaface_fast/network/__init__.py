"""The PyTorch RetinaFace.

The configs and everything that works on plain arrays import without torch; `RetinaFace` and `NetworkOutputs`
import it when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import CONFIGS, BackboneConfig, ContextConfig, RetinaFaceConfig
from .folding import fold_batch_norm
from .layout import LayerSpec, layer_specs, tensor_shapes

if TYPE_CHECKING:
    from .retinaface import NetworkOutputs, RetinaFace

__all__ = [
    "CONFIGS",
    "BackboneConfig",
    "ContextConfig",
    "LayerSpec",
    "NetworkOutputs",
    "RetinaFace",
    "RetinaFaceConfig",
    "fold_batch_norm",
    "layer_specs",
    "tensor_shapes",
]


def __getattr__(name: str) -> Any:
    if name in ("NetworkOutputs", "RetinaFace"):
        from . import retinaface

        return getattr(retinaface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
