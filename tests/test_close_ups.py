from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from retinaface_fast import FaceDetector, ops

if TYPE_CHECKING:
    from pathlib import Path

#: The face in the astronaut's portrait: its box, see test_detector.
FACE = np.array([177.9, 56.8, 273.1, 177.2])


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(threads=1)


def close_up(portrait: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """The astronaut's face with a geometric mean side of so many pixels, filling its picture; and its box."""
    x1, y1, x2, y2 = 145, 25, 305, 215
    scale = side / np.sqrt((FACE[2] - FACE[0]) * (FACE[3] - FACE[1]))
    size = (round((x2 - x1) * scale), round((y2 - y1) * scale))
    picture = cv2.resize(portrait[y1:y2, x1:x2], size, interpolation=cv2.INTER_CUBIC)
    return picture.astype(np.uint8), (FACE - [x1, y1, x1, y1]) * scale


@pytest.mark.parametrize("side", [420, 700, 1000, 1600, 3000])
def test_a_face_that_fills_the_frame_is_the_only_one(
    detector: FaceDetector, astronaut_bgr: np.ndarray, side: int
) -> None:
    picture, box = close_up(astronaut_bgr, side)
    [face] = detector.detect(picture)
    overlap = ops.box_iou(face.box[None], box[None].astype(np.float32))
    assert overlap > 0.7
    assert face.score > 0.9
    left_eye, right_eye, nose, *mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(corner[1] for corner in mouth)


def test_without_it_parts_are_taken_for_faces(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    picture, box = close_up(astronaut_bgr, 1600)
    without = detector.replace(close_ups=False).detect(picture)
    assert len(without) > 3
    assert (ops.box_iou(without.boxes, box[None].astype(np.float32)) < 0.5).all()


def test_small_faces_beside_a_close_up_stay(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    picture, _ = close_up(astronaut_bgr, 1000)
    frame = np.full((picture.shape[0], picture.shape[1] + 600, 3), 90, np.uint8)
    frame[:, : picture.shape[1]] = picture
    left = picture.shape[1] + 20
    frame[100:612, left : left + 512] = astronaut_bgr  # a face of 107 pixels
    small = cv2.resize(astronaut_bgr, (128, 128), interpolation=cv2.INTER_AREA)  # of 27 pixels
    frame[700:828, left : left + 128] = small
    result = detector.detect(frame)
    expected = np.float32([FACE, FACE / 4]) + np.float32([[left, 100] * 2, [left, 700] * 2])
    assert (ops.box_iou(expected, result.boxes).max(axis=1) > 0.7).all()
    assert len(result) == 3


@pytest.mark.parametrize("size_hw", [(600, 1024), (512, 512), (1024, 600)])
def test_pictures_that_hold_no_such_face_are_searched_once(
    detector: FaceDetector, size_hw: tuple[int, int], crowd_bgr: np.ndarray
) -> None:
    picture = cv2.resize(crowd_bgr, size_hw[::-1]).astype(np.uint8)
    result = detector.detect(picture)
    assert result == detector.replace(close_ups=False).detect(picture)
    assert result.timings["resize"] < 1e-4


def test_a_large_picture_of_small_faces_is_left_as_it_is(detector: FaceDetector) -> None:
    from benchmarks.scenes import crowd

    picture = crowd((1080, 1920), sides=(60, 90, 150))
    result = detector.detect(picture)
    assert len(result) > 50
    assert result == detector.replace(close_ups=False).detect(picture)
    assert result.timings["resize"] > 0


def test_settings_hold_for_the_second_search_too(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    picture, _ = close_up(astronaut_bgr, 1000)
    assert len(detector.detect(picture, score_threshold=1.0)) == 0
    assert len(detector.replace(score_threshold=0.02).detect(picture, keep_top_k=1)) == 1
    plain = detector.replace(close_ups=False)
    rgb = np.ascontiguousarray(picture[:, :, ::-1])
    assert detector.detect(rgb, color="rgb") == detector.detect(picture)
    assert detector.detect(picture, max_side=500) == plain.detect(picture, max_side=500)


def test_a_limit_takes_the_first_faces(detector: FaceDetector, astronaut_bgr: np.ndarray) -> None:
    """Also where the first search has parts of a face before it."""
    picture, _ = close_up(astronaut_bgr, 1000)
    frame = np.full((picture.shape[0], picture.shape[1] + 700, 3), 90, np.uint8)
    frame[:, : picture.shape[1]] = picture
    for row, size in enumerate((700, 500, 300)):
        face = cv2.resize(astronaut_bgr, (size, size), interpolation=cv2.INTER_AREA)
        frame[row * 600 : row * 600 + size, -size:] = face[: frame.shape[0] - row * 600]
    assert len(detector.replace(close_ups=False).detect(frame)) > 6
    every = detector.replace(keep_top_k=None, top_k=None).detect(frame)
    assert len(every) == 4
    for limit in (1, 2, 3):
        assert detector.detect(frame, keep_top_k=limit) == every[:limit]


@pytest.mark.parametrize("side", [210, 280, 330])
def test_sure_faces_of_a_very_large_picture_stay(
    detector: FaceDetector, astronaut_bgr: np.ndarray, grace_hopper_path: Path, side: int
) -> None:
    """What is reduced to some 25 pixels there must still be found."""
    hopper = cv2.imread(str(grace_hopper_path))
    assert hopper is not None
    frame = np.full((4320, 7680, 3), 90, np.uint8)
    places = []
    for index, (portrait, face) in enumerate(
        [(astronaut_bgr, FACE), (hopper, np.array([177.7, 106.5, 353.9, 327.7]))] * 3
    ):
        scale = side / np.sqrt((face[2] - face[0]) * (face[3] - face[1]))
        part = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        x, y = 217 + 1203 * index, 331 + 413 * (index % 5)
        frame[y : y + part.shape[0], x : x + part.shape[1]] = part[:, : 7680 - x]
        places.append(face * scale + [x, y, x, y])
    found = detector.detect(frame)
    assert (ops.box_iou(np.array(places, np.float32), found.boxes).max(axis=1) > 0.6).all()
