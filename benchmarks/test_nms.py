from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import opponents
from benchmarks.scenes import candidates
from retinaface_fast import ops

if TYPE_CHECKING:
    from benchmarks.scenes import Scene

WAYS = {"ops": lambda boxes, scores, threshold: ops.nms(boxes, scores, iou_threshold=threshold)}
WAYS |= {"Python": opponents.greedy_in_python} | opponents.suppressions()
#: At 4K a matrix of gigabytes, and seconds.
SMALL = {"NumPy all pairs", "Python"}


def compare(benchmark: Any, who: str, boxes: Any, scores: Any, group: str) -> None:
    expected = ops.nms(boxes, scores, iou_threshold=0.4)
    np.testing.assert_array_equal(WAYS[who](boxes, scores, 0.4), expected)
    benchmark.group = group
    benchmark.extra_info["who"] = who
    rounds = 30 if who in {"ops", "torchvision", "OpenCV"} else 5
    benchmark.pedantic(WAYS[who], args=(boxes, scores, 0.4), rounds=rounds, warmup_rounds=1)


@pytest.mark.parametrize("who", WAYS)
def test_nms_640(benchmark: Any, who: str, scene_640: Scene) -> None:
    compare(benchmark, who, *candidates(scene_640), f"nms, {scene_640.name}")


@pytest.mark.parametrize("who", [who for who in WAYS if who not in SMALL])
def test_nms_4k(benchmark: Any, who: str, scene_4k: Scene) -> None:
    compare(benchmark, who, *candidates(scene_4k), f"nms, {scene_4k.name}")


@pytest.mark.parametrize("count", [10_000, 100_000, 1_000_000])
def test_nms_of_sparse_boxes_grows_with_their_number(benchmark: Any, count: int) -> None:
    # Twice as wide a picture for four times the boxes. The times are for reading, not for failing on.
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40 * np.sqrt(count), (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 64, (count, 2))], axis=1).astype(np.float32)
    scores = rng.random(count, dtype=np.float32)
    kept = ops.nms(boxes, scores)
    assert 0.3 * count < len(kept) < count
    benchmark.group = "nms of sparse boxes"
    benchmark.extra_info["who"] = f"ops, {count:,}"
    benchmark.pedantic(ops.nms, args=(boxes, scores), rounds=3)
