from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast.evaluation import match_boxes
from tests.reference import wider_ap

Array = np.ndarray[Any, Any]


def slowly(predictions: Array, offsets: Array, boxes: Array, box_offsets: Array) -> tuple[Array, Array]:
    """All overlaps of a picture, by the oracle, and the first of the greatest."""
    best = np.full(len(predictions), -1)
    overlaps = np.zeros(len(predictions))
    for picture in range(len(offsets) - 1):
        first, last = box_offsets[picture : picture + 2]
        others = boxes[first:last].copy()
        others[:, 2:] -= others[:, :2]
        for i in range(offsets[picture], offsets[picture + 1]):
            if first < last:
                x1, y1, x2, y2 = predictions[i]
                all_overlaps = wider_ap.overlaps(np.array([x1, y1, x2 - x1, y2 - y1]), others)
                best[i] = first + all_overlaps.argmax()
                overlaps[i] = all_overlaps.max()
    return best, overlaps


def assert_agrees(predictions: Array, offsets: Array, boxes: Array, box_offsets: Array) -> None:
    best, overlaps = match_boxes(predictions, offsets, boxes, box_offsets)
    assert (best.dtype, overlaps.dtype) == (np.int64, np.float64)
    expected_best, expected_overlaps = slowly(predictions, offsets, boxes, box_offsets)
    np.testing.assert_array_equal(best, expected_best)
    np.testing.assert_array_equal(overlaps, expected_overlaps)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Array, Array, Array, Array]:
    """A few pictures of boxes on a grid of halves: sums and products are exact, and ties are common."""
    counts = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns: list[Array] = []
    for side in range(2):
        lengths = np.array([count[side] for count in counts], dtype=np.int64)
        corners = rng.integers(-20, 20, (lengths.sum(), 2)) / 2
        columns += [
            np.concatenate([corners, corners + rng.integers(0, 20, corners.shape) / 2], axis=1),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        ]
    return columns[0], columns[1], columns[2], columns[3]


@given(pictures())
@settings(deadline=None)
def test_agrees_with_the_oracle(columns: tuple[Array, Array, Array, Array]) -> None:
    assert_agrees(*columns)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 100])
def test_one_picture_of_any_number_of_boxes(count: int, rng: np.random.Generator) -> None:
    def some(n: int) -> Array:
        corners = rng.integers(0, 60, (n, 2))
        return np.concatenate([corners, corners + rng.integers(0, 40, (n, 2))], axis=1).astype(np.float64)

    for other in (0, 1, 50):
        assert_agrees(some(other), np.array([0, other]), some(count), np.array([0, count]))


def test_no_picture() -> None:
    best, overlaps = match_boxes(np.empty((0, 4)), np.array([0]), np.empty((0, 4)), np.array([0]))
    assert (len(best), len(overlaps)) == (0, 0)


def test_a_nan_side_overlaps_nothing() -> None:
    faces = np.array([[0, 0, 9, 9], [0, 0, 9, np.nan]], dtype=np.float64)
    found = np.array([[0, 0, 9, 9], [0, 0, np.nan, 9], [0, np.nan, 9, 9]], dtype=np.float64)
    best, overlaps = match_boxes(found, np.array([0, 3]), faces, np.array([0, 2]))
    assert best.tolist() == [0, 0, 0]
    assert overlaps.tolist() == [1, 0, 0]


def test_any_memory_layout(rng: np.random.Generator) -> None:
    boxes = rng.integers(0, 30, (8, 4)).astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    offsets = np.array([0, 3, 8])
    expected = match_boxes(boxes, offsets, boxes[:5], np.array([0, 2, 5]))
    unaligned = np.frombuffer(b"\0" + boxes.tobytes(), dtype=np.uint8)[1:].view(np.float64).reshape(8, 4)
    layouts = [
        np.asfortranarray(boxes),
        np.repeat(boxes, 2, axis=0)[::2],
        boxes[::-1].copy()[::-1],
        np.pad(boxes, ((0, 0), (1, 1)))[:, 1:5],
        unaligned,
    ]
    for other in layouts:
        best, overlaps = match_boxes(
            other, np.repeat(offsets, 2)[::2], other[:5], np.array([[0, 2, 5]] * 2).T[:, 0]
        )
        np.testing.assert_array_equal(best, expected[0])
        np.testing.assert_array_equal(overlaps, expected[1])


