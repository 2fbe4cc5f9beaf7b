from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinaface_fast import ops
from tests.ops import torchvision_nms
from tests.ops.agreement import assert_same_bits
from tests.ops.layouts import LAYOUTS
from tests.ops.samples import BOX_KINDS, random_scores, sparse
from tests.reference import nms as reference

FloatArray = npt.NDArray[np.float32]


def boxes_of(*rows: tuple[float, float, float, float]) -> FloatArray:
    return np.array(rows, dtype=np.float32)


def descending(count: int) -> FloatArray:
    return np.linspace(1, 0.5, count, dtype=np.float32)


# --- the definition, by hand ---


def test_nothing_and_one() -> None:
    empty = ops.nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert_same_bits(empty, np.zeros(0, np.int64))
    assert_same_bits(ops.nms(boxes_of((0, 0, 1, 1)), descending(1)), np.zeros(1, np.int64))


def test_greater_than_suppresses_and_equal_does_not() -> None:
    # The lower half of a square overlaps it by exactly one half; a third box by exactly one third.
    boxes = boxes_of((0, 0, 4, 4), (0, 0, 4, 2))
    np.testing.assert_array_equal(ops.nms(boxes, descending(2), iou_threshold=0.5), [0, 1])
    np.testing.assert_array_equal(ops.nms(boxes, descending(2), iou_threshold=np.nextafter(0.5, 0)), [0])


def test_the_threshold_is_compared_in_double_precision() -> None:
    # 1/3 in single precision is greater than 1/3 in double precision, 0.2 and 0.1 too; 0.7 is smaller.
    third = boxes_of((0, 0, 2, 1), (1, 0, 3, 1))
    np.testing.assert_array_equal(ops.nms(third, descending(2), iou_threshold=1 / 3), [0])
    np.testing.assert_array_equal(
        ops.nms(third, descending(2), iou_threshold=float(np.float32(1 / 3))), [0, 1]
    )
    fifth = boxes_of((0, 0, 10, 10), (0, 0, 10, 2))
    np.testing.assert_array_equal(ops.nms(fifth, descending(2), iou_threshold=0.2), [0])
    seven_tenths = boxes_of((0, 0, 10, 10), (0, 0, 10, 7))
    np.testing.assert_array_equal(ops.nms(seven_tenths, descending(2), iou_threshold=0.7), [0, 1])


def test_zero_suppresses_any_overlap_and_one_none() -> None:
    boxes = boxes_of((0, 0, 10, 10), (9, 9, 19, 19), (10, 0, 20, 10), (0, 0, 10, 10))
    np.testing.assert_array_equal(ops.nms(boxes, descending(4), iou_threshold=0.0), [0, 2])
    np.testing.assert_array_equal(ops.nms(boxes, descending(4), iou_threshold=1.0), [0, 1, 2, 3])


def test_there_is_no_plus_one() -> None:
    # With "+1" widths the neighbours would be 4 by 4 and share a column: overlap 4 / 28 and not 0.
    boxes = boxes_of((0, 0, 3, 3), (3, 0, 6, 3))
    np.testing.assert_array_equal(ops.nms(boxes, descending(2), iou_threshold=0.1), [0, 1])


def test_order_is_by_score_then_by_index() -> None:
    boxes = boxes_of(*[(20 * i, 0, 20 * i + 10, 10) for i in range(6)])
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.1, 0.5], dtype=np.float32)
    np.testing.assert_array_equal(ops.nms(boxes, scores), [1, 3, 0, 2, 5, 4])


def test_equal_scores_keep_the_lower_index() -> None:
    boxes = boxes_of(*[(0, 0, 10, 10)] * 1000)
    np.testing.assert_array_equal(ops.nms(boxes, np.full(1000, 0.5, np.float32)), [0])


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = boxes_of((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10))
    np.testing.assert_array_equal(ops.nms(boxes, descending(3), iou_threshold=0.4), [0, 2])


def test_scores_need_not_be_probabilities() -> None:
    boxes = boxes_of(*[(20 * i, 0, 20 * i + 10, 10) for i in range(8)])
    scores = np.array([-1, np.inf, -0.0, 0.0, 1e-45, -np.inf, 3e38, -1e-45], dtype=np.float32)
    # The two zeros are equal, so their indices decide.
    np.testing.assert_array_equal(ops.nms(boxes, scores), [1, 6, 4, 2, 3, 7, 0, 5])


