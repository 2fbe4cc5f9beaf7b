"""An ONNX graph by what produces each value, for walking it backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.errors import WeightsError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from retinaface_fast._typing import AnyArray
    from retinaface_fast.network.config import RetinaFaceConfig

__all__ = ["Graph", "MismatchError", "attribute"]


class MismatchError(WeightsError):
    """The graph is not the one looked for; `progress` says how much of it was."""

    progress: int = 0
    config: RetinaFaceConfig


class Graph:
    """An ONNX graph by what produces each value."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import TensorProto, numpy_helper

        self._to_array = numpy_helper.to_array
        self.nodes: list[NodeProto] = list(model.graph.node)
        if not self.nodes or not model.graph.output:
            raise WeightsError("the ONNX file holds no graph")
        self.producer: dict[str, NodeProto] = {
            output: node for node in self.nodes for output in node.output if output
        }
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                raise WeightsError(f"{tensor.name} lies in another file; save the model as one file")
        for node in self.nodes:
            if node.op_type == "Constant":
                value = attribute(node, "value", None)
                if value is not None:
                    self._initializers[node.output[0]] = value
        self.inputs = {value.name for value in model.graph.input} - set(self._initializers)
        self.outputs = [value.name for value in model.graph.output]

    def resolve(self, value: str) -> str:
        """The value behind identities, which exporters insert where tensors are equal.

        Raises:
            MismatchError: If they form a circle.
        """
        visited: set[str] = set()
        while value in self.producer and self.producer[value].op_type in ("Identity", "Dropout"):
            if value in visited:
                raise MismatchError(f"identities lead from {value} back to {value}")
            visited.add(value)
            value = self.producer[value].input[0]
        return value

    def constant(self, value: str) -> tuple[str, AnyArray] | None:
        """Name and array of a constant; None if the value is computed."""
        name = self.resolve(value)
        if name not in self._initializers:
            return None
        return name, np.asarray(self._to_array(self._initializers[name]))

    def float_initializers(self) -> list[str]:
        """Names of the floating-point initializers, the graph's weights."""
        from onnx import TensorProto

        kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
        return [name for name, tensor in self._initializers.items() if tensor.data_type in kinds]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node."""
    from onnx import helper

    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default
