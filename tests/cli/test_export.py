"""`retinaface-fast export`: what it writes, says and refuses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("typer")

from retinaface_fast.cli import main
from retinaface_fast.errors import EngineError
from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import load_weights, save_weights
from tests.weights.published import random_weights

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.weights import ModelWeights


@pytest.fixture
def weights(here: Path) -> ModelWeights:
    """Weights that lie in the current folder as m.safetensors."""
    metadata = {"licence": "CC0 [nobody]"}
    weights = dataclasses.replace(random_weights(CONFIGS["mobilenet0.25"]), metadata=metadata)
    save_weights(weights, here / "m.safetensors")
    return weights


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


#: Options of a layout, the input of its graph, and what the program calls the outputs.
LAYOUTS: dict[str, tuple[list[str], str, list[str]]] = {
    "family": ([], "input", ["loc", "conf", "landmarks"]),
    "pixels": (["--layout", "pixels"], "images", ["class_head", "box_head", "landmark_head"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_onnx(
    layout: str,
    weights: ModelWeights,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    options, entry, heads = LAYOUTS[layout]
    assert main(["export", "m.safetensors", "new/m.onnx", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, compared, differences, licence = out.splitlines()
    size = (here / "new" / "m.onnx").stat().st_size / 1e6
    assert first == f"new/m.onnx: mobilenet0.25, {size:.1f} MB"
    assert "compared with the engine native" in compared
    assert "1x1, 97x1, 1x131, 65x33, 47x75 (3 at once), 128x160" in compared
    for head in heads:
        assert differences.count(f"{head} ") == 1
    assert licence == "licence: CC0 [nobody]"
    model = onnx.load(here / "new" / "m.onnx")
    assert [value.name for value in model.graph.input] == [entry]
    assert "CC0 [nobody]" in [item.value for item in model.metadata_props]


def test_there_and_back(weights: ModelWeights, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    assert main(["export", "m.safetensors", "m.onnx", "--no-verify"]) == 0
    assert "not verified" in capsys.readouterr().out
    assert main(["export", "m.onnx", "back/m.safetensors", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (here / "back" / "m.safetensors").read_bytes() == (here / "m.safetensors").read_bytes()


def test_a_model_by_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = load_weights("mobilenet0.25")
    assert main(["export", "mobilenet0.25", "m.safetensors"]) == 0
    assert f"licence: {published.metadata['licence']}" in capsys.readouterr().out
    restored = load_weights(here / "m.safetensors")
    assert restored.metadata["licence"] == published.metadata["licence"]
    for name, array in published.tensors.items():
        np.testing.assert_array_equal(restored.tensors[name], array)


def test_an_existing_file_is_replaced_only_by_force(
    weights: ModelWeights, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.safetensors").write_bytes(b"before")
    assert main(["export", "m.safetensors", "a.safetensors"]) == 2
    assert "--force replaces it" in " ".join(capsys.readouterr().err.split())
    assert (here / "a.safetensors").read_bytes() == b"before"
    assert main(["export", "m.safetensors", "a.safetensors", "--force"]) == 0
    assert (here / "a.safetensors").read_bytes() == (here / "m.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.safetensors", "m.pth"], "m.pth must end in .onnx or .safetensors"),
        (["m.safetensors", "folder.onnx"], "folder.onnx is a folder"),
        (["m.safetensors", "./m.safetensors", "--force"], "would overwrite the input"),
        (["m.safetensors", "a.safetensors", "--layout", "family"], "only an .onnx file has a layout"),
        (["m.safetensors", "a.onnx", "--layout", "nchw"], "expected family or pixels, got nchw"),
        (["resnet99", "a.onnx"], "expected one of mobilenet0.25"),
        (["m.safetensors"], "OUT"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    weights: ModelWeights,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "folder.onnx").mkdir()
    before = (here / "m.safetensors").read_bytes()
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message.lower() in " ".join(err.split()).lower()
    assert names(here) == ["m.safetensors"]
    assert (here / "m.safetensors").read_bytes() == before


def test_weights_that_are_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "absent.onnx", "a.safetensors"]) == 1
    assert capsys.readouterr() == ("", "error: absent.onnx does not exist\n")


def test_a_place_that_cannot_be(
    weights: ModelWeights, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    assert main(["export", "m.safetensors", "file/a.safetensors"]) == 1
    assert "error: cannot write file/a.safetensors: " in capsys.readouterr().err


def test_a_difference_is_an_error_and_no_file(
    weights: ModelWeights, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*arguments: Any, **options: Any) -> None:
        raise EngineError("they differ")

    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("retinaface_fast.engines.onnx_export._compare", differs)
    assert main(["export", "m.safetensors", "a.onnx"]) == 1
    assert capsys.readouterr() == ("", "error: they differ\n")
    assert names(here) == ["m.safetensors"]
