"""The columns of a ground truth, and what is no ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinaface_fast.data import GroundTruth


def columns(**changes: Any) -> dict[str, Any]:
    """Two pictures with two and one faces."""
    usual = {
        "names": ["e/x", "e/y"],
        "boxes": np.arange(12, dtype=np.float64).reshape(3, 4),
        "offsets": np.array([0, 2, 3], np.int64),
        "counted": {"easy": np.array([True, False, False]), "hard": np.ones(3, dtype=bool)},
    }
    return {**usual, **changes}


def test_what_is_one() -> None:
    assert len(GroundTruth(**columns())) == 2
    nothing = GroundTruth(
        [], np.empty((0, 4)), np.zeros(1, dtype=np.int64), {"hard": np.empty(0, dtype=bool)}
    )
    assert len(nothing) == 0
    assert len(GroundTruth(**columns(offsets=np.array([0, 0, 3], np.int64)))) == 2


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"boxes": np.zeros((3, 4), np.float32)}, TypeError, "boxes must be float64, got float32"),
        ({"boxes": [[0, 0, 1, 1]]}, TypeError, "boxes must be an array of float64, got list"),
        ({"boxes": np.zeros((3, 5))}, ValueError, r"boxes must have the shape \(G, 4\), got \(3, 5\)"),
        ({"boxes": np.zeros(4)}, ValueError, r"boxes must have the shape \(G, 4\), got \(4,\)"),
        (
            {"boxes": np.array([[0, 0, 1, 1], [0, np.nan, 1, 1], [0, 0, 1, np.inf]])},
            ValueError,
            r"boxes must be finite, got \[0.0, nan, 1.0, 1.0\] in row 1",
        ),
        ({"offsets": np.array([0, 2, 3], np.int32)}, TypeError, "offsets must be int64, got int32"),
        (
            {"offsets": np.array([0, 3], np.int64)},
            ValueError,
            r"offsets must have the shape \(3,\), got \(2,\)",
        ),
        (
            {"offsets": np.array([1, 2, 3], np.int64)},
            ValueError,
            r"offsets must go from 0 to 3.*got \[1, 2, 3\]",
        ),
        (
            {"offsets": np.array([0, 2, 4], np.int64)},
            ValueError,
            r"offsets must go from 0 to 3.*got \[0, 2, 4\]",
        ),
        (
            {"offsets": np.array([0, 4, 3], np.int64)},
            ValueError,
            r"offsets must go from 0 to 3.*got \[0, 4, 3\]",
        ),
        ({"names": ["e/x"]}, ValueError, r"offsets must have the shape \(2,\), got \(3,\)"),
        ({"counted": {"easy": np.array([0, 1, 1])}}, TypeError, "counted.'easy'. must be bool, got int64"),
        (
            {"counted": {"hard": np.ones(2, dtype=bool)}},
            ValueError,
            r"counted.'hard'. must have the shape \(3,\), got \(2,\)",
        ),
    ],
)
def test_what_is_none(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        GroundTruth(**columns(**changes))
