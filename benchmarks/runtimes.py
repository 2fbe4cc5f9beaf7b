"""Everyone who can run the network, set up for the shortest time of a single picture, all in float32.

An opponent gets the graph of `graphs` for exactly the size at hand and a float32 picture that is ready; our
own engines get the uint8 picture, and convert it in the time that is measured. So it is we who carry the
handicap.

Each class has four steps, because memory is measured between them: construction loads the network, `show`
brings the picture into the form that it takes, `prepare` allocates what can be allocated before the first
run, and `run` is what is timed. `outputs` gives the answer of the last run.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks import graphs
from retinaface_fast.engines import ENGINES, available_engines, create_engine

if TYPE_CHECKING:
    from benchmarks.graphs import FloatArray, UInt8Array
    from retinaface_fast.weights import ModelWeights

Size = tuple[int, int]


class Runtime(Protocol):
    """One way to run the network on pictures of one size."""

    def show(self, image: UInt8Array) -> None:
        """Keep the picture in the form that `run` wants."""

    def prepare(self) -> None:
        """Allocate what can be allocated before `run`."""

    def run(self) -> object:
        """Run the network; this is what is timed."""

    def outputs(self) -> list[FloatArray]:
        """(1, A_l, numbers) of each head and level, head after head, as the last `run` left them."""


class OwnEngine:
    """One of the package's engines: uint8 pixels in."""

    def __init__(self, name: str, weights: ModelWeights, threads: int) -> None:
        self._engine = own_engine(name, weights, threads)
        self._images: Any = None
        self._raw: Any = None

    def show(self, image: UInt8Array) -> None:
        self._images = image[None]

    def prepare(self) -> None:
        """It plans at the first run."""

    def run(self) -> object:
        self._raw = self._engine.run(self._images, color="bgr")
        return self._raw

    def outputs(self) -> list[FloatArray]:
        raw = self._raw
        assert raw.scores_are == "logits"
        return [*raw.class_scores, *raw.box_deltas, *raw.landmark_deltas]


def own_engine(name: str, weights: ModelWeights, threads: int) -> Any:
    """One of the package's engines on so many threads."""
    if name == "torch":  # it counts its threads for the whole process
        import torch

        torch.set_num_threads(threads)
        return create_engine(name, weights, device="cpu")
    return create_engine(name, weights, device="cpu", threads=threads)


class _Opponent:
    """What they have in common: the graph and the blob."""

    def __init__(self, weights: ModelWeights, size_hw: Size) -> None:
        self._weights = weights
        self._size = size_hw
        self._file = graphs.onnx_file(weights, size_hw)

    def show(self, image: UInt8Array) -> None:
        self.take(graphs.blob_of(self._weights, image))

    def take(self, blob: FloatArray) -> None:
        """Keep a picture that is in the form that `run` wants."""
        assert blob.shape == (1, 3, *self._size)
        self._blob = blob


class OnnxRuntime(_Opponent):
    """ONNX Runtime, every optimisation on, inputs and outputs bound to memory that is reused."""

    def __init__(self, weights: ModelWeights, size_hw: Size, threads: int) -> None:
        super().__init__(weights, size_hw)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self._session = onnxruntime.InferenceSession(
            str(self._file), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()

    def prepare(self) -> None:
        import onnxruntime

        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(self._blob)
        self._binding.bind_ortvalue_input(graphs.INPUT, self._input)
        self._outputs = []
        for output in self._session.get_outputs():
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32)
            self._binding.bind_ortvalue_output(output.name, value)
            self._outputs.append(value)

    def run(self) -> object:
        return self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[FloatArray]:
        return graphs.as_levels([value.numpy() for value in self._outputs])


class OpenVino(_Opponent):
    """OpenVINO for latency: one stream, float32, threads as given, the input tensor shared."""

    def __init__(self, weights: ModelWeights, size_hw: Size, threads: int) -> None:
        super().__init__(weights, size_hw)
        import openvino

        self._compiled = openvino.Core().compile_model(
            str(self._file),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(threads),
            },
        )
        granted = self._compiled.get_property("INFERENCE_NUM_THREADS")
        precision = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        assert granted == threads, f"OpenVINO takes {granted} threads instead of {threads}"
        assert precision == openvino.Type.f32, f"OpenVINO computes in {precision}"

    def prepare(self) -> None:
        import openvino

        self._request = self._compiled.create_infer_request()
        self._input = openvino.Tensor(self._blob, shared_memory=True)
        self._request.set_input_tensor(self._input)

    def run(self) -> object:
        return self._request.infer(share_inputs=True, share_outputs=True)

    def outputs(self) -> list[FloatArray]:
        return graphs.as_levels(
            [self._request.get_output_tensor(index).data.copy() for index in range(len(graphs.OUTPUTS))]
        )


