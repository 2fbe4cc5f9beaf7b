"""What the post-processing on a device refuses: by name, with what was expected and what came."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest

from retinaface_fast import ops
from retinaface_fast.ops import cuda
from tests.ops import device_arrays
from tests.ops.device_arrays import CPU, CUDA, WithDlpack, WithInterface, name_of, through_dlpack

if device_arrays.cuda_on_cpu() is None:  # once, and not for each test
    pytest.skip(device_arrays.NOT_HERE, allow_module_level=True)
pytestmark = pytest.mark.usefixtures("cuda_on_cpu")

SIZE_HW = (32, 32)
LEVEL_ANCHORS = (32, 8, 2)
ANCHORS = sum(LEVEL_ANCHORS)
COLUMNS = {"class_scores": 2, "box_deltas": 4, "landmark_deltas": 10}
PROTOCOLS = pytest.mark.parametrize("convert", [WithInterface, WithDlpack])
each_argument = pytest.mark.parametrize("argument", COLUMNS)


def zeros(argument: str, *, images: int = 2, anchors: int = ANCHORS) -> Any:
    return np.zeros((images, anchors, COLUMNS[argument]), np.float32)


def call(**changes: Any) -> cuda.DeviceFaces:
    arguments: dict[str, Any] = {argument: WithInterface(zeros(argument)) for argument in COLUMNS}
    return cuda.postprocess(**({"image_size_hw": SIZE_HW, **arguments} | changes))


def refused(kind: type[Exception], *, place: str = "", **changes: Any) -> str:
    """The message of the refusal, which must name the argument first."""
    (argument,) = changes
    with pytest.raises(kind) as caught:
        call(**changes)
    message = str(caught.value)
    assert message.startswith((f"{argument}{place}: expected ", f"{argument}{place}.__")), message
    assert type(caught.value) is kind
    return message


def test_what_the_errors_differ_from_is_accepted() -> None:
    assert len(call().to_host()) == 2
    by_level = {
        name: [WithDlpack(zeros(name, anchors=anchors)) for anchors in LEVEL_ANCHORS] for name in COLUMNS
    }
    assert len(call(**by_level).to_host()) == 2


# --- arrays


@each_argument
def test_arrays_of_the_host(argument: str) -> None:
    expected = f"expected a float32 CUDA array of shape (B, {ANCHORS}, {COLUMNS[argument]})"
    message = refused(TypeError, **{argument: zeros(argument)})
    assert expected in message
    assert "in host memory" in message
    assert "retinaface_fast.ops.postprocess" in message
    message = refused(TypeError, **{argument: WithDlpack(zeros(argument), device=(CPU, 0))})
    assert "got WithDlpack in host memory" in message
    message = refused(TypeError, **{argument: WithDlpack(zeros(argument), device=(10, 0))})
    assert "on a device of DLPack type 10" in message
    for value in (None, 3, "text", object(), WithInterface, memoryview(b"text")):
        refused(TypeError, **{argument: value})


def test_tensors_of_torch_on_the_host() -> None:
    torch = pytest.importorskip("torch")
    message = refused(TypeError, class_scores=torch.zeros((2, ANCHORS, 2)))
    assert "got Tensor in host memory" in message


@PROTOCOLS
@each_argument
@pytest.mark.parametrize(
    ("dtype", "words"), [("f8", "float64"), ("f2", "float16"), ("i4", "int32"), ("c8", "complex64")]
)
def test_types(convert: Any, argument: str, dtype: str, words: str) -> None:
    message = refused(TypeError, **{argument: convert(zeros(argument).astype(dtype))})
    assert convert is WithDlpack or f"got {words} WithInterface of shape (2, 42, " in message
    assert "convert it to float32" in message


def test_types_that_numpy_does_not_have() -> None:
    assert "got >f4 " in refused(TypeError, class_scores=WithInterface(zeros("class_scores").astype(">f4")))
    assert "got bool " in refused(TypeError, class_scores=WithInterface(zeros("class_scores") > 0))
    for field, value, words in (("code", 4, "DLPack type 4"), ("lanes", 2, "x 2"), ("bits", 16, "float16")):
        array = WithDlpack(zeros("class_scores"), **{field: value})
        assert words in refused(TypeError, class_scores=array)


@PROTOCOLS
@each_argument
def test_shapes(convert: Any, argument: str) -> None:
    good = zeros(argument)
    for bad in (good[:, 1:], good[..., 1:], good[0], good[None], np.zeros((), np.float32)):
        message = refused(ValueError, **{argument: convert(np.ascontiguousarray(bad))})
        assert "of shape (" in message
    assert "expected at least one image" in refused(ValueError, **{argument: convert(good[:0])})


@PROTOCOLS
@each_argument
def test_levels(convert: Any, argument: str) -> None:
    levels = [convert(zeros(argument, anchors=anchors)) for anchors in LEVEL_ANCHORS]
    assert "expected 3 arrays, one for each level, got 2" in refused(ValueError, **{argument: levels[:2]})
    assert "got 0" in refused(ValueError, **{argument: ()})
    refused(ValueError, place="[0]", **{argument: levels[::-1]})
    refused(TypeError, place="[2]", **{argument: [*levels[:2], zeros(argument, anchors=2)]})
    other = convert(zeros(argument, anchors=8, images=3))
    message = refused(
        ValueError,
        place="[1]" if argument == "class_scores" else "[0]",
        **{
            argument: (levels[0], other, levels[2])
            if argument == "class_scores"
            else [convert(zeros(argument, anchors=anchors, images=3)) for anchors in LEVEL_ANCHORS]
        },
    )
    assert "expected 2 images, as in the first array of class_scores, got 3" in message


@PROTOCOLS
@each_argument
def test_rows_must_be_contiguous(convert: Any, argument: str) -> None:
    wide = np.zeros((2, 2 * ANCHORS, 2 * COLUMNS[argument]), np.float32)
    columns = COLUMNS[argument]
    for bad in (
        wide[:, ::2, :columns],
        wide[:, :ANCHORS, ::2],
        zeros(argument)[:, ::-1],
        zeros(argument)[..., ::-1],
        np.zeros((2, columns, ANCHORS), np.float32).transpose(0, 2, 1),
        np.broadcast_to(np.zeros((2, 1, columns), np.float32), (2, ANCHORS, columns)),
    ):
        if convert is WithDlpack and not bad.flags.writeable:
            continue
        message = refused(ValueError, **{argument: convert(bad)})
        assert ".contiguous()" in message
    odd = WithInterface(zeros(argument), strides=(ANCHORS * columns * 4 + 2, columns * 4, 4))
    assert ".contiguous()" in refused(ValueError, **{argument: odd})


@each_argument
def test_devices_differ(argument: str) -> None:
    message = refused(
        ValueError,
        **{
            "box_deltas" if argument == "class_scores" else argument: WithDlpack(
                zeros("box_deltas" if argument == "class_scores" else argument), device=(CUDA, 1)
            )
        },
    )
    assert "expected an array on CUDA device 0, as the first array of class_scores, got one on 1" in message


def test_a_device_that_there_is_not() -> None:
    arrays = {name: WithDlpack(zeros(name), device=(CUDA, 3)) for name in COLUMNS}
    with pytest.raises(RuntimeError):
        call(**arrays)


def test_more_images_than_there_may_be() -> None:
    arrays = {
        name: WithInterface(np.broadcast_to(zeros(name, images=1), (65536, ANCHORS, columns)))
        for name, columns in COLUMNS.items()
    }
    with pytest.raises(ValueError, match="65535"):
        call(**arrays)


# --- interfaces that are not what they should be


GARBAGE: dict[str, Any] = {
    "no version": {"version": ...},
    "old version": {"version": 1},
    "later version": {"version": 4},
    "version of another type": {"version": "3"},
    "no shape": {"shape": ...},
    "shape of another type": {"shape": [2, ANCHORS, 2]},
    "shape with a float": {"shape": (2, ANCHORS, 2.0)},
    "shape with a bool": {"shape": (True, ANCHORS, 2)},
    "negative shape": {"shape": (-1, ANCHORS, 2)},
    "shape beyond 64 bits": {"shape": (2**64, ANCHORS, 2)},
    "no typestr": {"typestr": ...},
    "typestr of another type": {"typestr": b"<f4"},
    "no data": {"data": ...},
    "data of another type": {"data": 4096},
    "data without the flag": {"data": (4096,)},
    "negative address": {"data": (-4096, False)},
    "address beyond 64 bits": {"data": (2**64, False)},
    "address of another type": {"data": ("4096", False)},
    "data is None": {"data": None},
    "strides of another type": {"strides": 8},
    "too few strides": {"strides": (8, 4)},
    "strides beyond 64 bits": {"strides": (-(2**70), 8, 4)},
    "stream 0": {"stream": 0},
    "negative stream": {"stream": -1},
    "stream of another type": {"stream": "1"},
    "stream is a bool": {"stream": True},
}


@pytest.mark.parametrize("changes", GARBAGE.values(), ids=GARBAGE)
def test_interfaces_that_are_malformed(changes: dict[str, Any]) -> None:
    message = refused(TypeError, class_scores=WithInterface(zeros("class_scores"), **changes))
    assert message.startswith("class_scores.__cuda_array_interface__: expected ")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": (0, False)},
        {"data": (4098, False)},
        {"mask": WithInterface(zeros("class_scores"))},
        {"shape": (2**62, ANCHORS, 2)},
        {"shape": (2**62, ANCHORS, 2), "strides": (0, 8, 4)},
        {"strides": (-(2**63), 8, 4)},
        {"strides": (2**63 - 4, 8, 4)},
        {"strides": (-(2**62), 8, 4)},
    ],
    ids=repr,
)
def test_interfaces_that_say_what_cannot_be(changes: dict[str, Any]) -> None:
    refused(ValueError, class_scores=WithInterface(zeros("class_scores"), **changes))


class Raises:
    """An object whose attributes raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @property
    def __cuda_array_interface__(self) -> Any:
        raise self.error


