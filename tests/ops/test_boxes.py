from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinaface_fast import ops
from tests.ops.agreement import P2_P6, P3_P5, assert_same_bits
from tests.ops.layouts import LAYOUTS
from tests.ops.samples import BOX_KINDS
from tests.reference import boxes as reference

FloatArray = npt.NDArray[np.float32]

#: Around the width of a SIMD register, whole and with tails.
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 1000]
VARIANCES = [(0.1, 0.2), (1.0, 1.0), (0.1, 0.05)]


def some_anchors(rng: np.random.Generator, count: int) -> FloatArray:
    centres = rng.uniform(0, 4096, (count, 2))
    sizes = 2.0 ** rng.uniform(2, 10, (count, 2))  # not square: the operation does not ask for it
    return np.concatenate([centres, sizes], axis=1).astype(np.float32)


def ulps_of(scale: npt.NDArray[np.float64], count: float) -> npt.NDArray[np.float64]:
    """What `count` units in the last place of these float32 magnitudes are."""
    return count * np.spacing(np.maximum(np.abs(scale), 1e-30).astype(np.float32)).astype(np.float64)


def assert_decoded(
    boxes: FloatArray, deltas: FloatArray, anchors: FloatArray, variances: tuple[float, float]
) -> None:
    expected = reference.decode_boxes(deltas.astype(np.float64), anchors.astype(np.float64), variances)
    shifts = np.abs(deltas[:, :2].astype(np.float64) * variances[0] * anchors[:, 2:])
    sizes = expected[:, 2:] - expected[:, :2]
    # Every quantity that is summed, at its own rounding: the anchor's centre, the shift, the size. The size
    # has the relative error of exp plus that of its rounded argument, |d v1| times 2 roundings.
    exponents = np.abs(deltas[:, 2:].astype(np.float64) * variances[1])
    allowed = (
        ulps_of(np.abs(anchors[:, :2]) + shifts, 3) + ulps_of(sizes, 4) + sizes * exponents * 2 * 2.0**-23
    )
    error = np.abs(boxes.astype(np.float64) - expected)
    assert (error <= np.tile(allowed, 2)).all(), (
        f"worst: {(error / np.tile(allowed, 2)).max():.2f} of the allowance"
    )


@pytest.mark.parametrize("variances", VARIANCES, ids=str)
@pytest.mark.parametrize("count", LENGTHS)
def test_decode_boxes_agrees_with_the_oracle(
    count: int, variances: tuple[float, float], rng: np.random.Generator
) -> None:
    anchors = some_anchors(rng, count)
    deltas = rng.normal(0, 3, (count, 4)).astype(np.float32)
    boxes = ops.decode_boxes(deltas, anchors, variances=variances)
    assert boxes.shape == (count, 4)
    assert boxes.dtype == np.float32
    assert_decoded(boxes, deltas, anchors, variances)


def test_decode_boxes_by_hand() -> None:
    anchors = np.array([[100, 50, 16, 32]], dtype=np.float32)
    deltas = np.array([[2, -1, np.log(2) / 0.2, 0]], dtype=np.float32)
    # centre (100 + 2 * 0.1 * 16, 50 - 0.1 * 32), size (32, 32)
    np.testing.assert_allclose(ops.decode_boxes(deltas, anchors), [[87.2, 30.8, 119.2, 62.8]], rtol=1e-6)


def test_zero_deltas_decode_to_the_anchors(rng: np.random.Generator) -> None:
    anchors = ops.generate_anchors((96, 160), config=ops.P2_P6)
    boxes = ops.decode_boxes(np.zeros_like(anchors), anchors)
    half = anchors[:, 2:] * np.float32(0.5)
    assert_same_bits(boxes, np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1))


def test_exp_is_right_from_underflow_to_overflow() -> None:
    exponents = np.concatenate([np.linspace(-86, 88, 20_001), np.linspace(-1e-3, 1e-3, 2001), [0.0]])
    deltas = np.zeros((len(exponents), 4), dtype=np.float32)
    deltas[:, 2] = exponents
    anchors = np.tile(np.float32([0, 0, 1, 1]), (len(exponents), 1))
    boxes = ops.decode_boxes(deltas, anchors, variances=(1.0, 1.0)).astype(np.float64)
    expected = np.exp(deltas[:, 2].astype(np.float64)) / 2
    assert (np.abs(boxes[:, 2] / expected - 1) < 3 * 2.0**-23).all()
    np.testing.assert_array_equal(boxes[:, 0], -boxes[:, 2])


