"""Right answers, and wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from retinaface_fast.latency import answers
from retinaface_fast.latency.contestants import SCORE_THRESHOLD, Boxes


def test_same_faces_in_another_order_and_not_others() -> None:
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 500, (40, 2)).astype(np.float32)
    expected = Boxes(
        np.concatenate([corners, corners + 50], axis=1), rng.uniform(0.6, 1, 40).astype(np.float32)
    )
    order = rng.permutation(40)
    near = Boxes(expected.boxes[order] + np.float32(0.7), expected.scores[order])
    assert answers.assert_same_faces(near, expected, "someone") == 1
    # One that is hardly above the threshold may be missing, three others may not.
    expected.scores[5] = SCORE_THRESHOLD + answers.UNDECIDED / 2
    without = np.delete(np.arange(40), 5)
    fewer = Boxes(expected.boxes[without], expected.scores[without])
    assert answers.assert_same_faces(fewer, expected, "someone") == 1
    with pytest.raises(answers.WrongAnswerError, match="37 faces, expected 40"):
        answers.assert_same_faces(Boxes(expected.boxes[3:], expected.scores[3:]), expected, "someone")
    with pytest.raises(answers.WrongAnswerError, match="someone"):
        answers.assert_same_faces(
            Boxes(expected.boxes + np.float32(1.5), expected.scores), expected, "someone"
        )
