"""The named protocols: what they say they do."""

from __future__ import annotations

import json

import pytest

from retinaface_fast import FaceDetector
from retinaface_fast.evaluation import PROTOCOLS


def views(name: str) -> list:
    tta = PROTOCOLS[name].tta
    return [] if tta is None else tta.views((1000, 1000))


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_detector_takes_the_options(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    detector = FaceDetector(**protocol.options())
    for option, value in protocol.options().items():
        assert getattr(detector, option) == value
    assert (detector.score_threshold, detector.nms_threshold) == (0.02, 0.4)
    assert (detector.top_k, detector.max_side, detector.tile_side) == (5000, None, None)
    assert detector.keep_top_k == (750 if len(views(name)) < 2 else None)
    assert detector.close_ups == (name == "default")
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()


@pytest.mark.parametrize(
    ("name", "size_hw", "sizes"),
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
def test_the_sizes_that_are_searched(name: str, size_hw: tuple[int, int], sizes: list) -> None:
    tta = PROTOCOLS[name].tta
    assert tta is not None
    upright = [view.size_hw for view in tta.views(size_hw) if not view.flipped]
    mirrored = [view.size_hw for view in tta.views(size_hw) if view.flipped]
    assert upright == sizes
    assert mirrored == (sizes if name == "paper" else [])


def test_what_the_paper_does() -> None:
    paper, compat, ensemble = (PROTOCOLS[name].tta for name in ("paper", "paper-compat", "ensemble"))
    assert paper is not None
    assert compat is not None
    assert ensemble is not None
    assert paper.vote_threshold == compat.vote_threshold == ensemble.vote_threshold == 0.4
    assert (paper.paper_compat, compat.paper_compat, ensemble.paper_compat) == (False, True, False)
    assert (paper.agreement, compat.agreement, compat.max_face_side) == (0.0, 0.0, None)
    assert 0 < ensemble.agreement < 1
    assert views("paper") == views("paper-compat") == views("ensemble")
    assert len(views("paper")) == 10


def test_the_default_is_what_a_detector_does_by_itself() -> None:
    made, usual = FaceDetector(**PROTOCOLS["default"].options()), FaceDetector()
    for option in ("nms_threshold", "top_k", "keep_top_k", "tta", "close_ups", "tile_side", "max_side"):
        assert getattr(made, option) == getattr(usual, option)


def test_nobody_changes_them() -> None:
    with pytest.raises(TypeError):
        PROTOCOLS["original"] = PROTOCOLS["original"]
    with pytest.raises(AttributeError):
        PROTOCOLS["original"].top_k = 1