@pytest.mark.parametrize(
    ("size_delta", "half_width"),
    [
        (-1e30, 0.0),
        (-np.inf, 0.0),
        (-200.0, 0.0),
        (89.0, np.inf),
        (200.0, np.inf),
        (np.inf, np.inf),
        (np.nan, np.nan),
    ],
)
def test_decoded_sizes_at_the_ends(size_delta: float, half_width: float) -> None:
    # Every lane in turn: a tail or a shuffle must not mix rows.
    for lane in range(9):
        deltas = np.zeros((9, 4), dtype=np.float32)
        deltas[lane, 2] = size_delta
        anchors = np.tile(np.float32([50, 50, 2, 2]), (9, 1))
        with np.errstate(invalid="ignore"):
            expected = np.tile(np.float32([49, 49, 51, 51]), (9, 1))
            expected[lane, [0, 2]] = [50 - 2 * half_width, 50 + 2 * half_width] if half_width else [50, 50]
        assert_same_bits(ops.decode_boxes(deltas, anchors, variances=(1.0, 1.0)), expected, f"lane {lane}")


@pytest.mark.parametrize("count", LENGTHS)
def test_decode_landmarks_agrees_with_the_oracle(count: int, rng: np.random.Generator) -> None:
    anchors = some_anchors(rng, count)
    deltas = rng.normal(0, 5, (count, 10)).astype(np.float32)
    landmarks = ops.decode_landmarks(deltas, anchors)
    assert landmarks.shape == (count, 5, 2)
    assert landmarks.dtype == np.float32
    expected = reference.decode_landmarks(deltas.astype(np.float64), anchors.astype(np.float64))
    np.testing.assert_allclose(landmarks, expected, rtol=4e-7, atol=2e-3)
    # Multiplication and addition only: single precision in the written order gives the very bits.
    assert_same_bits(landmarks, reference.decode_landmarks(deltas, anchors))


def test_landmark_points_are_x_and_y_in_turn() -> None:
    anchors = np.array([[100, 200, 10, 20]], dtype=np.float32)
    deltas = np.arange(10, dtype=np.float32)[None]
    expected = [[[100 + 2 * point, 200 + 2 * (2 * point + 1)] for point in range(5)]]
    np.testing.assert_allclose(ops.decode_landmarks(deltas, anchors), expected, rtol=1e-6)


@pytest.mark.parametrize("variances", VARIANCES, ids=str)
@pytest.mark.parametrize("count", LENGTHS)
def test_encode_agrees_with_the_oracle(
    count: int, variances: tuple[float, float], rng: np.random.Generator
) -> None:
    anchors = some_anchors(rng, count)
    boxes = ops.decode_boxes(rng.normal(0, 2, (count, 4)).astype(np.float32), anchors, variances=variances)
    landmarks = rng.uniform(0, 4096, (count, 5, 2)).astype(np.float32)
    wide = anchors.astype(np.float64)
    expected = reference.encode_boxes(boxes.astype(np.float64), wide, variances)
    # A centre at 4,096 px has a rounding of 2.4e-4 px, an anchor of 4 px and a variance of 0.05 magnify it.
    error = np.float64(5e-4) / (variances[0] * anchors[:, 2:])
    deltas = ops.encode_boxes(boxes, anchors, variances=variances)
    assert deltas.dtype == np.float32
    assert deltas.shape == (count, 4)
    assert (np.abs(deltas[:, :2] - expected[:, :2]) <= error + 1e-6 * np.abs(expected[:, :2])).all()
    size_error = 5e-4 / np.maximum((boxes[:, 2:] - boxes[:, :2]).astype(np.float64), 1e-3) / variances[1]
    assert (np.abs(deltas[:, 2:] - expected[:, 2:]) <= size_error + 1e-6 / variances[1]).all()

    encoded = ops.encode_landmarks(landmarks, anchors, variances=variances)
    assert encoded.shape == (count, 10)
    expected = reference.encode_landmarks(landmarks.astype(np.float64), wide, variances)
    np.testing.assert_allclose(encoded, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", [ops.P3_P5, ops.P2_P6], ids=["P3-P5", "P2-P6"])
def test_encode_is_the_inverse_of_decode(config: ops.AnchorConfig, rng: np.random.Generator) -> None:
    anchors = ops.generate_anchors((333, 217), config=config)
    deltas = rng.normal(0, 2, (len(anchors), 4)).astype(np.float32)
    boxes = ops.decode_boxes(deltas, anchors)
    # Corners at up to 500 px carry 3e-5 px of rounding; a 16 px anchor and the variances turn that into 1e-4.
    np.testing.assert_allclose(ops.encode_boxes(boxes, anchors), deltas, atol=2e-4)
    landmark_deltas = rng.normal(0, 2, (len(anchors), 10)).astype(np.float32)
    landmarks = ops.decode_landmarks(landmark_deltas, anchors)
    np.testing.assert_allclose(ops.encode_landmarks(landmarks, anchors), landmark_deltas, atol=2e-4)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    deltas=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 20), st.just(4)), elements=st.floats(-20, 20, width=32)
    ),
    variances=st.sampled_from(VARIANCES),
)
def test_decode_of_anything_reasonable(deltas: FloatArray, variances: tuple[float, float]) -> None:
    anchors = np.resize(P3_P5.anchors((40, 24)).astype(np.float32), (len(deltas), 4))
    assert_decoded(ops.decode_boxes(deltas, anchors, variances=variances), deltas, anchors, variances)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(deltas=hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(4)), elements=st.floats(width=32)))
