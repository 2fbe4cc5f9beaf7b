"""ONNX graphs of a network, from its weights alone, in two layouts.

`build_onnx` has everything around the convolutions inside: uint8 pixels in any of the two channel orders come
in, and each level's logits and deltas go out in the order of the anchors, so that the caller copies nothing.
`build_family_onnx` has what the published files of this family have, for the programs that read those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from retinaface_fast.network.config import RESNET_STAGES
from retinaface_fast.network.layout import HEADS, MOBILENET_TAPS, layer_specs

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from retinaface_fast._typing import AnyArray, ColorOrder
    from retinaface_fast.weights import ModelWeights

__all__ = [
    "FAMILY_INPUT_NAME",
    "FAMILY_OUTPUT_NAMES",
    "INPUT_NAME",
    "build_family_onnx",
    "build_onnx",
    "output_names",
]

INPUT_NAME = "images"
FAMILY_INPUT_NAME = "input"
#: In this order, because programs of the family read their outputs by place.
FAMILY_OUTPUT_NAMES = {"box_head": "loc", "class_head": "conf", "landmark_head": "landmarks"}

#: Opset and version of the format. 13 brought unsqueeze and slice by input; every later release of ONNX
#: Runtime reads it. Deformable convolutions came with 19.
_PLAIN = (13, 8)
_DEFORMABLE = (19, 9)


def output_names(levels: int) -> list[str]:
    """Names of the outputs: each head's levels, finest first, head after head."""
    return [f"{head}.{level}.out" for head, _ in HEADS for level in range(levels)]


def build_onnx(weights: ModelWeights, *, color: ColorOrder) -> ModelProto:
    """Build the graph of a network.

    Args:
        weights: The network and its tensors.
        color: Channel order of the images that it takes; RGB is a first convolution with exchanged channels.

    Returns:
        A model with the input `images` (N, H, W, 3) uint8, all sizes free, and the outputs of `output_names`,
        each (N, A_l, numbers) float32.
    """
    return _Builder(weights, color).model()


def build_family_onnx(weights: ModelWeights) -> ModelProto:
    """Build the graph of a network as the published files of this family have it.

    Args:
        weights: The network and its tensors.

    Returns:
        A model with the input `input` (N, 3, H, W) float32, blue, green, red minus the mean, all sizes free,
        and the outputs `loc` (N, A, 4), `conf` (N, A, 2), background and face after the softmax, and
        `landmarks` (N, A, 10), float32, the anchors of all levels behind one another.
    """
    return _FamilyBuilder(weights, "bgr").model()


