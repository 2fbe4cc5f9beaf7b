"""Device arrays of either protocol go in and out, and live as long as somebody holds them."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import ops
from retinaface_fast.ops import cuda
from tests.ops import device_arrays
from tests.ops.agreement import P3_P5, assert_same_bits, assert_same_faces
from tests.ops.device_arrays import (
    WithDlpack,
    WithInterface,
    name_of,
    several,
    split,
    tensor_of,
    through_dlpack,
    through_interface,
)
from tests.ops.samples import random_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

if device_arrays.cuda_on_cpu() is None:  # once, and not for each test
    pytest.skip(device_arrays.NOT_HERE, allow_module_level=True)
pytestmark = pytest.mark.usefixtures("cuda_on_cpu")

SIZE_HW = (45, 70)


# --- layouts


@pytest.mark.parametrize("step", [2, -1, -2])
def test_images_may_be_any_distance_apart(step: int, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=5)
    expected = ops.postprocess(*(np.ascontiguousarray(array[::step]) for array in raw), SIZE_HW)
    for convert in (WithInterface, WithDlpack):
        faces = cuda.postprocess(*(convert(array[::step]) for array in raw), SIZE_HW)
        assert_same_faces(faces.to_host(), expected)
        parts = [[convert(part[::step]) for part in P3_P5.split(array, SIZE_HW)] for array in raw]
        assert_same_faces(cuda.postprocess(*parts, SIZE_HW).to_host(), expected)


def test_one_image_may_stand_for_a_batch(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    repeated = [np.broadcast_to(array, (4, *array.shape[1:])) for array in raw]
    faces = cuda.postprocess(*(WithInterface(array) for array in repeated), SIZE_HW).to_host()
    assert_same_faces(faces, ops.postprocess(*raw, SIZE_HW) * 4)


def test_strides_of_axes_that_hold_one_are_not_judged(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    arrays = [WithInterface(array, strides=(7, array.shape[2] * 4, 4)) for array in raw]
    assert_same_faces(cuda.postprocess(*arrays, SIZE_HW).to_host(), ops.postprocess(*raw, SIZE_HW))


# --- protocols


def test_every_protocol_and_version_is_taken(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    expected = ops.postprocess(*raw, SIZE_HW)
    for convert in (
        WithDlpack,
        lambda array: WithInterface(array, version=2),
        lambda array: WithInterface(array, strides=...),
        lambda array: WithInterface(array, strides=array.strides),
        lambda array: WithInterface(array, stream=None, mask=None, descr=[("", "<f4")]),
        lambda array: WithInterface(array, data=(array.ctypes.data, True)),
        lambda array: WithInterface(array, stream=1),
        lambda array: WithInterface(array, stream=2),
    ):
        assert_same_faces(cuda.postprocess(*several(convert, raw), SIZE_HW).to_host(), expected)
    mixed = cuda.postprocess(WithDlpack(raw[0]), WithInterface(raw[1]), WithDlpack(raw[2]), SIZE_HW)
    assert_same_faces(mixed.to_host(), expected)


def test_an_offset_of_dlpack_is_added(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    arrays = [WithDlpack(array, data=array.ctypes.data - 16, byte_offset=16) for array in raw]
    assert_same_faces(cuda.postprocess(*arrays, SIZE_HW).to_host(), ops.postprocess(*raw, SIZE_HW))


def test_strides_of_dlpack_may_be_left_out(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    arrays = [WithDlpack(array, strides=None) for array in raw]
    assert_same_faces(cuda.postprocess(*arrays, SIZE_HW).to_host(), ops.postprocess(*raw, SIZE_HW))


class CudaStream:
    def __init__(self, *answer: Any) -> None:
        self.answer = answer

    def __cuda_stream__(self) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("stream", "handle"), [(0, 0), (1, 1), (np.int64(4096), 4096), (CudaStream(0, 4096), 4096)]
)
def test_dlpack_is_told_the_stream(stream: Any, handle: int, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    arrays = several(WithDlpack, raw)
    faces = cuda.postprocess(*arrays, SIZE_HW, stream=stream)
    assert faces.stream == handle
    # The protocols have no 0: it could be the legacy default stream or that of the thread.
    assert [array.streams for array in arrays] == [[handle or 1]] * 3
    assert faces.rows.__cuda_array_interface__["stream"] == (handle or 1)
    assert_same_faces(faces.to_host(), ops.postprocess(*raw, SIZE_HW))


def test_the_results_go_out_by_both_protocols(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    faces = cuda.postprocess(*several(WithInterface, raw), SIZE_HW)
    for array, dtype, shape in (
        (faces.offsets, np.int32, (3,)),
        (faces.rows, np.float32, (faces.capacity, 15)),
    ):
        assert array.__dlpack_device__() == (device_arrays.CUDA, 0)
        capsule = array.__dlpack__(stream=-1)
        assert name_of(capsule) == "dltensor"
        tensor = tensor_of(capsule)
        assert (tensor.device.type, tensor.device.id) == (device_arrays.CUDA, 0)
        strides = np.cumprod([1, *shape[:0:-1]])[::-1]
        assert tensor.strides[: tensor.ndim] == strides.tolist()
        taken = through_dlpack(capsule)
        assert name_of(capsule) == "used_dltensor"
        assert taken.dtype == dtype
        assert taken.shape == shape
        assert_same_bits(taken, through_interface(array))


def test_dlpack_takes_what_the_protocol_says(rng: np.random.Generator) -> None:
    rows = cuda.postprocess(*several(WithInterface, random_outputs(rng, SIZE_HW)), SIZE_HW).rows
    for stream in (None, -1, 1, 2, 4096):
        through_dlpack(rows.__dlpack__(stream=stream))
    through_dlpack(rows.__dlpack__(max_version=(1, 2), dl_device=(2, 0), copy=False))
    for stream in (0, -2, 2**64, "1", 1.0, True):
        with pytest.raises(ValueError, match=r"^stream: expected None, -1, 1, 2 or the address of a stream"):
            rows.__dlpack__(stream=stream)
    with pytest.raises(BufferError, match=r"^dl_device: expected \(2, 0\).*got \(1, 0\)"):
        rows.__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match=r"^copy: expected None or False"):
        rows.__dlpack__(copy=True)


# --- what CUDA is asked for


def counted(do: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    """What a call returns, and what it asked of CUDA."""
    module: Any = device_arrays.cuda_on_cpu()
    module.counters()
    return do(), module.counters()


def test_nothing_waits_unless_it_is_asked_to(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=3)
    arrays = several(WithInterface, raw)
    faces, counts = counted(lambda: cuda.postprocess(*arrays, SIZE_HW, stream=4096))
    assert counts["launches"] > 0
    assert (counts["synchronisations"], counts["stream_waits"], counts["copies_to_host"]) == (0, 0, 0)
    for look in (lambda: faces.rows.__cuda_array_interface__, lambda: faces.rows.__dlpack__(stream=-1)):
        _, counts = counted(look)
        assert (counts["synchronisations"], counts["stream_waits"], counts["copies_to_host"]) == (0, 0, 0)
    _, counts = counted(faces.to_host)
    assert (counts["synchronisations"], counts["copies_to_host"]) == (1, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "waits"),
    [
        (0, (None, None, None), 0),
        (0, (1, 1, 1), 0),
        (1, (1, 1, 1), 0),
        (0, (2, 2, 2), 1),
        (4096, (4096, 4096, None), 0),
        (4096, (1, 1, 1), 1),
        (4096, (8192, 1, 8192), 2),
        (8192, (1, 2, 8192), 2),
    ],
    ids=repr,
)
def test_streams_of_the_arrays_are_waited_for_once(
    ours: int, theirs: tuple[int | None, ...], waits: int, rng: np.random.Generator
) -> None:
    raw = random_outputs(rng, SIZE_HW)
    arrays = [WithInterface(array, stream=stream) for array, stream in zip(raw, theirs, strict=True)]
    faces, counts = counted(lambda: cuda.postprocess(*arrays, SIZE_HW, stream=ours))
    assert (counts["stream_waits"], counts["synchronisations"], counts["live_events"]) == (waits, 0, 0)
    assert_same_faces(faces.to_host(), ops.postprocess(*raw, SIZE_HW))


@pytest.mark.parametrize(
    ("ours", "consumer", "waits"),
    [(0, None, 0), (0, 1, 0), (0, 2, 1), (4096, None, 1), (4096, 4096, 0), (4096, 1, 1), (4096, -1, 0)],
)
def test_the_stream_of_a_consumer_waits(
    ours: int, consumer: int | None, waits: int, rng: np.random.Generator
) -> None:
    raw = random_outputs(rng, SIZE_HW)
    faces = cuda.postprocess(*several(WithInterface, raw), SIZE_HW, stream=ours)
    capsule, counts = counted(lambda: faces.rows.__dlpack__(stream=consumer))
    assert (counts["stream_waits"], counts["synchronisations"]) == (waits, 0)
    through_dlpack(capsule)


# --- lifetime


def live_allocations() -> int:
    module: Any = device_arrays.cuda_on_cpu()
    return module.counters()["live_allocations"]


def let_go(*references: weakref.ref[Any]) -> list[bool]:
    gc.collect()
    return [reference() is None for reference in references]


def test_faces_keep_their_inputs(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    arrays: list[Any] = [split(WithInterface, array, SIZE_HW, P3_P5) for array in raw]
    watched = [weakref.ref(array) for level in arrays for array in level]
    faces = cuda.postprocess(*arrays, SIZE_HW)
    for level in arrays:
        level.clear()  # the list is the caller's
    assert not any(let_go(*watched))
    del faces
    assert all(let_go(*watched))


def test_faces_keep_what_dlpack_handed_over(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    before = [sys.getrefcount(array) for array in raw]
    arrays = several(WithDlpack, raw)
    faces = cuda.postprocess(*arrays, SIZE_HW)
    assert {name_of(array.capsules[0]) for array in arrays} == {"used_dltensor"}
    del arrays
    gc.collect()
    assert [sys.getrefcount(array) for array in raw] == [count + 1 for count in before]
    del faces
    assert [sys.getrefcount(array) for array in raw] == before


@pytest.mark.parametrize("export", ["array", "capsule", "consumer"])
def test_views_outlive_their_faces(export: str, rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW, batch=2)
    arrays = several(WithInterface, raw)
    watched = weakref.ref(arrays[0])
    before = live_allocations()
    faces = cuda.postprocess(*arrays, SIZE_HW)
    expected = np.concatenate([image.scores for image in ops.postprocess(*raw, SIZE_HW)])
    view: Any = faces.rows
    if export != "array":
        view = view.__dlpack__()
    if export == "consumer":
        view = through_dlpack(view)
    del faces, arrays
    assert let_go(watched) == [False]
    assert live_allocations() == before + 1
    others = [cuda.postprocess(*several(WithInterface, raw), SIZE_HW, score_threshold=0.1) for _ in range(3)]
    if export == "array":
        rows = through_interface(view).copy()
    else:
        rows = np.array(through_dlpack(view) if export == "capsule" else view)
    assert_same_bits(rows[: len(expected), 4], expected)
    del view, others
    assert let_go(watched) == [True]
    assert live_allocations() == before


def test_a_capsule_may_be_dropped_on_any_thread(rng: np.random.Generator) -> None:
    arrays = several(WithInterface, random_outputs(rng, SIZE_HW))
    watched = weakref.ref(arrays[0])
    before = live_allocations()
    capsules = [cuda.postprocess(*arrays, SIZE_HW).rows.__dlpack__()]
    del arrays
    with ThreadPoolExecutor(1) as pool:
        pool.submit(capsules.clear).result()
    assert let_go(watched) == [True]
    assert live_allocations() == before


def test_what_is_held_when_python_ends() -> None:
    code = """
