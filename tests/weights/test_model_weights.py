"""`ModelWeights` made by hand: what does not fit is refused at once, and what fits cannot change."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import FaceDetector
from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS
from retinaface_fast.weights import ModelWeights, load_weights, save_weights

from .published import random_weights

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = CONFIGS["mobilenet0.25"]
NAME = "fpn.merge.0.conv.bias"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return {name: array.copy() for name, array in random_weights(CONFIG).tensors.items()}


def _made(tensors: Any, config: Any = CONFIG, source: str = "mine") -> ModelWeights:
    return ModelWeights(tensors, config, {}, source, "")


BAD = {
    "missing": (lambda t: t.pop(NAME), f"mine does not fit the network 'mobilenet0.25': missing: {NAME}"),
    "surplus": (lambda t: t.update(extra=t[NAME]), "surplus: extra"),
    "misshapen": (lambda t: t.update({NAME: t[NAME][:-1]}), rf"{NAME} is \(63,\) instead of \(64,\)"),
    "two-dimensional": (lambda t: t.update({NAME: t[NAME][None]}), r"\(1, 64\) instead of \(64,\)"),
    "nan": (lambda t: t.update({NAME: t[NAME] * np.float32(np.nan)}), f"{NAME} holds NaN or infinite"),
    "infinite": (lambda t: t.update({NAME: t[NAME] + np.float32(np.inf)}), f"{NAME} holds NaN or infinite"),
    "double": (lambda t: t.update({NAME: t[NAME].astype(float)}), f"{NAME} is float64, expected a float32"),
    "list": (lambda t: t.update({NAME: t[NAME].tolist()}), f"{NAME} is list, expected a float32 array"),
    "number as name": (lambda t: t.update({1: t[NAME]}), "names must be text, got 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_refused(kind: str, tensors: dict[str, Any]) -> None:
    damage, message = BAD[kind]
    bad = dict(tensors)
    damage(bad)
    with pytest.raises(WeightsError, match=message):
        _made(bad)
    with pytest.raises(WeightsError, match=message.replace("mine", "tensors")):
        _made(bad, source="")
    with pytest.raises(WeightsError, match=message):
        dataclasses.replace(_made(tensors), tensors=bad)


def test_arguments_of_another_kind(tensors: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"^config must be a RetinaFaceConfig, got str$"):
        _made(tensors, "mobilenet0.25")
    with pytest.raises(TypeError, match=r"^tensors must be a mapping of names to arrays, got list$"):
        _made(list(tensors.items()))


def test_what_fits_cannot_change(tensors: dict[str, Any], tmp_path: Path) -> None:
    mine = {name: array.copy() for name, array in tensors.items()}
    hidden = mine["backbone.stem.conv.weight"]
    mine["backbone.stem.conv.weight"] = hidden.view()
    mine["backbone.stem.conv.weight"].flags.writeable = False  # its memory can be written to all the same
    mine[NAME] = np.asarray(np.repeat(mine[NAME], 2)[::2])  # every other number of its memory
    weights = _made(mine)
    save_weights(weights, tmp_path / "before.safetensors")
    hidden[:] = np.nan
    for name, array in mine.items():
        if array.flags.writeable:
            array[:] = np.nan
        assert weights.tensors[name].flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            weights.tensors[name][...] = 0
    del mine[NAME]
    with pytest.raises(TypeError):
        weights.tensors[NAME] = np.zeros(64, np.float32)  # type: ignore[index]
    save_weights(weights, tmp_path / "after.safetensors")
    assert (tmp_path / "before.safetensors").read_bytes() == (tmp_path / "after.safetensors").read_bytes()


def test_read_only_arrays_are_not_copied(tensors: dict[str, Any]) -> None:
    weights = _made(tensors)
    again = dataclasses.replace(weights, source="elsewhere")
    assert all(again.tensors[name] is array for name, array in weights.tensors.items())


def test_loaded_weights_are_looked_at_once(
    tensors: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(_made(tensors), tmp_path / "mine.safetensors")
    looks = []
    real = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda array: looks.append(array) or real(array))
    load_weights(tmp_path / "mine.safetensors")
    assert len(looks) == len(tensors)


def test_a_detector_of_an_object_says_why_it_cannot_be_pickled(
    tensors: dict[str, Any], tmp_path: Path
) -> None:
    detector = FaceDetector(weights=_made(tensors))
    with pytest.raises(TypeError, match=r"cannot be pickled: give weights as the path of a file"):
        pickle.dumps(detector)
    assert copy.copy(detector) is copy.deepcopy(detector) is detector
    path = tmp_path / "mine.safetensors"
    save_weights(_made(tensors), path)
    assert pickle.loads(pickle.dumps(FaceDetector(weights=path))).model == detector.model


def test_an_empty_path_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^weights must be the path of a file, got an empty one$"):
        FaceDetector(weights="")
    with pytest.raises(ValueError, match=r"^source must be a name or the path of a file, got an empty one$"):
        load_weights("")
    folder = tmp_path / "looks.onnx"
    folder.mkdir()
    for path in (tmp_path, folder):
        with pytest.raises(WeightsError, match=r"is a folder, expected a file of weights \(\.safetensors"):
            FaceDetector(weights=path)
        with pytest.raises(WeightsError, match="is a folder"):
            load_weights(path)
