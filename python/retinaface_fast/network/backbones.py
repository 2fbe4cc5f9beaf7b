"""The feature extractors: image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import nn

from .config import RESNET_STAGES, BackboneConfig
from .layers import ConvNorm, rectify
from .layout import MOBILENET_BLOCKS, MOBILENET_TAPS

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MobileNetV1", "ResNet", "build_backbone"]


def build_backbone(config: BackboneConfig, *, levels: Collection[int], folded: bool) -> MobileNetV1 | ResNet:
    """The backbone that a config describes.

    Args:
        config: The backbone.
        levels: Levels from 2 to 5 whose features are wanted; others are freed as soon as they are used.
        folded: Whether convolutions carry their batch norm.
    """
    kind = MobileNetV1 if config.kind == "mobilenet" else ResNet
    return kind(config, levels=levels, folded=folded)


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) with leaky rectifiers, without its classifier."""

    def __init__(self, config: BackboneConfig, *, levels: Collection[int], folded: bool) -> None:
        super().__init__()
        self.levels = frozenset(levels)
        channels = config.stem_channels
        self.stem = ConvNorm(
            3, channels, kernel=3, stride=2, negative_slope=config.negative_slope, folded=folded
        )
        blocks: list[nn.Module] = []
        for base, stride in MOBILENET_BLOCKS:
            out = config.scaled(base)
            blocks.append(_SeparableBlock(channels, out, stride, config.negative_slope, folded=folded))
            channels = out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Map images (B, 3, H, W) to features by level; level l is (B, C_l, ceil(H / 2^l), ceil(W / 2^l))."""
        features = self.stem(images)
        by_level = {}
        start = 0
        for level, last in MOBILENET_TAPS.items():
            for block in self.blocks[start : last + 1]:
                features = block(features)
            start = last + 1
            if level in self.levels:
                by_level[level] = features
        return by_level


class _SeparableBlock(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, stride: int, negative_slope: float, *, folded: bool
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            in_channels,
            in_channels,
            kernel=3,
            stride=stride,
            groups=in_channels,
            negative_slope=negative_slope,
            folded=folded,
        )
        self.pointwise = ConvNorm(
            in_channels, out_channels, kernel=1, negative_slope=negative_slope, folded=folded
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.pointwise(self.depthwise(features))
        return out


class ResNet(nn.Module):
    """ResNet (He et al. 2015, arXiv 1512.03385) without its classifier."""

    def __init__(self, config: BackboneConfig, *, levels: Collection[int], folded: bool) -> None:
        super().__init__()
        self.levels = frozenset(levels)
        counts, bottleneck = RESNET_STAGES[config.depth]
        slope = config.negative_slope
        channels = config.stem_channels
        self.stem = ConvNorm(3, channels, kernel=7, stride=2, negative_slope=slope, folded=folded)
        stages: list[nn.Module] = []
        for stage, count in enumerate(counts):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                block = _ResidualBlock(
                    channels, 64 << stage, stride, slope, bottleneck=bottleneck, folded=folded
                )
                channels = block.out_channels
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Map images (B, 3, H, W) to features by level; level l is (B, C_l, ceil(H / 2^l), ceil(W / 2^l))."""
        features = F.max_pool2d(self.stem(images), kernel_size=3, stride=2, padding=1)
        by_level = {}
        for level, stage in enumerate(self.stages, start=2):
            features = stage(features)
            if level in self.levels:
                by_level[level] = features
        return by_level


class _ResidualBlock(nn.Module):
    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        negative_slope: float,
        *,
        bottleneck: bool,
        folded: bool,
    ) -> None:
        super().__init__()
        self.out_channels = width * 4 if bottleneck else width
        self.negative_slope = negative_slope
        # in, out, kernel, stride; the last one is rectified after the sum
        layers = (
            [(in_channels, width, 1, 1), (width, width, 3, stride), (width, self.out_channels, 1, 1)]
            if bottleneck
            else [(in_channels, width, 3, stride), (width, self.out_channels, 3, 1)]
        )
        self.convs = nn.Sequential(
            *(
                ConvNorm(
                    channels_in,
                    channels_out,
                    kernel=kernel,
                    stride=layer_stride,
                    negative_slope=None if index == len(layers) - 1 else negative_slope,
                    folded=folded,
                )
                for index, (channels_in, channels_out, kernel, layer_stride) in enumerate(layers)
            )
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != self.out_channels:
            self.shortcut = ConvNorm(
                in_channels, self.out_channels, kernel=1, stride=stride, negative_slope=None, folded=folded
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shortcut = features if self.shortcut is None else self.shortcut(features)
        out: torch.Tensor = self.convs(features)
        out += shortcut
        return rectify(out, self.negative_slope)