class Ncnn(_Opponent):
    """ncnn with Winograd and packed layouts, all 16-bit and 8-bit storage off, memory from pools."""

    def __init__(self, weights: ModelWeights, size_hw: Size, threads: int) -> None:
        super().__init__(weights, size_hw)
        import ncnn

        pnnx = graphs.program("pnnx")
        if pnnx is None:
            raise ImportError("pnnx, which converts for ncnn, is not installed")
        param, weight_file = graphs.convert(
            self._file,
            f"pnnx-{version('pnnx')}",
            [pnnx, "model.onnx", "fp16=0"],
            ("model.ncnn.param", "model.ncnn.bin"),
        )
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        for switch in dir(options):
            if switch.startswith(("use_fp16", "use_bf16", "use_int8", "use_vulkan")):
                setattr(options, switch, False)
        options.use_winograd_convolution = True
        options.use_sgemm_convolution = True
        options.use_packing_layout = True
        options.lightmode = True
        self._allocators = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
        options.blob_allocator, options.workspace_allocator = self._allocators
        assert self._net.load_param(str(param)) == 0
        assert self._net.load_model(str(weight_file)) == 0

    def prepare(self) -> None:
        import ncnn

        self._input = ncnn.Mat(self._blob[0])  # a view, and even its clone is one: the array must live on
        self._found: list[Any] = []

    def run(self) -> object:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._input)
        self._found = [extractor.extract(f"out{index}") for index in range(len(graphs.OUTPUTS))]
        return self._found

    def outputs(self) -> list[FloatArray]:
        assert all(status == 0 for status, _ in self._found)
        return graphs.as_levels([np.array(found)[None] for _, found in self._found])


class Mnn(_Opponent):
    """MNN's module with precision high, which is float32, for one shape.

    Its older session is as fast, but writes over its input, which would have to be set before every run.
    """

    def __init__(self, weights: ModelWeights, size_hw: Size, threads: int) -> None:
        super().__init__(weights, size_hw)
        nn = importlib.import_module("MNN.nn")
        self._expr = importlib.import_module("MNN.expr")
        # Not the program `mnnconvert`: it installs a log client with pip and reports every conversion.
        call = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
        options = "-f ONNX --modelFile model.onnx --MNNModel model.mnn --bizCode retinaface"
        (path,) = graphs.convert(
            self._file,
            f"MNN-{version('MNN')}",
            [sys.executable, "-c", call, *options.split()],
            ("model.mnn",),
        )
        self._manager = nn.create_runtime_manager(
            ({"backend": "CPU", "numThread": threads, "precision": "high"},)
        )
        self._module = nn.load_module_from_file(
            str(path),
            [graphs.INPUT],
            list(graphs.OUTPUTS),
            runtime_manager=self._manager,
            shape_mutable=False,
        )

    def prepare(self) -> None:
        self._input = self._expr.const(self._blob, list(self._blob.shape), self._expr.NCHW)

    def run(self) -> object:
        self._found = self._module.forward([self._input])
        return self._found

    def outputs(self) -> list[FloatArray]:
        maps = [self._expr.convert(found, self._expr.NCHW) for found in self._found]
        return graphs.as_levels([np.array(found.read()).reshape(found.shape) for found in maps])


#: Class, the distributions that may hold it and the module that it needs, by the name in the tables.
OPPONENTS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "ONNX Runtime": (OnnxRuntime, ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "onnxruntime"),
    "OpenVINO": (OpenVino, ("openvino",), "openvino"),
    "ncnn": (Ncnn, ("ncnn",), "ncnn"),
    "MNN": (Mnn, ("MNN",), "MNN"),
}


def versions() -> dict[str, str | None]:
    """Version of every opponent and of what our engines run on, None for what is not installed."""
    found: dict[str, str | None] = {}
    for name, (_, distributions, _) in OPPONENTS.items():
        found[name] = next(filter(None, map(installed_version, distributions)), None)
    return found


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def own_engines() -> list[str]:
    """Names of our engines that can run here, in the order in which "auto" prefers them."""
    available = available_engines()
    return [name for name in ENGINES if available[name] is not None]


def make(name: str, weights: ModelWeights, size_hw: Size, threads: int) -> Runtime:
    """A contestant by the name in the tables; ours are `retinaface_fast NAME`.

    Raises:
        ImportError: It is not installed.
    """
    if name.startswith(OURS):
        return OwnEngine(name.removeprefix(OURS), weights, threads)
    kind, _, module = OPPONENTS[name]
    importlib.import_module(module)
    runtime: Runtime = kind(weights, size_hw, threads)
    return runtime


OURS = "retinaface_fast "
