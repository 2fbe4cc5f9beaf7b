from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

from retinaface_fast import Detections
from retinaface_fast.draw import draw_faces

if TYPE_CHECKING:
    from pathlib import Path

BOX = [[20.0, 30.0, 90.0, 110.0]]
LANDMARKS = np.float32([[[40, 55], [70, 55], [55, 70], [43, 90], [67, 90]]])


@pytest.fixture
def canvas() -> np.ndarray:
    return np.full((160, 200, 3), 128, np.uint8)


def test_input_is_not_changed_whatever_it_is(canvas: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "gray.png"
    cv2.imwrite(str(path), canvas)
    data = path.read_bytes()
    expected = draw_faces(canvas, BOX, scores=[0.9], landmarks=LANDMARKS)
    assert (expected != canvas).any()
    assert (canvas == 128).all()
    for source in (
        path,
        str(path),
        data,
        io.BytesIO(data),
        Image.open(path),
        canvas[:, :, 0],
        canvas[:, :, :1],
    ):
        np.testing.assert_array_equal(draw_faces(source, BOX, scores=[0.9], landmarks=LANDMARKS), expected)
    assert path.read_bytes() == data
    without = draw_faces(canvas, [])
    np.testing.assert_array_equal(without, canvas)
    assert not np.shares_memory(without, canvas)
    assert without.flags.writeable


def test_colours_follow_the_order_of_channels(canvas: np.ndarray) -> None:
    bgr = draw_faces(canvas, BOX, scores=[0.9], landmarks=LANDMARKS)
    rgb = draw_faces(canvas, BOX, scores=[0.9], landmarks=LANDMARKS, color="rgb")
    np.testing.assert_array_equal(bgr, rgb[:, :, ::-1])
    left, right = bgr[55, 40].astype(int), bgr[55, 70].astype(int)
    assert left[2] > left[0] + 50, "the left eye is orange"
    assert right[0] > right[2] + 50, "the right eye is blue"
    assert bgr[70, 55].min() > 180, "the nose is white"


def test_box_is_drawn_on_its_edges_and_not_elsewhere(canvas: np.ndarray) -> None:
    changed = (draw_faces(canvas, BOX) != canvas).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert (xs.min(), ys.min()) >= (20 - 3, 30 - 3)
    assert (xs.max(), ys.max()) <= (90 + 3, 110 + 3)
    assert changed[30:110, 19:21].any(axis=1).all()
    assert changed[30:110, 89:91].any(axis=1).all()
    assert not changed[36:104, 26:84].any()


def test_boxes_have_colours_of_their_own(canvas: np.ndarray) -> None:
    boxes = [[20.0, 30.0, 60.0, 80.0], [110.0, 30.0, 170.0, 110.0]]
    colors = [(250, 10, 20), (30, 40, 240)]
    for color in ("bgr", "rgb"):
        drawn = draw_faces(canvas, boxes, box_colors=colors, line_width=1, color=color)
        rgb = drawn if color == "rgb" else drawn[:, :, ::-1]
        for box, (red, _, blue) in zip(np.int64(boxes), colors, strict=True):
            on_edge = rgb[box[1] + 10, box[0]].astype(int)
            assert np.sign(on_edge[0] - on_edge[2]) == np.sign(red - blue)
    labels = draw_faces(canvas, boxes, labels=["one", "two"], box_colors=colors, color="rgb")
    assert (labels[:30] == colors[0]).all(axis=2).sum() > 50, "a label has the colour of its box"
    same = draw_faces(canvas, boxes, box_colors=[(0, 230, 150)] * 2)
    np.testing.assert_array_equal(same, draw_faces(canvas, boxes))


def test_boxes_of_small_faces_get_at_least_that_line(canvas: np.ndarray) -> None:
    small, large = [[40.5, 40.5, 52.5, 54.5]], [[20.5, 20.5, 150.5, 140.5]]

    def changed(boxes: list[list[float]], **options: int) -> int:
        return int((draw_faces(canvas, boxes, **options) != canvas).any(axis=2).sum())

    assert changed(small, line_width=4) == changed(small)
    assert changed(small, least_line_width=3) > 2 * changed(small)
    assert changed(large, least_line_width=3) == changed(large, line_width=3)
    assert changed(large, line_width=5, least_line_width=3) == changed(large, line_width=5)


def test_labels(canvas: np.ndarray) -> None:
    def label_area(**options: object) -> int:
        return int((draw_faces(canvas, BOX, **options) != draw_faces(canvas, BOX)).any(axis=2).sum())

    assert label_area() == 0
    assert label_area(scores=[0.9]) > 100
    assert label_area(scores=[0.9], labels=False) == 0
    assert label_area(scores=[0.9], labels=["a longer label"]) > label_area(scores=[0.9])
    small = [[50.0, 50.0, 58.0, 60.0]]
    bare = draw_faces(canvas, small)
    np.testing.assert_array_equal(draw_faces(canvas, small, scores=[0.9]), bare)
    assert (draw_faces(canvas, small, scores=[0.9], labels=True) != bare).any()


def test_label_stays_in_the_picture(canvas: np.ndarray) -> None:
    for box in ([150, 0, 199, 60], [0, 0, 60, 60], [-300, -300, 900, 900], [190, 150, 250, 250]):
        drawn = draw_faces(canvas, [box], labels=["0.99"], scores=[0.99])
        green = (drawn == (150, 230, 0)).all(axis=2)
        assert green.sum() > 60, box


def test_lines_grow_with_the_picture() -> None:
    def share(side: int) -> float:
        picture = np.zeros((side, side, 3), np.uint8)
        box = [[side * 0.2, side * 0.2, side * 0.8, side * 0.8]]
        return float((draw_faces(picture, box) != 0).any(axis=2).sum()) / side

    widths = [share(side) for side in (200, 800, 3200)]
    assert widths[0] < widths[1] < widths[2]
    wide = np.zeros((400, 400, 3), np.uint8)
    thin = draw_faces(wide, [[100, 100, 300, 300]], line_width=1)
    thick = draw_faces(wide, [[100, 100, 300, 300]], line_width=8)
    assert (thick != 0).sum() > 3 * (thin != 0).sum()


def test_best_face_is_on_top(canvas: np.ndarray) -> None:
    boxes = np.float32([[20, 30, 90, 110], [50, 60, 120, 140]])
    both = draw_faces(canvas, boxes, scores=[0.9, 0.8], labels=False)
    reordered = draw_faces(canvas, boxes[::-1], scores=[0.8, 0.9], labels=False)
    np.testing.assert_array_equal(both, reordered)


def test_far_away_boxes_are_no_trouble(canvas: np.ndarray) -> None:
    far = np.float32([[1e9, 1e9, 2e9, 2e9], [-1e30, -1e30, 1e30, 1e30], [5, 5, 5, 5], [9, 9, 3, 3]])
    landmarks = np.tile(np.float32([[1e20, -1e20]]), (4, 5, 1))
    drawn = draw_faces(canvas, far, scores=[0.9] * 4, landmarks=landmarks, labels=True)
    assert drawn.shape == canvas.shape
    assert (drawn != canvas).any()


def test_one_pixel_picture() -> None:
    assert draw_faces(np.zeros((1, 1, 3), np.uint8), [[0, 0, 1, 1]], scores=[1.0], labels=True).shape == (
        1,
        1,
        3,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": np.zeros((1, 3))}, r"boxes must have shape \(N, 4\)"),
        ({"boxes": [[0, 0, np.nan, 1]]}, "boxes must be finite"),
        ({"scores": [0.5, 0.5]}, "scores must be one for each of the 1 boxes, got 2"),
        ({"landmarks": np.zeros((1, 10))}, r"landmarks must have shape \(N, 5, 2\)"),
        ({"landmarks": np.zeros((2, 5, 2))}, "landmarks must be one for each"),
        ({"landmarks": np.full((1, 5, 2), np.inf)}, "landmarks must be finite or NaN"),
        ({"labels": ["a", "b"]}, "labels must be one for each"),
        ({"box_colors": [[1, 2, 3]] * 2}, "box_colors must be one for each"),
        ({"box_colors": [[1, 2]]}, r"box_colors must have shape \(N, 3\)"),
        ({"box_colors": [[1, 2, 256]]}, "box_colors must be from 0 to 255"),
        ({"least_line_width": 0}, "least_line_width must be at least 1"),
        ({"line_width": 0}, "line_width must be at least 1"),
        ({"color": "gray"}, "color must be"),
    ],
)
def test_wrong_arguments(options: dict, message: str, canvas: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        draw_faces(canvas, **{"boxes": BOX, **options})


def test_detections_draw_is_the_same(canvas: np.ndarray) -> None:
    result = Detections(BOX, [0.9], LANDMARKS, image_size=(160, 200))
    expected = draw_faces(canvas, BOX, scores=np.float32([0.9]), landmarks=LANDMARKS)
    np.testing.assert_array_equal(result.draw(canvas), expected)
    np.testing.assert_array_equal(result.draw(canvas, color="rgb"), expected[:, :, ::-1])
    assert (result.draw(canvas, labels=False) != expected).any()


@pytest.mark.parametrize("half", [False, True])
def test_unknown_landmarks_are_not_drawn(half: bool, canvas: np.ndarray) -> None:
    plain, full = draw_faces(canvas, BOX), draw_faces(canvas, BOX, landmarks=LANDMARKS)
    for index, (x, y) in enumerate(LANDMARKS[0].astype(int)):
        points = LANDMARKS.copy()
        points[0, index, slice(1, 2) if half else slice(None)] = np.nan
        expected = full.copy()
        around = slice(y - 6, y + 7), slice(x - 6, x + 7)
        expected[around] = plain[around]
        np.testing.assert_array_equal(draw_faces(canvas, BOX, landmarks=points), expected)


def test_landmarks_do_not_hide_the_smallest_faces() -> None:
    canvas = np.full((60, 60, 3), 90, np.uint8)
    for side, shown in ((19, False), (21, True)):
        box = np.float32([[10, 10, 10 + side, 10 + side]])
        points = np.full((1, 5, 2), 10 + side / 2, np.float32)
        plain = draw_faces(canvas, box)
        assert (draw_faces(canvas, box, landmarks=points) != plain).any() == shown
