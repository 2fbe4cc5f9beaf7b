"""Contact sheets: which crops are chosen, that boxes lie where they belong, and pictures that are missing."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retinaface_fast import MissingDependencyError
from retinaface_fast.evaluation import (
    Scores,
    contact_sheet,
    evaluate,
    sheet_of_false_positives,
    sheet_of_misses,
)
from tests.evaluation.conversion import to_predictions, to_truth
from tests.reference.wider_ap import Annotations

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]

pytest.importorskip("matplotlib")

# In a picture of 640 x 480, faces in the colour of what is to become of them.
FACES = {
    "a/1": [[100, 100, 60, 60], [300, 100, 90, 90], [500, 300, 30, 30]],
    "a/2": [[200, 200, 200, 200]],
    "b/$3$": [[20, 20, 40, 40]],
}
FOUND = {
    # The first well, the second with a low score; a false alarm; the second again, with less; one nowhere.
    "a/1": [
        [100, 100, 60, 60, 0.9],
        [302, 100, 90, 90, 0.4],
        [500, 100, 50, 50, 0.8],
        [304, 102, 90, 90, 0.3],
    ],
    # Not well enough.
    "a/2": [[250, 250, 150, 150, 0.7]],
    "b/$3$": [[20, 20, 40, 40, 0.95]],
}


def scored(
    found: dict[str, list[list[float]]] = FOUND, faces: dict[str, list[list[float]]] = FACES
) -> Scores:
    annotations = {}
    for name, boxes in faces.items():
        array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        hard = array[:, 3] > 30
        annotations[name] = Annotations(array, {"easy": hard & False, "medium": hard, "hard": hard})
    truth = to_truth(annotations)
    rows = {name: np.array(boxes, dtype=np.float64).reshape(-1, 5) for name, boxes in found.items()}
    return evaluate(to_predictions(rows, truth.names), truth)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, boxes in FACES.items():
        picture = np.full((480, 640, 3), 255, np.uint8)
        for x, y, width, height in boxes:
            cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), (200, 120, 40), cv2.FILLED)
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return tmp_path


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is written below the crops, while it is written."""
    written: list[tuple[str, ...]] = []
    write = contact_sheet._Canvas.caption

    def keep(self: Any, *lines: str) -> None:
        written.append(lines)
        write(self, *lines)

    monkeypatch.setattr(contact_sheet._Canvas, "caption", keep)
    return written


def test_misses(images: Path, captions: list[tuple[str, ...]]) -> None:
    sheet = sheet_of_misses(scored(), images)
    # 150 x 150 of 200 x 200 pixels, each side one longer.
    overlap = 151 * 151 / (201 * 201)
    assert overlap > 0.5
    assert captions == [("90 px, found with 0.40", "overlap 0.95", "a/1")]
    assert (sheet.shown, sheet.total, sheet.skipped) == (1, 1, 0)
    assert sheet.image.dtype == np.uint8
    assert sheet.image.flags.c_contiguous


def test_misses_are_sorted_by_height_whether_found_or_not(
    images: Path, captions: list[tuple[str, ...]]
) -> None:
    found = {**FOUND, "a/2": [[290.0, 290, 100, 100, 0.7]], "b/$3$": []}
    sheet_of_misses(scored(found), images)
    assert captions == [
        ("200 px, not found", "nearest: score 0.70, overlap 0.25", "a/2"),
        ("90 px, found with 0.40", "overlap 0.95", "a/1"),
        ("40 px, not found", "nothing near", "b/$3$"),
    ]
    captions.clear()
    sheet = sheet_of_misses(scored(found), images, min_score=-math.inf)
    assert [lines[0] for lines in captions] == ["200 px, not found", "40 px, not found"]
    captions.clear()
    assert sheet_of_misses(scored(found), images, limit=1).shown == 1
    assert sheet.total == 2
    assert sheet_of_misses(scored(found), images, subset="easy").shown == 0


def test_false_positives(images: Path, captions: list[tuple[str, ...]]) -> None:
    found = {**FOUND, "a/2": [[290.0, 290, 100, 100, 0.7], [590, 400, 20, 20, 0.05]]}
    sheet = sheet_of_false_positives(scored(found), images)
    assert captions == [
        ("score 0.800, 50 px", "no face there", "a/1"),
        ("score 0.700, 100 px", "nearest face: overlap 0.25", "a/2"),
        ("score 0.300, 90 px", "the face was found with a higher score", "a/1"),
        ("score 0.050, 20 px", "no face there", "a/2"),
    ]
    assert (sheet.shown, sheet.total) == (4, 4)


def test_four_of_one_picture_at_most(images: Path) -> None:
    found = {**FOUND, "a/1": [[10.0 + 60 * i, 300, 40, 40, 0.5] for i in range(7)], "a/2": []}
    sheet = sheet_of_false_positives(scored(found), images)
    assert (sheet.shown, sheet.total) == (4, 7)