class Answers:
    def __init__(self, interface: Any) -> None:
        self.__cuda_array_interface__ = interface


def test_an_interface_that_is_no_dict() -> None:
    for interface in (None, (), [("shape", (2, ANCHORS, 2))], "dict", Answers({})):
        assert "expected a dict" in refused(TypeError, class_scores=Answers(interface))
    assert "expected the key 'version', got []" in refused(TypeError, class_scores=Answers({}))


def test_what_an_interface_raises_is_passed_on() -> None:
    # As torch does for a tensor that requires a gradient.
    with pytest.raises(ValueError, match=r"^class_scores: Can't get .* requires grad") as caught:
        call(class_scores=Raises(RuntimeError("Can't get it on Variable that requires grad")))
    assert isinstance(caught.value.__cause__, RuntimeError)
    for error in (KeyboardInterrupt(), MemoryError(), ZeroDivisionError("x")):
        with pytest.raises(type(error)) as other:
            call(class_scores=Raises(error))
        assert other.value is error
    # No such attribute, and no other protocol.
    refused(TypeError, class_scores=Raises(AttributeError("none")))


@pytest.mark.parametrize(
    "device",
    [None, (), (2,), (2, 0, 0), (2, -1), (2, 2**31), ("2", 0), (2, None), (2.0, 0), (2**70, 0)],
    ids=repr,
)
def test_a_dlpack_device_that_is_none(device: Any) -> None:
    message = refused(TypeError, class_scores=WithDlpack(zeros("class_scores"), device=device))
    assert message.startswith("class_scores.__dlpack_device__(): expected a type and a number, got ")


