"""Landmarks that a detector finds, for the faces that have none."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinaface_fast import DatasetError, FaceDetector, ImageError
from retinaface_fast.training.landmark_fill import (
    fill_landmarks,
    load_landmarks,
    save_landmarks,
    wait_for_landmarks,
)
from retinaface_fast.training.records import Record


class Found:
    """A detector's answer: boxes, best first, and landmarks that say which one they are of."""

    def __init__(self, boxes: list[list[float]]) -> None:
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)
        self.landmarks = np.arange(len(boxes), dtype=np.float32)[:, None, None] + np.zeros(
            (1, 5, 2), np.float32
        )


class Detector:
    def __init__(self, boxes: list[list[float]]) -> None:
        self.boxes = boxes
        self.asked: list[Path] = []

    def detect(self, image: Path) -> Found:
        self.asked.append(image)
        if image.name == "broken.jpg":
            raise ImageError(f"{image}: truncated")
        return Found(self.boxes)


def record(boxes: list[list[float]], name: str = "a.jpg", **changes: Any) -> Record:
    usual: dict[str, Any] = {
        "landmarks": np.full((len(boxes), 5, 2), np.nan, np.float32),
        "ignored": np.zeros(len(boxes), bool),
        "source": "label.txt:4",
    }
    return Record(Path(name), np.array(boxes, np.float32).reshape(-1, 4), **(usual | changes))


def taken(filled: Record) -> list[int | None]:
    first = filled.landmarks[:, 0, 0]
    return [None if np.isnan(value) else int(value) for value in first]


def fill(given: Record, detector: Detector, **options: Any) -> Record:
    [filled] = fill_landmarks([given], detector=detector, **options)  # type: ignore[arg-type]
    return filled


# Two faces side by side, overlapping by half; what is found lies nearer to one or the other.
FACES = [[0, 0, 100, 100], [50, 0, 150, 100]]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([[0, 0, 100, 100], [50, 0, 150, 100]], [0, 1]),
        ([[50, 0, 150, 100], [0, 0, 100, 100]], [1, 0]),
        # The surest is nearer to the second face; the next prefers it too, and gets what is left: IoU 0.54.
        ([[48, 0, 148, 100], [30, 0, 130, 100]], [1, 0]),
        # As before, but the first face is too far from it.
        ([[48, 0, 148, 100], [45, 0, 145, 100]], [None, 0]),
        ([[0, 200, 100, 300]], [None, None]),
        ([], [None, None]),
    ],
)
def test_one_to_one_the_surest_first(found: list, wanted: list) -> None:
    given = record(FACES)
    assert taken(fill(given, Detector(found))) == wanted
    assert np.isnan(given.landmarks).all()  # what came is not changed


def test_the_least_overlap() -> None:
    half = Detector([[0, 0, 100, 50]])
    assert taken(fill(record(FACES[:1]), half, min_iou=0.5)) == [0]
    assert taken(fill(record(FACES[:1]), half, min_iou=0.51)) == [None]
    assert taken(fill(record(FACES[:1]), Detector([[300, 0, 400, 50]]), min_iou=0)) == [None]
    with pytest.raises(ValueError, match="min_iou must be between 0 and 1"):
        fill(record(FACES), half, min_iou=1.5)


def test_faces_that_have_landmarks_or_are_ignored_keep_what_they_have_and_their_detection() -> None:
    marks = np.full((2, 5, 2), np.nan, np.float32)
    marks[0, 3] = 77  # one is enough
    filled = fill(record(FACES, landmarks=marks), Detector([[2, 0, 102, 100]]), min_iou=0.1)
    np.testing.assert_array_equal(filled.landmarks, marks)
    ignored = fill(record(FACES, ignored=np.array([True, False])), Detector([[2, 0, 102, 100]]), min_iou=0.1)
    assert taken(ignored) == [None, None]


def test_pictures_that_lack_nothing_are_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector([[0, 0, 100, 100]])
    given = [
        record([], "empty.jpg"),
        record(FACES[:1], "full.jpg", landmarks=np.ones((1, 5, 2), np.float32)),
        record(FACES[:1], "ignored.jpg", ignored=np.array([True])),
        record(FACES[:1], "broken.jpg"),
        record(FACES[:1], "a.jpg"),
    ]
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        filled = fill_landmarks(given, detector=detector, progress=lambda *each: seen.append(each))  # type: ignore[arg-type]
    assert [path.name for path in detector.asked] == ["broken.jpg", "a.jpg"]
    assert seen == [(number, 5) for number in range(1, 6)]
    assert [each.image.name for each in filled] == [each.image.name for each in given]
    assert taken(filled[3]) == [None]
    assert taken(filled[4]) == [0]
    assert "label.txt:4: left without landmarks: broken.jpg: truncated" in caplog.text


