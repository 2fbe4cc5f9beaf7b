"""A bad argument is a TypeError or ValueError that names it, says what was expected and what came."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import ops

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_HW = (32, 32)
ANCHORS = 42  # of a 32x32 image: (16 + 4 + 1) cells with two sizes
LEVEL_ANCHORS = (32, 8, 2)


def valid() -> dict[str, dict[str, Any]]:
    """Arguments of every operation that it accepts."""
    anchors = ops.generate_anchors(SIZE_HW)
    boxes = ops.decode_boxes(np.zeros_like(anchors), anchors)
    scores = np.linspace(0, 1, ANCHORS, dtype=np.float32)
    return {
        "generate_anchors": {"image_size_hw": SIZE_HW},
        "decode_boxes": {"box_deltas": np.zeros((ANCHORS, 4), np.float32), "anchors": anchors},
        "encode_boxes": {"boxes": boxes, "anchors": anchors},
        "decode_landmarks": {"landmark_deltas": np.zeros((ANCHORS, 10), np.float32), "anchors": anchors},
        "encode_landmarks": {"landmarks": np.zeros((ANCHORS, 5, 2), np.float32), "anchors": anchors},
        "clip_boxes": {"boxes": boxes, "image_size_hw": SIZE_HW},
        "box_iou": {"boxes1": boxes, "boxes2": boxes[:3]},
        "nms": {"boxes": boxes, "scores": scores},
        "postprocess": {
            "class_scores": np.zeros((2, ANCHORS, 2), np.float32),
            "box_deltas": np.zeros((2, ANCHORS, 4), np.float32),
            "landmark_deltas": np.zeros((2, ANCHORS, 10), np.float32),
            "image_size_hw": SIZE_HW,
        },
    }


ARRAYS = {
    (operation, argument): value.ndim
    for operation, arguments in valid().items()
    for argument, value in arguments.items()
    if isinstance(value, np.ndarray)
}
OPERATIONS_OF = {
    argument: [operation for operation, arguments in valid().items() if argument in arguments]
    for argument in ("image_size_hw",)
}
NUMBERS = {
    "variances": ["decode_boxes", "encode_boxes", "decode_landmarks", "encode_landmarks", "postprocess"],
    "top_k": ["nms", "postprocess"],
    "keep_top_k": ["nms", "postprocess"],
    "threshold": [
        ("nms", "iou_threshold"),
        ("postprocess", "score_threshold"),
        ("postprocess", "nms_threshold"),
    ],
}

each_array = pytest.mark.parametrize(
    ("operation", "argument"), ARRAYS, ids=["-".join(pair) for pair in ARRAYS]
)


def call(operation: str, **changes: Any) -> Any:
    return getattr(ops, operation)(**(valid()[operation] | changes))


def refused(kind: type[Exception] | tuple[type[Exception], ...], operation: str, **changes: Any) -> str:
    """The message of the refusal, which must name the argument first."""
    (argument,) = changes
    with pytest.raises(kind) as caught:
        call(operation, **changes)
    message = str(caught.value)
    assert message.startswith(argument), message
    assert "expected" in message, message
    assert "\n" not in message.strip(), message
    return message


@pytest.mark.parametrize("operation", valid())
def test_the_valid_arguments_are_valid(operation: str) -> None:
    call(operation)


# --- arrays ---


@each_array
@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "int32", "uint8", "bool", "complex64", "object", ">f4"]
)
def test_other_types_are_refused_with_the_remedy(operation: str, argument: str, dtype: str) -> None:
    array = valid()[operation][argument].astype(np.dtype(dtype))
    message = refused(TypeError, operation, **{argument: array})
    assert "float32" in message
    assert ".astype(" in message
    assert dtype in message


@each_array
@pytest.mark.parametrize(
    "value",
    [None, 1.0, "boxes", {"boxes": 1}, object(), b"\x00" * 16],
    ids=["None", "1.0", "str", "dict", "object", "bytes"],
)
def test_what_is_no_array_is_refused(operation: str, argument: str, value: object) -> None:
    refused(TypeError, operation, **{argument: value})


@each_array
def test_a_nested_list_is_refused(operation: str, argument: str) -> None:
    nested = valid()[operation][argument].tolist()
    # For postprocess a list means one array for each level, so its length is what is wrong first.
    expected = (TypeError, ValueError) if operation == "postprocess" else TypeError
    refused(expected, operation, **{argument: nested})


@each_array
def test_other_shapes_are_refused_and_told(operation: str, argument: str) -> None:
    array = valid()[operation][argument]
    wrong = [array[None], array.reshape(-1) if array.ndim > 1 else array.reshape(-1, 1), array[..., None]]
    wrong.append(np.float32(1).reshape(()))
    if array.ndim > 1:
        wrong += [array[..., :-1], np.concatenate([array, array[..., :1]], axis=-1), array[..., :0]]
    for bad in wrong:
        message = refused(ValueError, operation, **{argument: bad})
        assert str(bad.shape).strip("()") in message, message


@pytest.mark.parametrize(
    ("operation", "argument"),
    [
        ("decode_boxes", "anchors"),
        ("encode_boxes", "anchors"),
        ("decode_landmarks", "anchors"),
        ("encode_landmarks", "anchors"),
        ("nms", "scores"),
    ],
)
@pytest.mark.parametrize("count", [0, 1, ANCHORS - 1])
def test_lengths_that_differ_are_refused(operation: str, argument: str, count: int) -> None:
    message = refused(ValueError, operation, **{argument: valid()[operation][argument][:count]})
    assert str(count) in message
    assert str(ANCHORS) in message


@pytest.mark.parametrize("argument", ["class_scores", "box_deltas", "landmark_deltas"])
@pytest.mark.parametrize("count", [0, 1, ANCHORS - 1, ANCHORS + 1])
def test_another_number_of_anchors_is_refused(argument: str, count: int) -> None:
    array = valid()["postprocess"][argument]
    bad = np.zeros((2, count, array.shape[2]), np.float32)
    message = refused(ValueError, "postprocess", **{argument: bad})
    assert str(ANCHORS) in message


@pytest.mark.parametrize("argument", ["box_deltas", "landmark_deltas"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_another_number_of_images_is_refused(argument: str, batch: int) -> None:
    array = valid()["postprocess"][argument]
    message = refused(
        ValueError, "postprocess", **{argument: np.zeros((batch, *array.shape[1:]), np.float32)}
    )
    assert "2 images" in message


@pytest.mark.parametrize("argument", ["class_scores", "box_deltas", "landmark_deltas"])
def test_levels_that_do_not_fit_are_refused(argument: str) -> None:
    columns = valid()["postprocess"][argument].shape[2]
    levels = [np.zeros((2, count, columns), np.float32) for count in LEVEL_ANCHORS]
    call("postprocess", **{argument: levels})
    refused(ValueError, "postprocess", **{argument: levels[:2]})
    refused(ValueError, "postprocess", **{argument: [*levels, levels[0]]})
    refused(ValueError, "postprocess", **{argument: levels[::-1]})
    refused(ValueError, "postprocess", **{argument: []})
    refused(TypeError, "postprocess", **{argument: [levels[0], levels[1], None]})
    message = refused(
        TypeError, "postprocess", **{argument: [levels[0], levels[1].astype(np.float64), levels[2]]}
    )
    assert message.startswith(f"{argument}[1]")
    message = refused(ValueError, "postprocess", **{argument: [levels[0], levels[1], levels[2][:1]]})
    assert message.startswith(f"{argument}[2]")


def test_another_image_size_than_that_of_the_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^class_scores: expected .*\(B, 18, 2\)"):
        call("postprocess", image_size_hw=(16, 24))


@pytest.mark.parametrize("index", [0, 17, ANCHORS - 1])
def test_nan_scores_are_refused(index: int) -> None:
    scores = valid()["nms"]["scores"]
    scores[index] = np.nan
    message = refused(ValueError, "nms", scores=scores)
    assert "NaN" in message
    assert str(index) in message


# --- numbers ---


@pytest.mark.parametrize("operation", OPERATIONS_OF["image_size_hw"])
@pytest.mark.parametrize(
    "size", [(0, 32), (32, 0), (-1, 32), (32, -8), (2**21, 1), (1, 2**63), (10**30, 1)], ids=str
)
def test_sizes_out_of_range_are_refused(operation: str, size: tuple[int, int]) -> None:
    refused(ValueError, operation, image_size_hw=size)


@pytest.mark.parametrize("operation", OPERATIONS_OF["image_size_hw"])
@pytest.mark.parametrize(
    "size", [32, None, (32,), (32, 32, 3), (32.0, 32), (32, "32"), (True, 32), (None, 32), "ab", ()], ids=repr
)
def test_sizes_that_are_none_are_refused(operation: str, size: object) -> None:
    refused((TypeError, ValueError), operation, image_size_hw=size)


@pytest.mark.parametrize("operation", OPERATIONS_OF["image_size_hw"])
@pytest.mark.parametrize("kind", [list, np.array, lambda size: tuple(np.int64(side) for side in size)])
def test_sizes_may_come_as_any_pair_of_integers(operation: str, kind: Callable[[Any], Any]) -> None:
    call(operation, image_size_hw=kind(SIZE_HW))


def test_more_anchors_than_can_be_counted_are_refused() -> None:
    config = ops.AnchorConfig(strides=(1,), sizes=((1,),))
    with pytest.raises(ValueError, match=r"^image_size_hw: "):
        ops.generate_anchors((2**20, 2**20), config=config)


@pytest.mark.parametrize(("operation", "argument"), NUMBERS["threshold"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1.0000001, -1, 2, np.float32(1.5)])
def test_thresholds_out_of_range_are_refused(operation: str, argument: str, value: float) -> None:
    message = refused(ValueError, operation, **{argument: value})
    assert "[0, 1]" in message


@pytest.mark.parametrize(("operation", "argument"), NUMBERS["threshold"])
@pytest.mark.parametrize("value", [None, "0.5", [0.5], True, 1j, b"1"], ids=repr)
def test_thresholds_that_are_no_numbers_are_refused(operation: str, argument: str, value: object) -> None:
    refused(TypeError, operation, **{argument: value})


@pytest.mark.parametrize(("operation", "argument"), NUMBERS["threshold"])
@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.float64(0.5), np.int64(1), 5e-324])
def test_thresholds_within_range_are_accepted(operation: str, argument: str, value: float) -> None:
    call(operation, **{argument: value})


@pytest.mark.parametrize("operation", ["nms", "postprocess"])
@pytest.mark.parametrize("argument", ["top_k", "keep_top_k"])
def test_limits(operation: str, argument: str) -> None:
    for value in (0, -1, -(10**30), 10**30):
        refused(ValueError, operation, **{argument: value})
    for value in (1.0, "5", True, [5], math.nan):
        refused(TypeError, operation, **{argument: value})
    for value in (None, 1, 10**6, np.int32(3), np.uint64(3)):
        call(operation, **{argument: value})


def test_threads() -> None:
    for value in (0, -1, 10**30):
        refused(ValueError, "postprocess", threads=value)
    for value in (1.0, "1", None, True):
        refused(TypeError, "postprocess", threads=value)


@pytest.mark.parametrize("operation", NUMBERS["variances"])
def test_variances(operation: str) -> None:
    for value in ((0.0, 0.2), (0.1, -0.2), (math.nan, 0.2), (0.1, math.inf), (1e-60, 0.2), (0.1, 1e60)):
        refused(ValueError, operation, variances=value)
    for value in ((0.1,), (0.1, 0.2, 0.3), (), 0.1, None, ("0.1", 0.2), (None, 0.2), (True, 0.2)):
        refused((TypeError, ValueError), operation, variances=value)
    for value in ([0.1, 0.2], np.array([0.1, 0.2]), (1, 1)):
        call(operation, variances=value)


@pytest.mark.parametrize("value", ["logit", "Logits", "", None, 1, True, b"logits"], ids=repr)
def test_scores_are(value: object) -> None:
    message = refused((TypeError, ValueError), "postprocess", scores_are=value)
    assert "logits" in message
    assert "probabilities" in message


# --- anchor configurations ---


@pytest.mark.parametrize("operation", ["generate_anchors", "postprocess"])
@pytest.mark.parametrize("value", [None, "P3_P5", 3, [8, 16], {"strides": (8,)}], ids=repr)
def test_a_config_that_is_none_is_refused(operation: str, value: object) -> None:
    refused(TypeError, operation, config=value)


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        ((), ()),
        ((0,), ((16,),)),
        ((-8,), ((16,),)),
        ((8, 16), ((16,),)),
        ((8,), ((16,), (32,))),
        ((8,), ((),)),
        ((8,), ((0,),)),
        ((8,), ((-16,),)),
        ((8,), ((math.nan,),)),
        ((8,), ((math.inf,),)),
        ((8,), ((1e60,),)),
        ((8,), ((1e-60,),)),
    ],
)
def test_config_values_are_refused(strides: Any, sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"^(strides|sizes): expected"):
        ops.generate_anchors(SIZE_HW, config=ops.AnchorConfig(strides=strides, sizes=sizes))


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        ((8.0,), ((16,),)),
        (("8",), ((16,),)),
        ((True,), ((16,),)),
        ((8,), (("16",),)),
        ((8,), (None,)),
        (None, ((1,),)),
        ((8,), None),
        ((8,), (16,)),
    ],
)
def test_config_types_are_refused(strides: Any, sizes: Any) -> None:
    with pytest.raises(TypeError, match=r"^(strides|sizes): expected"):
        ops.AnchorConfig(strides=strides, sizes=sizes)


@pytest.mark.parametrize("size", [(0, 32), (32, -1)])
def test_config_methods_refuse_sizes_out_of_range(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^image_size_hw"):
        ops.P3_P5.num_anchors(size)
    with pytest.raises(ValueError, match=r"^image_size_hw"):
        ops.P3_P5.feature_sizes_hw(size)


@pytest.mark.parametrize("operation", valid())
def test_options_are_keyword_only(operation: str) -> None:
    arguments = list(valid()[operation].values())
    getattr(ops, operation)(*arguments)
    if operation not in {"clip_boxes", "box_iou"}:
        with pytest.raises(TypeError):
            getattr(ops, operation)(*arguments, 0.5)


def test_a_refusal_leaves_the_next_call_alone() -> None:
    expected = call("postprocess", score_threshold=0.1)
    with pytest.raises(ValueError, match="landmark_deltas"):
        call("postprocess", landmark_deltas=np.zeros((2, 1, 10), np.float32))
    again = call("postprocess", score_threshold=0.1)
    for a, b in zip(expected, again, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)


# --- arguments that run code of their own while they are read ---


class _Clearing:
    """A number that empties the list it stands in when it is converted."""

    def __init__(self, home: list[Any]) -> None:
        self.home = home

    def __float__(self) -> float:
        self.home.clear()
        return 0.1

    def __index__(self) -> int:
        self.home.clear()
        return 32


def test_a_list_that_changes_while_it_is_read() -> None:
    deltas, anchors = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    variances: list[Any] = []
    variances += [_Clearing(variances), _Clearing(variances)]
    assert ops.decode_boxes(deltas, anchors, variances=variances).shape == (1, 4)  # type: ignore[arg-type]
    size: list[Any] = []
    size += [_Clearing(size), _Clearing(size)]
    assert ops.generate_anchors(size).shape == (42, 4)  # type: ignore[arg-type]


class _Interrupted:
    def __float__(self) -> float:
        raise KeyboardInterrupt

    def __index__(self) -> int:
        raise KeyboardInterrupt


def test_an_interrupt_is_not_taken_for_a_bad_argument() -> None:
    boxes, scores = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
    with pytest.raises(KeyboardInterrupt):
        ops.nms(boxes, scores, iou_threshold=_Interrupted())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        ops.nms(boxes, scores, top_k=_Interrupted())  # type: ignore[arg-type]
