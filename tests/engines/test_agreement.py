"""The comparison of engines on photographs: that it passes, and that it would not if they disagreed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks import agreement, predictions, ties
from benchmarks.predictions import Predictions, PredictionsError
from benchmarks.ties import Side

from retinaface_fast import DatasetError
from retinaface_fast.data import Prediction, read_names
from tests.reference import wider_ap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FloatArray = npt.NDArray[np.float64]

#: Spread over the list: crowds, large faces, people in a stadium. Each takes an engine 0.1 s or less.
PICTURES = 6


@pytest.fixture(scope="module")
def pictures(wider_dir: Path) -> list[str]:
    names = read_names(wider_dir / "images.txt")
    return names[:: -(-len(names) // PICTURES)]


@pytest.fixture(scope="module")
def native(wider_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    return Predictions("native", wider_dir / "images", tmp_path_factory.mktemp("agreement"))


def compared(one: Predictions, other: Predictions, pictures: list[str]) -> agreement.Comparison:
    [comparison] = agreement.compare([one, other], pictures, progress=False)
    return comparison


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_the_same_faces_in_photographs(
    engine: str, native: Predictions, pictures: list[str], wider_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    other = Predictions(engine, wider_dir / "images", tmp_path)
    comparison = compared(native, other, pictures)
    assert comparison.disagreements == []
    assert (comparison.pictures, comparison.faces > 200) == (PICTURES, True)
    assert comparison.largest["box"][0] < 0.01
    pytest.importorskip("scipy.io")
    truth = wider_ap.read_ground_truth(wider_dir / "ground_truth", pictures)
    ap = {which.name: agreement.average_precision(which, pictures, truth) for which in (native, other)}
    assert agreement.ap_spread(ap) <= agreement.AP
    assert ap["native"]["easy"] > 50


def test_the_files_hold_what_the_detector_finds(native: Predictions, pictures: list[str]) -> None:
    result = native.detector.detect(native.pixels(pictures[0]))
    found = native[pictures[0]]
    np.testing.assert_array_equal(found.scores.astype(np.float32), result.scores)
    np.testing.assert_allclose(found.boxes, result.boxes, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.landmarks, result.landmarks, rtol=0, atol=1e-6)
    lines = (native.folder / f"{pictures[0]}.txt").read_text().splitlines()
    assert lines[:2] == [f"{pictures[0]}.jpg", str(len(result))]


MISSING, UNKNOWN = "it is missing, and no decision was close", "not in the raw outputs of the engine"


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda lines: lines[1:], [MISSING]),
        (lambda lines: [moved(lines[0], 0, 0.06), *lines[1:]], [MISSING, UNKNOWN]),
        (lambda lines: [moved(lines[0], 6, -0.06), *lines[1:]], ["both have it, too far apart"] * 2),
        (lambda lines: [moved(lines[0], 4, -0.002), *lines[1:]], [MISSING, UNKNOWN]),
        (lambda lines: [*lines, lines[-1]], ["it is there twice"]),
    ],
    ids=["missing", "box", "landmark", "score", "twice"],
)
def test_finds_a_disagreement(
    change: Callable[[list[str]], list[str]],
    reasons: list[str],
    native: Predictions,
    pictures: list[str],
    tmp_path: Path,
) -> None:
    picture = pictures[0]
    other = Predictions("native", native.pictures, tmp_path)
    assert len(native[picture].scores) > 10
    lines = (native.folder / f"{picture}.txt").read_text().splitlines()
    changed = other.folder / f"{picture}.txt"
    changed.parent.mkdir(parents=True)
    faces = change(lines[2:])
    changed.write_text("\n".join([lines[0], str(len(faces)), *faces]) + "\n")
    assert [entry["why"] for entry in compared(native, other, [picture]).disagreements] == reasons


def moved(line: str, column: int, by: float) -> str:
    numbers = line.split()
    numbers[column] = f"{float(numbers[column]) + by:.9g}"
    return " ".join(numbers)


def test_an_interrupted_run_goes_on_and_another_one_is_refused(wider_dir: Path, tmp_path: Path) -> None:
    name = read_names(wider_dir / "images.txt")[0]
    first = Predictions("native", wider_dir / "images", tmp_path)
    found = first[name]
    again = Predictions("native", wider_dir / "images", tmp_path)
    np.testing.assert_array_equal(again[name].scores, found.scores)
    assert again._engine is None, "what is there is not detected again"
    with pytest.raises(DatasetError, match="made with images '"):
        Predictions("native", wider_dir, tmp_path)
    with pytest.raises(PredictionsError, match="cannot be read"):
        again["no such picture"]
    made_by = first.folder / "made_by.json"
    made_by.write_text(json.dumps(json.loads(made_by.read_text()) | {"core": "another"}))
    with pytest.raises(DatasetError, match="made with core 'another' instead of"):
        Predictions("native", wider_dir / "images", tmp_path)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        agreement.main(["--engines", "native", "native"])
    assert "two or more different ones" in capsys.readouterr().err
    assert agreement.main(["--images", str(tmp_path), "--predictions", str(tmp_path)]) == 2
    assert "images.txt" in capsys.readouterr().err


# Ties, on anchors that are made up


def side(scores: list[float], boxes: list[list[float]], faces: list[int]) -> Side:
    all_scores, all_boxes = np.array(scores), np.array(boxes, dtype=np.float64)
    return Side(
        all_scores, all_boxes, Prediction(all_boxes[faces], all_scores[faces], np.zeros((len(faces), 5, 2)))
    )


def box(x: float, width: float = 100) -> list[float]:
    return [x, 0, x + width, 100]


def shifted(overlap: float) -> float:
    """By how much two boxes of width 100 are apart that overlap so much."""
    return 100 * (1 - overlap) / (1 + overlap)


APART, NEAR = box(1000), box(10)


def test_a_score_near_the_threshold_is_a_tie() -> None:
    one, other = (
        side([0.9, score], [box(0), APART], faces) for score, faces in ((0.0201, [0, 1]), (0.0197, [0]))
    )
    tie = ties.explain(1, one, other)
    assert tie is not None
    assert (tie.kind, tie.steps) == ("threshold", 0)
    assert tie.size == pytest.approx(3e-4)


@pytest.mark.parametrize("scores", [(0.0215, 0.0208), (0.0206, 0.0194), (0.0209, 0.0205), (0.5, 0.5)])
def test_a_score_away_from_the_threshold_or_on_its_right_side_is_none(scores: tuple[float, float]) -> None:
    one, other = (
        side([0.9, score], [box(0), APART], faces) for score, faces in zip(scores, ([0, 1], [0]), strict=True)
    )
    assert ties.explain(1, one, other) is None


def test_an_overlap_near_the_threshold_is_a_tie() -> None:
    one = side([0.9, 0.8], [box(0), box(shifted(0.3998))], [0, 1])
    other = side([0.9, 0.8], [box(0), box(shifted(0.4001))], [0])
    tie = ties.explain(1, one, other)
    assert tie is not None
    assert tie.kind == "overlap"
    assert tie.size == pytest.approx(2e-4)


@pytest.mark.parametrize("overlaps", [(0.3980, 0.4010), (0.3995, 0.3998), (0.5, 0.5)])
def test_an_overlap_away_from_the_threshold_or_on_its_right_side_is_none(
    overlaps: tuple[float, float],
) -> None:
    one, other = (
        side([0.9, 0.8], [box(0), box(shifted(overlap))], faces)
        for overlap, faces in zip(overlaps, ([0, 1], [0]), strict=True)
    )
    assert ties.explain(1, one, other) is None


def test_two_that_change_places_are_a_tie() -> None:
    one = side([0.5004, 0.5000], [box(0), NEAR], [0])
    other = side([0.5000, 0.5003], [box(0), NEAR], [1])
    for anchor, having, lacking in ((0, one, other), (1, other, one)):
        tie = ties.explain(anchor, having, lacking)
        assert tie is not None
        assert tie.kind == "order"
        assert tie.size == pytest.approx(4e-4)


def test_two_that_change_places_from_afar_are_none() -> None:
    one = side([0.5010, 0.5000], [box(0), NEAR], [0])
    other = side([0.5005, 0.5016], [box(0), NEAR], [1])
    assert ties.explain(0, one, other) is None
    assert ties.explain(1, other, one) is None


def test_follows_a_chain_to_its_reason() -> None:
    """The first overlaps the second closely, the second the third, the third the fourth, for certain."""

    def chain(overlap: float, faces: list[int]) -> Side:
        second = shifted(overlap)
        boxes = [box(0), box(second), box(second + 40), box(second + 80)]
        return side([0.9, 0.8, 0.7, 0.6], boxes, faces)

    one, other = chain(0.3999, [0, 1, 3]), chain(0.4001, [0, 2])
    found = [
        ties.explain(anchor, *sides)
        for anchor, sides in ((1, (one, other)), (2, (other, one)), (3, (one, other)))
    ]
    assert [(tie.kind, tie.steps) for tie in found if tie] == [("overlap", 0), ("overlap", 1), ("overlap", 2)]
    far = chain(0.41, [0, 2])
    assert [ties.explain(anchor, one, far) for anchor in (1, 3)] == [None, None]


def test_the_limits_of_candidates_and_of_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [box(0), box(500), box(1000)]
    one, other = side([0.9, 0.5003, 0.5], boxes, [0, 1]), side([0.9, 0.5, 0.5002], boxes, [0, 2])
    assert ties.explain(1, one, other) is None
    for limit, value in (("top_k", 2), ("keep_top_k", 2)):
        monkeypatch.setitem(predictions.SETTINGS, limit, value)
        tie = ties.explain(1, one, other)
        assert tie is not None
        assert tie.kind == limit
        assert tie.size < 5e-4
        monkeypatch.undo()
    monkeypatch.setitem(predictions.SETTINGS, "keep_top_k", 2)
    far = side([0.9, 0.5, 0.502], boxes, [0, 2])
    assert ties.explain(1, one, far) is None
