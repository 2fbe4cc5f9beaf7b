from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.reference import assignment as reference

from retinaface_fast import ops
from retinaface_fast.training.assignment import assign_anchors
from retinaface_fast.training.recipe import AssignmentSection

if TYPE_CHECKING:
    import numpy.typing as npt


def faces_of_a_picture(faces: int, side: int = 640) -> npt.NDArray[np.float32]:
    """Faces of all sizes, smaller ones in a crowd."""
    rng = np.random.default_rng(0)
    longest = 200 if faces < 100 else 60
    size = np.exp(rng.uniform(np.log(6), np.log(longest), (faces, 1))) * rng.uniform(0.8, 1.2, (faces, 2))
    centre = rng.uniform(0, side, (faces, 2))
    return np.hstack([centre - size / 2, centre + size / 2]).astype(np.float32)


@pytest.mark.parametrize("who", ["ops", "NumPy"])
@pytest.mark.parametrize("faces", [12, 100, 500])
@pytest.mark.parametrize("anchors_of", ["P3_P5", "P2_P6"])
def test_assign_anchors(benchmark: Any, who: str, faces: int, anchors_of: str) -> None:
    if anchors_of == "P2_P6" and faces == 500:
        pytest.skip("the table of overlaps takes gigabytes in NumPy")
    anchors = ops.generate_anchors((640, 640), config=getattr(ops, anchors_of))
    boxes, config = faces_of_a_picture(faces), AssignmentSection()
    thresholds = reference.Thresholds(config.positive_iou, config.negative_iou)
    expected = reference.assign(anchors, boxes, thresholds)
    np.testing.assert_array_equal(assign_anchors(anchors, boxes, config=config), expected)
    benchmark.group = f"assign {len(anchors)} anchors to {faces} faces"
    benchmark.extra_info["who"] = who
    if who == "ops":
        benchmark.pedantic(
            assign_anchors, args=(anchors, boxes), kwargs={"config": config}, rounds=50, warmup_rounds=1
        )
    else:
        benchmark.pedantic(reference.assign, args=(anchors, boxes, thresholds), rounds=3)
