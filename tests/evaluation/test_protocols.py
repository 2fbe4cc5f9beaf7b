"""The named protocols: what they say they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.scenes import crowd

from retinaface_fast import FaceDetector
from retinaface_fast.data import SUBSETS, read_ground_truth, read_names, read_predictions
from retinaface_fast.evaluation import PROTOCOLS, DetectionRun, evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.tta import View


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
    assert (detector.score_threshold, protocol.nms_threshold) == (0.02, 0.4)
    assert (detector.top_k, detector.max_side, detector.tile_side) == (5000, None, None)
    assert protocol.keep_top_k == (None if name in ("paper", "ensemble") else 750)
    assert protocol.plus_one_widths == (name in ("original", "short1600", "vga"))
    assert detector.close_ups == (name == "default")
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()


def test_another_detector_is_refused() -> None:
    """Its figures would bear the name of the protocol."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"protocol original, got score_threshold=0.5 instead of 0.02, nms_th"
    ):
        PROTOCOLS["original"].detect(FaceDetector(), pixels)
    vga = FaceDetector(**PROTOCOLS["vga"].options())
    assert len(PROTOCOLS["vga"].detect(vga, pixels)) == 0
    for name in PROTOCOLS.keys() - {"vga"}:
        with pytest.raises(ValueError, match=f"options of the protocol {name}, got .*tta=TTA"):
            PROTOCOLS[name].detect(vga, pixels)
    for option, value in (("max_side", 640), ("tile_side", 1280), ("close_ups", True), ("top_k", None)):
        with pytest.raises(ValueError, match=f"vga, got {option}={value} instead of (None|False|5000)$"):
            PROTOCOLS["vga"].detect(vga.replace(**{option: value}), pixels)


def sized(size_hw: tuple[int, int], view: View) -> tuple[int, int]:
    return round(size_hw[0] * view.scale), round(size_hw[1] * view.scale)


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
    upright = [sized(size_hw, view) for view in tta.views(size_hw) if not view.flipped]
    mirrored = [sized(size_hw, view) for view in tta.views(size_hw) if view.flipped]
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


def suppressed(boxes: np.ndarray, scores: np.ndarray, plus: float) -> list[int]:
    """The definition, box by box, in double precision."""
    boxes = boxes.astype(np.float64)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = np.prod(np.maximum(high - low + plus, 0))
            area_i, area_j = (np.prod(box[2:] - box[:2] + plus) for box in (boxes[i], boxes[j]))
            if shared / (area_i + area_j - shared) > 0.4:
                break
        else:
            kept.append(int(i))
    return kept[:750]


def test_widths_are_those_of_the_published_programs() -> None:
    picture = crowd((300, 420), sides=(40, 22, 30))  # small faces, for which a pixel counts
    protocol = PROTOCOLS["original"]
    every = FaceDetector(score_threshold=0.02, nms_threshold=1.0, keep_top_k=None).detect(picture)
    published = suppressed(every.boxes, every.scores, 1)
    assert published != suppressed(every.boxes, every.scores, 0)
    assert protocol.detect(FaceDetector(**protocol.options()), picture) == every[published]


@pytest.mark.slow
def test_the_figures_of_another_program_are_met(wider_dir: Path, tmp_path: Path) -> None:
    """README.md of the pictures: ONNX Runtime and the evaluator of the popular PyTorch port."""
    names = read_names(wider_dir / "test_part.txt")
    run = DetectionRun(PROTOCOLS["original"], images=wider_dir / "images", output=tmp_path)
    assert not run(names).failed
    truth = read_ground_truth(wider_dir / "ground_truth", names)
    ap = evaluate(read_predictions(run.predictions, truth.names), truth).ap
    figures = [100 * ap[subset] for subset in SUBSETS]
    np.testing.assert_allclose(figures, [91.613, 88.722, 78.191], rtol=0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_all_engines_have_the_same_figures(engine: str, wider_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    names = read_names(wider_dir / "test_part.txt")[::6]
    truth = read_ground_truth(wider_dir / "ground_truth", names)
    figures = []
    for each in ("native", engine):
        run = DetectionRun(
            PROTOCOLS["original"],
            images=wider_dir / "images",
            output=tmp_path / each,
            engine=each,
            device="cpu",
        )
        assert not run(names).failed
        ap = evaluate(read_predictions(run.predictions, truth.names), truth).ap
        figures.append([100 * ap[subset] for subset in SUBSETS])
    assert min(figures[0]) > 80
    np.testing.assert_allclose(figures[1], figures[0], rtol=0, atol=0.02)
