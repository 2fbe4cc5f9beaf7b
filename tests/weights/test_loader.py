from __future__ import annotations

import dataclasses
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retinaface_fast.weights
from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS, ContextConfig, tensor_shapes
from retinaface_fast.weights import REGISTRY, ModelWeights, bundled_path, load_weights, save_weights
from retinaface_fast.weights.model_weights import assemble
from retinaface_fast.weights.safetensors_file import read_safetensors, write_safetensors
from tests.weights.published import random_weights


@pytest.fixture(scope="module")
def weights() -> ModelWeights:
    return random_weights(CONFIGS["mobilenet0.25"])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was downloaded")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", ["mobilenet0.25", "resnet18"])
def test_save_and_load(name: str, tmp_path: Path, no_network: None) -> None:
    weights = random_weights(CONFIGS[name])
    path = tmp_path / "own.safetensors"
    save_weights(weights, path)
    loaded = load_weights(path)
    assert loaded.config == weights.config
    assert loaded.source == str(path)
    assert loaded.metadata["licence"] == "none"
    assert sorted(loaded.tensors) == sorted(tensor_shapes(CONFIGS[name], folded=True))
    for tensor_name, array in loaded.tensors.items():
        np.testing.assert_array_equal(array, weights.tensors[tensor_name])
        assert array.dtype == np.float32
        assert not array.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_the_folder_of_a_file_is_made(weights: ModelWeights, tmp_path: Path) -> None:
    path = tmp_path / "of" / "many" / "own.safetensors"
    save_weights(weights, path)
    assert load_weights(path).config == weights.config
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_what_cannot_be_written_leaves_what_was_there(
    step: str, weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"before")
    usual = getattr(Path, step)

    def full(self: Path, *arguments: object) -> None:
        if step == "write_bytes":
            usual(self, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(weights, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIGS["mobilenet0.25"],
        name="mine",
        context=ContextConfig(share_first=False),
        mean_bgr=(1.0, 2.0, 3.0),
    )
    save_weights(random_weights(config), tmp_path / "mine.safetensors")
    assert load_weights(tmp_path / "mine.safetensors").config == config
    assert load_weights(tmp_path / "mine.safetensors", config=config).config == config
    with pytest.raises(WeightsError, match=r"holds the network 'mine', not 'mobilenet0.25'"):
        load_weights(tmp_path / "mine.safetensors", config=CONFIGS["mobilenet0.25"])


def test_equal_weights_are_equal_bytes(weights: ModelWeights, tmp_path: Path) -> None:
    save_weights(weights, tmp_path / "a.safetensors")
    shuffled = ModelWeights(
        dict(reversed(weights.tensors.items())), weights.config, weights.metadata, "elsewhere", "1" * 64
    )
    save_weights(shuffled, tmp_path / "b.safetensors")
    save_weights(load_weights(tmp_path / "a.safetensors"), tmp_path / "c.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b == c


def test_the_metadata_says_what_tensors_cannot(weights: ModelWeights, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_weights(weights, path)
    _, metadata = read_safetensors(path.read_bytes(), source="own")
    assert metadata["retinaface_fast.format"] == "1"
    assert json.loads(metadata["mean_bgr"]) == [104.0, 117.0, 123.0]
    assert metadata["channel_order"] == "bgr"
    assert json.loads(metadata["anchors"])["strides"] == [8, 16, 32]
    assert metadata["batch_norm"] == "folded"


def test_the_library_reads_what_is_written() -> None:
    from safetensors.numpy import load

    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.zeros((0, 2), np.float32),
        "ü": np.ones((), np.float32),
    }
    loaded = load(write_safetensors(tensors, {"é": "\n"}))
    assert sorted(loaded) == sorted(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_weights_of_a_newer_release(weights: ModelWeights, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    path.write_bytes(write_safetensors(weights.tensors, {"retinaface_fast.format": "2"}))
    with pytest.raises(WeightsError, match="format version '2'"):
        load_weights(path)


def config_text(path: tuple[str, ...], value: str) -> str:
    """The config of MobileNet-0.25 as JSON, with one value replaced."""
    values: Any = CONFIGS["mobilenet0.25"].to_dict()
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "here"
    return json.dumps(values).replace('"here"', value)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{}",
        "[]",
        '{"name": 1}',
        pytest.param("[" * 100_000, id="deep"),
        config_text(("out_channels",), "Infinity"),
        config_text(("out_channels",), "NaN"),
        config_text(("backbone", "width"), "1e308"),
        config_text(("backbone", "width"), "1e300"),
        config_text(("backbone", "depth"), "Infinity"),
        config_text(("backbone", "kind"), "[]"),
        config_text(("anchors", "strides"), "[Infinity, 16, 32]"),
        config_text(("anchors", "sizes"), "[[1e999], [2], [3]]"),
        config_text(("anchors", "sizes"), "7"),
        config_text(("mean_bgr",), "[1e308, 1e309, 0]"),
        config_text(("variances",), "[" + "1" * 400 + ", 1]"),
    ],
)
def test_a_damaged_config(config: str, weights: ModelWeights, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    metadata = {"retinaface_fast.format": "1", "retinaface_fast.config": config}
    path.write_bytes(write_safetensors(weights.tensors, metadata))
    with pytest.raises(WeightsError, match="its metadata describes no network"):
        load_weights(path)


@pytest.mark.parametrize("damage", ["missing", "surplus", "misshapen", "nan", "integer"])
def test_damaged_own_files(damage: str, weights: ModelWeights, tmp_path: Path) -> None:
    tensors = dict(weights.tensors)
    name = "fpn.merge.0.conv.bias"
    if damage == "missing":
        del tensors[name]
    elif damage == "surplus":
        tensors["fpn.merge.9.conv.bias"] = tensors[name]
    elif damage == "misshapen":
        tensors[name] = tensors[name][:-1]
    elif damage == "nan":
        tensors[name] = np.full(64, np.nan, np.float32)
    path = tmp_path / "bad.safetensors"
    save_weights(assemble(tensors, weights.config, {}, "", ""), path)  # unlike the class, it checks nothing
    if damage == "integer":
        data = path.read_bytes()
        place = data.index(f'"{name}"'.encode())
        path.write_bytes(data[:place] + data[place:].replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(WeightsError, match=r"fpn.merge.[09].conv.bias") as error:
        load_weights(path)
    assert {"integer": "int32", "nan": "NaN"}.get(damage, damage) in str(error.value)


def test_every_truncation_is_refused(weights: ModelWeights, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_weights(weights, path)
    data = path.read_bytes()
    for length in (0, 4, 8, 100, 20_000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="is not a readable safetensors file"):
            load_weights(path)


def test_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(500))
        with pytest.raises(WeightsError, match="is not a readable safetensors file"):
            load_weights(path)


def test_missing_files_and_unknown_formats(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(WeightsError, match=r"absent.onnx does not exist"):
        load_weights("absent.onnx")
    with pytest.raises(WeightsError, match=r"absent does not exist|the format '' is unknown"):
        load_weights(tmp_path / "absent")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(WeightsError, match=r"the format '.bin' is unknown; known are .safetensors, .onnx"):
        load_weights(tmp_path / "weights.bin")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(WeightsError, match=r"folder.onnx is a folder"):
        load_weights(tmp_path / "folder.onnx")
    with pytest.raises(ValueError, match=r"source: expected one of mobilenet0.25, .* got 'mobilenet9'"):
        load_weights("mobilenet9")


def test_bundled_weights_come_first(
    weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    folder = tmp_path / "site-packages" / "weights"
    (folder / "bundled").mkdir(parents=True)
    save_weights(weights, folder / "bundled" / "mobilenet0.25.safetensors")
    # An editable install: the sources are in one folder, the build's files in another.
    monkeypatch.setattr(retinaface_fast.weights, "__path__", [str(tmp_path / "checkout"), str(folder)])
    assert bundled_path() == folder / "bundled" / "mobilenet0.25.safetensors"
    assert load_weights("mobilenet0.25").source == str(bundled_path())


def test_without_bundled_weights_the_cache_is_asked(
    published_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setattr(retinaface_fast.weights, "__path__", [str(tmp_path)])
    monkeypatch.setenv("RETINAFACE_FAST_CACHE", str(tmp_path))
    monkeypatch.setenv("RETINAFACE_FAST_OFFLINE", "1")
    assert bundled_path() is None
    with pytest.raises(
        WeightsError, match=r"RETINAFACE_FAST_OFFLINE forbids downloads; put https://github.com/"
    ):
        load_weights("mobilenet0.25")
    shutil.copy(published_onnx, tmp_path)
    weights = load_weights("mobilenet0.25")
    assert weights.sha256 == REGISTRY["mobilenet0.25"].sha256
    assert weights.metadata["licence"].startswith("MIT (Yakhyo")


def test_the_arrays_handed_in_stay_writeable() -> None:
    from retinaface_fast.weights.model_weights import make_weights

    config = CONFIGS["mobilenet0.25"]
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config, folded=True).items()}
    weights = make_weights(tensors, config, metadata={}, source="", sha256="")
    assert all(array.flags.writeable for array in tensors.values())
    with pytest.raises(TypeError):
        weights.tensors["x"] = np.ones(1)  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        weights.tensors["fpn.merge.0.conv.bias"][0] = 1
