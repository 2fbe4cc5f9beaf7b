"""The arithmetic of csrc/arithmetic.hpp in torch, on whatever device the numbers lie, to the last bit.

The bits are the same because each float operation is an operation of torch of its own, which rounds once:
nothing is fused, `exp` is the polynomial of `csrc/arithmetic.hpp` and not the library's, and nothing is
divided by a Python number, which torch does by its reciprocal on CUDA.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["decode_boxes", "decode_points", "exponential", "logit_bound", "round_down_to_float", "sigmoid"]

# csrc/kernels/exp_constants.hpp.
_EXP_OVERFLOW, _EXP_UNDERFLOW = 88.72283, -87.33654
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
_ROUND_MAGIC = 12582912.0
_EXP_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def exponential(x: torch.Tensor) -> torch.Tensor:
    """`exp` of csrc/arithmetic.hpp, to the last bit.

    Args:
        x: Any shape, float32.

    Returns:
        The same shape: 0 where the result would be subnormal, NaN where x is.
    """
    inside = (x >= _EXP_UNDERFLOW) & (x <= _EXP_OVERFLOW)
    safe = torch.where(inside, x, 0.0)
    n = (safe * _LOG2_E + _ROUND_MAGIC) - _ROUND_MAGIC
    r = (safe - n * _LN2_HIGH) - n * _LN2_LOW
    p = torch.full_like(r, _EXP_POLYNOMIAL[0])
    for coefficient in _EXP_POLYNOMIAL[1:]:
        p = p * r + coefficient
    y = (p * (r * r) + r) + 1.0
    exponent = n.to(torch.int32)
    half = exponent >> 1
    result = (y * _power_of_two(half)) * _power_of_two(exponent - half)
    outside = torch.where(x > _EXP_OVERFLOW, math.inf, torch.where(x < _EXP_UNDERFLOW, 0.0, x))
    return torch.where(inside, result, outside)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    return ((exponent + 127) << 23).view(torch.float32)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)) of csrc/arithmetic.hpp, to the last bit; any shape, float32."""
    divisor = exponential(-x) + 1.0
    return torch.ones_like(divisor) / divisor


def decode_boxes(
    box_deltas: torch.Tensor, anchors: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """See `ops.decode_boxes`: (…, 4) float32 deltas and anchors cxcywh, to (…, 4) boxes xyxy, pixels."""
    centers = decode_points(box_deltas[..., :2], anchors, variances[0])
    halves = (anchors[..., 2:] * exponential(box_deltas[..., 2:] * _as_float(variances[1]))) * 0.5
    return torch.cat((centers - halves, centers + halves), dim=-1)


def decode_points(deltas: torch.Tensor, anchors: torch.Tensor, variance: float) -> torch.Tensor:
    """Points from (…, 2) deltas of anchors (…, 4)."""
    return anchors[..., :2] + (deltas * _as_float(variance)) * anchors[..., 2:]


def _as_float(value: float) -> float:
    """The float32 that is nearest."""
    return float(np.float32(value))


def round_down_to_float(threshold: float) -> float:
    """The greatest float32 that is not above: a float32 is > either or > neither."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def logit_bound(threshold: float) -> float:
    """A bound that all logits are above whose float32 sigmoid is > threshold, and hardly any others."""
    lower = threshold * (1.0 - 5e-7)  # more than the error of the sigmoid
    return round_down_to_float(math.log(lower / (1.0 - lower))) if lower > 0 else -math.inf