def test_dlpack_that_is_not_what_it_should_be() -> None:
    array = zeros("class_scores")

    class Capsule(WithDlpack):
        answer: Any = None

        def __dlpack__(self, *, stream: Any = None) -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

    used = WithDlpack(array).__dlpack__()
    through_dlpack(used)
    for answer in (None, 4096, array, used):
        subject = Capsule(array)
        subject.answer = answer
        message = refused(TypeError, class_scores=subject)
        assert 'expected a fresh capsule named "dltensor"' in message
    subject = Capsule(array)
    subject.answer = BufferError("Can't export tensors that require gradient")
    with pytest.raises(BufferError, match="require gradient"):
        call(class_scores=subject)

    class NoMethod:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (CUDA, 0)

    assert "without the method __dlpack__" in refused(TypeError, class_scores=NoMethod())


@pytest.mark.parametrize(
    "fields",
    [
        {"device": (CPU, 0)},
        {"device": (CUDA, 1)},
        {"ndim": -1},
        {"ndim": 65},
        {"ndim": 2},
        {"ndim": 0},
        {"shape": None},
        {"data": None},
        {"byte_offset": 2},
    ],
    ids=repr,
)
def test_tensors_that_cannot_be(fields: dict[str, Any]) -> None:
    array = WithDlpack(zeros("class_scores"))
    array.fields = fields
    refused(ValueError, class_scores=array)
    # What was taken over is given back.
    assert name_of(array.capsules[0]) == "used_dltensor"


