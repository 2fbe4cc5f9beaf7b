"""The look at the data before a run."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retinaface_fast.network.config import CONFIGS
from retinaface_fast.training.check import SIZES, DataReport, check_data, report_lines
from retinaface_fast.training.recipe import AssignmentSection, AugmentationSection, Recipe
from retinaface_fast.training.records import Record

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = Recipe(
    name="test",
    augmentation=AugmentationSection(
        side=256, crop_scales=(1.0,), distort=False, flip=0, interpolations=("nearest",)
    ),
)
OUTSIDE = "expected a box inside the picture of 512x512 pixels, got"


def record(folder: Path, number: int, boxes: list, **changes: Any) -> Record:
    """A grey picture of 512 x 512 pixels."""
    path = folder / f"{number}.png"
    cv2.imwrite(str(path), np.full((512, 512, 3), 60 + number, np.uint8))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    usual: dict[str, Any] = {
        "landmarks": np.full((len(corners), 5, 2), np.nan, np.float32),
        "ignored": np.zeros(len(corners), bool),
        "source": f"label.txt:{number}",
        "numbers": number + 1 + np.arange(len(corners)),
    }
    return Record(path, corners, **(usual | changes))


def look(records: list[Record], faults: tuple[str, ...] = (), **changes: Any) -> DataReport:
    usual = {"recipe": RECIPE, "network": CONFIGS["mobilenet0.25"], "seed": 0}
    return check_data(records, faults, **(usual | changes))


def heights(report: DataReport) -> dict[str, int]:
    return {name: count for name, count in report.sizes.items() if count}


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    marks = np.full((2, 5, 2), np.nan, np.float32)
    marks[0, 2] = 40
    return [
        record(tmp_path, 10, [[20, 20, 60, 70], [100, 100, 300, 400]], landmarks=marks),
        record(tmp_path, 20, [[20, 20, 60, 84], [5, 5, 12, 12.5]], ignored=np.array([False, True])),
        record(tmp_path, 30, []),
        record(tmp_path, 40, [[500, 490, 520, 506], [-1, 3, 9, 11], [600, 600, 700, 700]]),
    ]


def test_counts(records: list[Record]) -> None:
    report = look(records, ("label.txt:9: something",))
    assert (report.pictures, report.without_faces, report.unreadable) == (4, 1, 0)
    assert (report.faces, report.ignored, report.with_landmarks, report.mirrored) == (6, 1, 1, 0)
    # Heights 50, 300, 64, 16, 8, 100: each class begins with its number.
    assert heights(report) == {"8-16": 1, "16-32": 1, "32-64": 1, "64-128": 2, ">=256": 1}
    assert tuple(report.sizes) == ("<8", "8-16", "16-32", "32-64", "64-128", "128-256", ">=256") == SIZES
    # A pixel beyond the edge is rounding.
    assert report.leaving == 1
    assert report.leaving_examples == ("label.txt:41: 500, 490, 520, 506 in 512x512",)
    assert report.faults == (
        "label.txt:9: something",
        f"label.txt:43: {OUTSIDE} 600, 600, 700, 700, wholly outside",
    )
    # All of them at half their size; the box that leaves its picture is clipped to 12 x 16.
    assert (report.augmented_pictures, report.augmented_faces, report.augmented_ignored) == (4, 5, 1)
    assert {name: count for name, count in report.augmented_sizes.items() if count} == {
        "<8": 1,
        "8-16": 1,
        "16-32": 1,
        "32-64": 1,
        "128-256": 1,
    }
    assert report.unmatched == 0  # each face takes its best anchor in any case
    assert report.anchors > 5


def test_eyes_that_have_changed_places(tmp_path: Path) -> None:
    marks = np.full((3, 5, 2), np.nan, np.float32)
    marks[0, :2] = [[30, 40], [50, 40]]
    marks[1, :2] = [[50, 40], [30, 40]]
    given = record(tmp_path, 1, [[20, 20, 60, 70]] * 3, landmarks=marks)
    assert (look([given]).with_landmarks, look([given]).mirrored) == (2, 1)
    ignored = record(
        tmp_path, 2, [[20, 20, 60, 70]] * 3, landmarks=marks, ignored=np.array([False, True, False])
    )
    assert (look([ignored]).with_landmarks, look([ignored]).mirrored) == (1, 0)


def test_faces_that_no_anchor_matches(records: list[Record]) -> None:
    recipe = RECIPE.model_copy(update={"assignment": AssignmentSection(positive_iou=0.35, force=False)})
    # Of the anchors, the smallest is 16 x 16: no box of less than 0.35 * 256 pixels can reach an IoU of 0.35.
    small = [record(records[0].image.parent, 50, [[100, 100, 118, 118], [200, 200, 300, 300]])]
    report = look(small, recipe=recipe)
    assert (report.augmented_faces, report.unmatched) == (2, 1)


def test_pictures_that_cannot_be_read(records: list[Record]) -> None:
    records[0].image.write_bytes(records[0].image.read_bytes()[:-20])
    for decode in (True, False):
        report = look(records, decode=decode)
        assert report.unreadable == 1
        assert report.faults[0].startswith("label.txt:10: expected a picture, got ")
        assert "truncated" in report.faults[0]
    content = bytearray(records[1].image.read_bytes())
    content[60:90] = bytes(30)  # the header and the end are sound
    records[1].image.write_bytes(bytes(content))
    assert look(records, decode=True).unreadable == 2
    # Those that are augmented are decoded in any case.
    unreadable = set()
    for samples, seed in product((1, 4), range(8)):
        report = look(records, decode=False, samples=samples, seed=seed)
        unreadable.add(report.unreadable)
        assert len(report.faults) == len(set(report.faults)) == report.unreadable + 1
        assert samples == 1 or report.unreadable == 2
    assert unreadable == {1, 2}


def test_sizes_are_of_the_upright_picture(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((60, 120, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    turned = record(tmp_path, 1, [[10, 70, 50, 115]])
    lying = Record(
        tmp_path / "turned.jpg", turned.boxes, turned.landmarks, turned.ignored, "a:1", turned.numbers
    )
    for decode in (True, False):
        report = look([lying], decode=decode)
        assert (report.faults, report.leaving) == ((), 0)


def test_a_part_is_augmented_the_same_for_the_same_seed(records: list[Record]) -> None:
    seen: list[tuple[int, int]] = []
    report = look(records, samples=2, progress=lambda *each: seen.append(each))
    assert report.augmented_pictures == 2
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    np.testing.assert_array_equal(report.sheet, look(records, samples=2).sheet)


def test_the_sheet_shows_boxes_ignored_ones_in_grey_and_landmarks(tmp_path: Path) -> None:
    marks = np.full((2, 5, 2), np.nan, np.float32)
    marks[0] = [[150, 150], [250, 150], [200, 200], [150, 250], [250, 250]]
    given = record(
        tmp_path,
        1,
        [[100, 100, 300, 300], [400, 400, 500, 500]],
        landmarks=marks,
        ignored=np.array([False, True]),
    )
    sheet = look([given]).sheet
    assert sheet.dtype == np.uint8
    tile = sheet[8 : 8 + 320, 8 : 8 + 320].astype(int)
    scale = 320 / 512

    def at(x: float, y: float) -> np.ndarray:
        return tile[round(y * scale) - 1 : round(y * scale) + 1, round(x * scale) - 1 : round(x * scale) + 1]

    def is_grey(pixels: np.ndarray) -> bool:
        return bool((np.ptp(pixels, axis=-1) < 5).all())

    green = at(100, 200).reshape(-1, 3)
    assert (green[:, 1] - green[:, 2]).max() > 100
    assert is_grey(at(400, 450))
    assert at(400, 450).max() > 120  # but the picture is darker: there is a line
    assert at(450, 450).max() < 70
    left, right = at(150, 150).reshape(-1, 3), at(250, 150).reshape(-1, 3)
    assert (left[:, 2] - left[:, 0]).max() > 100  # orange
    assert (right[:, 0] - right[:, 2]).max() > 100  # blue


def test_many_pictures_on_a_sheet(tmp_path: Path) -> None:
    many = [record(tmp_path, number, [[20, 20, 100, 100]]) for number in range(20)]
    sheet = look(many).sheet
    assert sheet.shape == (4 * (320 + 24 + 8) + 8, 4 * 328 + 8, 3)
    assert look(many[:2]).sheet.shape == (320 + 24 + 16, 2 * 328 + 8, 3)


def test_in_words(records: list[Record]) -> None:
    text = "\n".join(report_lines(look(records, tuple(f"a.txt:{number}: wrong" for number in range(9)))))
    for words in (
        "4 pictures, 1 of them without a face to train on",
        "6 faces and 1 ignored; 1 with landmarks",
        "8-16 px 1 (16.7 %)",
        "1 boxes leave their picture",
        "label.txt:41: 500, 490",
        "0.0 % of them (0) have no anchor",
        "10 faults, 0 of them pictures that cannot be read",
        "a.txt:0: wrong",
        "… and 5 more",
    ):
        assert words in text


def test_in_words_without_any_face(tmp_path: Path) -> None:
    text = "\n".join(report_lines(look([record(tmp_path, 1, [])])))
    assert "0 faces and 0 ignored" in text
    assert "0 faults" in text


def test_what_it_does_not_take(records: list[Record]) -> None:
    with pytest.raises(ValueError, match="records must hold at least one picture, got none"):
        look([])
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        look(records, samples=0)
