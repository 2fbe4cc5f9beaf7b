"""Which validation is the best, and when there is no point in going on."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pydantic")

from retinaface_fast.training.recipe import ValidationSection
from retinaface_fast.training.selection import Selection

AP = {"easy": 0.9, "medium": 0.6, "hard": 0.3}


@pytest.mark.parametrize(
    ("metric", "ap", "expected"),
    [
        ("easy", AP, 0.9),
        ("medium", AP, 0.6),
        ("hard", AP, 0.3),
        ("mean", AP, 0.6),
        ("mean", {"ap": 0.5}, 0.5),
        ("hard", {"ap": 0.5}, 0.5),
    ],
)
def test_the_figure_that_decides(metric: str, ap: dict[str, float], expected: float) -> None:
    selection = Selection(ValidationSection(metric=metric))  # type: ignore[arg-type]
    assert selection.take(ap)
    assert selection.best == pytest.approx(expected)
    assert selection.ap == ap


def test_patience() -> None:
    selection = Selection(ValidationSection(patience=2))
    taken = []
    for ap in (0.5, 0.4, 0.6, 0.6, 0.1):
        assert not selection.ends
        taken.append(selection.take({"ap": ap}))
    assert taken == [True, False, True, False, False]
    assert selection.ends
    assert (selection.best, selection.without_best, selection.ap) == (0.6, 2, {"ap": 0.1})


def test_without_patience_a_run_goes_on() -> None:
    selection = Selection(ValidationSection())
    for ap in (0.5, *[0.1] * 50):
        selection.take({"ap": ap})
    assert not selection.ends


def test_a_run_that_is_taken_up_knows_its_best() -> None:
    first = Selection(ValidationSection(patience=3))
    for ap in (0.5, 0.25):
        first.take({"ap": ap})
    second = Selection(ValidationSection(patience=3))
    second.load_state(json.loads(json.dumps(first.state())))
    assert second == first
    assert not second.take({"ap": 0.5})
