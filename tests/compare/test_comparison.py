"""Several detectors on pictures, some of which are broken or refused."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast import ImageError
from retinaface_fast.compare import compare_picture, summarize_comparison, warm_up
from retinaface_fast.compare.summary import height_edges
from retinaface_fast.data import GroundTruth, Prediction
from retinaface_fast.evaluation import evaluate
from tests.compare.made_up import Finder, contestants, result

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import UInt8Array

ONE, TWO = [[10, 10, 40, 50]], [[12, 14, 42, 50], [100, 20, 130, 60]]
GRAY = np.full((100, 200, 3), 128, np.uint8)


def refuse(image: UInt8Array) -> None:
    raise ImageError(f"{image.shape[1]}x{image.shape[0]} is too large")


def test_each_detector_gets_the_same_pixels_once() -> None:
    finders = Finder(ONE), Finder(TWO), Finder([])
    compared, pixels = compare_picture("a", GRAY, contestants(*finders))
    np.testing.assert_array_equal(pixels, GRAY)
    assert [finder.seen for finder in finders] == [[(100, 200, 3)]] * 3
    assert list(compared.searches) == ["retinaface", "dlib-hog", "dlib-cnn"]
    assert [len(search.detections) for search in compared.searches.values()] == [1, 2, 0]
    assert all(search.seconds >= 0 and search.scored is None for search in compared.searches.values())
    assert compared.image_size == (100, 200)
    assert compared.is_whole
    assert list(compared.pairs) == ["dlib-hog", "dlib-cnn"]
    assert compared.pairs["dlib-hog"].pairs.tolist() == [[0, 0]]
    assert compared.pairs["dlib-hog"].only_second.tolist() == [1]
    assert compared.pairs["dlib-cnn"].only_first.tolist() == [0]


def test_files_are_read_upright_and_broken_ones_are_no_error(tmp_path: Path, astronaut_path: Path) -> None:
    finder = Finder(ONE)
    compared, pixels = compare_picture("astronaut", astronaut_path, contestants(finder))
    assert compared.image_size == pixels.shape[:2] == (512, 512)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for path in (broken, tmp_path / "absent.jpg"):
        compared, pixels = compare_picture("the name", path, contestants(finder))
        assert pixels is None
        assert "the name" in compared.error
        assert str(tmp_path) not in compared.error
        assert (compared.is_whole, dict(compared.searches), dict(compared.pairs)) == (False, {}, {})
    compared, _ = compare_picture("large", astronaut_path, contestants(finder), max_pixels=100)
    assert "100" in compared.error
    assert len(finder.seen) == 1


def test_a_detector_that_refuses_does_not_stop_the_others() -> None:
    compared, _ = compare_picture("a", GRAY, contestants(Finder(ONE), Finder(before=refuse), Finder(TWO)))
    assert compared.searches["dlib-hog"].error == "200x100 is too large"
    assert compared.searches["dlib-hog"].detections is None
    assert list(compared.pairs) == ["dlib-cnn"]
    assert not compared.is_whole
    compared, _ = compare_picture("a", GRAY, contestants(Finder(before=refuse), Finder(TWO)))
    assert not compared.pairs, "without the first there is nothing to pair with"
    assert len(compared.searches["dlib-hog"].detections) == 2


def test_a_bug_is_no_refusal() -> None:
    def fail(image: UInt8Array) -> None:
        raise AttributeError("no such thing")

    with pytest.raises(AttributeError, match="no such thing"):
        compare_picture("a", GRAY, contestants(Finder(before=fail)))


def test_faces_for_average_precision_come_from_a_search_of_their_own() -> None:
    shown, low, other = Finder(ONE), Finder(TWO), Finder(TWO)
    compared, _ = compare_picture("a", GRAY, contestants(shown, other, scorers={0: low}), scored=True)
    first, second = compared.searches.values()
    assert (len(first.detections), len(first.scored)) == (1, 2)
    assert second.scored is second.detections
    assert [len(finder.seen) for finder in (shown, low, other)] == [1, 1, 1]
    compare_picture("a", GRAY, contestants(shown, other, scorers={0: low}))
    assert len(low.seen) == 1, "nobody asked"


@pytest.mark.parametrize("number", [0, 4])
def test_names_must_differ(number: int) -> None:
    same = contestants(Finder())[:1] * number
    with pytest.raises(ValueError, match="a name of its own"):
        compare_picture("a", GRAY, same)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("min_iou", "error"), [(7, ValueError), (0, ValueError), ("0.3", TypeError)])
def test_the_overlap_is_checked_before_anything_is_searched(
    number: int, min_iou: object, error: type[Exception]
) -> None:
    finders = [Finder(ONE) for _ in range(number)]
    with pytest.raises(error, match="min_iou must be"):
        compare_picture("a", GRAY, contestants(*finders), min_iou=min_iou)
    assert not any(finder.seen for finder in finders)


def test_what_is_shown_survives_a_scorer_that_fails() -> None:
    them = contestants(Finder(ONE), Finder(TWO), scorers={1: Finder(before=refuse)})
    compared, _ = compare_picture("a", GRAY, them, scored=True)
    search = compared.searches["dlib-hog"]
    assert (len(search.detections), search.scored, search.error) == (2, None, None)
    assert search.scored_error == "200x100 is too large"
    assert search.seconds >= 0
    assert compared.pairs["dlib-hog"].pairs.tolist() == [[0, 0]]
    assert not compared.is_whole, "average precision is over the pictures that all have been scored on"
    summary = summarize_comparison(them, [compared], min_iou=0.3)
    assert summary["pictures"][0]["searches"]["dlib-hog"]["scored_error"] == "200x100 is too large"
    assert [(each["pictures"], each["faces"]) for each in summary["detectors"]] == [(1, 1), (1, 2)]


def test_warm_up_takes_a_small_version(tmp_path: Path) -> None:
    finders = Finder(), Finder(before=refuse)
    assert warm_up(np.zeros((1000, 2000, 3), np.uint8), contestants(*finders))
    assert [finder.seen for finder in finders] == [[(160, 320, 3)]] * 2
    assert not warm_up(tmp_path / "absent.jpg", contestants(*finders))


# What it adds up to


def compare_all(*finders: Finder, names: tuple[str, ...] = ("e/a", "e/b"), **options: object) -> tuple:
    them = contestants(*finders)
    return them, [compare_picture(name, GRAY, them, **options)[0] for name in names]


def test_summary_counts() -> None:
    points = result(TWO).landmarks.copy()
    points[:, 2] = np.nan
    them, pictures = compare_all(Finder(ONE), Finder(TWO, landmarks=points))
    broken, _ = compare_picture("e/broken", b"nothing", them)
    summary = summarize_comparison(them, [*pictures, broken], min_iou=0.3)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["num_pictures"], summary["num_failed"], summary["reference"]) == (3, 1, "retinaface")
    assert [(each["pictures"], each["failed"], each["faces"]) for each in summary["detectors"]] == [
        (2, 0, 2),
        (2, 0, 4),
    ]
    seconds = [picture.searches["dlib-hog"].seconds for picture in pictures]
    assert summary["detectors"][1]["median_seconds"] == pytest.approx(np.median(seconds), abs=1e-6)
    pairs = summary["pairs"]["dlib-hog"]
    assert [pairs[key] for key in ("pictures", "matched", "only_first", "only_second")] == [2, 2, 0, 2]
    assert pairs["median_iou"] == pytest.approx(28 * 36 / (1200 + 1080 - 28 * 36), abs=1e-6)
    expected = np.linalg.norm(result(ONE).landmarks[0] - result(TWO).landmarks[0], axis=1) / 40
    for index, (name, landmark) in enumerate(pairs["landmarks"].items()):
        if name == "nose":
            assert landmark == {"pairs": 0, "median_distance": None}
        else:
            assert landmark["pairs"] == 2
            assert landmark["median_distance"] == pytest.approx(expected[index], abs=1e-6)
    assert summary["ground_truth"] is None
    first, _, last = summary["pictures"]
    assert (last["name"], "error" in last, "searches" in last) == ("e/broken", True, False)
    assert first["image_size"] == [100, 200]
    assert first["searches"]["dlib-hog"]["faces"][0]["landmarks"]["nose"] is None
    assert first["pairs"]["dlib-hog"]["matched"] == [[0, 0]]
    assert first["pairs"]["dlib-hog"]["landmark_distances"][0][2] is None


def test_every_face_is_in_its_bin() -> None:
    rng = np.random.default_rng(3)
    boxes = np.float32([[0, 0, 5, height] for height in [8, 16, 32 * math.sqrt(2), *rng.uniform(3, 400, 60)]])
    them, pictures = compare_all(Finder(boxes), Finder(boxes[:4]), names=("a",))
    heights = summarize_comparison(them, pictures, min_iou=0.3)["heights"]
    edges = height_edges([pictures[0].searches["retinaface"].detections])
    np.testing.assert_allclose(np.diff(np.log2(edges)), 0.5)
    np.testing.assert_allclose(heights["edges"], edges, atol=1e-3)
    for name, count in (("retinaface", 63), ("dlib-hog", 4)):
        of_detector = boxes[:count, 3].astype(float)
        expected = [
            int(((of_detector >= low) & (of_detector < high)).sum())
            for low, high in itertools.pairwise(edges)
        ]
        assert heights["counts"][name] == expected
        assert sum(expected) == count
    assert heights["counts"]["retinaface"][0]
    assert heights["counts"]["retinaface"][-1]


def test_no_face_and_no_picture() -> None:
    them, pictures = compare_all(Finder(), Finder())
    for given in (pictures, []):
        summary = summarize_comparison(them, given, min_iou=0.3)
        assert summary["heights"] == {"edges": [], "counts": {"retinaface": [], "dlib-hog": []}}
        assert summary["pairs"]["dlib-hog"]["median_iou"] is None
        assert [each["faces"] for each in summary["detectors"]] == [0, 0]


def test_average_precision_is_over_the_pictures_that_all_have_searched() -> None:
    only_small = Finder(TWO, before=lambda image: refuse(image) if image.shape[0] > 100 else None)
    them = contestants(Finder(ONE), only_small)
    pictures = [
        compare_picture(name, np.zeros((height, 200, 3), np.uint8), them, scored=True)[0]
        for name, height in (("e/a", 100), ("e/large", 101), ("e/b", 100))
    ]
    faces = np.array([ONE[0], [100, 20, 130, 60]], np.float64)

    def truth(names: list[str]) -> GroundTruth:
        assert names == ["e/a", "e/b"]
        counted = {"easy": np.array([True, False] * 2), "none": np.zeros(4, np.bool_)}
        return GroundTruth(names, np.vstack([faces] * 2), np.array([0, 2, 4], np.int64), counted)

    summary = summarize_comparison(them, pictures, min_iou=0.3, truth=truth, protocol="original")
    found = summary["ground_truth"]
    assert (found["pictures"], found["protocol"]) == (2, "original")
    assert found["faces"] == {"easy": 2, "none": 0}
    for name, boxes in (("retinaface", ONE), ("dlib-hog", TWO)):
        one = Prediction(np.float64(boxes), np.linspace(0.9, 0.6, len(boxes)))
        scores = evaluate([one, one], truth(["e/a", "e/b"]))
        assert found["ap"][name] == {"easy": pytest.approx(scores.ap["easy"], abs=1e-5), "none": None}
        np.testing.assert_allclose(
            found["curves"][name]["easy"]["precision"], scores.curves["easy"].precision, atol=1e-5
        )
        np.testing.assert_allclose(
            found["curves"][name]["easy"]["recall"], scores.curves["easy"].recall, atol=1e-5
        )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
