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
    assert (detector.top_k, detector.max_side) == (5000, None)
    assert detector.keep_top_k == (750 if detector.tta is None or not detector.tta.flip else None)
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()


@pytest.mark.parametrize(
    ("name", "size_hw", "views"),
    [
        ("short1600", (683, 1024), [(1434, 2150)]),
        ("short1600", (1024, 1024), [(1600, 1600)]),
        ("short1600", (1500, 1024), [(2150, 1468)]),
        ("vga", (480, 640), [(480, 640)]),
        ("vga", (683, 1024), [(427, 640)]),
        ("vga", (1500, 1024), [(640, 437)]),
        ("vga", (100, 100), [(480, 480)]),
        ("paper", (500, 600), [(500, 600), (800, 960), (1100, 1320), (1400, 1680), (1700, 2040)]),
    ],
)
def test_the_sizes_that_are_searched(name: str, size_hw: tuple[int, int], views: list) -> None:
    tta = PROTOCOLS[name].tta
    assert tta is not None
    upright = [view.size_hw for view in tta.views(size_hw) if not view.flipped]
    mirrored = [view.size_hw for view in tta.views(size_hw) if view.flipped]
    assert upright == views
    assert mirrored == (views if name == "paper" else [])


def test_what_the_paper_does() -> None:
    tta = PROTOCOLS["paper"].tta
    assert tta is not None
    assert (tta.vote_threshold, tta.paper_compat, tta.max_long_side) == (0.4, False, None)
    assert PROTOCOLS["original"].tta is PROTOCOLS["default"].tta is None
    assert not PROTOCOLS["original"].close_ups
    compat = PROTOCOLS["paper-compat"].tta
    assert compat is not None
    assert compat.paper_compat
    assert compat.max_face_side is None
    assert compat.views((500, 600)) == tta.views((500, 600))


def test_nobody_changes_them() -> None:
    with pytest.raises(TypeError):
        PROTOCOLS["original"] = PROTOCOLS["original"]
    with pytest.raises(AttributeError):
        PROTOCOLS["original"].top_k = 1
