"""Pairs of faces, against every assignment there is and against the definition step by step."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from retinaface_fast.compare import pair_faces
from retinaface_fast.compare.pairing import DEFAULT_MIN_IOU
from tests.compare.made_up import result


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union by the definition, in double precision."""
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def by_the_definition(first: np.ndarray, second: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Take the greatest overlap of all that are left, again and again, the first of equals."""
    left, right = list(range(len(first))), list(range(len(second)))
    found = []
    while left and right:
        i, j = max(product(left, right), key=lambda pair: overlap(first[pair[0]], second[pair[1]]))
        if overlap(first[i], second[j]) < least:
            break
        found.append((i, j))
        left.remove(i)
        right.remove(j)
    return found


def boxes_of(rng: np.random.Generator, count: int, *, on_a_grid: bool) -> np.ndarray:
    corners, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(8, 40, (count, 2))
    if on_a_grid:  # so that overlaps are equal
        corners, sides = np.round(corners / 16) * 16, np.full((count, 2), 32.0)
    return np.hstack([corners, corners + sides]).astype(np.float32)


@pytest.mark.parametrize("on_a_grid", [False, True])
@pytest.mark.parametrize("least", [0.1, DEFAULT_MIN_IOU, 0.5])
def test_as_by_the_definition(on_a_grid: bool, least: float) -> None:
    rng = np.random.default_rng(5)
    total = 0
    for _ in range(60):
        first, second = (boxes_of(rng, rng.integers(0, 9), on_a_grid=on_a_grid) for _ in range(2))
        if not on_a_grid:  # some of the same faces, framed in another way
            same = first[: rng.integers(0, len(first) + 1)]
            second = np.vstack([second, same + rng.normal(0, 2, same.shape).astype(np.float32)])
        expected = by_the_definition(first.astype(float), second.astype(float), least)
        found = pair_faces(result(first), result(second), min_iou=least)
        assert found.pairs.tolist() == [list(pair) for pair in expected]
        assert len(found) == len(expected)
        ious = [overlap(first[i].astype(float), second[j].astype(float)) for i, j in expected]
        np.testing.assert_allclose(found.ious, ious, atol=1e-6)
        assert (np.diff(found.ious) <= 1e-7).all(), "the greatest overlap first"
        paired = [set(column) for column in found.pairs.T.tolist()] if len(found) else [set(), set()]
        assert found.only_first.tolist() == [i for i in range(len(first)) if i not in paired[0]]
        assert found.only_second.tolist() == [j for j in range(len(second)) if j not in paired[1]]
        total += len(expected)
    assert total > 30, "the test must have something to pair"


def test_of_faces_that_lie_apart_it_is_the_best_assignment_of_all() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(7)
    for _ in range(20):
        places = np.stack(np.meshgrid(np.arange(0, 200, 50), np.arange(0, 100, 50)), -1).reshape(-1, 2)
        first, second = (
            np.hstack([corner := places + rng.uniform(0, 8, places.shape), corner + rng.uniform(28, 40)])
            for _ in range(2)
        )
        second = second[rng.permutation(len(second))[: rng.integers(1, 9)]]
        ious = np.array([[overlap(a, b) for b in second] for a in first])
        rows, columns = optimize.linear_sum_assignment(ious, maximize=True)
        best = {(i, j) for i, j in zip(rows, columns, strict=True) if ious[i, j] >= DEFAULT_MIN_IOU}
        assert {tuple(pair) for pair in pair_faces(result(first), result(second)).pairs} == best


def test_an_evident_pair_is_not_broken_up() -> None:
    # The sum of overlaps would be greater with (0, 1) and (1, 0): 0.6 + 0.6 against 1.0 + 0.0.
    first = result([[20, 0, 60, 40], [30, 0, 70, 40]])
    second = result([[20, 0, 60, 40], [10, 0, 50, 40]])
    found = pair_faces(first, second, min_iou=0.3)
    assert found.pairs.tolist() == [[0, 0], [1, 1]]
    found = pair_faces(first, second, min_iou=0.5)
    assert found.pairs.tolist() == [[0, 0]]
    assert (found.only_first.tolist(), found.only_second.tolist()) == ([1], [1])


def test_of_equals_the_earlier_faces_are_paired() -> None:
    same = [[0, 0, 10, 10]] * 3
    found = pair_faces(result(same), result(same[:2]))
    assert found.pairs.tolist() == [[0, 0], [1, 1]]
    assert found.only_first.tolist() == [2]


def test_the_least_overlap_is_enough() -> None:
    half = pair_faces(result([[0, 0, 10, 10]]), result([[0, 0, 10, 5]]), min_iou=0.5)
    assert half.ious.tolist() == [0.5]
    assert not len(pair_faces(result([[0, 0, 10, 10]]), result([[0, 0, 10, 4.9]]), min_iou=0.5))


def test_distances_are_parts_of_the_height_of_the_first_box() -> None:
    points = np.float32([[[10, 10], [20, 10], [15, 20], [12, 30], [18, 30]]])
    moved = points + np.float32([3, 4])
    moved[0, 3] = np.nan
    first = result([[0, 0, 30, 50]], landmarks=points)
    found = pair_faces(first, result([[0, 0, 30, 40]], landmarks=moved))
    np.testing.assert_allclose(found.landmark_distances, [[0.1, 0.1, 0.1, np.nan, 0.1]], atol=1e-7)
    other_way = pair_faces(result([[0, 0, 30, 40]], landmarks=moved), first)
    np.testing.assert_allclose(
        other_way.landmark_distances, [[0.125, 0.125, 0.125, np.nan, 0.125]], atol=1e-7
    )


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 2), (2, 0)])
def test_no_faces(first: int, second: int) -> None:
    boxes = [[0, 0, 9, 9], [20, 0, 29, 9]]
    found = pair_faces(result(boxes[:first]), result(boxes[:second]))
    assert (found.pairs.shape, found.ious.shape, found.landmark_distances.shape) == ((0, 2), (0,), (0, 5))
    assert (found.only_first.tolist(), found.only_second.tolist()) == ([*range(first)], [*range(second)])
    assert found.pairs.dtype == found.only_first.dtype == found.only_second.dtype == np.int64


def test_boxes_without_area_and_beyond_the_picture() -> None:
    found = pair_faces(result([[5, 5, 5, 5], [-50, -50, 40, 40]]), result([[5, 5, 5, 5], [-48, -50, 40, 40]]))
    assert found.pairs.tolist() == [[1, 1]]


@pytest.mark.parametrize("least", [0, -0.1, 1.1, float("nan")])
def test_least_overlap_out_of_range(least: float) -> None:
    with pytest.raises(ValueError, match="min_iou must be"):
        pair_faces(result([]), result([]), min_iou=least)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="min_iou must be a number"):
        pair_faces(result([]), result([]), min_iou="a half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="results of one picture"):
        pair_faces(result([]), result([], size=(100, 201)))
