"""Grouping by person, against average linkage written out and against dlib's pictures of nobody."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from retinaface_fast import MissingDependencyError
from retinaface_fast.compare import GROUPING_DISTANCE, group_faces

pytest.importorskip("scipy")


def faces_on_a_line(*places: float) -> np.ndarray:
    """Embeddings whose distances are those of the places."""
    embeddings = np.zeros((len(places), 128))
    embeddings[:, 0] = places
    return embeddings


def people(
    rng: np.random.Generator, sizes: list[int], *, spread: float = 0.02
) -> tuple[np.ndarray, list[int]]:
    """Embeddings of persons far from each other, and whose each is."""
    who = [person for person, size in enumerate(sizes) for _ in range(size)]
    centres = rng.normal(0, 0.1, (len(sizes), 128))
    return centres[who] + rng.normal(0, spread, (len(who), 128)), who


def linked_by_hand(
    embeddings: np.ndarray, threshold: float, pictures: np.ndarray | None = None
) -> set[frozenset[int]]:
    """Average linkage as the textbook says it."""
    groups = [frozenset([index]) for index in range(len(embeddings))]
    while True:
        best = (threshold, -1, -1)
        for i, one in enumerate(groups):
            for j in range(i):
                pairs = [(a, b) for a in one for b in groups[j]]
                if pictures is not None and any(pictures[a] == pictures[b] for a, b in pairs):
                    continue
                mean = float(np.mean([np.linalg.norm(embeddings[a] - embeddings[b]) for a, b in pairs]))
                best = min(best, (mean, i, j))
        _, i, j = best
        if i < 0:
            return set(groups)
        joined = groups[i] | groups[j]
        groups = [group for k, group in enumerate(groups) if k not in (i, j)] + [joined]


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_pictures", [False, True])
def test_is_average_linkage(seed: int, with_pictures: bool) -> None:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(0, 0.05, (14, 128)) + rng.normal(0, 0.02, (4, 128))[rng.integers(0, 4, 14)]
    pictures = rng.integers(0, 6, 14) if with_pictures else None
    threshold = float(np.median(np.linalg.norm(embeddings[:, None] - embeddings, axis=2)))
    labels = group_faces(embeddings, threshold=threshold, pictures=pictures)
    assert as_sets(labels) == linked_by_hand(embeddings, threshold, pictures)
    assert labels.dtype == np.int64


def test_finds_the_persons() -> None:
    embeddings, who = people(np.random.default_rng(3), [4, 9, 1, 6])
    order = np.random.default_rng(4).permutation(len(who))
    labels = group_faces(embeddings[order])
    # The largest is 0, and so on.
    assert labels.tolist() == [{1: 0, 3: 1, 0: 2, 2: 3}[who[index]] for index in order]


def test_equal_sizes_are_in_the_order_of_their_first_face() -> None:
    assert group_faces(faces_on_a_line(5, 1, 5, 9, 1)).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_faces_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers on a line: nearly all distances are equal to others.
    embeddings = faces_on_a_line(*(rng.integers(0, 12, 30) * 0.25))
    embeddings[:, 1] = rng.integers(0, 3, 30) * 0.25
    expected = as_sets(group_faces(embeddings))
    order = rng.permutation(30)
    found = {frozenset(order[list(group)].tolist()) for group in as_sets(group_faces(embeddings[order]))}
    assert found == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_order_does_not_matter_with_pictures_either(seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = faces_on_a_line(*(rng.integers(0, 6, 30) * 0.25))
    pictures = rng.integers(0, 8, 30)

    def contents(order: np.ndarray) -> list[list[tuple[float, int]]]:
        """What is in each group: of two equal faces of one picture, nobody can say which is which."""
        faces = list(zip(embeddings[order, 0].tolist(), pictures[order].tolist(), strict=True))
        labels = group_faces(embeddings[order], pictures=pictures[order])
        return sorted(sorted(faces[index] for index in group) for group in as_sets(labels))

    assert contents(rng.permutation(30)) == contents(np.arange(30))


def test_a_row_of_look_alikes_is_not_one_person() -> None:
    labels = group_faces(faces_on_a_line(*(0.3 * np.arange(12))))
    assert len(np.unique(labels)) > 3


def test_the_threshold_itself_is_too_far() -> None:
    assert group_faces(faces_on_a_line(0, 0.5), threshold=0.5).tolist() == [0, 1]
    assert group_faces(faces_on_a_line(0, 0.5), threshold=0.5000001).tolist() == [0, 0]
    assert GROUPING_DISTANCE == 0.5


def test_two_faces_of_one_picture_are_two_persons() -> None:
    same = np.zeros((4, 128))
    assert group_faces(same).tolist() == [0, 0, 0, 0]
    labels = group_faces(same, pictures=[7, 7, 8, 8])
    assert sorted(np.bincount(labels).tolist()) == [2, 2]
    assert labels[0] != labels[1]
    assert labels[2] != labels[3]
    assert len(set(group_faces(same, pictures=[1, 1, 1, 1]).tolist())) == 4


def test_pictures_hold_among_many() -> None:
    rng = np.random.default_rng(8)
    embeddings = rng.normal(0, 0.01, (300, 128))  # everybody looks like everybody
    pictures = rng.integers(0, 40, 300)
    labels = group_faces(embeddings, pictures=pictures, threshold=5)
    assert len(set(zip(labels.tolist(), pictures.tolist(), strict=True))) == 300


def test_few_faces() -> None:
    assert group_faces(np.empty((0, 128))).shape == (0,)
    assert group_faces([]).dtype == np.int64
    assert group_faces(np.zeros((1, 128)), pictures=[3]).tolist() == [0]
    assert group_faces(np.zeros((3, 128))).tolist() == [0, 0, 0]


def test_a_thousand_faces() -> None:
    embeddings, who = people(np.random.default_rng(9), [5] * 200)
    labels = group_faces(embeddings, pictures=np.arange(1000) % 5 + 5 * (np.arange(1000) // 500))
    assert labels.tolist() == who


def test_bad_arguments() -> None:
    two = np.zeros((2, 128))
    with pytest.raises(ValueError, match=r"embeddings must have shape \(N, 128\), got \(2, 127\)"):
        group_faces(two[:, 1:])
    two[1, 5] = np.nan
    with pytest.raises(ValueError, match="embeddings must be finite, row 1 is not"):
        group_faces(two)
    two[1, 5] = 0
    for threshold in (0, -1, np.nan, np.inf, 1e308, 1_000_001):
        with pytest.raises(ValueError, match=r"threshold must be (finite|above 0 and at most 1,0+,0+)"):
            group_faces(two, threshold=threshold, pictures=[0, 0])
    assert group_faces(two, threshold=1_000_000, pictures=[0, 0]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="embeddings must not be so large that their distance is infinite"):
        group_faces(np.array([[1e200], [-1e200]]) * np.ones(128))
    for wrong in (True, "0.5", None):
        with pytest.raises(TypeError, match="threshold must be a number"):
            group_faces(two, threshold=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pictures must be one for each of the 2 faces"):
        group_faces(two, pictures=[1])
    with pytest.raises(TypeError, match="pictures must be integers, got float64"):
        group_faces(two, pictures=[1.0, 2.0])
    with pytest.raises(ValueError, match="embeddings must be at most 20,000, got 20,001"):
        group_faces(np.zeros((20_001, 128), np.float32))


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(MissingDependencyError, match=r"grouping faces.*retinaface-fast\[dlib\]"):
        group_faces(np.zeros((2, 128)))
