"""ONNX files of RetinaFace, mapped to canonical tensors by walking the graph.

Exporters fold batch norm and give the initializers new names, so that names say nothing: what a tensor is
follows from where its convolution stands. The walk goes backwards, from the heads to the image, because every
value has one producer but many consumers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast.errors import MissingDependencyError, WeightsError
from retinaface_fast.network.config import CONFIGS, RetinaFaceConfig
from retinaface_fast.network.layout import HEADS, MOBILENET_TAPS, LayerSpec, layer_specs

from .onnx_nodes import Graph, MismatchError, attribute
from .state_dict import TranslatedTensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import NodeProto

    from retinaface_fast._typing import AnyArray

__all__ = ["open_onnx", "read_onnx"]

_WEIGHTED = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "MatMul", "PRelu"}
)

#: What a walk runs into where nodes lack inputs, or where attributes and tensors are not of their kind.
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def open_onnx(data: bytes, *, source: str) -> tuple[Graph, dict[str, str]]:
    """Decode an ONNX file.

    Args:
        data: The whole file.
        source: Path of the file, for messages.

    Returns:
        The graph, for `read_onnx`, and the metadata.

    Raises:
        MissingDependencyError: If `onnx` is not installed.
        WeightsError: If the file is not ONNX.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx", extra="onnx", purpose="reading ONNX weights") from error
    try:
        model = onnx.load_model_from_string(data)
        return Graph(model), {_text(item.key): _text(item.value) for item in model.metadata_props}
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    except Exception as error:  # the decoder's own errors are of many kinds
        raise WeightsError(f"{source} is not a readable ONNX file: {error}") from error


def _text(value: str | bytes) -> str:
    # Protobuf gives the bytes of a text that is no UTF-8, where nobody would look for them.
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def read_onnx(graph: Graph, *, config: RetinaFaceConfig | None, source: str) -> TranslatedTensors:
    """Read the tensors of a RetinaFace from an ONNX file.

    Args:
        graph: The graph of the file.
        config: The network that it must be, or None to find it among `CONFIGS`.
        source: Path of the file, for messages.

    Returns:
        Tensors by canonical name, and the names that the file gave them.

    Raises:
        WeightsError: If the graph is not that of the network.
    """
    furthest: MismatchError | None = None
    for candidate in CONFIGS.values() if config is None else (config,):
        walk = _Walk(graph, candidate)
        try:
            walk.run()
        except MismatchError as error:
            error.progress = len(walk.layer_of)
            error.config = candidate
            if furthest is None or error.progress > furthest.progress:
                furthest = error
            continue
        except _MALFORMED as error:
            raise WeightsError(f"{source}: malformed graph: {error}") from error
        return TranslatedTensors(walk.tensors, candidate, walk.foreign_names)
    if furthest is None:  # pragma: no cover -- there is always a candidate
        raise WeightsError(f"{source}: no network to compare with")
    raise WeightsError(f"{source} is not the network {furthest.config.name!r}: {furthest}") from furthest