def test_read_only_arrays_are_taken_and_stay() -> None:
    boxes, offsets = np.array([[0.0, 0, 9, 9]]), np.array([0, 1])
    boxes.flags.writeable = offsets.flags.writeable = False
    assert match_boxes(boxes, offsets, boxes, offsets)[0].tolist() == [0]


def test_the_gil_is_released() -> None:
    # While one thread looks at a quarter of a second's worth of pairs, this one goes on.
    boxes = np.tile(np.array([[0.0, 0, 9, 9]]), (8000, 1))
    offsets = np.array([0, 8000])
    started, finished = threading.Event(), threading.Event()

    def match() -> None:
        started.set()
        match_boxes(boxes, offsets, boxes, offsets)
        finished.set()

    thread = threading.Thread(target=match)
    thread.start()
    started.wait()
    turns = 0
    while not finished.is_set():
        turns += 1
    thread.join()
    # With the GIL held, the loop would get a turn before and after at most.
    assert turns > 1000


GOOD: dict[str, Any] = {
    "predictions": np.zeros((2, 4)),
    "prediction_offsets": np.array([0, 1, 2]),
    "boxes": np.zeros((3, 4)),
    "box_offsets": np.array([0, 3, 3]),
}


@pytest.mark.parametrize(
    ("argument", "value", "kind", "said"),
    [
        ("predictions", np.zeros((2, 4), np.float32), TypeError, "float64 .*float32 .*astype"),
        ("predictions", [[0.0] * 4, [0.0] * 3], TypeError, "float64"),
        ("predictions", np.zeros((2, 5)), ValueError, r"\(P, 4\), got float64 array of shape \(2, 5\)"),
        ("predictions", np.zeros(4), ValueError, r"\(P, 4\)"),
        ("predictions", np.zeros((3, 4)), ValueError, None),
        ("boxes", None, TypeError, "float64"),
        ("boxes", np.zeros((3, 4), int), TypeError, "float64"),
        ("prediction_offsets", np.array([0.0, 1, 2]), TypeError, "int64 .*astype"),
        ("prediction_offsets", np.array([0, 1, 2], np.int32), TypeError, "int64"),
        ("prediction_offsets", np.array([[0, 1, 2]]), ValueError, r"shape \(parts \+ 1,\)"),
        ("prediction_offsets", np.array([], np.int64), ValueError, "end with 2, got none"),
        ("prediction_offsets", np.array([0, 3, 2]), ValueError, "end with 2, got 2 at index 2"),
        ("prediction_offsets", np.array([0, 1, 3]), ValueError, "end with 2, got 3 at index 2"),
        ("prediction_offsets", np.array([0, 1, 1]), ValueError, "end with 2, got 1 at index 2"),
        ("prediction_offsets", np.array([1, 1, 2]), ValueError, "begin with 0, .* got 1 at index 0"),
        ("prediction_offsets", np.array([0, -1, 2]), ValueError, "got -1 at index 1"),
        ("prediction_offsets", np.array([-(2**63), 2**63 - 1, 2]), ValueError, "at index 0"),
        ("box_offsets", np.array([0, 3]), ValueError, "expected 3 numbers, as prediction_offsets has, got 2"),
    ],
)
def test_bad_arguments(argument: str, value: object, kind: type[Exception], said: str | None) -> None:
    match_boxes(**GOOD)
    name = argument if said is not None else "prediction_offsets"  # which then do not fit
    with pytest.raises(kind, match=f"^{name}: .*{said or 'end with 3'}"):
        match_boxes(**{**GOOD, argument: value})
