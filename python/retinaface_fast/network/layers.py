"""The building block: a convolution, its batch norm and its rectifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import nn

from retinaface_fast.errors import MissingDependencyError

__all__ = ["ConvNorm", "DeformableConvNorm", "conv_norm"]


class ConvNorm(nn.Module):
    """Convolution, batch norm, rectifier.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the square kernel; the padding is `kernel // 2`.
        stride: Stride of the convolution.
        groups: Groups of channels.
        negative_slope: Slope of the rectifier below zero; 0 is a ReLU, None no rectifier.
        folded: Batch norm is part of the convolution, which then has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        negative_slope: float | None,
        folded: bool,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=folded
        )
        self.norm: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(out_channels)
        self.negative_slope = negative_slope

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (B, in, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""
        return rectify(self.norm(self.conv(features)), self.negative_slope)

    def extra_repr(self) -> str:
        """The rectifier, for `print(network)`."""
        return f"negative_slope={self.negative_slope}"


class DeformableConvNorm(nn.Module):
    """Modulated deformable convolution (Zhu et al. 2018, arXiv 1811.11168), batch norm, rectifier.

    Offsets and modulation come from a convolution of the same kernel that starts at zero, so that an
    untrained one is a plain convolution halved.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the square kernel; the padding is `kernel // 2`.
        negative_slope: Slope of the rectifier below zero; 0 is a ReLU, None no rectifier.
        folded: Batch norm is part of the convolution, which then has a bias.

    Raises:
        MissingDependencyError: If torchvision is not installed.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, negative_slope: float | None, folded: bool
    ) -> None:
        super().__init__()
        try:
            from torchvision.ops import DeformConv2d
        except ImportError as error:
            raise MissingDependencyError(
                "torchvision", purpose="deformable convolutions", extra="deformable"
            ) from error
        self.conv = DeformConv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=folded)
        self.offset = nn.Conv2d(in_channels, 3 * kernel**2, kernel, padding=kernel // 2)
        nn.init.zeros_(self.offset.weight)
        if self.offset.bias is not None:
            nn.init.zeros_(self.offset.bias)
        self.norm: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(out_channels)
        self.negative_slope = negative_slope

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (B, in, H, W) to (B, out, H, W)."""
        taps = self.offset.out_channels // 3
        offsets, modulation = self.offset(features).split((2 * taps, taps), dim=1)
        features = self.conv(features, offsets, modulation.sigmoid())
        return rectify(self.norm(features), self.negative_slope)


def conv_norm(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    negative_slope: float | None,
    folded: bool,
    deformable: bool,
) -> nn.Module:
    """A stride-1 `ConvNorm`, or its deformable counterpart."""
    if deformable:
        return DeformableConvNorm(
            in_channels, out_channels, kernel=kernel, negative_slope=negative_slope, folded=folded
        )
    return ConvNorm(in_channels, out_channels, kernel=kernel, negative_slope=negative_slope, folded=folded)


def rectify(features: torch.Tensor, negative_slope: float | None) -> torch.Tensor:
    """Rectify in place, which neither batch norm nor convolution minds: both differentiate by their input."""
    if negative_slope is None:
        return features
    if negative_slope == 0.0:
        return F.relu(features, inplace=True)
    return F.leaky_relu(features, negative_slope, inplace=True)
