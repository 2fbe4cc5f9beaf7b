"""The post-processing on a CUDA device gives the faces of `ops.postprocess`, in and out by either protocol.

On a device, where the kernels are built and torch sees one. Everywhere else with the kernels on the CPU, if
RETINAFACE_FAST_CUDA_ON_CPU is the path of that build of the extension (RETINAFACE_CUDA_ON_CPU of CMake).
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from retinaface_fast import EngineError, ops
from retinaface_fast.ops import cuda
from tests.ops.agreement import P2_P6, P3_P5, Grid, assert_same_bits, assert_same_faces
from tests.ops.device_arrays import MODULE, Place, several, split
from tests.ops.samples import as_probabilities, random_outputs, spoil

SIZE_HW = (45, 70)


# --- the same faces


@pytest.mark.parametrize("scores_are", ["logits", "probabilities"])
@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
def test_agrees_with_the_cpu(place: Place, grid: Grid, scores_are: Any, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, grid=grid, batch=3)
    raw.class_scores[1, :, 0] += 100  # an empty picture among the others
    if scores_are == "probabilities":
        raw = as_probabilities(raw)
    arrays = several(place.to_device, raw)
    levels = [split(place.to_device, array, SIZE_HW, grid) for array in raw]
    found = 0
    for options in (
        {},
        {"score_threshold": 0.9, "nms_threshold": 0.2},
        {"score_threshold": 0.3, "nms_threshold": 0.0, "top_k": 37, "keep_top_k": 11},
        {"variances": (0.3, 0.07), "top_k": None, "keep_top_k": None},
        {"score_threshold": 1.0},
    ):
        arguments: dict[str, Any] = {"config": grid.config, "scores_are": scores_are, **options}
        expected = ops.postprocess(*raw, SIZE_HW, **arguments)
        found += sum(len(faces.scores) for faces in expected)
        assert_same_faces(cuda.postprocess(*arrays, SIZE_HW, **arguments).to_host(), expected)
        by_level = cuda.postprocess(arrays[0], levels[1], tuple(levels[2]), SIZE_HW, **arguments)
        assert_same_faces(by_level.to_host(), expected)
        assert_same_faces(cuda.postprocess(*levels, SIZE_HW, **arguments).to_host(), expected)
    assert found > 50


def test_numbers_that_are_none_agree(place: Place, rng: np.random.Generator) -> None:
    raw = spoil(rng, random_outputs(rng, SIZE_HW, batch=2), 0.05)
    expected = ops.postprocess(*raw, SIZE_HW, score_threshold=0.1)
    assert sum(len(faces.scores) for faces in expected) > 10
    found = cuda.postprocess(*several(place.to_device, raw), SIZE_HW, score_threshold=0.1)
    assert_same_faces(found.to_host(), expected)


def test_what_is_on_the_device_is_what_comes_to_the_host(place: Place, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=3)
    faces = cuda.postprocess(*several(place.to_device, raw), SIZE_HW)
    expected = ops.postprocess(*raw, SIZE_HW)
    offsets, rows = place.to_host(faces.offsets), place.to_host(faces.rows)
    assert offsets.dtype == np.int32
    assert rows.shape == (faces.capacity, 15)
    assert offsets.tolist() == [0, *np.cumsum([len(image.scores) for image in expected])]
    for b, image in enumerate(expected):
        mine = rows[offsets[b] : offsets[b + 1]]
        assert_same_bits(mine[:, :4], image.boxes)
        assert_same_bits(mine[:, 4], image.scores)
        assert_same_bits(mine[:, 5:].reshape(-1, 5, 2), image.landmarks)
    assert (faces.device, faces.stream, faces.batch_size) == (0, 0, 3)
    assert repr(faces) == f"DeviceFaces(device=0, batch_size=3, capacity={faces.capacity})"


def test_what_comes_to_the_host_owns_its_memory(place: Place, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    faces = cuda.postprocess(*several(place.to_device, raw), SIZE_HW)
    first, again = faces.to_host(), faces.to_host()
    for array in first[0]:
        assert array.flags.owndata
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = 0
    assert_same_faces(again, ops.postprocess(*raw, SIZE_HW))


def test_threads_do_not_disturb_each_other(place: Place, rng: np.random.Generator) -> None:
    inputs = [random_outputs(rng, SIZE_HW, batch=1 + i % 3) for i in range(6)]
    expected = [ops.postprocess(*raw, SIZE_HW) for raw in inputs]

    def run(i: int) -> list[ops.Faces]:
        return cuda.postprocess(*several(place.to_device, inputs[i % 6]), SIZE_HW).to_host()

    with ThreadPoolExecutor(6) as pool:
        for i, faces in enumerate(pool.map(run, range(24))):
            assert_same_faces(faces, expected[i % 6])


# --- the module itself


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    assert not cuda.is_built()
    assert cuda.architectures() == ()
    advice = r"pip install \. -C cmake.define.RETINAFACE_CUDA=ON"
    with pytest.raises(EngineError, match=advice):
        cuda.postprocess(None, None, None, (32, 32))
    obstacle = cuda.obstacle()
    assert obstacle is not None
    assert "pip install . -C cmake.define.RETINAFACE_CUDA=ON" in obstacle


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libsomething.so: cannot open shared object file"),
        ModuleNotFoundError("No module named 'other'", name="other"),
    ],
    ids=["library", "module"],
)
def test_an_extension_that_cannot_be_loaded_is_an_error(
    error: ImportError, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == MODULE:
                raise error

    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    for question in (cuda.is_built, cuda.architectures, cuda.obstacle):
        with pytest.raises(ImportError) as caught:
            question()
        assert caught.value is error


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = f"import sys, retinaface_fast.ops.cuda; sys.exit({MODULE!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, retinaface_fast.ops; sys.exit('retinaface_fast.ops.cuda' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("cuda_on_cpu")
def test_the_obstacle_names_the_device() -> None:
    assert cuda.is_built()
    assert cuda.obstacle() is None
    assert cuda.obstacle(np.int64(0)) is None
    assert cuda.architectures() == ()
    for device in (-1, 1, 99, 2**40, -(2**40)):
        assert isinstance(cuda.obstacle(device), str), device
    for device in (True, 0.0, "0", None):
        with pytest.raises(TypeError, match=r"^device: expected the number of a CUDA device"):
            cuda.obstacle(device)