def test_nan_and_infinite_boxes_overlap_nothing() -> None:
    boxes = boxes_of(
        (0, 0, 10, 10), (np.nan, 0, 10, 10), (0, 0, np.inf, 10), (-np.inf, 0, 10, 10), (0, 0, 10, 10)
    )
    np.testing.assert_array_equal(ops.nms(boxes, descending(5), iou_threshold=0.0), [0, 1, 2, 3])


def test_limits_before_and_after() -> None:
    pairs = [(20 * (i // 2), 0, 20 * (i // 2) + 10, 10) for i in range(20)]
    boxes, scores = boxes_of(*pairs), descending(20)
    np.testing.assert_array_equal(ops.nms(boxes, scores, top_k=5), [0, 2, 4])
    np.testing.assert_array_equal(ops.nms(boxes, scores, keep_top_k=3), [0, 2, 4])
    np.testing.assert_array_equal(ops.nms(boxes, scores, top_k=5, keep_top_k=2), [0, 2])
    np.testing.assert_array_equal(ops.nms(boxes, scores, top_k=10**9, keep_top_k=10**9), np.arange(0, 20, 2))
    np.testing.assert_array_equal(ops.nms(boxes, scores, top_k=1), [0])


def test_top_k_cuts_ties_by_index() -> None:
    boxes = sparse(np.random.default_rng(1), 3000)
    scores = np.full(3000, 0.25, np.float32)
    scores[1::3] = 0.75
    for top_k in (1, 999, 1000, 1001, 2999, 3000):
        expected = reference.row_by_row(boxes, scores, 0.4, top_k)
        assert_same_bits(ops.nms(boxes, scores, top_k=top_k), expected, f"top_k {top_k}")


def test_the_default_threshold() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 4.1), (20, 0, 30, 10), (20, 0, 30, 3.9))
    np.testing.assert_array_equal(ops.nms(boxes, descending(4)), [0, 2, 3])


# --- against the oracle ---


def pairs_near_the_threshold(rng: np.random.Generator, count: int, threshold: float) -> FloatArray:
    """`count` boxes far from each other, then a partner for each, that overlaps it by almost the threshold.

    A search structure leaves out pairs that cannot overlap enough, by their sizes and by how far apart they
    are. So the partners lie at the ends of what can: shifted along one axis, shorter along one axis at either
    end or in the middle, smaller along both, at any scale and any place relative to a cell.
    """
    wanted = threshold * (1 + 10.0 ** rng.uniform(-5, -1, count) * rng.choice([-1, 1], count))
    wanted = np.clip(wanted, 0.01, 1)
    size = 2.0 ** rng.uniform(0, 12, (count, 1)) * 2.0 ** rng.uniform(-2, 2, (count, 2))
    corner = 20_000.0 * np.stack(np.divmod(np.arange(count), 64), axis=1) + rng.uniform(0, 4096, (count, 2))
    partner_corner, partner_size = corner.copy(), size.copy()
    axis = rng.integers(0, 2, count)
    kind = rng.integers(0, 4, count)
    for i in range(count):
        along = axis[i]
        if kind[i] == 0:
            partner_corner[i, along] += (
                rng.choice([-1, 1]) * size[i, along] * (1 - wanted[i]) / (1 + wanted[i])
            )
        elif kind[i] == 3:
            partner_size[i] *= np.sqrt(wanted[i])
            partner_corner[i] += (size[i] - partner_size[i]) * rng.integers(0, 2, 2)
        else:
            partner_size[i, along] *= wanted[i]
            place = rng.choice([0.0, 0.5, 1.0])
            partner_corner[i, along] += (size[i, along] - partner_size[i, along]) * place
    first = np.concatenate([corner, corner + size], axis=1)
    partners = np.concatenate([partner_corner, partner_corner + partner_size], axis=1)
    swap = rng.random(count) < 0.5
    first[swap], partners[swap] = partners[swap], first[swap]
    return np.concatenate([first, partners]).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.24, 0.26, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99])