def test_pictures_that_are_missing_or_broken_are_skipped_and_counted(images: Path) -> None:
    (images / "a/1.jpg").unlink()
    (images / "b/$3$.jpg").write_bytes(b"nothing")
    found = {**FOUND, "a/2": [], "b/$3$": []}
    sheet = sheet_of_misses(scored(found), images)
    assert (sheet.shown, sheet.total, sheet.skipped) == (1, 3, 2)
    nothing = sheet_of_misses(scored(found), images / "nowhere")
    assert (nothing.shown, nothing.skipped) == (0, 3)
    assert nothing.image.shape[1] > 900


def test_a_crop_shows_the_face_with_its_box_around_it(images: Path) -> None:
    """The face takes the middle of the tile, and the red line runs along its edge."""
    image = sheet_of_misses(scored(), images).image
    tile = image[contact_sheet._HEADER :, contact_sheet._GAP :][: contact_sheet._TILE, : contact_sheet._TILE]
    size = contact_sheet._TILE * contact_sheet._SHARE
    low, high = (contact_sheet._TILE - size) / 2, (contact_sheet._TILE + size) / 2
    center = contact_sheet._TILE // 2
    assert np.abs(tile[center, center].astype(int) - (200, 120, 40)).max() < 12
    red = tuple(bytes.fromhex(contact_sheet._SUBJECT[1:]))[::-1]
    is_red = (np.abs(tile.astype(int) - red).max(axis=2) < 60).nonzero()
    for axis in is_red:
        assert axis.min() == pytest.approx(low, abs=2.5)
        assert axis.max() == pytest.approx(high, abs=2.5)
    # Beyond the line it is white, within it is the face.
    assert (tile[int(low) - 8, center] > 240).all()
    assert np.abs(tile[center, int(high) - 12].astype(int) - (200, 120, 40)).max() < 30


@pytest.mark.parametrize(
    ("box", "size_wh"),
    [
        ((0, 0, 10, 10), (640, 480)),
        ((630, 470, 640, 480), (640, 480)),
        ((0, 0, 640, 480), (640, 480)),
        ((-50, -50, 800, 900), (640, 480)),
        ((3, 3, 3, 3), (8, 5)),
        ((100, 2, 120, 22), (2000, 24)),
    ],
)
def test_cuts_at_the_edge(box: tuple[float, ...], size_wh: tuple[int, int]) -> None:
    """Where a pixel of the picture went is where the view says."""
    width, height = size_wh
    rows, columns = np.mgrid[:height, :width]
    # Smooth, so that resampling hardly changes it.
    pixels = np.stack([columns * 255 / width, rows * 255 / height, np.full((height, width), 200)], axis=2)
    tile, (x, y, side) = contact_sheet._cut(pixels.astype(np.uint8), np.array(box, dtype=np.float64))
    assert tile.shape == (contact_sheet._TILE, contact_sheet._TILE, 3)
    assert side <= max(width, height)
    ahead = (np.arange(contact_sheet._TILE) + 0.5) * side / contact_sheet._TILE
    in_x, in_y = ((start + ahead) for start in (x, y))
    # Two pixels are what cubic resampling reaches; beyond the edge is the colour of the paper.
    inside = ((in_x > 2) & (in_x < width - 2))[None] & ((in_y > 2) & (in_y < height - 2))[:, None]
    assert inside.any()
    blue = np.broadcast_to((in_x - 0.5) * 255 / width, tile.shape[:2])
    green = np.broadcast_to(((in_y - 0.5) * 255 / height)[:, None], tile.shape[:2])
    tolerance = 3 + 255 * 1.5 / min(width, height)
    assert np.abs(tile[..., 0] - blue)[inside].max() < tolerance
    assert np.abs(tile[..., 1] - green)[inside].max() < tolerance
    # The box is in view.
    assert x <= max(box[0], 0) + 1e-9
    assert x + side >= min(box[2], width) - 1e-9


def test_long_names_are_shortened_in_the_middle() -> None:
    name = "12--Group/12_Group_Team_Organized_Group_12_Group_Team_Organized_Group_12_536"
    short = contact_sheet._shortened(name)
    assert len(short) <= 42
    assert short.startswith("12--Group/...")
    assert short.endswith("_12_536")
    assert contact_sheet._shortened("12--Group/12_536") == "12--Group/12_536"
    assert len(contact_sheet._shortened("x" * 60 + "/" + "y" * 60)) <= 42


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_save(images: Path, tmp_path: Path, suffix: str) -> None:
    sheet = sheet_of_misses(scored(), images)
    sheet.save(tmp_path / f"sheet{suffix}")
    saved = cv2.imread(str(tmp_path / f"sheet{suffix}"))
    assert saved is not None
    assert saved.shape == sheet.image.shape
    assert np.abs(saved.astype(int) - sheet.image).mean() < 2
    with pytest.raises(ValueError, match=r"^path must end in \.jpg"):
        sheet.save(tmp_path / "sheet.what")


@pytest.mark.parametrize("make", [sheet_of_misses, sheet_of_false_positives])
def test_bad_arguments(make: Any, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^subset must be one of easy, medium, hard, got 'all'"):
        make(scored(), images, subset="all")
    with pytest.raises(ValueError, match=r"^limit must be at least 1"):
        make(scored(), images, limit=0)
    with pytest.raises(TypeError, match=r"^columns must be an integer"):
        make(scored(), images, columns=2.5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"retinaface-fast\[eval\]"):
        make(scored(), images)
