"""The text files of WIDER FACE: official ones, those of others, and broken ones."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinaface_fast import DatasetError, data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACE = "449 330 122 149 2 1 0 1 2 1 "
#: With a blank at the end of each line of numbers, as the authors published theirs.
OFFICIAL = (
    f"0--Parade/0_a_849.jpg\n1\n{FACE}\n0--Parade/0_b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
    f"1--X/c d.jpg\n2\n{FACE}\n9 8 0 0 0 0 0 0 0 0 \n"
)
LABEL = (
    "449 330 122 149 488.906 373.643 0.0 542.089 376.442 0.0 515.031 412.83 1.0 485.174 425.893 0.0 "
    "538.357 431.491 0.0 0.82"
)
UNLABELLED = f"78 221 7 8 {' '.join(['-1.0'] * 15)} 0.2"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def _write(content: str | bytes) -> Path:
        path = tmp_path / "file.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


# Annotations


def test_official_annotations(write) -> None:
    first, empty, last = data.read_annotations(write(OFFICIAL))
    assert [each.name for each in (first, empty, last)] == ["0--Parade/0_a_849", "0--Parade/0_b", "1--X/c d"]
    np.testing.assert_array_equal(first.boxes, np.array([[449, 330, 571, 479]], dtype=np.float32))
    assert first.boxes.dtype == np.float32
    assert list(first.attributes) == list(data.ATTRIBUTES)
    assert [values.tolist() for values in first.attributes.values()] == [[2], [1], [0], [1], [2], [1]]
    assert first.attributes["blur"].dtype == np.int8
    assert first.landmarks is None
    assert empty.boxes.shape == (0, 4)
    assert empty.attributes["pose"].shape == (0,)
    np.testing.assert_array_equal(last.boxes[1], [9, 8, 9, 8])


@pytest.mark.parametrize(
    "content",
    [
        OFFICIAL.replace("\n0 0 0 0 0 0 0 0 0 0 \n", "\n"),
        OFFICIAL.replace("\n", "\r\n"),
        OFFICIAL.replace(" \n", "\n").rstrip() + "\n \n\n",
        "\ufeff" + OFFICIAL.replace("449", "4.49e2").replace("0 0 0 0\n", "0.0 0 -0 0\n"),
    ],
    ids=["no line of zeros", "CRLF", "blanks", "BOM and floats"],
)
def test_other_spellings_of_the_same(content: str, write) -> None:
    expected = data.read_annotations(write(OFFICIAL))
    for one, other in zip(data.read_annotations(write(content)), expected, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_a_picture_of_zeros_at_the_end_and_an_empty_file(write) -> None:
    assert [len(each.boxes) for each in data.read_annotations(write("a/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0"))] == [
        0
    ]
    assert [len(each.boxes) for each in data.read_annotations(write("a/b.jpg\n0"))] == [0]
    assert data.read_annotations(write("")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0--Parade/a\n1\n", "1: expected the name of a picture, such as event/name.jpg, got '0--P"),
        ("/etc/a.jpg\n0\n", "1: expected the name .* .inside the folder of the pictures., got '/etc/a.jpg'"),
        ("a/../../b.jpg\n0\n", "1: expected the name"),
        ("a//b.jpg\n0\n", "1: expected the name .* no part of it empty"),
        ("a/\x07.jpg\n0\n", "1: expected the name .*printable"),
        (".jpg\n0\n", "1: expected the name"),
        ("a/b.jpg\none\n", "2: expected the number of faces, got 'one'"),
        ("a/b.jpg\n-1\n", "2: expected the number of faces, got '-1'"),
        ("a/b.jpg\n1.5\n", "2: expected the number of faces"),
        ("a/b.jpg\n1_0\n", "2: expected the number of faces"),
        ("a/b.jpg", "2: expected the number of faces, got the end of the file"),
        (f"a/b.jpg\n3\n{FACE}\n{FACE}\n", "5: expected 3 faces of a/b.jpg, got the end of the file"),
        ("a/b.jpg\n999999999\n", "3: expected 999999999 faces"),
        (f"a/b.jpg\n1\n{FACE}\n{FACE}\n", f"4: expected the name of a picture.*, got '{FACE.strip()}'"),
        (f"a/b.jpg\n2\n{FACE}\nc/d.jpg\n0\n", "4: expected 10 numbers, got 1: 'c/d.jpg'"),
        # Nothing but blank lines, of which NumPy would warn.
        ("a/b.jpg\n1\n\na/c.jpg\n0\n", "3: expected 10 numbers, got 0: ''"),
        ("a/b.jpg\n2\n \n\t\na/c.jpg\n0\n", "3: expected 10 numbers, got 0: ''"),
        ("a/b.jpg\n1\n1 2 3 4 0 0 0 0 0\n", "3: expected 10 numbers, got 9: '1 2 3"),
        (f"a/b.jpg\n1\n{FACE} 1\n", "3: expected 10 numbers, got 11"),
        (f"a/b.jpg\n2\n\n{FACE}\n", "3: expected 10 numbers, got 0: ''"),
        ("a/b.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", "3: expected a finite number in column 3, got 'x'"),
        ("a/b.jpg\n1\n1 nan 3 4 0 0 0 0 0 0\n", "3: expected a finite number in column 2, got 'nan'"),
        ("a/b.jpg\n1\n1 2 3 inf 0 0 0 0 0 0\n", "3: expected a finite number in column 4, got 'inf'"),
        ("a/b.jpg\n1\n1 2 3 1e999 0 0 0 0 0 0\n", "3: expected a finite number in column 4, got '1e999'"),
        ("a/b.jpg\n1\n1 2 3 1_0 0 0 0 0 0 0\n", "3: expected a finite number in column 4, got '1_0'"),
        ("a/b.jpg\n1\n1 2 3 1e30 0 0 0 0 0 0\n", "3: expected coordinates from -1000000000 to 1000000000"),
        (
            f"a/b.jpg\n2\n{FACE}\n1 2 3 -4 0 0 0 0 0 0\n",
            "4: expected a width and height of at least 0, got '1",
        ),
        (
            "a/b.jpg\n1\n1 2 3 4 0 0 0 0 0.5 0\n",
            "3: expected a whole number from 0 to 127 as occlusion, got",
        ),
        ("a/b.jpg\n1\n1 2 3 4 0 0 0 0 0 300\n", "3: expected a whole number from 0 to 127 as pose"),
        ("a/b.jpg\n0\na/c.jpg\n0\na/b.jpg\n0\n", "5: expected another picture.*, got a/b again, of line 1"),
        (b"a/b.jpg\n0\n\xff\n", "3: expected UTF-8 text, got the byte 0xff"),
        ("a" * 200, "1: expected .*a{60}…'$"),
    ],
)
def test_broken_annotations(content: str | bytes, message: str, write) -> None:
    path = write(content)
    with pytest.raises(DatasetError, match=f"^{path}:{message}"):
        data.read_annotations(path)


@pytest.mark.parametrize(
    "read", [data.read_annotations, data.read_labels, data.read_prediction, data.read_names]
)
def test_a_file_that_is_not_there_and_a_folder(read, tmp_path: Path) -> None:
    for path in (tmp_path / "no.txt", tmp_path):
        with pytest.raises(DatasetError, match=f"^{path}: cannot be read: "):
            read(path)
        with pytest.raises(DatasetError, match=str(path)):
            read(os.fspath(path))


def test_the_official_files_agree(wider_dir: Path) -> None:
    """The text and the MATLAB files were published side by side; an oracle reads the latter."""
    pytest.importorskip("scipy.io")
    from tests.reference import wider_ap

    names = data.read_names(wider_dir / "images.txt")
    annotations = data.read_annotations(wider_dir / "wider_face_val_bbx_gt.txt")
    assert sorted(each.name for each in annotations) == sorted(names)
    truth = wider_ap.read_ground_truth(wider_dir / "ground_truth", names)
    attributes = data.read_attributes(wider_dir / "ground_truth", [each.name for each in annotations])
    for each in annotations:
        expected = truth[each.name].boxes
        np.testing.assert_array_equal(each.boxes[:, :2], expected[:, :2])
        np.testing.assert_array_equal(each.boxes[:, 2:] - each.boxes[:, :2], expected[:, 2:])
    for attribute in data.ATTRIBUTES:
        together = np.concatenate([each.attributes[attribute] for each in annotations])
        np.testing.assert_array_equal(together, attributes[attribute])


def test_a_file_as_large_as_the_training_set(write) -> None:
    """12,880 pictures with 159,424 faces, as published."""
    counts = [13] * 4864 + [12] * 8016
    path = write("".join(f"e/{i}.jpg\n{n}\n" + f"{FACE}\n" * n for i, n in enumerate(counts)))
    annotations = data.read_annotations(path)
    assert (len(annotations), sum(len(each.boxes) for each in annotations)) == (12880, 159424)


# Labels


def test_labels(write) -> None:
    content = f"# 0--Parade/a.jpg\n{LABEL}\n{UNLABELLED}\n# 0--Parade/b.jpg\n\n# c.jpg\n361 98 263 339\n"
    first, empty, alone = data.read_labels(write(content))
    assert [each.name for each in (first, empty, alone)] == ["0--Parade/a", "0--Parade/b", "c"]
    np.testing.assert_array_equal(first.boxes, [[449, 330, 571, 479], [78, 221, 85, 229]])
    points = np.array(LABEL.split()[4:19], dtype=np.float32).reshape(5, 3)[:, :2]
    np.testing.assert_array_equal(first.landmarks[0], points)
    assert first.landmarks.dtype == np.float32
    assert first.landmarks[0, 0, 0] < first.landmarks[0, 1, 0], "left and right as seen in the image"
    assert np.isnan(first.landmarks[1]).all()
    assert (empty.boxes.shape, empty.landmarks.shape) == ((0, 4), (0, 5, 2))
    np.testing.assert_array_equal(alone.boxes, [[361, 98, 624, 437]])
    assert np.isnan(alone.landmarks).all()
    assert not first.attributes


def test_labels_of_the_validation_set_are_boxes_alone(write) -> None:
    [picture] = data.read_labels(write("# a/b.jpg\r\n361 98 263 339\r\n1 2 3 4\r\n"))
    assert picture.landmarks.shape == (2, 5, 2)
    assert np.isnan(picture.landmarks).all()
    np.testing.assert_array_equal(picture.boxes[1], [1, 2, 4, 6])


def test_landmarks_that_nobody_annotated(write) -> None:
    """One point by its state; one without a state, as people write them who have only four."""
    states = LABEL.replace("542.089 376.442 0.0", "5 6 -1").replace("515.031 412.83 1.0", "-1 -1 0")
    [picture] = data.read_labels(write(f"# a/b.jpg\n{states}\n"))
    assert np.isnan(picture.landmarks[0]).all(axis=1).tolist() == [False, True, True, False, False]
    outside = LABEL.replace("488.906", "-1")
    [picture] = data.read_labels(write(f"# a/b.jpg\n{outside}\n"))
    np.testing.assert_array_equal(picture.landmarks[0, 0], np.float32([-1, 373.643]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3 4\n", "1: expected a picture, such as # event/name.jpg, got '1 2 3 4'"),
        ("# \n", "1: expected the name of a picture"),
        ("# a/../b.jpg\n", "1: expected the name of a picture"),
        ("# a/b.jpg\n1 2 3\n", "2: expected 4 or 20 numbers, got 3"),
        (f"# a/b.jpg\n{LABEL}\n{LABEL} 7\n", "3: expected 4 or 20 numbers, got 21"),
        (f"# a/b.jpg\n{LABEL}\n1 2 3 -4\n", "3: expected a width and height of at least 0"),
        (f"# a/b.jpg\n{LABEL.replace('488.906', 'nan')}\n", "2: expected a finite number in column 5"),
        (f"# a/b.jpg\n{LABEL.replace('488.906', '1e300')}\n", "2: expected coordinates from"),
        ("# a/b.jpg\n# a/b.jpg\n", "2: expected another picture than before, got a/b again, of line 1"),
    ],
)
def test_broken_labels(content: str, message: str, write) -> None:
    with pytest.raises(DatasetError, match=f"file.txt:{message}"):
        data.read_labels(write(content))


def test_landmarks_without_boxes_of_some_are_no_landmarks(write) -> None:
    """Lines of both kinds in one picture."""
    [picture] = data.read_labels(write(f"# a/b.jpg\n1 2 3 4\n{LABEL}\n1 2 3 4\n"))
    assert np.isnan(picture.landmarks).all(axis=(1, 2)).tolist() == [True, False, True]


# Lines, and faults that are noted


def test_the_lines_of_pictures_and_faces(write) -> None:
    first, empty, last = data.read_annotations(write(OFFICIAL))
    assert [each.line for each in (first, empty, last)] == [1, 4, 7]
    assert [each.face_lines.tolist() for each in (first, empty, last)] == [[3], [], [9, 10]]
    first, empty, last = data.read_labels(
        write(f"# a/b.jpg\n{LABEL}\n\n1 2 3 4\n# a/c.jpg\n# a/d.jpg\n5 6 7 8\n")
    )
    assert [each.line for each in (first, empty, last)] == [1, 5, 6]
    assert [each.face_lines.tolist() for each in (first, empty, last)] == [[2, 4], [], [7]]
    assert last.boxes.tolist() == [[5, 6, 12, 14]]


def test_faults_of_annotations_are_noted_and_left_out(write) -> None:
    second = FACE.replace("449", "1")
    wrong = ["1 nan 3 4 0 0 0 0 0 0", "1 2 3 -4 0 0 0 0 0 0", "1 2 3 4 0 0 0 0 300 0", "1 2 3", ""]
    path = write("\n".join(["a/b.jpg", "6", *wrong, FACE, "a/c.jpg", "2", wrong[0], second]) + "\n")
    faults: list[str] = []
    first, last = data.read_annotations(path, faults=faults)
    assert (first.boxes[:, 0].tolist(), first.face_lines.tolist(), first.line) == ([449], [8], 1)
    assert (last.boxes[:, 0].tolist(), last.face_lines.tolist(), last.line) == ([1], [12], 9)
    assert [values.tolist() for values in last.attributes.values()] == [[2], [1], [0], [1], [2], [1]]
    assert [fault.removeprefix(f"{path}:").split(":")[0] for fault in faults] == [
        "3",
        "4",
        "5",
        "6",
        "7",
        "11",
    ]
    # The first of them is what is raised where none are noted.
    with pytest.raises(DatasetError) as caught:
        data.read_annotations(path)
    assert str(caught.value) == faults[0]


def test_nothing_is_noted_where_nothing_is_wrong(write) -> None:
    faults: list[str] = []
    [*noted] = data.read_annotations(write(OFFICIAL), faults=faults)
    for one, other in zip(noted, data.read_annotations(write(OFFICIAL)), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert faults == []


def test_faults_of_labels_leave_the_box_if_that_can_be_read(write) -> None:
    nose = LABEL.replace("515.031", "nan")
    box = LABEL.replace("449 330", "449 inf")
    path = write(f"# a/b.jpg\n{nose}\n{LABEL}\n{box}\n{LABEL} 7\n")
    faults: list[str] = []
    [picture] = data.read_labels(path, faults=faults)
    np.testing.assert_array_equal(picture.boxes, [[449, 330, 571, 479]] * 2)
    assert np.isnan(picture.landmarks).all(axis=(1, 2)).tolist() == [True, False]
    assert picture.face_lines.tolist() == [2, 3]
    assert faults == [
        f"{path}:2: expected a finite number in column 11, got 'nan'; the face is taken without landmarks",
        f"{path}:4: expected a finite number in column 2, got 'inf'",
        f"{path}:5: expected 4 or 20 numbers, got 21: '{LABEL[:60]}…'",
    ]


@pytest.mark.parametrize(
    ("read", "content", "line"),
    [
        (data.read_annotations, f"a/b.jpg\n2\n{FACE}\nc/d.jpg\n0\n", 4),
        (data.read_annotations, f"a/b.jpg\n1\n{FACE}\n{FACE}\n", 4),
        (data.read_annotations, "a/b.jpg\nmany\n", 2),
        (data.read_labels, "1 2 3 4\n", 1),
        (data.read_labels, "# a/b.jpg\n1 2 3 4\nc/d.jpg\n1 2 3 4\n", 3),
        (data.read_labels, "# a/b.jpg\n# a/b.jpg\n", 2),
    ],
)
def test_pictures_that_cannot_be_told_apart_are_an_error_always(read, content: str, line: int, write) -> None:
    path = write(content)
    with pytest.raises(DatasetError, match=f"^{path}:{line}: expected"):
        read(path, faults=[])


# Predictions


def columns(count: int, width: int):
    numbers = st.floats(-1e4, 1e4, allow_subnormal=False)
    return hnp.arrays(np.float64, (count, width), elements=numbers)


@settings(deadline=None)
@given(faces=st.integers(0, 4).flatmap(lambda n: st.tuples(columns(n, 4), columns(n, 1), columns(n, 10))))
def test_what_is_written_reads_back(faces, tmp_path_factory: pytest.TempPathFactory) -> None:
    boxes, scores, points = faces
    folder = tmp_path_factory.mktemp("predictions")
    for landmarks in (None, points.reshape(-1, 5, 2)):
        path = folder / "event" / "a b.txt"
        data.write_prediction(path, "event/a b", boxes, scores[:, 0].astype(np.float32), landmarks)
        read = data.read_prediction(path)
        assert len(read) == len(boxes)
        np.testing.assert_allclose(read.boxes, boxes, rtol=0, atol=1.1e-6)
        np.testing.assert_array_equal(read.scores.astype(np.float32), scores[:, 0].astype(np.float32))
        if landmarks is None or not len(boxes):
            assert read.landmarks is None
        else:
            np.testing.assert_allclose(read.landmarks, landmarks, rtol=0, atol=0.6e-6)
    assert [each.name for each in folder.rglob("*")] == ["event", "a b.txt"]


def test_the_format_of_a_prediction(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    data.write_prediction(
        path, "e/x", [[1, 2, 4, 6.5]], np.array([0.1], np.float32), np.arange(10).reshape(1, 5, 2)
    )
    first, count, face = path.read_bytes().decode().rstrip("\n").split("\n")
    assert (first, count) == ("e/x.jpg", "1")
    assert face.startswith("1.000000 2.000000 3.000000 4.500000 0.100000001 0.000000 1.000000 2.000000")
    assert len(face.split()) == 15
    data.write_prediction(path, "e/x", [], [])
    assert path.read_text() == "e/x.jpg\n0\n"


@pytest.mark.parametrize(
    "content",
    [
        "0_Parade_marchingband_1_465\n2\n1 2 3 4 0.9\n10 20 30 40 0.5\n",
        "any name.jpg\r\n2\r\n1 2 3 4 0.9 \r\n10 20 30 40 0.5 \r\n\r\n",
        "/data/e/x.jpg\n2 \n1 2 3 4 .9 7\n10 20 30 40 5e-1 8\n",
        "x\n2\n1 2 3 4 0.9\n10 20 30 40 0.5 6 7\n",
    ],
    ids=["integers", "CRLF", "a column more", "not all the same"],
)
def test_predictions_of_others(content: str, write) -> None:
    read = data.read_prediction(write(content))
    np.testing.assert_array_equal(read.boxes, [[1, 2, 4, 6], [10, 20, 40, 60]])
    np.testing.assert_array_equal(read.scores, [0.9, 0.5])
    assert read.landmarks is None
    assert read.boxes.dtype == read.scores.dtype == np.float64


def test_a_negative_side_is_the_detector_s_own_business(write) -> None:
    np.testing.assert_array_equal(data.read_prediction(write("x\n1\n5 5 -1 2 0.5\n")).boxes, [[5, 5, 4, 7]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: expected the name of a picture, got the end of the file"),
        ("x\n", "2: expected the number of faces, got the end of the file"),
        ("x\ntwo\n", "2: expected the number of faces, got 'two'"),
        ("x\n2\n1 2 3 4 0.5\n", "4: expected 2 faces as line 2 says, got the end of the file"),
        ("x\n0\n1 2 3 4 0.5\n", "3: expected the end of the file, got '1 2 3 4 0.5'"),
        ("x\n1\n1 2 3 4\n", "3: expected 5 or more numbers, got 4: '1 2 3 4'"),
        ("x\n1\n1 2 3 4 nan\n", "3: expected a finite number in column 5, got 'nan'"),
        ("x\n1\n1 2 3 4e99 1\n", "3: expected coordinates from"),
    ],
)
def test_broken_predictions(content: str, message: str, write) -> None:
    with pytest.raises(DatasetError, match=f"file.txt:{message}"):
        data.read_prediction(write(content))


def test_no_landmarks_are_written_where_one_is_unknown(tmp_path: Path) -> None:
    landmarks = np.zeros((2, 5, 2))
    boxes, scores = [[1, 2, 3, 4], [2, 2, 9, 9]], [0.9, 0.5]
    data.write_prediction(tmp_path / "known.txt", "e/x", boxes, scores, landmarks)
    landmarks[1, 4] = np.nan
    data.write_prediction(tmp_path / "unknown.txt", "e/x", boxes, scores, landmarks)
    known, unknown = (data.read_prediction(tmp_path / f"{name}.txt") for name in ("known", "unknown"))
    assert known.landmarks is not None
    assert unknown.landmarks is None
    np.testing.assert_array_equal(unknown.boxes, known.boxes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [1, 2, 3, 4]}, r"boxes must have the shape \(N, 4\), got \(4,\)"),
        ({"scores": [0.5, 0.5]}, r"scores must have the shape \(1\), got \(2,\)"),
        ({"landmarks": np.zeros((1, 10))}, r"landmarks must have the shape \(1, 5, 2\), got \(1, 10\)"),
        ({"boxes": [[1, 2, 3, np.nan]]}, "boxes must be from -1000000000 to 1000000000, got nan"),
        ({"scores": [np.inf]}, "scores must be from .* got inf"),
        ({"name": "../x"}, "name must be event/name .inside the folder of the pictures., got '../x'"),
        ({"name": "e/x\n9"}, "name must be event/name .printable"),
    ],
)
def test_what_cannot_be_written(changes: dict, message: str, tmp_path: Path) -> None:
    arguments = {"path": tmp_path / "x.txt", "name": "e/x", "boxes": [[1, 2, 3, 4]], "scores": [0.5]}
    with pytest.raises(ValueError, match=message):
        data.write_prediction(**(arguments | changes))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    data.write_prediction(path, "e/x", [[1, 2, 3, 4]], [0.5])
    before = path.read_bytes()

    def _full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", _full)
    with pytest.raises(OSError, match="No space left"):
        data.write_prediction(path, "e/x", [], [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    few, many = np.zeros((1, 4)), np.zeros((500, 4))
    data.write_prediction(path, "e/x", few, np.zeros(1))
    stop = threading.Event()

    def _rewrite() -> None:
        while not stop.is_set():
            for boxes in (many, few):
                data.write_prediction(path, "e/x", boxes, np.zeros(len(boxes)))

    writer = threading.Thread(target=_rewrite)
    writer.start()
    try:
        assert {len(data.read_prediction(path)) for _ in range(200)} <= {1, 500}
    finally:
        stop.set()
        writer.join()


def test_predictions_of_a_list(tmp_path: Path) -> None:
    for number, name in enumerate(("e/a", "e/b", "f/c")):
        data.write_prediction(tmp_path / f"{name}.txt", name, np.zeros((number, 4)), np.zeros(number))
    assert [len(each) for each in data.read_predictions(tmp_path, ["f/c", "e/a"])] == [2, 0]
    with pytest.raises(DatasetError, match=r"e/no.txt: there is no such file \(2 of 3 pictures have none\)"):
        data.read_predictions(tmp_path, ["e/a", "e/no", "e/neither"])


# Lists


def test_names(write) -> None:
    assert data.read_names(write("e/a\n\ne/b.jpg\r\n/e/c d.jpg \n")) == ["e/a", "e/b", "e/c d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n", "1: expected the name of a picture, got the end of the file"),
        ("e/a\n../b\n", r"2: expected the name of a picture, such as event/name.jpg .*, got '../b'"),
        ("C:/b\n", "1: expected the name"),
        ("e\\b\n", "1: expected the name"),
        ("e/a.jpg\ne/b\ne/a\n", "3: expected another picture than before, got e/a again, of line 1"),
    ],
)
def test_broken_names(content: str, message: str, write) -> None:
    with pytest.raises(DatasetError, match=f"file.txt:{message}"):
        data.read_names(write(content))


def test_the_list_of_the_photographs(wider_dir: Path) -> None:
    names = data.read_names(wider_dir / "images.txt")
    assert len(names) == 1092
    assert all((wider_dir / "images" / f"{name}.jpg").is_file() for name in names[::50])


# Anything

READERS = [data.read_annotations, data.read_labels, data.read_prediction, data.read_names]
PIECES = [
    *("a/b.jpg", "# ", "0", "1", "2", " ", "\n", "\n", "\r\n"),
    *(FACE, LABEL, UNLABELLED, "1 2 3 4", "1 2 3 4 0.5"),
]
WHOLE = [OFFICIAL, f"# a/b.jpg\n{LABEL}\n{UNLABELLED}\n", f"x\n1\n{LABEL}\n"]


def damaged(whole: str, where: int, what: str) -> str:
    return whole[:where] + what + whole[where + 1 :]


_content = st.one_of(
    st.binary(max_size=80),
    st.one_of(
        st.text(max_size=80),
        st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=2)), max_size=12).map("".join),
        st.builds(damaged, st.sampled_from(WHOLE), st.integers(0, 200), st.text(max_size=2)),
    ).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@pytest.mark.parametrize("read", READERS)
@settings(deadline=None, max_examples=200)
@given(content=_content)
def test_anything_is_read_or_a_dataset_error(
    read: Callable[[Path], object], content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.txt"
    path.write_bytes(content)
    try:
        read(path)
    except DatasetError as error:
        assert str(path) in str(error)  # noqa: PT017


@settings(deadline=None, max_examples=200)
@given(content=st.text(st.sampled_from("01-+.e_ nfi\tx\x0b\x00é\u2003"), max_size=30))
def test_the_fast_way_reads_no_other_numbers_than_the_one_that_knows_the_lines(
    content: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A line before it with one column more takes away the fast way."""
    path = tmp_path_factory.getbasetemp() / "numbers.txt"
    results = []
    for faces in ([content], ["1 2 3 4 5 6 7", content]):
        path.write_text("\n".join(["x", str(len(faces)), *faces]) + "\n", newline="")
        try:
            found = data.read_prediction(path)
            results.append((found.boxes[-1].tolist(), float(found.scores[-1])))
        except DatasetError:
            results.append(None)
    assert results[0] == results[1]