@pytest.mark.parametrize("stride", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_strides_of_a_tensor_that_cannot_be(stride: int) -> None:
    strides = (ctypes.c_int64 * 3)(stride, 2, 1)
    pointer = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
    with pytest.raises(ValueError, match=r"^class_scores"):
        call(class_scores=WithDlpack(zeros("class_scores"), strides=pointer))


# --- streams


class CudaStream:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __cuda_stream__(self) -> Any:
        return self.answer


def test_streams() -> None:
    for stream in (-1, 2**64, -(2**70)):
        refused(ValueError, stream=stream)
    for stream in (None, True, 1.0, "0", object()):
        assert "an object with __cuda_stream__" in refused(TypeError, stream=stream)
    for answer in (None, 4096, (0,), (1, 4096), (0, -1), (0, "4096"), (0, 4096, 0), ("0", 4096)):
        message = refused(TypeError, stream=CudaStream(answer))
        assert message.startswith("stream.__cuda_stream__: expected version 0 and an address, got ")


def test_the_stream_of_a_thread_is_refused() -> None:
    # It would be another one where the faces are fetched, or let go of, in another thread.
    for stream in (2, CudaStream((0, 2))):
        assert "the same in all threads" in refused(ValueError, stream=stream)


def test_memory_that_a_device_does_not_have_is_a_memory_error() -> None:
    extension = sys.modules["retinaface_fast._cuda"]
    for error, kind in ((2, MemoryError), (700, RuntimeError)):
        extension.fail_next("cudaMallocFromPoolAsync", error)
        with pytest.raises(kind, match="CUDA failed to allocate device memory"):
            call()
    call()


# --- numbers, as on the CPU


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("score_threshold", [-0.1, 1.1, float("nan"), "0.5", None, True]),
        ("nms_threshold", [-0.1, 1.1, float("nan"), "0.4", None, False]),
        ("variances", [(0.1,), (0.1, 0.0), (0.1, float("inf")), 0.1, None, ("a", 0.2)]),
        ("top_k", [0, -1, 1.0, "1", True, 2**31]),
        ("keep_top_k", [0, -1, 1.0, "1", True, 2**31]),
        ("image_size_hw", [(0, 32), (32,), 32, None, (32.0, 32), (2**20 + 1, 32), (2**20, 2**20)]),
        ("config", [None, "P3_P5", (8, 16, 32)]),
        ("scores_are", ["logit", None, 1]),
    ],
)
def test_numbers(argument: str, values: list[Any]) -> None:
    arrays = {name: zeros(name) for name in COLUMNS}
    for value in values:
        with pytest.raises((TypeError, ValueError)) as on_the_host:
            ops.postprocess(**({"image_size_hw": SIZE_HW, **arrays} | {argument: value}))
        with pytest.raises((TypeError, ValueError)) as caught:
            call(**{argument: value})
        assert str(caught.value) == str(on_the_host.value)
        assert type(caught.value) is type(on_the_host.value)
