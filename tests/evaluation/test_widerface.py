"""The protocol against the oracle, which follows the official program step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import FaceDetector
from retinaface_fast.data import (
    SUBSETS,
    GroundTruth,
    Prediction,
    read_ground_truth,
    read_names,
    read_predictions,
    write_prediction,
)
from retinaface_fast.evaluation import Scores, evaluate, sheet_of_false_positives, sheet_of_misses
from tests.evaluation.conversion import to_predictions, to_truth
from tests.reference import wider_ap
from tests.reference.wider_ap import Annotations

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]

FACES = np.array([[0, 0, 9, 9], [100, 0, 9, 9], [200, 0, 9, 9]], dtype=np.float64)


def annotated(boxes: Array, *counted: int) -> Annotations:
    mask = np.zeros(len(boxes), dtype=bool)
    mask[list(counted)] = True
    return Annotations(boxes, dict.fromkeys(SUBSETS, mask))


def rows(*faces: tuple[float, float]) -> Array:
    """A prediction of 10 pixels (one is added to 9) for each (x, score)."""
    return np.array([[x, 0, 9, 9, score] for x, score in faces], dtype=np.float64).reshape(-1, 5)


def evaluated(found: dict[str, Array], annotations: dict[str, Annotations], **options: Any) -> Scores:
    """What the package says, after it was compared with the oracle in every number."""
    truth = to_truth(annotations)
    scores = evaluate(to_predictions(found, truth.names), truth, **options)
    for subset in SUBSETS:
        precision, recall = wider_ap.precision_recall(found, annotations, subset, **options)
        np.testing.assert_array_equal(scores.curves[subset].precision, precision)
        np.testing.assert_array_equal(scores.curves[subset].recall, recall)
    assert scores.ap == wider_ap.average_precision(found, annotations, **options)
    return scores


@st.composite
def random_sets(draw: st.DrawFn) -> tuple[dict[str, Array], dict[str, Annotations]]:
    """Pictures with boxes on a coarse grid and scores of few values: ties of both are common."""
    counts = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=6))
    levels = draw(st.sampled_from([1, 2, 5, 1000, 100000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found, truth = {}, {}
    for picture, (predictions, faces) in enumerate(counts):
        boxes = np.concatenate([rng.integers(0, 5, (faces, 2)) * 4, rng.integers(0, 12, (faces, 2))], axis=1)
        counted = {
            subset: rng.random(faces) < share for subset, share in zip(SUBSETS, (0.2, 0.6, 0.9), strict=True)
        }
        truth[f"event/{picture}"] = Annotations(boxes.astype(np.float64), counted)
        near = boxes[rng.integers(0, faces, predictions)] if faces else np.zeros((predictions, 4))
        moved = near + rng.integers(-2, 3, (predictions, 4)) / 2
        moved[:, 2:] = np.maximum(moved[:, 2:], 0)
        score = rng.integers(0, levels, predictions) / levels * draw(st.sampled_from([1.0, 40.0])) - 0.5
        found[f"event/{picture}"] = np.column_stack([moved, score])
    return found, truth


@given(random_sets(), st.sampled_from([0.5, 0.3, 0.75, 1.0]))
@settings(deadline=None, max_examples=200)
def test_random_sets(drawn: tuple[dict[str, Array], dict[str, Annotations]], min_overlap: float) -> None:
    evaluated(*drawn, min_overlap=min_overlap)


def test_by_hand() -> None:
    """Right, wrong, right by score over two pictures, of three faces: 1/3 x 1 + 1/3 x 2/3."""
    truth = {"a": annotated(FACES[:2], 0, 1), "b": annotated(FACES[:1], 0)}
    scores = evaluated({"a": rows((0, 0.9), (100, 0.3)), "b": rows((50, 0.6))}, truth)
    assert scores.ap == pytest.approx(dict.fromkeys(SUBSETS, 1 / 3 + 2 / 9))


def test_what_became_of_each_prediction_and_face() -> None:
    # The fourth finds the first face again, before the first one in the list does: it has the higher score.
    found = rows((0, 0.5), (100, 0.7), (300, 0.6), (1, 0.8), (201, 0.1))
    scores = evaluated(
        {"a": found, "b": rows((0, 0.3))}, {"a": annotated(FACES, 0, 2), "b": annotated(FACES[:0])}
    )
    counted = scores.truth.counted["easy"]
    assert scores.best.tolist() == [0, 1, 0, 0, 2, -1]
    assert (scores.overlaps >= 0.5).tolist() == [True, True, False, True, True, False]
    assert scores.found_by.tolist() == [3, 1, 4]
    assert scores.found_at.tolist() == scores.scores[[3, 1, 4]].tolist()
    assert scores.right(counted).tolist() == [False, False, False, True, True, False]
    assert scores.left_out(counted).tolist() == [False, True, False, False, False, True]
    assert scores.offsets.tolist() == [0, 5, 6]
    np.testing.assert_allclose(scores.normalised, (scores.scores - 0.1) / 0.7)


def test_scores_of_any_size() -> None:
    """The range of some is more than float64 holds; of others it holds no half."""
    annotations = {"a": annotated(FACES, 0, 2)}
    small, large = (
        evaluated({"a": rows((0, size), (100, size / 2), (50, 0), (200, -size))}, annotations)
        for size in (1.0, 8e307)
    )
    found = {"a": rows((0, 1.6e308), (100, 8e307), (50, 0), (200, -1.6e308))}
    too_large = evaluate(to_predictions(found, ["a"]), small.truth)
    assert too_large.normalised.tolist() == large.normalised.tolist() == [1, 0.75, 0.5, 0]
    assert too_large.ap == large.ap == small.ap
    assert evaluated({"a": rows((0, 5e-324), (50, 0))}, annotations).normalised.tolist() == [1, 0]


def test_of_equal_scores_the_first_finds_the_face() -> None:
    scores = evaluated({"a": rows((2, 0.5), (0, 0.5), (1, 0.5))}, {"a": annotated(FACES, 0)})
    assert scores.found_by.tolist() == [0, -1, -1]
    assert scores.found_at.tolist() == [0.5, -np.inf, -np.inf]
    assert scores.normalised.tolist() == [1, 1, 1]


def test_scores_of_pictures_without_annotations_stretch_the_others() -> None:
    truth = {"a": annotated(FACES[:1], 0), "b": annotated(FACES[:1], 0), "c": annotated(FACES[:0])}
    close = {"a": rows((50, 0.50000)), "b": rows((0, 0.50001))}
    assert evaluated({**close, "c": rows()}, truth).ap["easy"] == pytest.approx(0.5)
    assert evaluated({**close, "c": rows((0, 1.0))}, truth).ap["easy"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    "found",
    [
        {"a": rows(), "b": rows()},
        {"a": rows((0, 0.3)), "b": rows()},
        {"a": rows((50, 0.3)), "b": rows()},
        {"a": rows((0, 0.3), (100, 0.3)), "b": rows((200, 0.3))},
        {"a": rows((0, -3.0), (100, 1e9)), "b": rows((200, 0.0))},
    ],
    ids=["nothing", "one, right", "one, wrong", "equal scores", "any range"],
)
@pytest.mark.parametrize("counted", [(), (0,), (0, 1, 2)])
def test_small_sets(found: dict[str, Array], counted: tuple[int, ...]) -> None:
    evaluated(found, {"a": annotated(FACES, *counted), "b": annotated(FACES, *counted)})


def test_boxes_without_a_side() -> None:
    """Four official pictures hold one box of 0 x 0; it is a pixel, and can be found."""
    point = np.array([[50, 60, 0, 0]], dtype=np.float64)
    found = {"a": np.array([[50, 60, 0, 0, 0.9], [50, 60, 1, 0, 0.8], [50, 60, 1, 1, 0.7]], dtype=np.float64)}
    assert evaluated(found, {"a": annotated(point, 0)}).found_by.tolist() == [0]


def test_no_picture_at_all() -> None:
    scores = evaluated({}, {})
    assert scores.ap == dict.fromkeys(SUBSETS, 0.0)


def test_other_faces_and_only_some_predictions() -> None:
    """Of the faces the first two, of the predictions all but the false alarm."""
    truth = {"a": annotated(FACES, 0, 1, 2)}
    scores = evaluated({"a": rows((300, 0.9), (0, 0.8), (100, 0.7), (200, 0.6))}, truth)
    two = np.array([True, True, False])
    assert scores.curve(two).average_precision == pytest.approx(2 / 3)
    curve = scores.curve(two, np.array([False, True, True, True]))
    assert curve.average_precision == 1
    assert curve.recall[-1] == 1
    assert scores.curve(np.zeros(3, dtype=bool)).average_precision == 0


def test_columns_of_other_types_are_taken() -> None:
    truth = to_truth({"a": annotated(FACES, 0, 1)})
    found = Prediction(truth.boxes[:2].astype(np.float32), np.array([1, 0]))  # type: ignore[arg-type]
    assert evaluate([found], truth).ap["hard"] == 1


BOX = np.array([[0.0, 0, 9, 9]])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "expected one for each of the 2 pictures of the ground truth, got 0"),
        ([Prediction(BOX, np.ones(1))] * 3, "got 3"),
        ([Prediction(BOX, np.ones(2))] * 2, r"for event/a, got \(1, 4\) and \(2,\)"),
        ([Prediction(BOX[0], np.ones(4))] * 2, r"for event/a, got \(4,\) and \(4,\)"),
        ([Prediction(BOX, np.ones((1, 1)))] * 2, r"for event/a, got \(1, 4\) and \(1, 1\)"),
        (
            [Prediction(BOX[[0] * 3], np.ones(3)), Prediction(BOX[[0, 0]], np.array([1, np.nan]))],
            "a score that is NaN or infinite in row 1 of event/b",
        ),
        ([Prediction(BOX, np.full(1, np.inf))] * 2, "a score that is NaN or infinite in row 0 of event/a"),
        ([Prediction(BOX * np.nan, np.ones(1))] * 2, "a coordinate that is .* in row 0 of event/a"),
    ],
)
def test_bad_predictions(found: list[Prediction], said: str) -> None:
    truth = to_truth({"event/a": annotated(FACES), "event/b": annotated(FACES)})
    with pytest.raises(ValueError, match=f"^predictions: .*{said}"):
        evaluate(found, truth)


@pytest.mark.parametrize(
    ("value", "kind"), [(0, ValueError), (1.5, ValueError), (float("nan"), ValueError), ("0.5", TypeError)]
)
def test_bad_min_overlap(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^min_overlap must be"):
        evaluate([], to_truth({}), min_overlap=value)


def test_a_nan_row_after_empty_pictures_is_named_right() -> None:
    truth = to_truth({name: annotated(FACES) for name in "abc"})
    nothing = Prediction(BOX[:0], np.empty(0))
    with pytest.raises(ValueError, match="in row 0 of c"):
        evaluate([nothing, nothing, Prediction(BOX, np.full(1, np.nan))], truth)


@pytest.fixture(scope="module")
def official(wider_dir: Path) -> dict[str, Annotations]:
    pytest.importorskip("scipy.io")
    return wider_ap.read_ground_truth(wider_dir / "ground_truth")


def test_real_annotations_and_made_up_predictions(
    official: dict[str, Annotations], rng: np.random.Generator
) -> None:
    """Faces moved about and false alarms, in all pictures of three events."""
    events = sorted({name.partition("/")[0] for name in official})[::20]
    some = {name: official[name] for name in official if name.partition("/")[0] in events}
    assert len(some) > 100
    found = {}
    for name, annotation in some.items():
        faces = annotation.boxes[rng.random(len(annotation.boxes)) < 0.8]
        sides = np.maximum(faces[:, 2:], 1)[:, [0, 1, 0, 1]]
        faces = faces + np.rint(sides * rng.normal(0, 0.1, faces.shape) * 8) / 8
        faces[:, 2:] = np.maximum(faces[:, 2:], 0)
        alarms = np.concatenate([rng.integers(0, 900, (5, 2)), rng.integers(8, 200, (5, 2))], axis=1)
        boxes = np.concatenate([faces, alarms])
        found[name] = np.column_stack([boxes, rng.random(len(boxes))])
    scores = evaluated(found, some)
    assert 0.2 < scores.ap["hard"] < 0.9


def test_real_predictions_from_their_files(
    wider_dir: Path, official: dict[str, Annotations], tmp_path: Path
) -> None:
    """What a detector finds in photographs, written, and read back by the package and by hand."""
    detector = FaceDetector(engine="native", score_threshold=0.02)
    names = read_names(wider_dir / "images.txt")[::60]
    by_hand = {}
    for name in names:
        faces = detector.detect(wider_dir / "images" / f"{name}.jpg")
        path = tmp_path / f"{name}.txt"
        write_prediction(path, name, faces.boxes, faces.scores)
        rows = [line.split() for line in path.read_text().splitlines()[2:]]
        by_hand[name] = np.array(rows, dtype=np.float64).reshape(-1, 5)
    truth = read_ground_truth(wider_dir / "ground_truth", names)
    scores = evaluate(read_predictions(tmp_path, names), truth)
    expected = wider_ap.average_precision(by_hand, {name: official[name] for name in names})
    assert scores.ap == pytest.approx(expected, abs=1e-12)
    assert expected["easy"] > 0.7
    for make in (sheet_of_misses, sheet_of_false_positives):
        sheet = make(scores, wider_dir / "images", limit=8)
        assert (sheet.shown, sheet.skipped) == (8, 0)
        assert sheet.image.std() > 40  # photographs, and not empty paper


def test_the_ground_truth_as_prediction_is_perfect(official: dict[str, Annotations]) -> None:
    truth: GroundTruth = to_truth(official)
    bounds = zip(truth.offsets[:-1], truth.offsets[1:], strict=True)
    found = [Prediction(truth.boxes[a:b], np.ones(b - a)) for a, b in bounds]
    scores = evaluate(found, truth)
    # Boxes that were annotated twice can be found only once; they are not many.
    assert all(value > 0.998 for value in scores.ap.values())
    assert np.count_nonzero(scores.found_by < 0) < 20
