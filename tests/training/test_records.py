"""Training data in each layout, and what is wrong with it, by file and line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast import DatasetError
from retinaface_fast.training.records import read_records

if TYPE_CHECKING:
    from pathlib import Path

TAIL = " 0 0 0 0 0 0"
MARKS = " ".join(f"{10 + number} {20 + number} 0.0" for number in range(5)) + " 0.9"
WIDER = f"e/a.jpg\n2\n10 20 30 40{TAIL}\n5 6 7 8 0 0 0 1 0 0\ne/b.jpg\n0\n0 0 0 0{TAIL}\n"
LABEL = f"# e/a.jpg\n10 20 30 40 {MARKS}\n5 6 7 8 {' '.join(['-1.0'] * 15)} 0.1\n# e/b.jpg\n"


def touch(folder: Path, *names: str) -> None:
    for name in names or ("e/a.jpg", "e/b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")  # no picture is opened


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    (tmp_path / "wider_face_split").mkdir()
    (tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(WIDER)
    touch(tmp_path / "WIDER_train" / "images")
    return tmp_path


@pytest.fixture
def label(tmp_path: Path) -> Path:
    (tmp_path / "label.txt").write_text(LABEL)
    touch(tmp_path / "images")
    return tmp_path


# Layouts


def test_the_official_layout(wider: Path) -> None:
    records, faults = read_records(wider).records, read_records(wider).faults
    assert faults == ()
    first, empty = records
    assert first.image == wider / "WIDER_train" / "images" / "e" / "a.jpg"
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [5, 6, 12, 14]])
    assert first.ignored.tolist() == [False, True]  # invalid
    assert first.landmarks.shape == (2, 5, 2)
    assert np.isnan(first.landmarks).all()
    file = wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    assert (first.source, first.place(0), first.place(1)) == (f"{file}:1", f"{file}:3", f"{file}:4")
    assert (empty.boxes.shape, empty.landmarks.shape, empty.ignored.shape) == ((0, 4), (0, 5, 2), (0,))
    assert empty.source == f"{file}:5"
    for array in (first.boxes, first.landmarks):
        assert array.dtype == np.float32


def test_the_official_layout_as_archives_unpack_it(wider: Path) -> None:
    # Everything a folder deeper, and each part in a folder of its own.
    for source, target in (("wider_face_split", "split"), ("WIDER_train", "WIDER_train_2")):
        (wider / "data" / target).mkdir(parents=True)
        (wider / source).rename(wider / "data" / target / source)
    assert len(read_records(wider / "data")) == 2
    [*_, last] = read_records(wider / "data").records
    assert last.image.is_file()


def test_the_layout_of_the_authors(label: Path) -> None:
    first, empty = read_records(label).records
    np.testing.assert_array_equal(first.landmarks[0], [[10 + number, 20 + number] for number in range(5)])
    assert np.isnan(first.landmarks[1]).all()
    assert first.ignored.tolist() == [False, False]
    assert first.place(1) == f"{label / 'label.txt'}:3"
    assert len(empty.boxes) == 0


def test_files(label: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    touch(folder)
    (tmp_path / "boxes.txt").write_text("# e/a.jpg\n1 2 3 4\n# e/b.jpg\n1 2 3 4\n")
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(WIDER)
    for name in ("label.txt", "boxes.txt", "wider_face_val_bbx_gt.txt"):
        assert read_records(tmp_path / name).records[0].image == tmp_path / "images" / "e" / "a.jpg"
        given = read_records(tmp_path / name, images=folder)
        assert given.records[0].image == folder / "e" / "a.jpg"
    (folder / "boxes.txt").write_text("# e/a.jpg\n1 2 3 4\n")  # no images/ beside it
    assert read_records(folder / "boxes.txt").records[0].image == folder / "e" / "a.jpg"


def coco(**changes: object) -> str:
    usual = {
        "images": [{"id": 7, "file_name": "e/a.jpg"}, {"id": 3, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 3, "bbox": [1, 2, 3.5, 4], "iscrowd": 1},
            {"id": 9, "image_id": 3, "bbox": [10, 20, 30, 40], "keypoints": [1, 2, 2]},
        ],
    }
    return json.dumps(usual | changes)


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    path.write_text(coco())
    touch(tmp_path / "images", "e/a.jpg", "b.png")
    empty, two = read_records(path).records
    assert (empty.image, len(empty.boxes)) == (tmp_path / "images" / "e" / "a.jpg", 0)
    np.testing.assert_array_equal(two.boxes, [[1, 2, 4.5, 6], [10, 20, 40, 60]])
    assert two.ignored.tolist() == [True, False]
    assert np.isnan(two.landmarks).all()
    assert (two.source, two.place(1)) == (f"{path}:image 3", f"{path}:annotation 9")


def test_names(label: Path) -> None:
    (label / "names.txt").write_text("e/b\n")
    [only] = read_records(label, names=label / "names.txt").records
    assert only.image.name == "b.jpg"
    (label / "names.txt").write_text("e/b\ne/a\n")
    assert [each.image.name for each in read_records(label, names=label / "names.txt").records] == [
        "b.jpg",
        "a.jpg",
    ]
    (label / "names.txt").write_text("e/b\nx/1\nx/2\nx/3\nx/4\n")
    message = r"names.txt: expected pictures of .*label.txt, which does not know 4 of 5: x/1, x/2, x/3, …$"
    with pytest.raises(DatasetError, match=message):
        read_records(label, names=label / "names.txt")


# Faults


@pytest.mark.parametrize(
    ("line", "fault", "kept"),
    [
        ("1 2 0 4", r":4: expected a box with an area, got 0 x 4 pixels", 1),
        ("1 2 3 0", r":4: expected a box with an area, got 3 x 0 pixels", 1),
        ("1 2 3 -4", r":4: expected a width and height of at least 0, got '1 2 3 -4", 1),
        ("1 nan 3 4", r":4: expected a finite number in column 2, got 'nan'", 1),
        ("1 x 3 4", r":4: expected a finite number in column 2, got 'x'", 1),
        ("1 2 3e300 4", r":4: expected coordinates from", 1),
        ("1 2 3", r":4: expected 10 numbers, got 9", 1),
        ("16777216 2 0.5 4", r":4: expected a box with an area, got 0 x 4 pixels", 1),  # in float32
    ],
)
def test_wrong_lines(line: str, fault: str, kept: int, wider: Path) -> None:
    file = wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    file.write_text(f"e/a.jpg\n2\n9 9 9 9{TAIL}\n{line}{TAIL}\ne/b.jpg\n1\n5 5 5 5{TAIL}\n")
    found = read_records(wider)
    assert [len(record.boxes) for record in found.records] == [kept, 1]
    assert found.records[0].place(0) == f"{file}:3"
    assert found.records[1].place(0) == f"{file}:7"
    [message] = found.faults
    assert message.startswith(f"{file}{fault.replace(chr(92), '')}")
    with pytest.raises(DatasetError, match=f"^{file}{fault}"):
        read_records(wider, on_fault="fail")


def test_a_face_keeps_its_box_where_its_landmarks_alone_are_wrong(label: Path) -> None:
    file = label / "label.txt"
    file.write_text(
        f"# e/a.jpg\n10 20 30 40 {MARKS.replace('12', 'nan', 1)}\n1 2 3 4 {MARKS} 7\n1 2 3 4 {MARKS}\n"
    )
    found = read_records(file)
    [record] = found.records
    np.testing.assert_array_equal(record.boxes, [[10, 20, 40, 60], [1, 2, 4, 6]])
    assert np.isnan(record.landmarks).all(axis=(1, 2)).tolist() == [True, False]
    assert found.faults[0] == (
        f"{file}:2: expected a finite number in column 11, got 'nan'; the face is taken without landmarks"
    )
    assert found.faults[1].startswith(f"{file}:3: expected 4 or 20 numbers, got 21")
    assert record.place(1) == f"{file}:4"


def test_a_picture_that_is_not_there(label: Path) -> None:
    (label / "images" / "e" / "a.jpg").unlink()
    found = read_records(label)
    assert [record.image.name for record in found.records] == ["b.jpg"]
    wanted = (
        f"{label / 'label.txt'}:1: expected the picture {label / 'images' / 'e' / 'a.jpg'}, got no such file"
    )
    assert found.faults == (wanted,)
    with pytest.raises(DatasetError, match=r"a\.jpg, got no such file"):
        read_records(label, on_fault="fail")
    (label / "images" / "e" / "b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"label.txt: expected at least one picture .*:1: .*a.jpg"):
        read_records(label)


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        ({"image_id": 4, "bbox": [1, 2, 3, 4]}, "expected the id of a picture as image_id, got 4"),
        ({"image_id": [3], "bbox": [1, 2, 3, 4]}, r"expected the id of a picture as image_id, got \[3\]"),
        ({"image_id": 3}, "expected x, y, width and height as bbox, got None"),
        ({"image_id": 3, "bbox": [1, 2, 3]}, "expected x, y, width and height as bbox"),
        ({"image_id": 3, "bbox": [1, 2, "3", 4]}, "expected numbers as bbox"),
        ({"image_id": 3, "bbox": [1, 2, float("nan"), 4]}, "expected coordinates from"),
        ({"image_id": 3, "bbox": [1, 2, True, 4]}, "expected numbers as bbox"),
        ({"image_id": 3, "bbox": [1, 2, 10**400, 4]}, "expected coordinates from"),
        ({"image_id": 3, "bbox": [1, 2, -3, 4]}, "expected a width and height of at least 0"),
        ({"image_id": 3, "bbox": [1, 2, 0, 4]}, "expected a box with an area, got 0 x 4 pixels"),
    ],
)
def test_wrong_annotations_of_coco(annotation: dict, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    path.write_text(
        coco(annotations=[{"id": 5, **annotation}, {"id": 6, "image_id": 3, "bbox": [1, 2, 3, 4]}])
    )
    touch(tmp_path, "e/a.jpg", "b.png")
    found = read_records(path)
    assert [len(record.boxes) for record in found.records] == [0, 1]
    assert found.records[1].place(0) == f"{path}:annotation 6"
    assert len(found.faults) == 1
    with pytest.raises(DatasetError, match=f"^{path}:annotation 5: {fault}"):
        read_records(path, on_fault="fail")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"faces.json:1: expected JSON"),
        ("[]", "expected a list of objects as images"),
        ("{}", "expected a list of objects as images"),
        (coco(annotations=[1]), "expected a list of objects as annotations"),
        (coco(images=[{"id": 1, "file_name": "../a.jpg"}]), r"in images\[0\], got 1 and '../a.jpg'"),
        (coco(images=[{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]), r"in images\[1\]"),
        (coco(images=[{"id": "1", "file_name": "a"}]), r"in images\[0\], got '1'"),
        (coco(images=[{"id": 1}]), r"in images\[0\], got 1 and None"),
    ],
)
def test_what_is_no_coco(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "faces.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_records(tmp_path / "faces.json")


def test_what_is_no_data(tmp_path: Path, label: Path) -> None:
    with pytest.raises(
        DatasetError, match="no: expected training data, a folder or a file, got no such path"
    ):
        read_records(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"expected wider_face_split/.* beside .*, or label.txt beside"):
        read_records(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"no: expected the folder of the pictures of .*label\.txt"):
        read_records(label, images=tmp_path / "no")
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(DatasetError, match=r"expected at least one picture that is there, got none$"):
        read_records(tmp_path / "other.txt")
    with pytest.raises(ValueError, match="""on_fault must be "skip" or "fail", got 'ask'"""):
        read_records(label, on_fault="ask")  # type: ignore[arg-type]


def test_a_file_whose_pictures_cannot_be_told_apart_is_an_error_always(wider: Path) -> None:
    file = wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    file.write_text(f"e/a.jpg\n3\n9 9 9 9{TAIL}\ne/b.jpg\n0\n")
    with pytest.raises(DatasetError, match=f"{file}:4: expected 10 numbers"):
        read_records(wider)


def test_the_photographs(wider_dir: Path) -> None:
    file = wider_dir / "wider_face_val_bbx_gt.txt"
    found = read_records(file, names=wider_dir / "test_part.txt")
    assert len(found) == 284
    # An oracle that counts lines, and nothing else.
    lines = file.read_text().split("\n")
    names = {line.removesuffix(".jpg") for line in (wider_dir / "test_part.txt").read_text().split()}
    faces = [
        face
        for index, line in enumerate(lines)
        if line.removesuffix(".jpg") in names
        for face in lines[index + 2 : index + 2 + int(lines[index + 1])]
    ]
    area = [face for face in faces if "0" not in face.split()[2:4]]
    assert sum(len(record.boxes) for record in found.records) == len(area)
    assert sum(int(record.ignored.sum()) for record in found.records) == sum(
        face.split()[7] == "1" for face in area
    )
