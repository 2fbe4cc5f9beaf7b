"""Batch norm folded into the convolution before it, on plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retinaface_fast._typing import AnyArray, FloatArray

__all__ = ["BATCH_NORM_EPSILON", "fold_batch_norm"]

#: Added to the running variance; torch's default, with which all published weights were trained.
BATCH_NORM_EPSILON = 1e-5

_PARTS = ("weight", "bias", "running_mean", "running_var")


def fold_batch_norm(
    tensors: Mapping[str, AnyArray], *, epsilon: float = BATCH_NORM_EPSILON
) -> dict[str, FloatArray]:
    """Fold every batch norm into the convolution that it follows.

    `y = (w * x + b - mean) / sqrt(var + epsilon) * gamma + beta` is again a convolution; its weight and bias
    are computed in float64 and rounded once.

    Args:
        tensors: State dict with canonical names: `X.conv.weight` and, where batch norm follows,
            `X.norm.weight`, `.bias`, `.running_mean` and `.running_var`. Layers without batch norm pass
            unchanged.
        epsilon: What batch norm adds to the variance, > 0.

    Returns:
        float32 arrays with `X.conv.weight` and `X.conv.bias` in place of each folded pair.

    Raises:
        ValueError: If a batch norm is incomplete or has no convolution.

    Example:
        >>> one = np.ones(1, np.float32)
        >>> folded = fold_batch_norm({
        ...     "stem.conv.weight": np.full((1, 1, 1, 1), 3, np.float32),
        ...     "stem.norm.weight": 2 * one,
        ...     "stem.norm.bias": one,
        ...     "stem.norm.running_mean": 5 * one,
        ...     "stem.norm.running_var": 4 * one,
        ... }, epsilon=0.0)
        >>> folded["stem.conv.weight"].item(), folded["stem.conv.bias"].item()
        (3.0, -4.0)
    """
    norms = sorted({name.rpartition(".norm.")[0] for name in tensors if ".norm." in name})
    folded = {
        name: np.ascontiguousarray(tensor, dtype=np.float32)
        for name, tensor in tensors.items()
        if ".norm." not in name
    }
    for layer in norms:
        missing = [
            name
            for name in (f"{layer}.conv.weight", *(f"{layer}.norm.{part}" for part in _PARTS))
            if name not in tensors
        ]
        if missing:
            raise ValueError(f"tensors: batch norm of {layer!r} lacks {', '.join(missing)}")
        weight = np.asarray(tensors[f"{layer}.conv.weight"], dtype=np.float64)
        gamma, beta, mean, variance = (
            np.asarray(tensors[f"{layer}.norm.{part}"], dtype=np.float64) for part in _PARTS
        )
        bias = tensors.get(f"{layer}.conv.bias")
        scale = gamma / np.sqrt(variance + epsilon)
        offset = -mean if bias is None else np.asarray(bias, dtype=np.float64) - mean
        folded[f"{layer}.conv.weight"] = (weight * scale[:, None, None, None]).astype(np.float32)
        folded[f"{layer}.conv.bias"] = (offset * scale + beta).astype(np.float32)
    return folded
