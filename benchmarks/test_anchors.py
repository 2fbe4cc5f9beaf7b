from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import by_torchvision, opponents
from retinaface_fast import ops

WAYS = {
    "ops": ops.generate_anchors,
    "NumPy": opponents.anchors_in_numpy,
    "Python, the popular way": opponents.anchors_the_popular_way,
    "Python, lean loops": opponents.anchors_in_lean_loops,
}
if by_torchvision.is_here():
    WAYS["torchvision"] = by_torchvision.generate_anchors


@pytest.mark.parametrize("image_size_hw", [(640, 640), (2160, 3840)], ids=["640x640", "3840x2160"])
@pytest.mark.parametrize("who", WAYS)
def test_anchors(benchmark: Any, who: str, image_size_hw: tuple[int, int]) -> None:
    height, width = image_size_hw
    scale = np.float32([width, height, width, height]) if who.startswith("Python") else np.float32(1)
    found, expected = WAYS[who](image_size_hw) * scale, ops.generate_anchors(image_size_hw)
    if who == "torchvision":
        expected = by_torchvision.corners(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    benchmark.group = f"anchors {width}x{height}"
    benchmark.extra_info["who"] = who
    benchmark.pedantic(WAYS[who], args=(image_size_hw,), rounds=3 if who.startswith("Python") else 30)
