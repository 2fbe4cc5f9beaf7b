"""Weights as an ONNX file that was run and compared before it is there.

It stands here and not beside the training, whose extra nobody needs to turn a file into another: this takes
the extra `onnxruntime` alone, and torch only for networks that the native engine does not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from retinaface_fast._files import write_whole
from retinaface_fast.errors import EngineError, MissingDependencyError
from retinaface_fast.weights import ModelWeights
from retinaface_fast.weights.loader import file_metadata

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from retinaface_fast._typing import AnyArray, UInt8Array

    from .base import Engine

__all__ = ["ExportCheck", "OnnxLayout", "export_onnx"]

OnnxLayout: TypeAlias = Literal["family", "pixels"]

#: Batch, height and width of the pictures that are compared: one pixel, extremes, odd sizes, several at once.
_SIZES = ((1, 1, 1), (1, 1, 97), (1, 131, 1), (1, 33, 65), (3, 75, 47), (1, 160, 128))

#: Most by which an output may differ, per unit of the largest value (at least 1) of its head.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportCheck:
    """What was compared before a file was written.

    Attributes:
        path: The file.
        layout: "family" or "pixels".
        reference: The engine that computed the other side, "native" or "torch"; None if nothing was compared.
        sizes: Batch, height and width in pixels of every set of random pictures.
        differences: The largest absolute difference by name of the output, over all pictures. Of logits, or
            probabilities where the layout has those, and of deltas.
        tolerance: Most by which an output was allowed to differ, <=, for each unit of the largest absolute
            logit or delta of its pictures, at least 1.
    """

    path: Path
    layout: OnnxLayout
    reference: str | None
    sizes: tuple[tuple[int, int, int], ...]
    differences: Mapping[str, float]
    tolerance: float

    @property
    def largest(self) -> float:
        """The largest of the differences; 0 if nothing was compared."""
        return max(self.differences.values(), default=0.0)


def export_onnx(
    weights: ModelWeights,
    path: str | os.PathLike[str],
    *,
    layout: OnnxLayout = "family",
    verify: bool = True,
) -> ExportCheck:
    """Write weights as an ONNX file whose batch, height and width are free.

    The file is run by ONNX Runtime on random pictures of several sizes, and compared with the engine `native`
    or, where that does not run the network, `torch`, before it gets its name: it is there whole and right, or
    not at all. Its metadata holds what `save_weights` writes, licence and provenance among it.

    Args:
        weights: What to write.
        path: Where, `.onnx`; an existing file is replaced.
        layout: "family" is that of the published files: `input` (N, 3, H, W) float32, blue, green, red minus
            `config.mean_bgr`, to `loc` (N, A, 4), `conf` (N, A, 2) after the softmax and `landmarks`
            (N, A, 10), as other programs and, without deformable convolutions, `load_weights` read it.
            "pixels" takes `images` (N, H, W, 3) uint8, blue, green, red, and gives logits and deltas of each
            level, as the engine `onnxruntime` runs it; `load_weights` does not read it.
        verify: Run and compare it. Without, `onnx` is all that is needed.

    Returns:
        What was compared, and by how much it differs.

    Raises:
        TypeError: If `weights` is not a ModelWeights.
        ValueError: If the layout is unknown, or the path has another suffix.
        MissingDependencyError: If `onnx`, `onnxruntime`, or what computes the other side is not installed.
        EngineError: If the file does not run or computes something else. Nothing is written then.
        OSError: If the file cannot be written.
    """
    if not isinstance(weights, ModelWeights):
        raise TypeError(f"weights: expected a ModelWeights, got {type(weights).__name__}")
    if layout not in get_args(OnnxLayout):
        raise ValueError(f"layout: expected 'family' or 'pixels', got {layout!r}")
    target = Path(path)
    if target.suffix != ".onnx":
        raise ValueError(f"path: expected the name of an .onnx file, got {str(target)!r}")
    data = _encode(weights, layout)
    engine = _reference_engine(weights) if verify else None
    differences = {} if engine is None else _compare(data, weights, engine, layout)
    write_whole(target, data)
    return ExportCheck(
        target,
        layout,
        reference=None if engine is None else engine.name,
        sizes=() if engine is None else _SIZES,
        differences=MappingProxyType(differences),
        tolerance=TOLERANCE,
    )


def _encode(weights: ModelWeights, layout: OnnxLayout) -> bytes:
    """The file: the same bytes for the same weights."""
    try:
        from onnx import checker, helper

        from .onnx_graph import build_family_onnx, build_onnx
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "onnx", extra="onnxruntime", purpose="exporting ONNX files"
        ) from error
    model = build_family_onnx(weights) if layout == "family" else build_onnx(weights, color="bgr")
    metadata = {**file_metadata(weights), "retinaface_fast.layout": layout}
    helper.set_model_props(model, dict(sorted(metadata.items())))
    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's errors are of several kinds
        raise EngineError(f"the graph of {weights.config.name!r} is not valid ONNX: {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


def _reference_engine(weights: ModelWeights) -> Engine:
    """An engine that shares no code with ONNX Runtime."""
    from . import create_engine

    try:
        return create_engine("native", weights)
    except EngineError:
        return create_engine("torch", weights, device="cpu")


def _compare(data: bytes, weights: ModelWeights, engine: Engine, layout: OnnxLayout) -> dict[str, float]:
    """The largest difference of every output.

    Raises:
        EngineError: If one is beyond the tolerance.
    """
    session = _session(data)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    differences = dict.fromkeys(names, 0.0)
    for size in _SIZES:
        images = rng.integers(0, 256, (*size, 3), np.uint8)
        try:
            found = session.run(names, {session.get_inputs()[0].name: _input(images, weights, layout)})
        except Exception as error:  # its exceptions share no public base class
            raise EngineError(f"the exported network does not run on {_words(size)}: {error}") from error
        expected = _expected(engine, images, layout)
        for name, ours in zip(names, found, strict=True):
            theirs, scale = expected[name]
            if ours.shape != theirs.shape:
                raise EngineError(
                    f"the exported network gives {name} {ours.shape} on {_words(size)}, and the engine "
                    f"{engine.name!r} {theirs.shape}"
                )
            difference = float(np.abs(ours - theirs).max())
            allowed = TOLERANCE * max(1.0, scale)
            if not difference <= allowed:  # NaN, too
                raise EngineError(
                    f"the exported network and the engine {engine.name!r} differ by {difference:.3g} in "
                    f"{name} on {_words(size)}, and {allowed:.3g} is allowed: nothing was written"
                )
            differences[name] = max(differences[name], difference)
    return differences


def _session(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime", extra="onnxruntime", purpose="verifying an exported network"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no public base class
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the exported network: {error}"
        ) from error


def _input(images: UInt8Array, weights: ModelWeights, layout: OnnxLayout) -> AnyArray:
    if layout == "pixels":
        return images
    pixels = images.astype(np.float32) - np.array(weights.config.mean_bgr, np.float32)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _expected(engine: Engine, images: UInt8Array, layout: OnnxLayout) -> dict[str, tuple[AnyArray, float]]:
    """What each output of a layout must be, float64, and the largest absolute value behind it."""
    raw = engine.run(images, color="bgr")
    heads: dict[str, list[AnyArray]] = {
        "class_head": [level.astype(np.float64) for level in raw.class_scores],
        "box_head": [level.astype(np.float64) for level in raw.box_deltas],
        "landmark_head": [level.astype(np.float64) for level in raw.landmark_deltas],
    }
    if layout == "pixels":
        return {
            f"{head}.{i}.out": (level, _largest(level))
            for head, levels in heads.items()
            for i, level in enumerate(levels)
        }
    logits, boxes, landmarks = (np.concatenate(levels, axis=1) for levels in heads.values())
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    return {
        "loc": (boxes, _largest(boxes)),
        # The errors are those of the logits: large ones have large errors, and their softmax has, too.
        "conf": (exponentials / exponentials.sum(axis=2, keepdims=True), _largest(logits)),
        "landmarks": (landmarks, _largest(landmarks)),
    }


def _largest(values: AnyArray) -> float:
    return float(np.abs(values).max())


def _words(size: tuple[int, int, int]) -> str:
    batch, height, width = size
    return f"{batch} of {width}x{height} pixels"
