"""What a RetinaFace network is made of, as frozen dataclasses. Imports neither torch nor onnx.

The shapes of every tensor follow from a config alone (`layer_specs`), so that weight files are checked
against it, and other engines built from it, without a torch module in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from retinaface_fast.anchor_config import P2_P6, P3_P5, AnchorConfig

__all__ = ["CONFIGS", "BackboneConfig", "BackboneKind", "ContextConfig", "RetinaFaceConfig"]

BackboneKind: TypeAlias = Literal["mobilenet", "resnet"]

#: Blocks per stage and whether they are bottlenecks; He et al. 2015 (arXiv 1512.03385), table 1.
RESNET_STAGES: Mapping[int, tuple[tuple[int, int, int, int], bool]] = MappingProxyType(
    {
        18: ((2, 2, 2, 2), False),
        34: ((3, 4, 6, 3), False),
        50: ((3, 4, 6, 3), True),
        152: ((3, 8, 36, 3), True),
    }
)

#: Largest width of a MobileNet: 65,536 channels at its end. What a damaged file says may be anything.
_WIDEST = 64


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """The feature extractor.

    Attributes:
        kind: "mobilenet" (MobileNetV1, depthwise separable blocks) or "resnet" (the stride of a bottleneck
            sits in its 3x3 convolution, as in torchvision).
        width: Channel multiplier of a MobileNet, > 0 and <= 64; always 1 for a ResNet.
        depth: 18, 34, 50 or 152 for a ResNet; 0 for a MobileNet.
        negative_slope: Slope of the rectifier below zero, >= 0; 0 is a plain ReLU.
    """

    kind: BackboneKind
    width: float = 1.0
    depth: int = 0
    negative_slope: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "mobilenet":
            if not 0 < self.width <= _WIDEST:
                raise ValueError(f"width: expected a number > 0 and <= {_WIDEST}, got {self.width!r}")
            if self.depth != 0:
                raise ValueError(f"depth: a MobileNet has none (0), got {self.depth!r}")
        elif self.kind == "resnet":
            if self.depth not in RESNET_STAGES:
                raise ValueError(f"depth: expected one of {sorted(RESNET_STAGES)}, got {self.depth!r}")
            if self.width != 1.0:
                raise ValueError(f"width: a ResNet has width 1, got {self.width!r}")
        else:
            raise ValueError(f"kind: expected 'mobilenet' or 'resnet', got {self.kind!r}")
        if not (math.isfinite(self.negative_slope) and self.negative_slope >= 0):
            raise ValueError(f"negative_slope: expected a finite number >= 0, got {self.negative_slope!r}")

    @property
    def stem_channels(self) -> int:
        """Channels after the first convolution.

        >>> BackboneConfig("mobilenet", width=0.25).stem_channels
        8
        """
        return self.scaled(32) if self.kind == "mobilenet" else 64

    @property
    def level_channels(self) -> Mapping[int, int]:
        """Channels of C2 to C5, the features at strides 4, 8, 16 and 32, by level.

        >>> dict(BackboneConfig("resnet", depth=50).level_channels)
        {2: 256, 3: 512, 4: 1024, 5: 2048}
        """
        if self.kind == "mobilenet":
            base = [self.scaled(channels) for channels in (128, 256, 512, 1024)]
        else:
            expansion = 4 if RESNET_STAGES[self.depth][1] else 1
            base = [channels * expansion for channels in (64, 128, 256, 512)]
        return dict(zip((2, 3, 4, 5), base, strict=True))

    def scaled(self, channels: int) -> int:
        """Channels at this width: a multiple of 8, at least 8, never more than a tenth below the product."""
        wanted = channels * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """The SSH context module of a pyramid level (Najibi et al. 2017, arXiv 1708.03979).

    Three branches, of one, two and three 3x3 convolutions, are concatenated to half, a quarter and a quarter
    of the channels. Every level has a module of its own.

    Attributes:
        share_first: The second and third branch begin with the same 3x3 convolution. True in every published
            network; False gives the third branch its own.
        deformable: The 3x3 convolutions of the context modules and of the pyramid are deformable and
            modulated (DCNv2), as in the paper. Needs torchvision, and no published weights use it.
    """

    share_first: bool = True
    deformable: bool = False


@dataclass(frozen=True, slots=True)
class RetinaFaceConfig:
    """A whole network: backbone, pyramid, context, heads, and the conventions of its inputs and outputs.

    Attributes:
        name: Name under which the config is known.
        backbone: The feature extractor.
        out_channels: Channels of every pyramid level, a multiple of 4.
        anchors: Strides and anchor sizes, in pixels, of the pyramid levels, finest first. Strides are powers
            of two from 4 to 64; 64 is an extra 3x3 stride-2 convolution on C5.
        context: The context modules.
        variances: Factors of box centres and box sizes in the box and landmark deltas.
        mean_bgr: What is subtracted from the blue, green and red of a pixel (0 to 255). Nothing is scaled.

    Example:
        >>> CONFIGS["mobilenet0.25"].out_channels
        64
        >>> CONFIGS["paper-resnet152"].levels
        (2, 3, 4, 5, 6)
    """

    name: str
    backbone: BackboneConfig
    out_channels: int
    anchors: AnchorConfig = P3_P5
    context: ContextConfig = field(default_factory=ContextConfig)
    variances: tuple[float, float] = (0.1, 0.2)
    mean_bgr: tuple[float, float, float] = (104.0, 117.0, 123.0)

    def __post_init__(self) -> None:
        if self.out_channels <= 0 or self.out_channels % 4:
            raise ValueError(f"out_channels: expected a positive multiple of 4, got {self.out_channels!r}")
        strides = tuple(self.anchors.strides)
        first = strides[0] if strides else 0
        if first not in (4, 8, 16, 32) or strides != tuple(first << i for i in range(len(strides))):
            raise ValueError(f"anchors: strides must double from 4, 8, 16 or 32 on, got {strides}")
        if strides[-1] not in (32, 64):
            raise ValueError(f"anchors: the last stride must be 32 or 64, got {strides}")
        if not all(math.isfinite(v) and v > 0 for v in self.variances):
            raise ValueError(f"variances: expected two finite numbers > 0, got {self.variances!r}")
        if not all(math.isfinite(m) for m in self.mean_bgr):
            raise ValueError(f"mean_bgr: expected three finite numbers, got {self.mean_bgr!r}")

    @property
    def levels(self) -> tuple[int, ...]:
        """Pyramid levels, finest first: log2 of the strides."""
        return tuple(stride.bit_length() - 1 for stride in self.anchors.strides)

    @property
    def neck_negative_slope(self) -> float:
        """Slope of the rectifiers in the pyramid and the context modules.

        The popular PyTorch port decides it by width, 0.1 up to 64 channels and 0 above, and all published
        weights were trained so.
        """
        return 0.1 if self.out_channels <= 64 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values; `from_dict` is its inverse.

        >>> RetinaFaceConfig.from_dict(CONFIGS["resnet50"].to_dict()) == CONFIGS["resnet50"]
        True
        """
        return {
            "name": self.name,
            "backbone": {
                "kind": self.backbone.kind,
                "width": self.backbone.width,
                "depth": self.backbone.depth,
                "negative_slope": self.backbone.negative_slope,
            },
            "out_channels": self.out_channels,
            "anchors": {
                "strides": list(self.anchors.strides),
                "sizes": [list(sizes) for sizes in self.anchors.sizes],
            },
            "context": {"share_first": self.context.share_first, "deformable": self.context.deformable},
            "variances": list(self.variances),
            "mean_bgr": list(self.mean_bgr),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RetinaFaceConfig:
        """Build a config from what `to_dict` returned.

        Args:
            values: Nested mappings and lists. Every key must be present and known.

        Raises:
            ValueError: If a key is missing or unknown, or a value cannot be.
        """
        _require_keys(
            values,
            ("name", "backbone", "out_channels", "anchors", "context", "variances", "mean_bgr"),
            where="config",
        )
        _require_keys(values["backbone"], ("kind", "width", "depth", "negative_slope"), where="backbone")
        _require_keys(values["anchors"], ("strides", "sizes"), where="anchors")
        _require_keys(values["context"], ("share_first", "deformable"), where="context")
        try:
            blue, green, red = (float(m) for m in values["mean_bgr"])
            centre, size = (float(v) for v in values["variances"])
            return cls(
                name=str(values["name"]),
                backbone=BackboneConfig(
                    kind=values["backbone"]["kind"],
                    width=float(values["backbone"]["width"]),
                    depth=int(values["backbone"]["depth"]),
                    negative_slope=float(values["backbone"]["negative_slope"]),
                ),
                out_channels=int(values["out_channels"]),
                anchors=AnchorConfig(
                    strides=tuple(int(stride) for stride in values["anchors"]["strides"]),
                    sizes=tuple(tuple(float(s) for s in sizes) for sizes in values["anchors"]["sizes"]),
                ),
                context=ContextConfig(
                    share_first=bool(values["context"]["share_first"]),
                    deformable=bool(values["context"]["deformable"]),
                ),
                variances=(centre, size),
                mean_bgr=(blue, green, red),
            )
        except TypeError as error:
            raise ValueError(f"config: a value is of the wrong type ({error})") from error


def _require_keys(values: object, keys: tuple[str, ...], *, where: str) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, got {type(values).__name__}")
    missing = [key for key in keys if key not in values]
    unknown = [str(key) for key in values if key not in keys]
    if missing or unknown:
        raise ValueError(f"{where}: missing keys {missing}, unknown keys {unknown}")


def _mobilenet(name: str, width: float, out_channels: int) -> RetinaFaceConfig:
    return RetinaFaceConfig(
        name, BackboneConfig("mobilenet", width=width, negative_slope=0.1), out_channels=out_channels
    )


def _resnet(depth: int, out_channels: int) -> RetinaFaceConfig:
    return RetinaFaceConfig(
        f"resnet{depth}", BackboneConfig("resnet", depth=depth), out_channels=out_channels
    )


#: The named networks. The first seven are the popular PyTorch port's recipe, for which weights are published;
#: "paper-resnet152" is the paper's own (arXiv 1905.00641): P2 to P6, three anchors per cell, plain
#: convolutions (`ContextConfig.deformable` turns its deformable ones on).
CONFIGS: Mapping[str, RetinaFaceConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            _mobilenet("mobilenet0.25", 0.25, 64),
            _mobilenet("mobilenet0.5", 0.5, 128),
            _mobilenet("mobilenet1.0", 1.0, 128),
            _resnet(18, 128),
            _resnet(34, 128),
            _resnet(50, 256),
            _resnet(152, 256),
            RetinaFaceConfig(
                "paper-resnet152",
                BackboneConfig("resnet", depth=152),
                out_channels=256,
                anchors=P2_P6,
            ),
        )
    }
)