import builtins, sys
import numpy as np
from tests.ops.device_arrays import MODULE, WithDlpack, WithInterface, cuda_on_cpu, through_dlpack
sys.modules[MODULE] = cuda_on_cpu()
from retinaface_fast.ops import cuda
for convert in (WithInterface, WithDlpack):
    arrays = [convert(np.zeros((1, 42, columns), np.float32)) for columns in (2, 4, 10)]
    faces = cuda.postprocess(*arrays, (32, 32), score_threshold=0.4)
    held = [faces, faces.rows, faces.rows.__dlpack__(), through_dlpack(faces.rows.__dlpack__())]
    setattr(builtins, convert.__name__, held)
print(len(faces.to_host()[0].scores))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0


def test_a_stream_that_is_an_object_is_kept(rng: np.random.Generator) -> None:
    stream = CudaStream(0, 4096)
    watched = weakref.ref(stream)
    faces = cuda.postprocess(*several(WithInterface, random_outputs(rng, SIZE_HW)), SIZE_HW, stream=stream)
    del stream
    assert let_go(watched) == [False]
    del faces
    assert let_go(watched) == [True]


def test_calls_leave_no_references(rng: np.random.Generator) -> None:
    raw = random_outputs(rng, SIZE_HW)
    short = raw.box_deltas[:, :-1]
    for convert in (WithInterface, WithDlpack):
        arrays = [*several(convert, raw), convert(short)]
        watched = [*arrays, *raw, SIZE_HW]
        before = [sys.getrefcount(item) for item in watched]
        memory = live_allocations()
        for _ in range(5):
            faces = cuda.postprocess(*arrays[:3], SIZE_HW)
            assert faces.to_host()
            assert faces.rows.__dlpack__()
            assert faces.offsets.__cuda_array_interface__
            with pytest.raises(ValueError, match=r"^landmark_deltas: |^box_deltas: "):
                cuda.postprocess(arrays[0], arrays[3], arrays[2], SIZE_HW)
            for i in range(4):
                getattr(arrays[i], "capsules", []).clear()
        del faces
        gc.collect()
        assert [sys.getrefcount(item) for item in watched] == before
        assert live_allocations() == memory
