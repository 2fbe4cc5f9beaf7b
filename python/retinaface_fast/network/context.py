"""The context module of SSH (Najibi et al. 2017, arXiv 1708.03979)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import nn

from .layers import conv_norm

if TYPE_CHECKING:
    from .config import RetinaFaceConfig

__all__ = ["ContextModule"]


class ContextModule(nn.Module):
    """Receptive fields of 3x3, 5x5 and 7x7 side by side, made of 3x3 convolutions."""

    def __init__(self, config: RetinaFaceConfig, *, folded: bool) -> None:
        super().__init__()
        channels = config.out_channels
        half, quarter = channels // 2, channels // 4
        slope = config.neck_negative_slope

        def conv(in_channels: int, out_channels: int, negative_slope: float | None) -> nn.Module:
            return conv_norm(
                in_channels,
                out_channels,
                kernel=3,
                negative_slope=negative_slope,
                folded=folded,
                deformable=config.context.deformable,
            )

        self.conv3x3 = conv(channels, half, None)
        self.conv5x5_1 = conv(channels, quarter, slope)
        self.conv5x5_2 = conv(quarter, quarter, None)
        self.conv7x7_1 = None if config.context.share_first else conv(channels, quarter, slope)
        self.conv7x7_2 = conv(quarter, quarter, slope)
        self.conv7x7_3 = conv(quarter, quarter, None)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map pyramid features (B, C, H, W) to (B, C, H, W), all >= 0."""
        first = self.conv5x5_1(features)
        third = first if self.conv7x7_1 is None else self.conv7x7_1(features)
        branches = (self.conv3x3(features), self.conv5x5_2(first), self.conv7x7_3(self.conv7x7_2(third)))
        return F.relu(torch.cat(branches, dim=1), inplace=True)
