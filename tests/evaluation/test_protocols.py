"""The named protocols: what they say they do."""

from __future__ import annotations

import json

import pytest

from retinaface_fast import FaceDetector
from retinaface_fast.evaluation import PROTOCOLS


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_detector_takes_the_options(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    detector = FaceDetector(**protocol.options())
    for option, value in protocol.options().items():
        assert getattr(detector, option) == value
    assert (detector.score_threshold, detector.nms_threshold) == (0.02, 0.4)
    assert (detector.top_k, detector.keep_top_k, detector.max_side) == (5000, 750, None)
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()


def test_nobody_changes_them() -> None:
    with pytest.raises(TypeError):
        PROTOCOLS["original"] = PROTOCOLS["original"]
    with pytest.raises(AttributeError):
        PROTOCOLS["original"].top_k = 1
