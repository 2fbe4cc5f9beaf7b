from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.reference import vote as reference

from retinaface_fast import ops

if TYPE_CHECKING:
    import numpy.typing as npt


def views_of_a_crowd(faces: int, views: int = 10) -> tuple[npt.NDArray[np.float32], ...]:
    """What so many views find of a crowd: each face in each view, a little elsewhere."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60 * np.sqrt(faces), (faces, 2))
    truth = np.hstack([corner, corner + rng.uniform(8, 64, (faces, 1)) * [1, 1.3]])
    boxes = np.concatenate([truth + rng.normal(0, 1, truth.shape) for _ in range(views)])
    scores = rng.uniform(0.02, 1, len(boxes))
    landmarks = rng.uniform(0, 1000, (len(boxes), 5, 2))
    return boxes.astype(np.float32), scores.astype(np.float32), landmarks.astype(np.float32)


@pytest.mark.parametrize("who", ["ops", "definition in NumPy"])
@pytest.mark.parametrize("faces", [10, 40])
def test_vote_boxes(benchmark: Any, who: str, faces: int) -> None:
    boxes, scores, landmarks = views_of_a_crowd(faces)
    expected = reference.groups(boxes, scores, landmarks, 0.4)
    votes = ops.vote_boxes(boxes, scores, landmarks)
    assert votes.members.tolist() == [len(group.members) for group in expected]
    np.testing.assert_allclose(votes.boxes, [group.box for group in expected], rtol=1e-5, atol=1e-4)
    benchmark.group = f"vote of 10 views of {faces} faces"
    benchmark.extra_info["who"] = who
    if who == "ops":
        benchmark.pedantic(ops.vote_boxes, args=(boxes, scores, landmarks), rounds=30, warmup_rounds=1)
    else:
        benchmark.pedantic(reference.groups, args=(boxes, scores, landmarks, 0.4), rounds=1)
