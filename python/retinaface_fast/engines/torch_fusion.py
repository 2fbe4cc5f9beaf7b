"""Convolution and rectifier in one oneDNN call, for the CPU.

Ways to run the folded network in channels-last memory, one thread of a Zen 3 core, torch 2.13, best CPU time
in ms over interleaved runs, at 640x480 and 1920x1080:

    MobileNet-0.25      plain modules 26.0, 211; fused here 24.6, 190; with pre-packed weights 23.5, 163
    ResNet-50           plain modules 846, 6232; fused here 807, 6174; with pre-packed weights 952, 6947
    ResNet-18           plain modules 302, 2360; fused here 303, 2314; with pre-packed weights 301, 2215

Weights are packed for an input size, and any image size must be welcome: packed for none in particular they
cost ResNet-50 a fifth, so they stay as they are. `torch.jit.freeze` reaches 25.0 and 250 for MobileNet, but
it takes 0.6 to 3 s to build, specialises on the sizes that it meets, and torch.jit is on its way out;
`torch.jit.optimize_for_inference` is slower than the plain modules (42, 339), contiguous memory slower again
(42 to 47, 337 to 376), and `torch.compile` takes far longer to start than to detect.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import nn

from retinaface_fast.network.layers import ConvNorm

__all__ = ["can_fuse", "fuse", "fused"]

logger = logging.getLogger(__name__)


class FusedConv(nn.Module):
    """A convolution, its bias and its rectifier as one oneDNN primitive."""

    def __init__(self, conv: nn.Conv2d, negative_slope: float | None) -> None:
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = conv.weight
        self.bias = conv.bias
        self.rectifier: tuple[str, list[float]] = ("none", [])
        if negative_slope is not None:
            self.rectifier = ("relu", []) if negative_slope == 0.0 else ("leaky_relu", [negative_slope])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (B, in, H, W) to (B, out, H', W'), channels last."""
        out: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            features, self.weight, self.bias, *self.geometry, *self.rectifier, ""
        )
        return out


def fused(module: nn.Module) -> nn.Module:
    """The fused form of a folded `ConvNorm` or a bare convolution; any other module as it is."""
    if isinstance(module, ConvNorm) and isinstance(module.norm, nn.Identity):
        return FusedConv(module.conv, module.negative_slope)
    if isinstance(module, nn.Conv2d):
        return FusedConv(module, None)
    return module


def fuse(network: nn.Module) -> None:
    """Replace every folded convolution of a network, in place."""
    for name, child in network.named_children():
        replacement = fused(child)
        if replacement is child:
            fuse(child)
        else:
            setattr(network, name, replacement)


@functools.cache
def can_fuse() -> bool:
    """Whether this torch has the fused operator, and it computes what it should.

    The operator is what `torch.compile` emits and no public interface, so it is tried before it is relied on;
    without it the plain modules run, which are slower and otherwise the same.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 8, 9, 7, generator=generator).to(memory_format=torch.channels_last)
    try:
        for slope in (None, 0.0, 0.1):
            layer = ConvNorm(8, 16, kernel=3, stride=2, negative_slope=slope, folded=True)
            with torch.inference_mode():
                if not torch.allclose(fused(layer)(features), layer(features), atol=1e-5):
                    return False
    except (AttributeError, RuntimeError, TypeError) as error:
        logger.info("torch %s runs without fused convolutions: %s", torch.__version__, error)
        return False
    return True