class _Builder:
    """The graph of `build_onnx`."""

    def __init__(self, weights: ModelWeights, color: ColorOrder) -> None:
        self.config = weights.config
        self.tensors = weights.tensors
        self.color = color
        self.specs = {spec.name: spec for spec in layer_specs(self.config)}
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}

    def model(self) -> ModelProto:
        source = self.image()
        pyramid = self.pyramid(self.backbone(source))
        features = [self.context(value, level) for level, value in enumerate(pyramid)]
        outputs = self.outputs(
            {
                head: [self.head(value, head, numbers, level) for level, value in enumerate(features)]
                for head, numbers in HEADS
            }
        )
        graph = helper.make_graph(
            self.nodes, self.config.name, [self.input()], outputs, list(self.initializers.values())
        )
        opset, ir_version = _DEFORMABLE if self.config.context.deformable else _PLAIN
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="retinaface_fast",
        )

    def input(self) -> ValueInfoProto:
        return helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", "height", "width", 3])

    def head(self, value: str, head: str, numbers: int, level: int) -> str:
        value = self.conv(value, f"{head}.{level}", negative_slope=None)
        value = self.add("Transpose", [value], perm=[0, 2, 3, 1])
        shape = self.constant(f"shape.{numbers}", np.array([0, -1, numbers], dtype=np.int64))
        return self.add("Reshape", [value, shape], output=f"{head}.{level}.out")

    def outputs(self, levels: dict[str, list[str]]) -> list[ValueInfoProto]:
        """Declare the outputs, given each head's levels."""
        return [
            helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", f"anchors_{level}", numbers])
            for head, numbers in HEADS
            for level, value in enumerate(levels[head])
        ]

    def image(self) -> str:
        mean = self.config.mean_bgr if self.color == "bgr" else self.config.mean_bgr[::-1]
        value = self.add("Transpose", [INPUT_NAME], perm=[0, 3, 1, 2])
        value = self.add("Cast", [value], to=TensorProto.FLOAT)
        return self.add("Sub", [value, self.constant("mean", np.array(mean, np.float32).reshape(1, 3, 1, 1))])

    def backbone(self, value: str) -> dict[int, str]:
        backbone = self.config.backbone
        slope = backbone.negative_slope
        value = self.conv(value, "backbone.stem", negative_slope=slope)
        features: dict[int, str] = {}
        if backbone.kind == "mobilenet":
            level_of = {index: level for level, index in MOBILENET_TAPS.items()}
            for index in range(MOBILENET_TAPS[5] + 1):
                value = self.conv(value, f"backbone.blocks.{index}.depthwise", negative_slope=slope)
                value = self.conv(value, f"backbone.blocks.{index}.pointwise", negative_slope=slope)
                if index in level_of:
                    features[level_of[index]] = value
            return features
        value = self.add("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        counts, bottleneck = RESNET_STAGES[backbone.depth]
        last = 2 if bottleneck else 1
        for stage, count in enumerate(counts):
            for index in range(count):
                block = f"backbone.stages.{stage}.{index}"
                shortcut = value
                if f"{block}.shortcut" in self.specs:
                    shortcut = self.conv(value, f"{block}.shortcut", negative_slope=None)
                for layer in range(last + 1):
                    value = self.conv(
                        value, f"{block}.convs.{layer}", negative_slope=None if layer == last else slope
                    )
                value = self.rectify(self.add("Add", [value, shortcut]), slope)
            features[stage + 2] = value
        return features

    def pyramid(self, features: dict[int, str]) -> list[str]:
        slope = self.config.neck_negative_slope
        levels = [level for level in self.config.levels if level <= 5]
        pyramid = [
            self.conv(features[level], f"fpn.lateral.{index}", negative_slope=slope)
            for index, level in enumerate(levels)
        ]
        for index in reversed(range(len(levels) - 1)):
            value = self.add("Add", [pyramid[index], self.upsample(pyramid[index + 1], pyramid[index])])
            pyramid[index] = self.conv(value, f"fpn.merge.{index}", negative_slope=slope)
        if len(levels) < len(self.config.levels):
            pyramid.append(self.conv(features[5], "fpn.extra", negative_slope=slope))
        return pyramid

    def upsample(self, coarse: str, fine: str) -> str:
        """Nearest neighbour to the size of the finer level: twice as large, or one less where that is odd."""
        empty = self.constant("no_scales", np.zeros(0, np.float32))
        channels = self.constant("channels", np.array([self.config.out_channels], np.int64))
        shape = self.add("Shape", [fine])
        batch = self.slice(shape, 0, 1)
        sizes = self.add("Concat", [batch, channels, self.slice(shape, 2, 4)], axis=0)
        return self.add(
            "Resize",
            [coarse, empty, empty, sizes],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def slice(self, value: str, start: int, stop: int) -> str:
        bounds = [self.constant(f"index.{i}", np.array([i], np.int64)) for i in (start, stop)]
        return self.add("Slice", [value, *bounds])

    def context(self, value: str, level: int) -> str:
        name = f"context.{level}"
        slope = self.config.neck_negative_slope
        first = self.conv(value, f"{name}.conv5x5_1", negative_slope=slope)
        third = first
        if not self.config.context.share_first:
            third = self.conv(value, f"{name}.conv7x7_1", negative_slope=slope)
        third = self.conv(third, f"{name}.conv7x7_2", negative_slope=slope)
        return self.join(
            [
                self.conv(value, f"{name}.conv3x3", negative_slope=None),
                self.conv(first, f"{name}.conv5x5_2", negative_slope=None),
                self.conv(third, f"{name}.conv7x7_3", negative_slope=None),
            ]
        )

    def join(self, branches: list[str]) -> str:
        """Join the branches of a context module, rectified."""
        # Each is rectified before they are joined, which is the same and lets the run time fuse it.
        return self.add("Concat", [self.rectify(branch, 0.0) for branch in branches], axis=1)

    def conv(self, value: str, layer: str, *, negative_slope: float | None) -> str:
        spec = self.specs[layer]
        if spec.deformable:
            value = self.deformable(value, layer, spec.kernel)
            return value if negative_slope is None else self.rectify(value, negative_slope)
        prefix = f"{layer}.conv" if spec.norm else layer
        weight = self.tensors[f"{prefix}.weight"]
        if layer == "backbone.stem" and self.color == "rgb":
            weight = weight[:, ::-1]
        value = self.add(
            "Conv",
            [
                value,
                self.constant(f"{prefix}.weight", weight),
                self.constant(f"{prefix}.bias", self.tensors[f"{prefix}.bias"]),
            ],
            kernel_shape=[spec.kernel] * 2,
            strides=[spec.stride] * 2,
            pads=[spec.kernel // 2] * 4,
            group=spec.groups,
        )
        return value if negative_slope is None else self.rectify(value, negative_slope)

    def deformable(self, value: str, layer: str, kernel: int) -> str:
        """A modulated deformable convolution (Zhu et al. 2018, arXiv 1811.11168) of stride 1."""
        window: dict[str, Any] = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        names = [f"{layer}.{part}" for part in ("conv.weight", "conv.bias", "offset.weight", "offset.bias")]
        weight, bias, offset_weight, offset_bias = (self.constant(name, self.tensors[name]) for name in names)
        predicted = self.add("Conv", [value, offset_weight, offset_bias], **window)
        taps = kernel**2
        sizes = self.constant(f"split.{taps}", np.array([2 * taps, taps], np.int64))
        offsets, modulation = f"{layer}.offsets", f"{layer}.modulation"
        self.nodes.append(helper.make_node("Split", [predicted, sizes], [offsets, modulation], axis=1))
        modulation = self.add("Sigmoid", [modulation])
        return self.add("DeformConv", [value, weight, offsets, bias, modulation], **window)

    def rectify(self, value: str, negative_slope: float) -> str:
        if negative_slope == 0.0:
            return self.add("Relu", [value])
        return self.add("LeakyRelu", [value], alpha=negative_slope)

    def constant(self, name: str, array: AnyArray) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, op_type: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        output = output or f"value.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output


class _FamilyBuilder(_Builder):
    """The graph of `build_family_onnx`."""

    def input(self) -> ValueInfoProto:
        return helper.make_tensor_value_info(
            FAMILY_INPUT_NAME, TensorProto.FLOAT, ["batch", 3, "height", "width"]
        )

    def image(self) -> str:
        return FAMILY_INPUT_NAME

    def join(self, branches: list[str]) -> str:
        # In this order, because it is what readers of the family's files look for, ours among them.
        return self.add("Relu", [self.add("Concat", branches, axis=1)])

    def outputs(self, levels: dict[str, list[str]]) -> list[ValueInfoProto]:
        numbers = dict(HEADS)
        for head, name in FAMILY_OUTPUT_NAMES.items():
            if head == "class_head":
                value = self.add("Concat", levels[head], axis=1)
                self.add("Softmax", [value], output=name, axis=-1)
            else:
                self.add("Concat", levels[head], output=name, axis=1)
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "anchors", numbers[head]])
            for head, name in FAMILY_OUTPUT_NAMES.items()
        ]