def test_pairs_near_the_threshold_among_many(threshold: float, rng: np.random.Generator) -> None:
    count = 4000
    boxes = pairs_near_the_threshold(rng, count, threshold)
    scores = np.concatenate([np.linspace(1, 0.6, count), rng.permutation(np.linspace(0.5, 0.1, count))])
    scores = scores.astype(np.float32)
    expected = reference.row_by_row(boxes, scores, threshold)
    assert 1.2 * count < len(expected) < 1.8 * count
    assert_same_bits(ops.nms(boxes, scores, iou_threshold=threshold), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 383, 384, 385, 392])
@pytest.mark.parametrize("kind", BOX_KINDS)
def test_agrees_with_the_definition(kind: str, count: int, rng: np.random.Generator) -> None:
    boxes, scores = BOX_KINDS[kind](rng, count), random_scores(rng, count)
    for iou_threshold in (0.0, 0.25, 0.4, 0.5, 1.0):
        expected = reference.row_by_row(boxes, scores, iou_threshold)
        assert_same_bits(ops.nms(boxes, scores, iou_threshold=iou_threshold), expected, f"> {iou_threshold}")


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_the_three_oracles_agree(kind: str, rng: np.random.Generator) -> None:
    boxes, scores = BOX_KINDS[kind](rng, 40), random_scores(rng, 40)
    for iou_threshold in (0.0, 0.4, 0.5):
        expected = reference.one_by_one(boxes, scores, iou_threshold)
        assert_same_bits(reference.row_by_row(boxes, scores, iou_threshold), expected)
        assert_same_bits(reference.all_pairs(boxes[None], scores[None], iou_threshold)[0], expected)


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_agrees_with_torchvision(kind: str, rng: np.random.Generator) -> None:
    torchvision = torchvision_nms.load()
    for count in (0, 1, 50, 3000):
        boxes, scores = BOX_KINDS[kind](rng, count), random_scores(rng, count)
        for iou_threshold in (0.0, 0.3, 0.4, 0.5, 0.9):
            expected = torchvision(boxes, scores, iou_threshold)
            assert_same_bits(
                ops.nms(boxes, scores, iou_threshold=iou_threshold), expected, f"> {iou_threshold}"
            )


def test_a_million_boxes(rng: np.random.Generator) -> None:
    """Every kind of box, in many small sets and in a few that are large enough for any grid or tree."""
    total = 0
    for kind, draw in BOX_KINDS.items():
        for repeat in range(20):
            sets, count = 20, int(rng.integers(100, 180))
            boxes = np.stack([draw(rng, count) for _ in range(sets)])
            scores = np.stack([random_scores(rng, count) for _ in range(sets)])
            iou_threshold = float(rng.choice([0.0, 0.2, 0.3, 1 / 3, 0.4, 0.5, 0.7]))
            expected = reference.all_pairs(boxes, scores, iou_threshold)
            for index in range(sets):
                kept = ops.nms(boxes[index], scores[index], iou_threshold=iou_threshold)
                assert_same_bits(kept, expected[index], f"{kind}, repeat {repeat}, set {index}")
            total += sets * count
        for repeat, count in enumerate((20_000, 9_999, 5_001)):
            boxes, scores = draw(rng, count), random_scores(rng, count)
            expected = reference.row_by_row(boxes, scores, 0.4)
            assert_same_bits(ops.nms(boxes, scores), expected, f"{kind}, large set {repeat}")
            total += count
    assert total >= 1_000_000


