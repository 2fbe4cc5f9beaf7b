"""The feature pyramid (Lin et al. 2017, arXiv 1612.03144) as RetinaFace uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import nn

from .layers import ConvNorm, conv_norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import RetinaFaceConfig

__all__ = ["FeaturePyramid"]


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, and from coarse to fine: upsample, add, smooth with a 3x3 convolution.

    What is passed down is the smoothed level, and the coarsest lateral level stays unsmoothed. A level 6,
    where the config has one, is a stride-2 convolution on C5.
    """

    def __init__(self, config: RetinaFaceConfig, *, folded: bool) -> None:
        super().__init__()
        out = config.out_channels
        slope = config.neck_negative_slope
        channels = config.backbone.level_channels
        self.levels = tuple(level for level in config.levels if level <= 5)
        self.lateral = nn.ModuleList(
            ConvNorm(channels[level], out, kernel=1, negative_slope=slope, folded=folded)
            for level in self.levels
        )
        self.merge = nn.ModuleList(
            conv_norm(
                out,
                out,
                kernel=3,
                negative_slope=slope,
                folded=folded,
                deformable=config.context.deformable,
            )
            for _ in self.levels[1:]
        )
        self.extra: nn.Module | None = None
        if config.levels[-1] == 6:
            self.extra = ConvNorm(channels[5], out, kernel=3, stride=2, negative_slope=slope, folded=folded)

    def forward(self, features: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """Map backbone features by level to pyramid features, finest first, all of the same channels."""
        pyramid = [lateral(features[level]) for level, lateral in zip(self.levels, self.lateral, strict=True)]
        for index in reversed(range(len(self.merge))):
            finer, coarser = pyramid[index], pyramid[index + 1]
            # Not in place: the backward pass of the rectifier reads its own output.
            finer = finer + F.interpolate(coarser, size=finer.shape[-2:], mode="nearest")
            pyramid[index] = self.merge[index](finer)
        if self.extra is not None:
            pyramid.append(self.extra(features[5]))
        return pyramid
