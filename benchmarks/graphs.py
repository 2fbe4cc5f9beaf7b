"""The network as the opponents run it: an ONNX graph with nothing in it that they could do without.

It is the graph that `retinaface_fast.engines.onnx_graph` exports, made easier: a float32 picture with the
means already subtracted comes in, every size is fixed, and the heads' maps go out as the convolutions leave
them. It has 56 convolutions; the published file has 59, because three of them are there twice.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retinaface_fast.network.config import CONFIGS
from retinaface_fast.network.layout import HEADS, LayerSpec, layer_specs

if TYPE_CHECKING:
    from retinaface_fast.weights import ModelWeights

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MODEL = "mobilenet0.25"
INPUT = "input"
#: Outputs of the graph: each head's levels, finest first, head after head.
OUTPUTS = tuple(f"{head}.{level}.out" for head, _ in HEADS for level in range(3))
STRIDES = (8, 16, 32)
#: What is converted for the other run times is kept here, so that only the first run pays for it.
CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"


def float_graph(weights: ModelWeights, size_hw: tuple[int, int]) -> Any:
    """The graph of one image size: (1, 3, H, W) float32 in, nine maps (1, anchors * numbers, h, w) out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from retinaface_fast.engines.onnx_graph import build_onnx

    model = build_onnx(weights, color="bgr")
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    # Transpose, Cast and Sub at one end; Transpose and Reshape at the other.
    front = list(graph.node)[:3]
    assert [node.op_type for node in front] == ["Transpose", "Cast", "Sub"]
    names = {front[-1].output[0]: INPUT}
    dropped = {node.output[0] for node in front}
    for output in OUTPUTS:
        reshape = producers[output]
        transpose = producers[reshape.input[0]]
        dropped |= {reshape.output[0], transpose.output[0]}
        names[transpose.input[0]] = output

    nodes = [node for node in graph.node if node.output[0] not in dropped]
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    constants = {constant.name: constant for constant in graph.initializer}
    resizes = [node for node in nodes if node.op_type == "Resize"]
    for node, stride in zip(resizes, reversed(STRIDES[:-1]), strict=True):
        sizes = [1, weights.config.out_channels, *(-(-side // stride) for side in size_hw)]
        name = f"sizes.{stride}"
        constants[name] = numpy_helper.from_array(np.array(sizes, np.int64), name)
        node.input[3] = name
    needed = set(OUTPUTS)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed |= set(node.input)
            kept.append(node)
    height, width = size_hw
    small = helper.make_graph(
        kept[::-1],
        graph.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in OUTPUTS],
        [constant for name, constant in constants.items() if name in needed],
    )
    finished = helper.make_model(small, opset_imports=model.opset_import, ir_version=model.ir_version)
    finished = onnx.shape_inference.infer_shapes(finished, strict_mode=True)
    onnx.checker.check_model(finished)
    return finished


def blob_of(weights: ModelWeights, image_bgr: UInt8Array) -> FloatArray:
    """What goes into the graph, ready and contiguous."""
    mean = np.array(weights.config.mean_bgr, dtype=np.float32)
    blob: FloatArray = np.ascontiguousarray((image_bgr.astype(np.float32) - mean).transpose(2, 0, 1)[None])
    return blob


def as_levels(maps: list[FloatArray]) -> list[FloatArray]:
    """The graph's maps in the order of the anchors, (1, A_l, numbers), as the engines give them."""
    numbers = [count for _, count in HEADS for _ in STRIDES]
    return [
        np.ascontiguousarray(np.reshape(array, (1, *array.shape[-3:])).transpose(0, 2, 3, 1)).reshape(
            1, -1, n
        )
        for array, n in zip(maps, numbers, strict=True)
    ]


def multiplications(size_hw: tuple[int, int], model: str = MODEL) -> int:
    """Multiply-accumulates of the network by direct convolution, from the list of its layers."""
    return sum(
        spec.out_channels * (spec.in_channels // spec.groups) * spec.kernel**2 * rows * columns
        for spec, (rows, columns) in _output_sizes(size_hw, model)
    )


def _output_sizes(size_hw: tuple[int, int], model: str) -> list[tuple[LayerSpec, tuple[int, int]]]:
    sizes: list[tuple[LayerSpec, tuple[int, int]]] = []
    config = CONFIGS[model]
    if config.backbone.kind != "mobilenet":
        raise ValueError(f"model: expected a MobileNet, got {model!r}")
    rows, columns = size_hw
    for spec in layer_specs(config):
        part, _, rest = spec.name.partition(".")
        if part == "backbone":
            rows, columns = -(-rows // spec.stride), -(-columns // spec.stride)
            sizes.append((spec, (rows, columns)))
        else:
            # fpn.lateral.0, fpn.merge.1, context.2.conv3x3, box_head.0: the number is the level.
            level = int(next(word for word in rest.split(".") if word.isdecimal()))
            stride = STRIDES[level]
            sizes.append((spec, (-(-size_hw[0] // stride), -(-size_hw[1] // stride))))
    return sizes


def onnx_file(weights: ModelWeights, size_hw: tuple[int, int]) -> Path:
    """The graph as a file in the cache."""
    data = float_graph(weights, size_hw).SerializeToString()
    name = hashlib.sha256(data).hexdigest()[:12]
    path = CACHE / f"{weights.config.name}-{size_hw[1]}x{size_hw[0]}-{name}.onnx"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path


def program(name: str) -> str | None:
    """A program that a package has installed beside this Python, or one on the path."""
    folder = Path(sys.executable).parent
    return shutil.which(name, path=str(folder)) or shutil.which(name)


def convert(source: Path, converter: str, command: list[str], products: tuple[str, ...]) -> list[Path]:
    """Files that a converter makes of the graph, from the cache where they are.

    Args:
        source: The graph.
        converter: Its name and version: another one converts again.
        command: Run in an empty folder with the graph in it as `model.onnx`.
        products: Names of the files to keep.
    """
    folder = CACHE / f"{source.stem}-{converter}"
    paths = [folder / product for product in products]
    if not all(path.exists() for path in paths):
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shutil.copy(source, partial / "model.onnx")
        done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
        missing = [product for product in products if not (partial / product).exists()]
        if missing:
            raise RuntimeError(f"{converter} made no {missing[0]}:\n{(done.stdout + done.stderr)[-2000:]}")
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    return paths
