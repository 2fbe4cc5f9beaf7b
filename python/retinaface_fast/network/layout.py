"""The layers of a network as plain data: names, shapes, strides. Imports neither torch nor onnx.

This list is the one authority on canonical tensor names. The torch modules carry the same names (a test holds
them together), weight files are checked against it, and graphs for other run times are emitted from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import RESNET_STAGES, RetinaFaceConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LayerSpec", "layer_specs", "tensor_shapes"]

#: Output channels of the MobileNetV1 blocks at width 1 and their strides; Howard et al. 2017 (arXiv
#: 1704.04861), table 1.
MOBILENET_BLOCKS: tuple[tuple[int, int], ...] = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
#: Index of the last block of each level.
MOBILENET_TAPS: dict[int, int] = {2: 2, 3: 4, 4: 10, 5: 12}

#: Per head: canonical name and numbers per anchor.
HEADS: tuple[tuple[str, int], ...] = (("class_head", 2), ("box_head", 4), ("landmark_head", 10))


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One convolution and what belongs to it.

    Attributes:
        name: Canonical name of the module.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the square kernel in pixels; the padding is half of it, rounded down.
        stride: Stride in pixels.
        groups: Groups of channels; `in_channels` for a depthwise convolution.
        norm: Whether batch norm follows. Without it (the heads), the layer has a bias and no child modules.
        deformable: Whether offsets and modulation are predicted for the convolution.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    norm: bool = True
    deformable: bool = False

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight, (out, in / groups, height, width)."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)


def layer_specs(config: RetinaFaceConfig) -> tuple[LayerSpec, ...]:
    """Every convolution of a network, from the image to the heads.

    Args:
        config: The network.

    Returns:
        The layers, in the order of the data flow.

    Example:
        >>> from retinaface_fast.network.config import CONFIGS
        >>> specs = layer_specs(CONFIGS["mobilenet0.25"])
        >>> len(specs), specs[0].name, specs[0].weight_shape
        (56, 'backbone.stem', (8, 3, 3, 3))
    """
    return (*_backbone(config), *_neck(config), *_heads(config))


def tensor_shapes(config: RetinaFaceConfig, *, folded: bool) -> dict[str, tuple[int, ...]]:
    """Canonical tensor names of a network and their shapes.

    Args:
        config: The network.
        folded: Whether batch norm has been folded into weight and bias of the convolutions.

    Returns:
        Shape by name.

    Example:
        >>> from retinaface_fast.network.config import CONFIGS
        >>> shapes = tensor_shapes(CONFIGS["mobilenet0.25"], folded=True)
        >>> len(shapes), shapes["backbone.stem.conv.bias"]
        (112, (8,))
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in layer_specs(config):
        channels = (spec.out_channels,)
        if not spec.norm:
            shapes[f"{spec.name}.weight"] = spec.weight_shape
            shapes[f"{spec.name}.bias"] = channels
            continue
        shapes[f"{spec.name}.conv.weight"] = spec.weight_shape
        if spec.deformable:
            taps = spec.kernel**2
            shapes[f"{spec.name}.offset.weight"] = (3 * taps, spec.in_channels, spec.kernel, spec.kernel)
            shapes[f"{spec.name}.offset.bias"] = (3 * taps,)
        if folded:
            shapes[f"{spec.name}.conv.bias"] = channels
        else:
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{spec.name}.norm.{part}"] = channels
    return shapes


def _backbone(config: RetinaFaceConfig) -> Iterator[LayerSpec]:
    backbone = config.backbone
    stem = backbone.stem_channels
    if backbone.kind == "mobilenet":
        yield LayerSpec("backbone.stem", 3, stem, kernel=3, stride=2)
        channels = stem
        for index, (base, stride) in enumerate(MOBILENET_BLOCKS):
            out = backbone.scaled(base)
            name = f"backbone.blocks.{index}"
            yield LayerSpec(f"{name}.depthwise", channels, channels, kernel=3, stride=stride, groups=channels)
            yield LayerSpec(f"{name}.pointwise", channels, out, kernel=1)
            channels = out
        return
    yield LayerSpec("backbone.stem", 3, stem, kernel=7, stride=2)
    blocks, bottleneck = RESNET_STAGES[backbone.depth]
    channels = stem
    for stage, count in enumerate(blocks):
        width = 64 << stage
        out = width * 4 if bottleneck else width
        for index in range(count):
            name = f"backbone.stages.{stage}.{index}"
            stride = 2 if stage > 0 and index == 0 else 1
            if bottleneck:
                yield LayerSpec(f"{name}.convs.0", channels, width, kernel=1)
                yield LayerSpec(f"{name}.convs.1", width, width, kernel=3, stride=stride)
                yield LayerSpec(f"{name}.convs.2", width, out, kernel=1)
            else:
                yield LayerSpec(f"{name}.convs.0", channels, width, kernel=3, stride=stride)
                yield LayerSpec(f"{name}.convs.1", width, out, kernel=3)
            if stride != 1 or channels != out:
                yield LayerSpec(f"{name}.shortcut", channels, out, kernel=1, stride=stride)
            channels = out


def _neck(config: RetinaFaceConfig) -> Iterator[LayerSpec]:
    out = config.out_channels
    deformable = config.context.deformable
    lateral = [level for level in config.levels if level <= 5]
    for index, level in enumerate(lateral):
        yield LayerSpec(f"fpn.lateral.{index}", config.backbone.level_channels[level], out, kernel=1)
    if config.levels[-1] == 6:
        yield LayerSpec("fpn.extra", config.backbone.level_channels[5], out, kernel=3, stride=2)
    for index in range(len(lateral) - 1):
        yield LayerSpec(f"fpn.merge.{index}", out, out, kernel=3, deformable=deformable)
    for index in range(len(config.levels)):
        name = f"context.{index}"
        yield LayerSpec(f"{name}.conv3x3", out, out // 2, kernel=3, deformable=deformable)
        yield LayerSpec(f"{name}.conv5x5_1", out, out // 4, kernel=3, deformable=deformable)
        yield LayerSpec(f"{name}.conv5x5_2", out // 4, out // 4, kernel=3, deformable=deformable)
        if not config.context.share_first:
            yield LayerSpec(f"{name}.conv7x7_1", out, out // 4, kernel=3, deformable=deformable)
        yield LayerSpec(f"{name}.conv7x7_2", out // 4, out // 4, kernel=3, deformable=deformable)
        yield LayerSpec(f"{name}.conv7x7_3", out // 4, out // 4, kernel=3, deformable=deformable)


def _heads(config: RetinaFaceConfig) -> Iterator[LayerSpec]:
    for index, anchors in enumerate(config.anchors.anchors_per_cell):
        for head, numbers in HEADS:
            yield LayerSpec(f"{head}.{index}", config.out_channels, anchors * numbers, kernel=1, norm=False)
