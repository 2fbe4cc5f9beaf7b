"""What only a device can show of the kernels: streams that are behind, and DLPack of those who know streams.

Skipped where the kernels are not built or torch sees no device.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import ops
from retinaface_fast.ops import cuda
from tests.ops.agreement import RawOutputs, assert_same_bits, assert_same_faces
from tests.ops.device_arrays import several
from tests.ops.samples import random_outputs, spoil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.ops.device_arrays import Place

torch = pytest.importorskip("torch")

SIZE_HW = (45, 70)
#: Of a kernel that does nothing: a fifth of a second, more or less, which no call takes to be enqueued.
LONG = 400_000_000


class OnlyDlpack:
    """A tensor without `__cuda_array_interface__`, which would be taken first, and which knows no streams."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.tensor.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


class Late:
    """Outputs that are on the device only once a long kernel has run on a stream; there are zeros before."""

    def __init__(self, place: Place, raw: RawOutputs) -> None:
        ready = several(place.to_device, raw)
        # Code is loaded and memory is allocated, which would wait for the device, before anything is late.
        cuda.postprocess(*ready, SIZE_HW).to_host()
        self.tensors = [torch.zeros_like(tensor) for tensor in ready]
        self.ready = ready
        self.stream = torch.cuda.Stream()
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(1)
            for tensor, array in zip(self.tensors, ready, strict=True):
                tensor.copy_(array).zero_()
        torch.cuda.synchronize()

    def enqueue(self) -> None:
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(LONG)
            for tensor, ready in zip(self.tensors, self.ready, strict=True):
                tensor.copy_(ready)


@pytest.fixture
def raw(rng: np.random.Generator) -> RawOutputs:
    return random_outputs(rng, SIZE_HW, batch=3)


@pytest.fixture
def expected(raw: RawOutputs) -> Sequence[ops.Faces]:
    faces = ops.postprocess(*raw, SIZE_HW)
    assert sum(len(image.scores) for image in faces) > 10
    return faces


@pytest.fixture
def late(cuda_device: Place, raw: RawOutputs) -> Late:
    return Late(cuda_device, raw)


def test_dlpack_alone(cuda_device: Place, raw: RawOutputs, expected: Sequence[ops.Faces]) -> None:
    arrays = [OnlyDlpack(cuda_device.to_device(array)) for array in raw]
    assert_same_faces(cuda.postprocess(*arrays, SIZE_HW).to_host(), expected)
    mixed = cuda.postprocess(arrays[0], arrays[1].tensor, arrays[2], SIZE_HW)
    assert_same_faces(mixed.to_host(), expected)
    with pytest.raises(TypeError, match=r"^class_scores"):
        cuda.postprocess(OnlyDlpack(torch.from_numpy(raw.class_scores)), *arrays[1:], SIZE_HW)


def test_the_call_goes_to_its_stream(late: Late, expected: Sequence[ops.Faces]) -> None:
    late.enqueue()
    faces = cuda.postprocess(*late.tensors, SIZE_HW, stream=late.stream.cuda_stream)
    assert not late.stream.query(), "the call has waited for its stream"
    assert faces.stream == late.stream.cuda_stream
    assert_same_faces(faces.to_host(), expected)


def test_a_stream_that_waits(late: Late, expected: Sequence[ops.Faces]) -> None:
    other = torch.cuda.Stream()
    late.enqueue()
    other.wait_stream(late.stream)
    faces = cuda.postprocess(*late.tensors, SIZE_HW, stream=other.cuda_stream)
    assert not other.query(), "the call has waited for its stream"
    assert_same_faces(faces.to_host(), expected)


def test_dlpack_makes_the_stream_wait(late: Late, expected: Sequence[ops.Faces]) -> None:
    other = torch.cuda.Stream()
    late.enqueue()
    with torch.cuda.stream(late.stream):  # the one that torch knows the tensors to be computed on
        faces = cuda.postprocess(*map(OnlyDlpack, late.tensors), SIZE_HW, stream=other.cuda_stream)
    assert not other.query(), "the call has waited for its stream"
    assert_same_faces(faces.to_host(), expected)


def test_the_default_stream_waits_for_dlpack(late: Late, expected: Sequence[ops.Faces]) -> None:
    late.enqueue()
    with torch.cuda.stream(late.stream):
        faces = cuda.postprocess(*map(OnlyDlpack, late.tensors), SIZE_HW)
    assert_same_faces(faces.to_host(), expected)


def test_a_third_stream_takes_the_faces(late: Late, expected: Sequence[ops.Faces]) -> None:
    third = torch.cuda.Stream()
    with torch.cuda.stream(third):
        torch.empty(1000, device="cuda")  # so that torch has memory for this stream, too
    late.enqueue()
    faces = cuda.postprocess(*late.tensors, SIZE_HW, stream=late.stream.cuda_stream)
    with torch.cuda.stream(third):
        rows, offsets = torch.from_dlpack(faces.rows), torch.from_dlpack(faces.offsets)
        copies = rows.clone(), offsets.clone()
        assert not third.query(), "the host has waited, or the third stream does not"
    third.synchronize()
    assert rows.data_ptr() == faces.rows.__cuda_array_interface__["data"][0]
    on_host, ends = (copy.cpu().numpy() for copy in copies)
    assert ends.tolist() == [0, *np.cumsum([len(image.scores) for image in expected])]
    for b, image in enumerate(expected):
        mine = on_host[ends[b] : ends[b + 1]]
        assert_same_bits(mine[:, :4], image.boxes)
        assert_same_bits(mine[:, 4], image.scores)
        assert_same_bits(mine[:, 5:].reshape(-1, 5, 2), image.landmarks)


@pytest.mark.parametrize("options", [{}, {"score_threshold": 0.02, "top_k": 300, "keep_top_k": 40}])
@pytest.mark.parametrize("spoiled", [False, True])
def test_batches_of_64(
    cuda_device: Place, spoiled: bool, options: dict[str, Any], rng: np.random.Generator
) -> None:
    raw = random_outputs(rng, (93, 121), batch=64)
    if spoiled:
        raw = spoil(rng, raw, 0.03)
    expected = ops.postprocess(*raw, (93, 121), **options)
    assert sum(len(image.scores) for image in expected) > 500
    found = cuda.postprocess(*several(cuda_device.to_device, raw), (93, 121), **options)
    assert_same_faces(found.to_host(), expected)


def test_threads_with_streams_of_their_own(cuda_device: Place, rng: np.random.Generator) -> None:
    inputs = [random_outputs(rng, SIZE_HW, batch=1 + i) for i in range(4)]
    expected = [ops.postprocess(*raw, SIZE_HW) for raw in inputs]

    def run(thread: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            pending = []
            for i in range(12):
                torch.cuda._sleep(LONG // 400)
                tensors = several(cuda_device.to_device, inputs[(thread + i) % 4])
                faces = cuda.postprocess(*tensors, SIZE_HW, stream=stream.cuda_stream)
                pending.append((faces, expected[(thread + i) % 4]))
                del tensors  # the faces keep them
            for faces, ones in pending:
                assert_same_faces(faces.to_host(), ones)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
