"""Precision-recall curves: that they are drawn, and what is in them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from retinaface_fast import MissingDependencyError
from retinaface_fast.data import SUBSETS
from retinaface_fast.evaluation import Curve, Scores, evaluate, plot_curves
from tests.evaluation.conversion import to_predictions, to_truth
from tests.evaluation.made_up import made_up_set

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def scores() -> Scores:
    found, annotations = made_up_set()
    truth = to_truth(annotations)
    return evaluate(to_predictions(found, truth.names), truth)


def test_a_figure_for_each_subset_and_format(scores: Scores, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = plot_curves({"original": scores.curves, "again": scores.curves}, tmp_path / "new")
    expected = [f"curve-{subset}.{suffix}" for subset in SUBSETS for suffix in ("png", "svg")]
    assert [path.name for path in written] == expected
    for path in written:
        if path.suffix == ".png":
            picture = cv2.imread(str(path))
            assert picture is not None
            assert picture.shape[0] > 700
            # White paper, and the blue and the vermilion of the first two.
            assert (picture[0, 0] == 255).all()
            for color in ((178, 114, 0), (0, 94, 213)):
                assert (np.abs(picture.astype(int) - color).sum(axis=2) < 12).any()
        else:
            assert "<svg" in path.read_text(encoding="utf-8")


def drawn(figure: object) -> dict[str, np.ndarray]:
    (axes,) = figure.axes  # type: ignore[attr-defined]
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_the_lines_are_the_curves_best_first(
    scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    kept = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *_, **__: kept.append(self))
    # A strict one finds less.
    truth = scores.truth
    found, _ = made_up_set()
    strict = evaluate(to_predictions(found, truth.names), truth, min_overlap=0.8)
    plot_curves({"strict": strict.curves, "usual": scores.curves}, tmp_path, formats=["png"])
    assert len(kept) == 3
    for figure, subset in zip(kept, SUBSETS, strict=True):
        lines = drawn(figure)
        assert list(lines) == [f"usual-{scores.ap[subset]:.3f}", f"strict-{strict.ap[subset]:.3f}"]
        curve = scores.curves[subset]
        seen = curve.precision > 0
        np.testing.assert_array_equal(
            next(iter(lines.values())), np.column_stack([curve.recall, curve.precision])[seen]
        )
        (axes,) = figure.axes
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("Recall", "Precision")


def test_the_same_curves_give_the_same_bytes(scores: Scores, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    once, again = (plot_curves({"a": scores.curves}, tmp_path / name, formats=["png"]) for name in "xy")
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_nothing_found_is_an_empty_figure(scores: Scores, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    truth = scores.truth
    nothing = evaluate(to_predictions(dict.fromkeys(truth.names, np.empty((0, 5))), truth.names), truth)
    assert len(plot_curves({"nothing": nothing.curves}, tmp_path)) == 6


def test_no_result_and_missing_subsets(scores: Scores, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^results must hold at least one"):
        plot_curves({}, tmp_path)
    with pytest.raises(
        ValueError, match=re.escape("results must hold the subset 'medium' of b, got ['easy']")
    ):
        plot_curves({"a": scores.curves, "b": {"easy": scores.curves["easy"]}}, tmp_path)


def test_pyplot_stays_out() -> None:
    pytest.importorskip("matplotlib")
    code = (
        "import sys, tempfile, numpy as np\n"
        "from retinaface_fast.evaluation import Curve, plot_curves\n"
        "ones = np.ones(3)\n"
        "plot_curves({'a': {'easy': Curve(ones, ones, ones)}}, tempfile.mkdtemp(), formats=['png'])\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_matplotlib(scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[eval\]"):
        plot_curves({"a": scores.curves}, tmp_path)


@pytest.mark.filterwarnings("error")
def test_any_name_has_its_place_in_the_legend(tmp_path: Path) -> None:
    curve = Curve(np.array([1.0, 0.5]), np.array([0.2, 0.8]), np.array([0.9, 0.1]))
    names = ["my$\\q$", "_private", "x" * 200]
    for path in plot_curves({name: {"hard": curve} for name in names}, tmp_path, formats=("svg",)):
        assert path.stat().st_size > 0