def test_decode_of_anything_at_all(deltas: FloatArray) -> None:
    anchors = np.resize(P2_P6.anchors((16, 16)).astype(np.float32), (len(deltas), 4))
    # Single precision, step by step: a centre at 1e39 is infinite, and infinity minus infinity is NaN.
    with np.errstate(over="ignore"):
        exponents = np.abs(deltas[:, 2:] * np.float32(0.2))
    assume(not ((exponents > 85) & (exponents < 90)).any())  # where a size nearly overflows or vanishes
    boxes, expected = ops.decode_boxes(deltas, anchors), reference.decode_boxes(deltas, anchors)
    np.testing.assert_array_equal(np.isnan(boxes), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(boxes), np.isinf(expected))
    finite = np.isfinite(boxes)
    np.testing.assert_allclose(boxes[finite], expected[finite], rtol=1e-4, atol=1e-3)


def test_encode_of_boxes_without_area_is_not_a_crash() -> None:
    anchors = np.tile(np.float32([10, 10, 16, 16]), (3, 1))
    boxes = np.array([[10, 10, 10, 20], [12, 10, 8, 20], [np.nan, 0, 1, 1]], dtype=np.float32)
    deltas = ops.encode_boxes(boxes, anchors)
    assert deltas[0, 2] == -np.inf
    assert np.isnan(deltas[1, 2])
    assert np.isnan(deltas[2, 0])
    np.testing.assert_allclose(deltas[:2, 1], (15 - 10) / 1.6, rtol=1e-6)


def test_clip_boxes() -> None:
    boxes = np.array(
        [[-5, -5, 5, 5], [90, 40, 200, 200], [10, 10, 20, 20], [-9, 60, -1, 70], [-np.inf, 0, np.inf, 50]],
        dtype=np.float32,
    )
    expected = [[0, 0, 5, 5], [90, 40, 100, 50], [10, 10, 20, 20], [0, 50, 0, 50], [0, 0, 100, 50]]
    before = boxes.copy()
    np.testing.assert_array_equal(ops.clip_boxes(boxes, (50, 100)), expected)
    np.testing.assert_array_equal(boxes, before)


@pytest.mark.parametrize("count", LENGTHS)
def test_clip_boxes_agrees_with_the_oracle(count: int, rng: np.random.Generator) -> None:
    boxes = rng.uniform(-300, 900, (count, 4)).astype(np.float32)
    boxes[rng.random(boxes.shape) < 0.1] = np.nan
    clipped = ops.clip_boxes(boxes, (333, 640))
    np.testing.assert_array_equal(clipped, reference.clip_boxes(boxes, (333, 640)))
    assert clipped.dtype == np.float32


@pytest.mark.parametrize("kind", [kind for kind in BOX_KINDS if kind != "not finite"])
def test_box_iou_agrees_with_the_oracle(kind: str, rng: np.random.Generator) -> None:
    boxes = BOX_KINDS[kind](rng, 67)
    others = boxes[::2].copy()
    iou = ops.box_iou(boxes, others)
    assert iou.shape == (67, 34)
    assert iou.dtype == np.float32
    # Nothing by nothing has no overlap: 0 where the formula gives 0 / 0 or infinity / infinity.
    expected = np.nan_to_num(reference.box_iou(boxes, others), nan=0.0)
    np.testing.assert_array_equal(iou, expected)


def test_box_iou_by_hand() -> None:
    a = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], dtype=np.float32)
    b = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [9, 9, 9, 9]], dtype=np.float32)
    expected = np.array([[1, 4 / 28, 0, 0], [0.5, 0, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(ops.box_iou(a, b), expected)
    assert ops.box_iou(a[:0], b).shape == (0, 4)
    assert ops.box_iou(a, b[:0]).shape == (2, 0)


@pytest.mark.parametrize("count", [1, 5, 33])
def test_any_layout_gives_the_same_answer(count: int, rng: np.random.Generator) -> None:
    anchors = some_anchors(rng, count)
    deltas = rng.normal(0, 1, (count, 4)).astype(np.float32)
    landmark_deltas = rng.normal(0, 1, (count, 10)).astype(np.float32)
    boxes, landmarks = ops.decode_boxes(deltas, anchors), ops.decode_landmarks(landmark_deltas, anchors)
    for change in LAYOUTS.values():
        assert_same_bits(ops.decode_boxes(change(deltas), change(anchors)), boxes)
        assert_same_bits(ops.decode_landmarks(change(landmark_deltas), change(anchors)), landmarks)
        assert_same_bits(ops.encode_boxes(change(boxes), change(anchors)), ops.encode_boxes(boxes, anchors))
        assert_same_bits(
            ops.encode_landmarks(change(landmarks), change(anchors)), ops.encode_landmarks(landmarks, anchors)
        )
        assert_same_bits(ops.clip_boxes(change(boxes), (300, 300)), ops.clip_boxes(boxes, (300, 300)))
        assert_same_bits(ops.box_iou(change(boxes), change(boxes)), ops.box_iou(boxes, boxes))