def test_a_real_face(astronaut_path: Path) -> None:
    # Where the eyes of the portrait are, as one reads it off the picture: left and right of the nose.
    [filled] = fill_landmarks(
        [record([[175, 60, 270, 190]], str(astronaut_path))], detector=FaceDetector(threads=1), min_iou=0.4
    )
    marks = filled.landmarks[0]
    assert np.isfinite(marks).all()
    assert (marks[:, 0] > 175).all()
    assert (marks[:, 0] < 270).all()
    assert marks[0, 0] < marks[2, 0] < marks[1, 0]
    assert marks[:2, 1].max() < marks[2, 1] < marks[3:, 1].min()


def test_kept_landmarks_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(2, 5, 2)).astype(np.float32)
    landmarks[1, 3] = np.nan
    filled = [record(FACES, landmarks=landmarks), record([], name="b.jpg"), record(FACES[:1], name="c.jpg")]
    bare = [record(FACES), record([], name="b.jpg"), record(FACES[:1], name="c.jpg")]
    save_landmarks(tmp_path / "landmarks.npz", filled, given=bare, weights_sha256="ab")
    restored = load_landmarks(tmp_path / "landmarks.npz", bare, weights_sha256="ab")
    assert [path.name for path in tmp_path.iterdir()] == ["landmarks.npz"]
    assert [one.image for one in restored] == [one.image for one in bare]
    for one, other in zip(restored, filled, strict=True):
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_kept_landmarks_of_other_data(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    given = [record(FACES), record(FACES[:1])]
    save_landmarks(path, given, given=given, weights_sha256="ab")
    # As many faces in as many pictures, and yet others.
    for other in (
        [record(FACES, "b.jpg"), given[1]],
        [record([FACES[0], [0, 0, 9, 9]]), given[1]],
        [record(FACES, landmarks=np.ones((2, 5, 2), np.float32)), given[1]],
    ):
        with pytest.raises(DatasetError, match=r"got those of other data: name another folder, or remove"):
            load_landmarks(path, other, weights_sha256="ab")
    with pytest.raises(DatasetError, match=r"got those of other weights: name another folder, or remove"):
        load_landmarks(path, given, weights_sha256="ac")
    with pytest.raises(
        DatasetError, match=r"landmarks.npz: expected landmarks of 3 faces, got those of other"
    ):
        load_landmarks(path, [record(FACES[:1]), record(FACES)], weights_sha256="ab")
    for content in (b"PK no archive", b"", b"PK\3\4"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"landmarks.npz: expected kept landmarks"):
            load_landmarks(path, [record(FACES)], weights_sha256="ab")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # an array and no archive
    with pytest.raises(DatasetError, match=r"landmarks.npz: expected kept landmarks"):
        load_landmarks(path, [record(FACES)], weights_sha256="ab")
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetError, match=r"cannot write .*landmarks.npz"):
        save_landmarks(path, given, given=given, weights_sha256="ab")


@pytest.mark.parametrize("dtype", ["U4", "c8", "f8", "O"])
def test_kept_landmarks_of_another_type(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "landmarks.npz"
    texts = {"data": np.array("x"), "weights": np.array("ab")}
    np.savez(path, landmarks=np.zeros((1, 5, 2), dtype), faces=np.array([1]), **texts)
    with pytest.raises(DatasetError, match=r"landmarks.npz: expected kept landmarks"):
        load_landmarks(path, [record(FACES[:1])], weights_sha256="ab")


def test_damaged_landmarks_are_a_dataset_error_or_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    rng = np.random.default_rng(3)
    given = [record(FACES, landmarks=rng.normal(size=(2, 5, 2)).astype(np.float32)), record(FACES[:1])]
    save_landmarks(path, given, given=given, weights_sha256="ab")
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 5)]
    for place in range(len(whole)):
        mask = 1 << int(rng.integers(8))
        damaged.append(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
    kinds = {"error": 0, "same": 0}
    for content in damaged:
        path.write_bytes(content)
        try:
            restored = load_landmarks(path, given, weights_sha256="ab")
        except DatasetError as error:
            assert str(error).startswith(f"{path}: expected ")  # noqa: PT017
            kinds["error"] += 1
            continue
        kinds["same"] += 1
        for one, other in zip(restored, given, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
    assert kinds["error"] > len(whole) / 2
    assert kinds["same"]  # a flip in a date


def test_waiting_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "run" / "landmarks.npz"
    given = [record(FACES)]
    with pytest.raises(DatasetError, match=r"landmarks.npz: expected from the first process within 0 hours"):
        wait_for_landmarks(path, seconds=0, interval=0.01)
    writer = threading.Timer(0.1, save_landmarks, [path, given], {"given": given, "weights_sha256": "ab"})
    writer.start()
    wait_for_landmarks(path, seconds=60, interval=0.01)
    load_landmarks(path, given, weights_sha256="ab")
    writer.join()
