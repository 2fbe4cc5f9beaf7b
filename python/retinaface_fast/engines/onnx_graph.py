"""An ONNX graph of a network, from its weights alone.

Everything around the convolutions is inside: uint8 pixels in any of the two channel orders come in, and each
level's logits and deltas go out in the order of the anchors, so that the caller copies nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from retinaface_fast.errors import EngineError
from retinaface_fast.network.config import RESNET_STAGES
from retinaface_fast.network.layout import HEADS, MOBILENET_TAPS, layer_specs

if TYPE_CHECKING:
    from onnx import ModelProto

    from retinaface_fast._typing import AnyArray, ColorOrder
    from retinaface_fast.weights import ModelWeights

__all__ = ["INPUT_NAME", "build_onnx", "output_names"]

INPUT_NAME = "images"

#: 13 brought unsqueeze and slice by input; every later release of ONNX Runtime reads it.
_OPSET = 13
_IR_VERSION = 8


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

    Raises:
        EngineError: If the network has deformable convolutions.
    """
    if weights.config.context.deformable:
        raise EngineError("the engine 'onnxruntime' has no deformable convolutions; use 'torch'")
    return _Builder(weights, color).model()


class _Builder:
    def __init__(self, weights: ModelWeights, color: ColorOrder) -> None:
        self.config = weights.config
        self.tensors = weights.tensors
        self.color = color
        self.specs = {spec.name: spec for spec in layer_specs(self.config)}
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}

    def model(self) -> ModelProto:
        pyramid = self.pyramid(self.backbone(self.image()))
        for level, features in enumerate(pyramid):
            context = self.context(features, level)
            for head, numbers in HEADS:
                value = self.conv(context, f"{head}.{level}", negative_slope=None)
                value = self.add("Transpose", [value], perm=[0, 2, 3, 1])
                shape = self.constant(f"shape.{numbers}", np.array([0, -1, numbers], dtype=np.int64))
                self.add("Reshape", [value, shape], output=f"{head}.{level}.out")
        outputs = [
            helper.make_tensor_value_info(
                f"{head}.{level}.out", TensorProto.FLOAT, ["batch", f"anchors_{level}", numbers]
            )
            for head, numbers in HEADS
            for level in range(len(pyramid))
        ]
        graph = helper.make_graph(
            self.nodes,
            self.config.name,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", "height", "width", 3])],
            outputs,
            list(self.initializers.values()),
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="retinaface_fast",
        )

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
        # Each branch is rectified before they are joined, which is the same and lets the run time fuse it.
        branches = [
            self.conv(value, f"{name}.conv3x3", negative_slope=0.0),
            self.conv(first, f"{name}.conv5x5_2", negative_slope=0.0),
            self.conv(third, f"{name}.conv7x7_3", negative_slope=0.0),
        ]
        return self.add("Concat", branches, axis=1)

    def conv(self, value: str, layer: str, *, negative_slope: float | None) -> str:
        spec = self.specs[layer]
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
