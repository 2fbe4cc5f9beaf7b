"""Average precision of other data sets: cases counted by hand, and random ones against slow oracles."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import MissingDependencyError
from retinaface_fast.data import Prediction
from retinaface_fast.evaluation import coco_average_precision, voc_average_precision
from tests.reference import average_precision as reference

Array = np.ndarray[Any, Any]

#: Three faces of 40 x 40 pixels, apart.
FACES = np.array([[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]], dtype=np.float64)
NONE = np.empty((0, 4))


def found(*faces: tuple[float, float]) -> Prediction:
    """Boxes of 40 x 40 pixels with the left side at x, for each (x, score)."""
    boxes = np.array([[x, 0, x + 40, 40] for x, _ in faces], dtype=np.float64).reshape(-1, 4)
    return Prediction(boxes, np.array([score for _, score in faces], dtype=np.float64))


# --- Pascal VOC ---


def test_voc_by_hand() -> None:
    """Right, wrong, right, of three faces: 1/3 at precision 1, 1/3 at 2/3; 4 + 3 of 11 recalls."""
    predictions, truth = [found((0, 0.9), (100, 0.3)), found((50, 0.6))], [FACES[:2], FACES[:1]]
    assert voc_average_precision(predictions, truth) == pytest.approx((1 + 2 / 3) / 3)
    assert voc_average_precision(predictions, truth, interpolation="11") == pytest.approx(
        (4 + 3 * 2 / 3) / 11
    )


def test_voc_counts_false_alarms_where_nothing_is_annotated() -> None:
    assert voc_average_precision([found((0, 0.5)), found((0, 0.9))], [FACES[:1], NONE]) == 0.5


def test_voc_a_second_prediction_is_wrong_even_where_another_box_would_do() -> None:
    close = np.array([[0, 0, 40, 40], [8, 0, 48, 40]], dtype=np.float64)
    # Both are nearest to the first; the second face is free, and stays so.
    assert voc_average_precision([found((0, 0.9), (2, 0.8))], [close]) == 0.5


def test_voc_ignored_boxes() -> None:
    ignored = [np.array([False, True, False])]
    predictions = [found((100, 0.9), (101, 0.8), (0, 0.7))]
    assert voc_average_precision(predictions, [FACES], ignored=ignored) == 0.5
    assert np.isnan(voc_average_precision(predictions, [FACES], ignored=[np.ones(3, dtype=bool)]))


def test_voc_recall_of_exactly_three_tenths_is_reached() -> None:
    """3 / 10 is less than 3 times 0.1 in binary."""
    faces = np.concatenate([FACES + np.array([0, 100 * row, 0, 100 * row]) for row in range(4)])[:10]
    assert voc_average_precision([Prediction(faces[:3], np.ones(3))], [faces], interpolation="11") == (
        pytest.approx(4 / 11)
    )


def test_voc_nothing_found() -> None:
    for interpolation in ("all", "11"):
        assert voc_average_precision([found()], [FACES], interpolation=interpolation) == 0  # type: ignore[arg-type]
    assert np.isnan(voc_average_precision([found((0, 0.9))], [NONE]))
    assert np.isnan(voc_average_precision([], []))


# --- COCO ---


@pytest.fixture(autouse=True)
def _pycocotools() -> None:
    pytest.importorskip("pycocotools")


def test_coco_by_hand() -> None:
    # The same box is found at each overlap, the one that is moved by 8 (32 of 48 columns: 2/3) up to 0.65.
    scores = coco_average_precision([found((0, 0.9), (108, 0.8))], [FACES[:2]])
    assert scores.ap50 == pytest.approx(1)
    assert scores.ap75 == pytest.approx(51 / 101)  # recalls 0, 0.01 ... 0.5
    assert scores.ap == pytest.approx((4 * 1 + 6 * 51 / 101) / 10)
    assert scores.ar == pytest.approx((4 * 1 + 6 * 0.5) / 10)
    assert (scores.ap_medium, scores.ar_medium) == (scores.ap, scores.ar)
    assert all(np.isnan([scores.ap_small, scores.ap_large, scores.ar_small, scores.ar_large]))


def test_coco_takes_the_box_that_is_free() -> None:
    close = np.array([[0, 0, 40, 40], [8, 0, 48, 40]], dtype=np.float64)
    assert coco_average_precision([found((0, 0.9), (2, 0.8))], [close]).ap50 == 1


def test_coco_regions_are_left_out_and_may_be_found_by_any_number() -> None:
    crowd = np.array([[0, 0, 40, 40], [100, 0, 300, 40]], dtype=np.float64)
    predictions = [found((100, 0.9), (150, 0.85), (250, 0.8), (0, 0.7))]
    assert coco_average_precision(predictions, [crowd], ignored=[np.array([False, True])]).ap == (
        pytest.approx(1)
    )
    assert coco_average_precision(predictions, [crowd]).ap < 0.3


def test_coco_of_each_picture_only_so_many() -> None:
    predictions = [found((0, 0.9), (100, 0.8), (200, 0.7))]
    assert coco_average_precision(predictions, [FACES]).ar == 1
    assert coco_average_precision(predictions, [FACES], max_detections=2).ar == pytest.approx(2 / 3)


def test_coco_nothing_found_or_to_be_found() -> None:
    assert coco_average_precision([found(), found()], [FACES, NONE]).ap == 0
    for predictions, truth in (([found((0, 0.9))], [NONE]), ([found()], [NONE]), ([], [])):
        scores = coco_average_precision(predictions, truth)
        assert all(np.isnan(list(dataclasses.asdict(scores).values())))


def test_coco_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    coco_average_precision([found((0, 0.9))], [FACES])
    assert capfd.readouterr() == ("", "")
    assert "print" not in vars(sys.modules["pycocotools.cocoeval"])


# --- both ---


@st.composite
def random_sets(draw: st.DrawFn) -> tuple[list[Prediction], list[Array], list[Array]]:
    """Boxes on a grid of halves around the limits of the areas; scores with ties."""
    counts = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    predictions, truth, ignored = [], [], []
    for number, faces in counts:
        corners = rng.integers(0, 60, (faces, 2)).astype(np.float64)
        boxes = np.concatenate([corners, corners + rng.choice([8, 20, 32, 60, 96, 130], (faces, 2))], axis=1)
        near = boxes[rng.integers(0, faces, number)] if faces else np.tile([0.0, 0, 50, 50], (number, 1))
        moved = near + rng.integers(-8, 9, (number, 4)) / 2
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        predictions.append(Prediction(moved, rng.integers(0, levels, number) / levels))
        truth.append(boxes)
        ignored.append(rng.random(faces) < 0.25)
    return predictions, truth, ignored


def as_lists(
    predictions: list[Prediction], truth: list[Array], ignored: list[Array]
) -> tuple[list[Any], list[Any]]:
    return (
        [(one.boxes.tolist(), one.scores.tolist()) for one in predictions],
        [(boxes.tolist(), mask.tolist()) for boxes, mask in zip(truth, ignored, strict=True)],
    )


@given(random_sets(), st.sampled_from([0.5, 0.3, 0.75]), st.sampled_from(["all", "11"]))
@settings(deadline=None)
def test_voc_agrees_with_the_oracle(drawn: Any, threshold: float, interpolation: Any) -> None:
    predictions, truth, ignored = drawn
    expected = reference.voc(*as_lists(*drawn), threshold, interpolation)
    options = {"iou_threshold": threshold, "interpolation": interpolation}
    result = voc_average_precision(predictions, truth, ignored=ignored, **options)
    assert result == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(random_sets(), st.sampled_from([1, 3, 100]))
@settings(deadline=None)
def test_coco_agrees_with_the_oracle(drawn: Any, most: int) -> None:
    predictions, truth, ignored = drawn
    expected = reference.coco(*as_lists(*drawn), most)
    result = coco_average_precision(predictions, truth, ignored=ignored, max_detections=most)
    assert dataclasses.asdict(result) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("score", [voc_average_precision, coco_average_precision])
@pytest.mark.parametrize(
    ("arguments", "options", "kind", "said"),
    [
        (([found()], [FACES, FACES]), {}, ValueError, "predictions: expected one for each of the 2 pictures"),
        (
            ([Prediction(NONE, np.ones(1))], [FACES]),
            {},
            ValueError,
            r"predictions: .* for picture 0, got \(0, 4",
        ),
        (([found((0, np.nan))], [FACES]), {}, ValueError, "predictions: .*score .* in row 0 of picture 0"),
        (([found()], [FACES[0]]), {}, ValueError, r"truth_boxes: .*\(G, 4\) for picture 0, got \(4,\)"),
        (([found()], [FACES + np.inf]), {}, ValueError, "truth_boxes: .*coordinate .* in row 0 of picture 0"),
        (
            ([found()], [FACES]),
            {"ignored": []},
            ValueError,
            "ignored: expected one for each of the 1 pictures",
        ),
        (
            ([found()], [FACES]),
            {"ignored": [np.ones(2, bool)]},
            ValueError,
            r"ignored: .*\(3,\) for picture 0",
        ),
        (
            ([found()], [FACES]),
            {"ignored": [np.ones(3, int)]},
            TypeError,
            "ignored: expected bool for picture 0",
        ),
    ],
)
def test_bad_sets(score: Any, arguments: Any, options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=f"^{said}"):
        score(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"iou_threshold": 0}, ValueError),
        ({"iou_threshold": 1.1}, ValueError),
        ({"iou_threshold": None}, TypeError),
        ({"interpolation": "101"}, ValueError),
        ({"interpolation": 11}, ValueError),
    ],
)
def test_bad_options_of_voc(options: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"^{next(iter(options))} must be"):
        voc_average_precision([], [], **options)


@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_options_of_coco(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^max_detections must be"):
        coco_average_precision([], [], max_detections=value)


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[eval\]"):
        coco_average_precision([], [])
    assert np.isnan(voc_average_precision([], []))


def test_it_is_imported_when_it_is_needed() -> None:
    heavy = {"pycocotools", "matplotlib", "scipy"}
    code = f"import sys, retinaface_fast.evaluation; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
