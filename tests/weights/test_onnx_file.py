from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from retinaface_fast.errors import MissingDependencyError, WeightsError
from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import load_weights
from tests.reference.network_ports import random_port
from tests.weights.test_state_dict import PORTS, assert_computes_like

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")


def exported(port: torch.nn.Module, *, folded: bool = True, dynamic: bool = True) -> Any:
    """The ONNX model of a port, by the exporter that the publishers used."""
    buffer = io.BytesIO()
    axes = {"input": {0: "batch", 2: "height", 3: "width"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                port,
                (torch.zeros(1, 3, 64, 64),),
                buffer,
                dynamo=False,
                opset_version=13,
                input_names=["input"],
                output_names=["loc", "conf", "landmarks"],
                dynamic_axes=axes,
                do_constant_folding=folded,
                training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
            )
        except (TypeError, ImportError, AttributeError) as error:  # the exporter is on its way out
            pytest.skip(f"this torch has no TorchScript exporter any more: {error}")
    return onnx.load_model_from_string(buffer.getvalue())


def saved(tmp_path: Path, model: Any) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def port() -> torch.nn.Module:
    return random_port("mobilenet", 8, 64, flat=False)


@pytest.fixture(scope="module")
def pristine(port: torch.nn.Module) -> bytes:
    return bytes(exported(port).SerializeToString())


@pytest.fixture
def model(pristine: bytes) -> Any:
    return onnx.load_model_from_string(pristine)


@pytest.mark.parametrize("name", ["mobilenet0.25", "mobilenet0.5", "resnet18", "resnet34", "resnet50"])
def test_folded_exports(name: str, tmp_path: Path) -> None:
    port = random_port(*PORTS[name], flat=False)
    model = exported(port)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    weights = load_weights(saved(tmp_path, model))
    assert weights.config == CONFIGS[name]
    assert_computes_like(weights, port)


@pytest.mark.parametrize("flat", [False, True], ids=["yakhyo", "biubug6"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_static_and_dynamic_exports(flat: bool, dynamic: bool, tmp_path: Path) -> None:
    port = random_port("mobilenet", 8, 64, flat=flat)
    assert_computes_like(load_weights(saved(tmp_path, exported(port, dynamic=dynamic))), port)


def duplicate_first_context_convolution(model: Any, level: int) -> Any:
    """Export the convolution that two branches share twice, as older exporters did; the new one is returned.

    Its initializers come through identities, as in the published file.
    """
    nodes = model.graph.node
    first = next(n for n in nodes if n.op_type == "Conv" and f"/ssh{level}/conv5X5_1" in n.name)
    rectifier = next(n for n in nodes if first.output[0] in n.input)
    reader = next(n for n in nodes if n.op_type == "Conv" and f"/ssh{level}/conv7X7_2" in n.name)
    place = list(nodes).index(reader)
    copied = [f"copied {value}" for value in first.input[1:]]
    again = onnx.NodeProto()
    again.CopyFrom(first)
    again.name = f"again {level}"
    again.input[:] = [first.input[0], *copied]
    again.output[:] = [f"again {level}"]
    rectified = onnx.NodeProto()
    rectified.CopyFrom(rectifier)
    rectified.input[:] = [f"again {level}"]
    rectified.output[:] = [f"again rectified {level}"]
    reader.input[0] = f"again rectified {level}"
    new = [
        onnx.helper.make_node("Identity", [value], [name])
        for value, name in zip(first.input[1:], copied, strict=True)
    ]
    for offset, node in enumerate((*new, again, rectified)):
        nodes.insert(place + offset, node)
    return nodes[place + 2]


def test_a_convolution_that_was_exported_twice(port: torch.nn.Module, tmp_path: Path, model: Any) -> None:
    for level in (1, 2, 3):
        duplicate_first_context_convolution(model, level)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 59
    assert_computes_like(load_weights(saved(tmp_path, model)), port)


@pytest.mark.parametrize("name", ["mobilenet0.25", "resnet18"])
def test_batch_norm_that_was_not_folded(name: str, tmp_path: Path) -> None:
    port = random_port(*PORTS[name], flat=False)
    model = exported(port, folded=False)
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert_computes_like(load_weights(saved(tmp_path, model)), port)


def test_swapped_operands_of_sums(tmp_path: Path) -> None:
    port = random_port("resnet", 50, 256, flat=False)
    model = exported(port)
    for node in model.graph.node:
        if node.op_type == "Add":
            node.input[:] = list(reversed(node.input))
    assert_computes_like(load_weights(saved(tmp_path, model)), port)


def test_published_weights(published_onnx: Path) -> None:
    weights = load_weights(published_onnx)
    assert weights.config == CONFIGS["mobilenet0.25"]
    assert weights.sha256 == "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"
    assert not any(array.flags.writeable for array in weights.tensors.values())


# Damage, each found and named.


def conv_that_reads(model: Any, fragment: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == "Conv" and fragment in node.name)


def initializer(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def refuse(tmp_path: Path, model: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights(saved(tmp_path, model))


def test_a_misshapen_tensor(tmp_path: Path, model: Any) -> None:
    name = conv_that_reads(model, "output2").input[1]
    bad = onnx.numpy_helper.from_array(np.zeros((64, 100, 1, 1), np.float32), name)
    initializer(model, name).CopyFrom(bad)
    refuse(
        tmp_path, model, rf"fpn.lateral.1.conv.weight \({name} in the file\) is \(64, 100, 1, 1\) instead of"
    )


def test_a_missing_convolution(tmp_path: Path, model: Any) -> None:
    node = conv_that_reads(model, "stage2.3.1")
    for other in model.graph.node:
        other.input[:] = [node.input[0] if value == node.output[0] else value for value in other.input]
    model.graph.node.remove(node)
    refuse(tmp_path, model, r"backbone.blocks.8.pointwise: expected .*Conv to produce .*, found LeakyRelu")


def test_a_missing_bias(tmp_path: Path, model: Any) -> None:
    del conv_that_reads(model, "output1").input[2]
    refuse(tmp_path, model, r"missing: fpn.lateral.0.conv.bias|surplus")


def test_a_surplus_convolution(tmp_path: Path, model: Any) -> None:
    node = conv_that_reads(model, "output1")
    model.graph.node.append(onnx.helper.make_node("Conv", list(node.input), ["unused"], name="one too many"))
    refuse(tmp_path, model, "surplus: one too many")


def test_a_surplus_tensor(tmp_path: Path, model: Any) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "leftover"))
    refuse(tmp_path, model, "surplus: leftover")


def test_context_convolutions_that_differ(tmp_path: Path, model: Any) -> None:
    again = duplicate_first_context_convolution(model, 1)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((16, 64, 3, 3), np.float32), "another")
    )
    again.input[1] = "another"
    refuse(tmp_path, model, r"context.0.conv5x5_1.conv.weight: .* and another differ")


def test_another_rectifier(tmp_path: Path, model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LeakyRelu" and "merge1" in node.name)
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("alpha", 0.2))
    refuse(tmp_path, model, r"fpn.merge.0: its rectifier has slope 0.2 instead of 0.1")


def test_another_stride(tmp_path: Path, model: Any) -> None:
    node = conv_that_reads(model, "stage1.0/")
    for attribute in node.attribute:
        if attribute.name == "strides":
            attribute.ints[:] = [1, 1]
    refuse(tmp_path, model, r"backbone.stem: convolution .* has strides \(1, 1\) instead of \(2, 2\)")


def test_preprocessing_inside_the_graph(tmp_path: Path, model: Any) -> None:
    node = conv_that_reads(model, "stage1.0/")
    model.graph.node.insert(0, onnx.helper.make_node("Neg", [node.input[0]], ["negated"]))
    node.input[0] = "negated"
    refuse(tmp_path, model, "the first convolution reads negated, which is computed")


def test_not_finite(tmp_path: Path, model: Any) -> None:
    name = conv_that_reads(model, "output2").input[1]
    bad = onnx.numpy_helper.from_array(np.full((64, 128, 1, 1), np.nan, np.float32), name)
    initializer(model, name).CopyFrom(bad)
    refuse(tmp_path, model, rf"fpn.lateral.1.conv.weight \({name} in the file\) holds NaN")


def test_tensors_in_another_file(tmp_path: Path, model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    refuse(tmp_path, model, "lies in another file")


def test_identities_in_a_circle(tmp_path: Path, model: Any) -> None:
    names = ("a", "b", "c")
    for value, name in zip(names, ("b", "c", "a"), strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [value], [name]))
    model.graph.output[0].name = "b"
    refuse(tmp_path, model, "identities lead from b back to b")


@pytest.mark.parametrize(
    "op_type", ["Conv", "Concat", "LeakyRelu", "Reshape", "Transpose", "Add", "Identity"]
)
def test_nodes_without_inputs(op_type: str, tmp_path: Path, model: Any) -> None:
    if op_type == "Identity":
        model.graph.node.append(onnx.helper.make_node(op_type, [], ["nowhere"]))
        model.graph.output[0].name = "nowhere"
    for node in model.graph.node:
        if node.op_type == op_type:
            del node.input[:]
    refuse(tmp_path, model, r"network.onnx(: malformed graph: | is not the network )")


def test_attributes_of_another_type(tmp_path: Path, model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Transpose")
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("perm", 3))
    refuse(tmp_path, model, r"network.onnx: malformed graph: .*int")


def test_a_constant_that_is_no_tensor(tmp_path: Path, model: Any) -> None:
    node = onnx.helper.make_node("Constant", [], ["number"])
    node.attribute.append(onnx.helper.make_attribute("value", 1.0))
    model.graph.node.append(node)
    refuse(tmp_path, model, r"network.onnx: malformed graph: ")


def test_data_of_another_length(tmp_path: Path, model: Any) -> None:
    tensor = initializer(model, conv_that_reads(model, "output2").input[1])
    tensor.raw_data = tensor.raw_data[:-4]
    refuse(tmp_path, model, r"network.onnx: malformed graph: ")


def test_another_network(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    refuse(tmp_path, onnx.helper.make_model(graph), "the graph has 1 outputs instead of 3")


def test_another_network_than_asked_for(tmp_path: Path, model: Any) -> None:
    with pytest.raises(WeightsError, match="is not the network 'resnet18'"):
        load_weights(saved(tmp_path, model), config=CONFIGS["resnet18"])


@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage", b"x" * 1000])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"network.onnx"):
        load_weights(path)


def test_truncated_files(tmp_path: Path, pristine: bytes) -> None:
    path = tmp_path / "network.onnx"
    for length in (10, len(pristine) // 2, len(pristine) - 1):
        path.write_bytes(pristine[:length])
        with pytest.raises(WeightsError, match=r"network.onnx"):
            load_weights(path)


def test_onnx_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    path = tmp_path / "network.onnx"
    path.write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"onnx is needed for reading ONNX weights.*\[onnx\]"):
        load_weights(path)