sides = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0])
finite = st.floats(-1e3, 1e3, width=32)
anything = st.floats(width=32)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    boxes=st.integers(0, 24).flatmap(
        lambda count: st.one_of(
            *(hnp.arrays(np.float32, (count, 4), elements=e) for e in (sides, finite, anything))
        )
    ),
    levels=st.integers(1, 5),
    iou_threshold=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 1 / 3, 0.4, 0.5, 1.0])),
    top_k=st.one_of(st.none(), st.integers(1, 30)),
    keep_top_k=st.one_of(st.none(), st.integers(1, 30)),
    seed=st.integers(0, 2**16),
)
def test_any_boxes(
    *,
    boxes: FloatArray,
    levels: int,
    iou_threshold: float,
    top_k: int | None,
    keep_top_k: int | None,
    seed: int,
) -> None:
    scores = (np.random.default_rng(seed).integers(0, levels, len(boxes)) / levels).astype(np.float32)
    expected = reference.one_by_one(boxes, scores, iou_threshold, top_k, keep_top_k)
    kept = ops.nms(boxes, scores, iou_threshold=iou_threshold, top_k=top_k, keep_top_k=keep_top_k)
    assert_same_bits(kept, expected)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    kind=st.sampled_from([kind for kind in BOX_KINDS if kind != "not finite"]),
    count=st.integers(0, 600),
    iou_threshold=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_properties_that_need_no_oracle(kind: str, count: int, iou_threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = BOX_KINDS[kind](rng, count), random_scores(rng, count)
    kept = ops.nms(boxes, scores, iou_threshold=iou_threshold)
    assert len(np.unique(kept)) == len(kept)
    assert (scores[kept][1:] <= scores[kept][:-1]).all()
    overlaps = ops.box_iou(boxes[kept], boxes[kept])[np.triu_indices(len(kept), 1)]
    assert (overlaps.astype(np.float64) <= iou_threshold).all()
    gone = np.setdiff1d(np.arange(count), kept)
    if len(gone):
        covered = ops.box_iou(boxes[gone], boxes[kept]).astype(np.float64) > iou_threshold
        stronger = (scores[kept][None] > scores[gone][:, None]) | (
            (scores[kept][None] == scores[gone][:, None]) & (kept[None] < gone[:, None])
        )
        assert (covered & stronger).any(axis=1).all()
    # What was kept stays: suppression of the result changes nothing.
    again = ops.nms(boxes[kept], scores[kept], iou_threshold=iou_threshold)
    assert_same_bits(again, np.arange(len(kept)))


# --- layouts and sizes ---


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 9, 1000])
def test_any_layout_gives_the_same_answer(layout: str, count: int, rng: np.random.Generator) -> None:
    change = LAYOUTS[layout]
    boxes, scores = sparse(rng, count), random_scores(rng, count)
    room = np.zeros(2 * count, dtype=np.float32)
    room[::2] = scores
    changed_scores = room[::2] if layout == "wide rows" else change(scores)
    assert_same_bits(ops.nms(change(boxes), changed_scores), ops.nms(boxes, scores))


def test_arguments_are_not_changed(rng: np.random.Generator) -> None:
    boxes, scores = sparse(rng, 2000), random_scores(rng, 2000)
    copies = boxes.copy(), scores.copy()
    ops.nms(boxes, scores)
    assert_same_bits(boxes, copies[0])
    assert_same_bits(scores, copies[1])


def test_a_million_disjoint_boxes_at_once(rng: np.random.Generator) -> None:
    # Every pair compared would be half a trillion overlaps, an hour; the answer is known without an oracle.
    side = 1000
    corner = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=2).reshape(-1, 2) * 16.0
    boxes = np.concatenate([corner, corner + 12], axis=1).astype(np.float32)
    order = rng.permutation(len(boxes))
    scores = np.empty(len(boxes), dtype=np.float32)
    scores[order] = np.linspace(1, 0.5, len(boxes))
    expected = reference.score_order(scores)
    assert_same_bits(ops.nms(boxes, scores), expected)
    # A twin of every box, shifted by one pixel and a little weaker, goes.
    twice = np.concatenate([boxes, boxes + np.float32(1)])
    twice_scores = np.concatenate([scores, scores - np.float32(1e-3)])
    kept = ops.nms(twice, twice_scores)
    assert_same_bits(np.sort(kept), np.arange(len(boxes)))


@pytest.mark.parametrize("place", ["one far away", "one around all", "all in a column"])
def test_many_disjoint_boxes_in_places_that_defeat_a_uniform_grid(
    place: str, rng: np.random.Generator
) -> None:
    count = 60_000
    side = 245
    index = np.arange(count)
    corner = np.stack([index % side, index // side], axis=1) * 16.0
    if place == "all in a column":
        corner = np.stack([np.zeros(count), index * 16.0], axis=1)
    boxes = np.concatenate([corner, corner + 12], axis=1).astype(np.float32)
    if place == "one far away":
        boxes[17] = [1e9, 1e9, 1.1e9, 1.1e9]
    if place == "one around all":
        boxes[17] = [-100, -100, 16 * side + 100, 16 * side + 100]
    scores = rng.permutation(np.linspace(1, 0.5, count)).astype(np.float32)
    assert_same_bits(ops.nms(boxes, scores), reference.score_order(scores))
