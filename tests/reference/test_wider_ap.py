"""The oracle itself, on sets small enough to be counted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.reference import wider_ap
from tests.reference.wider_ap import Annotations

if TYPE_CHECKING:
    from pathlib import Path

FACES = np.array([[0, 0, 9, 9], [100, 0, 9, 9], [200, 0, 9, 9]], dtype=np.float64)


def annotated(boxes: np.ndarray, *counted: int) -> Annotations:
    mask = np.zeros(len(boxes), dtype=bool)
    mask[list(counted)] = True
    return Annotations(boxes, dict.fromkeys(wider_ap.SETS, mask))


def rows(*faces: tuple[float, float]) -> np.ndarray:
    """A prediction of 10 pixels (one is added to 9) for each (x, score)."""
    return np.array([[x, 0, 9, 9, score] for x, score in faces], dtype=np.float64).reshape(-1, 5)


def test_overlaps_add_a_pixel() -> None:
    # 10 x 10 and 10 x 10, of which 5 columns are shared: 50 of 150.
    np.testing.assert_allclose(
        wider_ap.overlaps(FACES[0], np.array([[5, 0, 9, 9], [10, 0, 9, 9]])), [1 / 3, 0]
    )
    # Boxes that end where others begin share that column.
    np.testing.assert_allclose(wider_ap.overlaps(FACES[0], np.array([[9.0, 0, 9, 9]])), [10 / 190])


def test_an_ignored_box_takes_predictions_out_and_a_second_one_is_a_false_alarm() -> None:
    ranked = rows((0, 0.9), (1, 0.8), (100, 0.7), (101, 0.6), (300, 0.5), (200, 0.4))
    right, judged = wider_ap.judge(ranked, FACES, np.array([True, False, True]), 0.5)
    assert right.tolist() == [True, False, False, False, False, True]
    assert judged.tolist() == [True, True, False, False, True, True]


def test_a_prediction_looks_at_the_box_it_overlaps_most_only() -> None:
    """Although the second would do, and is free: the first is taken, so this is a false alarm."""
    boxes = np.array([[0, 0, 9, 9], [2, 0, 9, 9]], dtype=np.float64)
    right, judged = wider_ap.judge(rows((0, 0.9), (0.5, 0.8)), boxes, np.ones(2, dtype=bool), 0.5)
    assert (right.tolist(), judged.tolist()) == ([True, False], [True, True])


def test_half_an_overlap_is_enough() -> None:
    # Shared columns c of 10 + 10 - c: never a half; of 10 and 5 columns all 5 are, a half exactly.
    narrow = np.array([[0, 0, 4, 9, 0.9]], dtype=np.float64)
    right, _ = wider_ap.judge(narrow, FACES[:1], np.ones(1, dtype=bool), 0.5)
    assert right.tolist() == [True]


def test_average_precision_by_hand() -> None:
    """Right, wrong, right by score over two pictures, of three faces: 1/3 x 1 + 1/3 x 2/3."""
    truth = {"a": annotated(FACES[:2], 0, 1), "b": annotated(FACES[:1], 0)}
    predictions = {"a": rows((0, 0.9), (100, 0.3)), "b": rows((50, 0.6))}
    expected = dict.fromkeys(wider_ap.SETS, 1 / 3 + 2 / 9)
    assert wider_ap.average_precision(predictions, truth) == pytest.approx(expected)
    # The order of the rows and a scale of the scores change nothing.
    predictions = {name: found[::-1] * [1, 1, 1, 1, 50] for name, found in predictions.items()}
    assert wider_ap.average_precision(predictions, truth) == pytest.approx(expected)


def test_scores_are_stretched_over_the_whole_set() -> None:
    """Scores within a thousandth of one another would fall to one threshold; stretched, they are apart."""
    truth = {"a": annotated(FACES[:1], 0), "b": annotated(FACES[:1], 0)}
    predictions = {"a": rows((50, 0.50000)), "b": rows((0, 0.50001))}
    assert wider_ap.average_precision(predictions, truth)["easy"] == pytest.approx(0.5)
    predictions["c"] = rows((0, 1.0))
    assert wider_ap.average_precision(predictions, truth)["easy"] == pytest.approx(0.25)


def test_the_lowest_and_the_highest_score_are_within_the_thresholds() -> None:
    truth = {"a": annotated(FACES[:2], 0, 1)}
    precision, recall = wider_ap.precision_recall({"a": rows((0, 0.9), (100, 0.1))}, truth, "hard")
    assert (precision[0], recall[0], recall[-2], recall[-1]) == (1, 0.5, 0.5, 1)
    assert wider_ap.average_precision({"a": rows((0, 0.7), (100, 0.7))}, truth)["hard"] == 1


def test_pictures_without_counted_or_without_any_box() -> None:
    found = rows((0, 0.9), (50, 1.0), (300, 0.1))
    truth = {"a": annotated(FACES[:1], 0)}
    alone = wider_ap.average_precision({"a": found[:1], "x": found}, truth)["easy"]
    assert alone == 1
    without_counted = truth | {"x": annotated(FACES[1:2])}
    assert wider_ap.average_precision({"a": found[:1], "x": found[1:]}, without_counted)["easy"] == 0.5
    without_any = truth | {"x": annotated(FACES[:0])}
    assert wider_ap.average_precision({"a": found[:1], "x": found[1:]}, without_any)["easy"] == 1


def test_missing_pictures_count_their_faces() -> None:
    truth = {"a": annotated(FACES[:1], 0), "b": annotated(FACES, 0, 1, 2)}
    assert wider_ap.average_precision({"a": rows((0, 0.9), (50, 0.1))}, truth)["easy"] == pytest.approx(0.25)
    assert wider_ap.average_precision({}, truth) == dict.fromkeys(wider_ap.SETS, 0.0)


def test_reads_the_official_files(wider_dir: Path) -> None:
    pytest.importorskip("scipy.io")
    names = [name.removesuffix(".jpg") for name in (wider_dir / "images.txt").read_text().split()]
    everything = wider_ap.read_ground_truth(wider_dir / "ground_truth")
    assert len(everything) == 3226
    assert sum(len(annotation.boxes) for annotation in everything.values()) == 39708
    some = wider_ap.read_ground_truth(wider_dir / "ground_truth", names)
    assert list(some) == names
    # The sets grow: what counts in an easier one counts in the next.
    for annotation in everything.values():
        assert not (annotation.counted["easy"] & ~annotation.counted["medium"]).any()
        assert not (annotation.counted["medium"] & ~annotation.counted["hard"]).any()
    with pytest.raises(ValueError, match="no picture 'a/b'"):
        wider_ap.read_ground_truth(wider_dir / "ground_truth", ["a/b"])
