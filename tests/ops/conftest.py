"""Fixtures of the tests of `retinaface_fast.ops`."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from retinaface_fast.ops import cuda
from tests.ops import device_arrays
from tests.ops.device_arrays import MODULE, Place


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190502)


@pytest.fixture
def cuda_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Place:
    """The CUDA kernels on the CPU, as if the package had been built with them."""
    module = device_arrays.cuda_on_cpu()
    if module is None:
        pytest.skip(device_arrays.NOT_HERE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr("retinaface_fast._cuda", module, raising=False)
    return Place(device_arrays.WithInterface, lambda array: device_arrays.through_interface(array).copy())


@pytest.fixture
def cuda_device() -> Place:
    """The CUDA kernels on a device that torch sees, too."""
    obstacle = cuda.obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return Place(
        lambda array: torch.from_numpy(array).cuda(), lambda array: torch.from_dlpack(array).cpu().numpy()
    )


@pytest.fixture(params=["cuda_on_cpu", "cuda_device"])
def place(request: pytest.FixtureRequest) -> Place:
    """Every place where the kernels can run."""
    return request.getfixturevalue(request.param)