class _Walk:
    """One attempt to find a network in a graph."""

    def __init__(self, graph: Graph, config: RetinaFaceConfig) -> None:
        self.graph = graph
        self.config = config
        self.specs = {spec.name: spec for spec in layer_specs(config)}
        self.tensors: dict[str, AnyArray] = {}
        self.foreign_names: dict[str, str] = {}
        self.layer_of: dict[int, str] = {}  # layer by id of the node
        self.used: set[str] = set()

    def run(self) -> None:
        """Match the whole graph.

        Raises:
            MismatchError: At the first node that is not what the network has there.
        """
        if self.config.context.deformable:
            raise MismatchError("deformable convolutions cannot be read from ONNX")
        pyramid = [self.context(level, value) for level, value in enumerate(self.heads())]
        features = self.pyramid(pyramid)
        image = (
            self.mobilenet(features) if self.config.backbone.kind == "mobilenet" else self.resnet(features)
        )
        image = self.graph.resolve(image)
        if image not in self.graph.inputs:
            raise MismatchError(
                f"the first convolution reads {image}, which is computed, where the image was expected"
            )
        self.expect_nothing_left()

    # Steps backwards: each takes a value and returns the value that its node reads.

    def node(self, value: str, op_types: tuple[str, ...], what: str) -> NodeProto:
        value = self.graph.resolve(value)
        node = self.graph.producer.get(value)
        if node is None or node.op_type not in op_types:
            found = "nothing" if node is None else f"{node.op_type} {node.name!r}".rstrip()
            raise MismatchError(f"{what}: expected {' or '.join(op_types)} to produce {value}, found {found}")
        return node

    def rectifier(self, value: str, what: str, negative_slope: float) -> str:
        node = self.node(value, ("LeakyRelu", "Relu"), what)
        slope = attribute(node, "alpha", 0.01) if node.op_type == "LeakyRelu" else 0.0
        if abs(slope - negative_slope) > 1e-6:
            raise MismatchError(f"{what}: its rectifier has slope {slope:g} instead of {negative_slope:g}")
        return str(node.input[0])

    def conv(self, value: str, layer: str, *, negative_slope: float | None) -> str:
        spec = self.specs[layer]
        if negative_slope is not None:
            value = self.rectifier(value, layer, negative_slope)
        node = self.node(value, ("BatchNormalization", "Conv") if spec.norm else ("Conv",), layer)
        if node.op_type == "BatchNormalization":
            epsilon = attribute(node, "epsilon", 1e-5)
            if abs(epsilon - 1e-5) > 1e-9:
                raise MismatchError(f"{layer}: its batch norm has epsilon {epsilon:g} instead of 1e-05")
            for part, name in zip(
                ("weight", "bias", "running_mean", "running_var"), node.input[1:5], strict=True
            ):
                self.record(f"{layer}.norm.{part}", name, (spec.out_channels,))
            self.layer_of[id(node)] = layer
            node = self.node(node.input[0], ("Conv",), layer)
        self.check_geometry(node, spec)
        prefix = f"{layer}.conv" if spec.norm else layer
        self.record(f"{prefix}.weight", node.input[1], spec.weight_shape)
        if len(node.input) > 2 and node.input[2]:
            self.record(f"{prefix}.bias", node.input[2], (spec.out_channels,))
        self.layer_of[id(node)] = layer
        return self.graph.resolve(node.input[0])

    def record(self, name: str, value: str, shape: tuple[int, ...]) -> None:
        constant = self.graph.constant(value)
        if constant is None:
            raise MismatchError(f"{name}: {value} is computed, not a weight")
        foreign, array = constant
        if array.shape != shape:
            raise MismatchError(f"{name} ({foreign} in the file) is {array.shape} instead of {shape}")
        if name in self.tensors and not np.array_equal(self.tensors[name], array):
            # A module that is called twice is exported twice; both must be the same weights.
            raise MismatchError(f"{name}: {self.foreign_names[name]} and {foreign} differ")
        self.tensors.setdefault(name, array)
        self.foreign_names.setdefault(name, foreign)
        self.used.add(foreign)

    def check_geometry(self, node: NodeProto, spec: LayerSpec) -> None:
        auto_pad = attribute(node, "auto_pad", b"NOTSET")
        found = {
            "strides": tuple(attribute(node, "strides", (1, 1))),
            "pads": tuple(attribute(node, "pads", (0, 0, 0, 0))),
            "dilations": tuple(attribute(node, "dilations", (1, 1))),
            "group": attribute(node, "group", 1),
        }
        expected = {
            "strides": (spec.stride,) * 2,
            "pads": (spec.kernel // 2,) * 4,
            "dilations": (1, 1),
            "group": spec.groups,
        }
        wrong = [
            f"{key} {found[key]} instead of {expected[key]}" for key in found if found[key] != expected[key]
        ]
        if auto_pad not in (b"NOTSET", "NOTSET"):
            wrong.append(f"auto_pad {auto_pad!r}")
        if wrong:
            raise MismatchError(f"{spec.name}: convolution {node.name!r} has {', '.join(wrong)}")

    def same(self, values: list[str], what: str) -> str:
        names = {self.graph.resolve(value) for value in values}
        if len(names) != 1:
            raise MismatchError(f"{what}: expected one common input, found {', '.join(sorted(names))}")
        return names.pop()

    # Parts of the network, from its end.

    def heads(self) -> list[str]:
        """Match the heads; the features that each level's three heads read."""
        if len(self.graph.outputs) != len(HEADS):
            raise MismatchError(f"the graph has {len(self.graph.outputs)} outputs instead of {len(HEADS)}")
        inputs: dict[str, list[str]] = {}
        for output in self.graph.outputs:
            branches = self.head_branches(output)
            kinds = [self.head_kind(level, branch) for level, branch in enumerate(branches)]
            if len(set(kinds)) != 1 or kinds[0] in inputs:
                raise MismatchError(f"output {output}: its levels are {', '.join(kinds)}")
            inputs[kinds[0]] = [
                self.conv(branch, f"{kinds[0]}.{level}", negative_slope=None)
                for level, branch in enumerate(branches)
            ]
        return [
            self.same(list(values), f"heads of level {i}")
            for i, values in enumerate(zip(*inputs.values(), strict=False))
        ]

    def head_branches(self, output: str) -> list[str]:
        value = self.graph.resolve(output)
        node = self.node(value, ("Softmax", "Concat"), f"output {output}")
        if node.op_type == "Softmax":
            node = self.node(node.input[0], ("Concat",), f"output {output}")
        levels = len(self.config.levels)
        if attribute(node, "axis", 1) not in (1, -2) or len(node.input) != levels:
            raise MismatchError(f"output {output}: expected {levels} levels joined along axis 1")
        branches = []
        for value in node.input:
            reshape = self.node(value, ("Reshape",), f"output {output}")
            transpose = self.node(reshape.input[0], ("Transpose",), f"output {output}")
            order = tuple(attribute(transpose, "perm", ()))
            if order != (0, 2, 3, 1):
                raise MismatchError(f"output {output}: channels are moved by {order} instead of (0, 2, 3, 1)")
            branches.append(transpose.input[0])
        return branches

    def head_kind(self, level: int, value: str) -> str:
        node = self.node(value, ("Conv",), f"head of level {level}")
        constant = self.graph.constant(node.input[1])
        channels = -1 if constant is None else constant[1].shape[0]
        anchors = self.config.anchors.anchors_per_cell[level]
        for kind, numbers in HEADS:
            if channels == anchors * numbers:
                return kind
        raise MismatchError(f"head {node.name!r} of level {level} has {channels} channels")

    def context(self, level: int, value: str) -> str:
        """Match a context module; the pyramid features that it reads."""
        name = f"context.{level}"
        slope = self.config.neck_negative_slope
        node = self.node(self.rectifier(value, name, 0.0), ("Concat",), name)
        if len(node.input) != 3 or attribute(node, "axis", 1) not in (1, -3):
            raise MismatchError(f"{name}: expected three branches joined along the channels")
        first, second, third = node.input
        inputs = [self.conv(first, f"{name}.conv3x3", negative_slope=None)]
        second = self.conv(second, f"{name}.conv5x5_2", negative_slope=None)
        inputs.append(self.conv(second, f"{name}.conv5x5_1", negative_slope=slope))
        third = self.conv(third, f"{name}.conv7x7_3", negative_slope=None)
        third = self.conv(third, f"{name}.conv7x7_2", negative_slope=slope)
        shared = self.config.context.share_first
        inputs.append(
            self.conv(third, f"{name}.{'conv5x5_1' if shared else 'conv7x7_1'}", negative_slope=slope)
        )
        return self.same(inputs, name)

    def pyramid(self, pyramid: list[str]) -> dict[int, str]:
        """Match the feature pyramid; the backbone features that it reads, by level."""
        slope = self.config.neck_negative_slope
        features: dict[int, str] = {}
        levels = [level for level in self.config.levels if level <= 5]
        if len(levels) < len(pyramid):
            features[5] = self.conv(pyramid[-1], "fpn.extra", negative_slope=slope)
        for index, level in enumerate(levels):
            value = pyramid[index]
            if index < len(levels) - 1:
                value = self.conv(value, f"fpn.merge.{index}", negative_slope=slope)
                add = self.node(value, ("Add",), f"fpn.merge.{index}")
                value, coarser = self.split_sum(add, f"fpn.merge.{index}")
                self.same([coarser, pyramid[index + 1]], f"fpn.merge.{index}")
            feature = self.conv(value, f"fpn.lateral.{index}", negative_slope=slope)
            if level in features:
                self.same([feature, features[level]], f"fpn.lateral.{index}")
            features[level] = feature
        return features

    def split_sum(self, add: NodeProto, what: str) -> tuple[str, str]:
        for lateral, upsampled in (tuple(add.input), tuple(reversed(add.input))):
            node = self.graph.producer.get(self.graph.resolve(upsampled))
            if node is not None and node.op_type in ("Resize", "Upsample"):
                if attribute(node, "mode", b"nearest") not in (b"nearest", "nearest"):
                    raise MismatchError(f"{what}: {node.name!r} does not take the nearest neighbour")
                return lateral, node.input[0]
        raise MismatchError(f"{what}: neither input of {add.name!r} is an upsampled level")

    def mobilenet(self, features: Mapping[int, str]) -> str:
        slope = self.config.backbone.negative_slope
        level_of = {index: level for level, index in MOBILENET_TAPS.items()}
        value = features[5]
        for index in reversed(range(MOBILENET_TAPS[5] + 1)):
            value = self.tap(value, level_of.get(index), features)
            value = self.conv(value, f"backbone.blocks.{index}.pointwise", negative_slope=slope)
            value = self.conv(value, f"backbone.blocks.{index}.depthwise", negative_slope=slope)
        return self.conv(value, "backbone.stem", negative_slope=slope)

    def tap(self, value: str, level: int | None, features: Mapping[int, str]) -> str:
        if level is not None and level in features:
            return self.same([value, features[level]], f"features of level {level}")
        return value

    def resnet(self, features: Mapping[int, str]) -> str:
        from retinaface_fast.network.config import RESNET_STAGES

        counts, _ = RESNET_STAGES[self.config.backbone.depth]
        value = features[5]
        for stage in reversed(range(4)):
            value = self.tap(value, stage + 2, features)
            for index in reversed(range(counts[stage])):
                value = self.residual(value, f"backbone.stages.{stage}.{index}")
        pool = self.node(value, ("MaxPool",), "backbone.stem")
        window = [tuple(attribute(pool, key, ())) for key in ("kernel_shape", "strides", "pads")]
        if window != [(3, 3), (2, 2), (1, 1, 1, 1)]:
            raise MismatchError(f"backbone.stem: {pool.name!r} pools with {window}")
        return self.conv(pool.input[0], "backbone.stem", negative_slope=self.config.backbone.negative_slope)

    def residual(self, value: str, block: str) -> str:
        value = self.rectifier(value, block, self.config.backbone.negative_slope)
        add = self.node(value, ("Add",), block)
        state = dict(self.tensors), dict(self.foreign_names), dict(self.layer_of), set(self.used)
        first, second = add.input
        try:
            return self.residual_branches(first, second, block)
        except MismatchError as error:
            # A sum has no order, so the other one is tried; the furthest attempt is the one worth reporting.
            self.tensors, self.foreign_names, self.layer_of, self.used = state
            try:
                return self.residual_branches(second, first, block)
            except MismatchError:
                raise error from None

    def residual_branches(self, main: str, shortcut: str, block: str) -> str:
        slope = self.config.backbone.negative_slope
        last = 2 if f"{block}.convs.2" in self.specs else 1
        for index in reversed(range(last + 1)):
            main = self.conv(main, f"{block}.convs.{index}", negative_slope=None if index == last else slope)
        if f"{block}.shortcut" in self.specs:
            shortcut = self.conv(shortcut, f"{block}.shortcut", negative_slope=None)
        return self.same([main, shortcut], block)

    def expect_nothing_left(self) -> None:
        missing = [
            spec
            for spec in self.specs
            if f"{spec}.conv.weight" not in self.tensors and f"{spec}.weight" not in self.tensors
        ]
        if missing:  # pragma: no cover -- the walk visits every layer
            raise MismatchError(f"missing: {', '.join(missing[:5])}")
        surplus = [
            node.name or node.op_type
            for node in self.graph.nodes
            if node.op_type in _WEIGHTED and id(node) not in self.layer_of
        ]
        shaping = {
            self.graph.resolve(value)
            for node in self.graph.nodes
            if node.op_type in ("Resize", "Upsample")
            for value in node.input[1:]
        }
        surplus += [
            name for name in self.graph.float_initializers() if name not in self.used and name not in shaping
        ]
        if surplus:
            raise MismatchError(f"surplus: {', '.join(surplus[:5])}")
