from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import by_torchvision, opponents
from retinaface_fast import ops

if TYPE_CHECKING:
    from benchmarks.scenes import Scene

BOX_WAYS = {
    "ops": ops.decode_boxes,
    "NumPy": opponents.decode_in_numpy,
    "Python": opponents.decode_in_python,
}
if by_torchvision.is_here():
    BOX_WAYS["torchvision"] = by_torchvision.decode_boxes
LANDMARK_WAYS = {
    "ops": ops.decode_landmarks,
    "NumPy": opponents.decode_landmarks_in_numpy,
    "Python": opponents.decode_landmarks_in_python,
}


@pytest.mark.parametrize("who", BOX_WAYS)
def test_decode_boxes(benchmark: Any, who: str, scene_640: Scene) -> None:
    deltas, anchors = scene_640.outputs.box_deltas[0], ops.generate_anchors(scene_640.image_size_hw)
    expected = ops.decode_boxes(deltas, anchors)
    if who == "torchvision":
        anchors = by_torchvision.corners(anchors)
    np.testing.assert_allclose(BOX_WAYS[who](deltas, anchors), expected, atol=1e-3)
    benchmark.group = f"decode all boxes, {scene_640.name}"
    benchmark.extra_info["who"] = who
    benchmark.pedantic(BOX_WAYS[who], args=(deltas, anchors), rounds=5 if who == "Python" else 100)


@pytest.mark.parametrize("who", LANDMARK_WAYS)
def test_decode_landmarks(benchmark: Any, who: str, scene_640: Scene) -> None:
    deltas, anchors = scene_640.outputs.landmark_deltas[0], ops.generate_anchors(scene_640.image_size_hw)
    expected = ops.decode_landmarks(deltas, anchors)
    np.testing.assert_allclose(LANDMARK_WAYS[who](deltas, anchors), expected, atol=1e-3)
    benchmark.group = f"decode all landmarks, {scene_640.name}"
    benchmark.extra_info["who"] = who
    benchmark.pedantic(LANDMARK_WAYS[who], args=(deltas, anchors), rounds=5 if who == "Python" else 100)
