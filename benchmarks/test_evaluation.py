from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import evaluation
from retinaface_fast.evaluation import match_boxes

PICTURES, PER_PICTURE = 300, 200
WAYS = (evaluation.OURS, "NumPy oracle", "NumPy in haste")


@pytest.fixture(scope="module")
def calls() -> dict[str, Any]:
    truth = evaluation.made_up_faces(PICTURES)
    return evaluation.contestants(evaluation.made_up_predictions(truth, PER_PICTURE), truth)


@pytest.mark.parametrize("who", WAYS)
def test_wider_face(benchmark: Any, who: str, calls: dict[str, Any]) -> None:
    expected = calls[evaluation.OURS]()
    assert 0.3 < expected["hard"] < 0.95
    assert calls[who]() == pytest.approx(expected, abs=1e-12)
    benchmark.group = f"WIDER FACE, {PICTURES} pictures with {PER_PICTURE} predictions"
    benchmark.extra_info["who"] = who
    benchmark.pedantic(calls[who], rounds=20 if who == evaluation.OURS else 2)


@pytest.mark.parametrize("faces", [1, 10, 100, 1000])
def test_match_boxes(benchmark: Any, faces: int) -> None:
    # On a grid, apart from one another: each prediction, moved a little, matches its own face.
    repeats = 100_000 // faces
    corners = 20.0 * np.column_stack([np.arange(faces) % 40, np.arange(faces) // 40])
    boxes = np.tile(np.concatenate([corners, corners + 9], axis=1), (repeats, 1))
    offsets = np.arange(repeats + 1) * faces
    moved = boxes + np.array([1, 0, 1, 0])
    best, overlaps = match_boxes(moved, offsets, boxes, offsets)
    np.testing.assert_array_equal(best, np.arange(len(moved)))
    np.testing.assert_allclose(overlaps, 90 / 110)
    benchmark.group = "the best of all boxes in a picture for 100,000 predictions"
    benchmark.extra_info["who"] = f"native, {faces} boxes"
    benchmark.pedantic(match_boxes, args=(moved, offsets, boxes, offsets), rounds=5, warmup_rounds=1)
