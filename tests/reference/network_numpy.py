"""The network in NumPy and float64, written for reading: the oracle of every engine.

It takes folded tensors by canonical name and follows the papers' figures, one function per part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from retinaface_fast.network import RetinaFaceConfig

Array = npt.NDArray[np.float64]
Tensors = Mapping[str, npt.NDArray[np.float32]]


def conv(x: Array, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], stride: int = 1) -> Array:
    """Cross-correlation with zero padding of half the kernel; x is (B, C, H, W)."""
    out_channels, per_group, kernel, _ = weight.shape
    depthwise = per_group == 1 and x.shape[1] == out_channels
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
    y = np.zeros((x.shape[0], out_channels, rows, columns))
    for i in range(kernel):
        for j in range(kernel):
            tap = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            w = weight[:, :, i, j].astype(np.float64)
            y += tap * w[None, :, :1, None] if depthwise else np.einsum("bchw,oc->bohw", tap, w)
    return y + bias[None, :, None, None]


def deformable_conv(
    x: Array,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    offsets: Array,
    modulation: Array,
) -> Array:
    """Equation 1 of Zhu et al. 2018 (arXiv 1811.11168), stride 1; zero around the picture.

    Tap k of a position is sampled bilinearly where `offsets` (B, 2 K, H, W) moves it, by rows with 2 k and by
    columns with 2 k + 1, and weighted with `modulation` (B, K, H, W).
    """
    batch, _, height, width = x.shape
    out_channels, _, kernel, _ = weight.shape
    y = np.zeros((batch, out_channels, height, width))
    for b, k, row, column in np.ndindex(batch, kernel**2, height, width):
        i, j = divmod(k, kernel)
        at_row = row + i - kernel // 2 + offsets[b, 2 * k, row, column]
        at_column = column + j - kernel // 2 + offsets[b, 2 * k + 1, row, column]
        sampled = np.zeros(x.shape[1])
        for r in (int(np.floor(at_row)), int(np.floor(at_row)) + 1):
            for c in (int(np.floor(at_column)), int(np.floor(at_column)) + 1):
                if 0 <= r < height and 0 <= c < width:
                    sampled += (1 - abs(at_row - r)) * (1 - abs(at_column - c)) * x[b, :, r, c]
        y[b, :, row, column] += weight[:, :, i, j] @ sampled * modulation[b, k, row, column]
    return y + bias[None, :, None, None]


def leaky(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def max_pool(x: Array) -> Array:
    rows, columns = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.max(
        [padded[:, :, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)],
        axis=0,
    )


class Network:
    """The layers of one network by name."""

    def __init__(self, tensors: Tensors, config: RetinaFaceConfig) -> None:
        self.tensors = tensors
        self.config = config
        self.neck = 0.1 if config.out_channels <= 64 else 0.0

    def layer(self, x: Array, name: str, stride: int = 1, slope: float | None = None) -> Array:
        weight, bias = (self.tensors[f"{name}.conv.{part}"] for part in ("weight", "bias"))
        if f"{name}.offset.weight" in self.tensors:
            predicted = conv(x, self.tensors[f"{name}.offset.weight"], self.tensors[f"{name}.offset.bias"])
            taps = weight.shape[2] ** 2
            modulation = 1 / (1 + np.exp(-predicted[:, 2 * taps :]))
            y = deformable_conv(x, weight, bias, predicted[:, : 2 * taps], modulation)
        else:
            y = conv(x, weight, bias, stride)
        return y if slope is None else leaky(y, slope)

    def mobilenet(self, x: Array) -> dict[int, Array]:
        slope = self.config.backbone.negative_slope
        x = self.layer(x, "backbone.stem", 2, slope)
        features = {}
        stride_of_block = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
        for index, stride in enumerate(stride_of_block):
            x = self.layer(x, f"backbone.blocks.{index}.depthwise", stride, slope)
            x = self.layer(x, f"backbone.blocks.{index}.pointwise", 1, slope)
            features[{2: 2, 4: 3, 10: 4, 12: 5}.get(index, 0)] = x
        return features

    def resnet(self, x: Array) -> dict[int, Array]:
        x = max_pool(self.layer(x, "backbone.stem", 2, 0.0))
        features = {}
        for stage in range(4):
            index = 0
            while f"backbone.stages.{stage}.{index}.convs.0.conv.weight" in self.tensors:
                block = f"backbone.stages.{stage}.{index}"
                stride = 2 if stage > 0 and index == 0 else 1
                if f"{block}.convs.2.conv.weight" in self.tensors:
                    y = self.layer(x, f"{block}.convs.0", 1, 0.0)
                    y = self.layer(y, f"{block}.convs.1", stride, 0.0)
                    y = self.layer(y, f"{block}.convs.2")
                else:
                    y = self.layer(x, f"{block}.convs.0", stride, 0.0)
                    y = self.layer(y, f"{block}.convs.1")
                if f"{block}.shortcut.conv.weight" in self.tensors:
                    x = self.layer(x, f"{block}.shortcut", stride)
                x = leaky(x + y, 0.0)
                index += 1
            features[stage + 2] = x
        return features

    def pyramid(self, features: dict[int, Array]) -> list[Array]:
        levels = [level for level in self.config.levels if level < 6]
        p = [self.layer(features[level], f"fpn.lateral.{n}", 1, self.neck) for n, level in enumerate(levels)]
        for n in range(len(levels) - 2, -1, -1):
            rows, columns = p[n].shape[2:]
            twice = p[n + 1].repeat(2, axis=2).repeat(2, axis=3)[:, :, :rows, :columns]
            p[n] = self.layer(p[n] + twice, f"fpn.merge.{n}", 1, self.neck)
        if 6 in self.config.levels:
            p.append(self.layer(features[5], "fpn.extra", 2, self.neck))
        return p

    def context(self, x: Array, n: int) -> Array:
        name = f"context.{n}"
        three = self.layer(x, f"{name}.conv3x3")
        first = self.layer(x, f"{name}.conv5x5_1", 1, self.neck)
        five = self.layer(first, f"{name}.conv5x5_2")
        if not self.config.context.share_first:
            first = self.layer(x, f"{name}.conv7x7_1", 1, self.neck)
        seven = self.layer(self.layer(first, f"{name}.conv7x7_2", 1, self.neck), f"{name}.conv7x7_3")
        return leaky(np.concatenate([three, five, seven], axis=1), 0.0)

    def head(self, x: Array, name: str, numbers: int) -> Array:
        y = conv(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])
        return y.transpose(0, 2, 3, 1).reshape(len(y), -1, numbers)


def forward(
    tensors: Tensors, config: RetinaFaceConfig, images: npt.NDArray[np.uint8]
) -> tuple[list[Array], list[Array], list[Array]]:
    """Class logits, box deltas and landmark deltas per level, of BGR images (B, H, W, 3)."""
    network = Network(tensors, config)
    x = (images.astype(np.float64) - np.array(config.mean_bgr)).transpose(0, 3, 1, 2)
    features = network.mobilenet(x) if config.backbone.kind == "mobilenet" else network.resnet(x)
    levels = [network.context(p, n) for n, p in enumerate(network.pyramid(features))]
    return (
        [network.head(x, f"class_head.{n}", 2) for n, x in enumerate(levels)],
        [network.head(x, f"box_head.{n}", 4) for n, x in enumerate(levels)],
        [network.head(x, f"landmark_head.{n}", 10) for n, x in enumerate(levels)],
    )
