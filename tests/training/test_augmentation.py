"""Augmentation: what is in a training picture is looked for by its colour, and must be where it is said."""

from __future__ import annotations

import colorsys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast.training.augmentation import Augmented, augment
from retinaface_fast.training.recipe import AugmentationSection

MEAN = (104.0, 117.0, 123.0)
GREY = 90
# Far from each other, from the grey around them and from the mean: blue, green, red.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]])
BOXES = np.array(
    [[20, 30, 60, 90], [100, 20, 130, 50], [200, 60, 270, 140], [30, 160, 80, 220], [120, 150, 160, 210]],
    np.float32,
)
UNKNOWN = np.full((len(BOXES), 5, 2), np.nan, np.float32)


def section(**changes: Any) -> AugmentationSection:
    plain = {"side": 128, "distort": False, "flip": 0.0, "interpolations": ("nearest",)}
    return AugmentationSection(**(plain | changes))


def painted(size_hw: tuple[int, int] = (240, 320), boxes: np.ndarray = BOXES) -> np.ndarray:
    image = np.full((*size_hw, 3), GREY, np.uint8)
    for box, colour in zip(boxes.astype(int), COLOURS, strict=False):
        image[box[1] : box[3], box[0] : box[2]] = colour
    return image


def seen(image: np.ndarray, colour: np.ndarray) -> np.ndarray | None:
    """The box around the pixels of a colour: an oracle that knows nothing of crops and scales."""
    distance = np.abs(image.astype(int) - colour).max(axis=2)
    rows, columns = np.nonzero(distance < 100)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def run(image: np.ndarray, config: AugmentationSection, seed: int, **changes: Any) -> Augmented:
    arguments = {"boxes": BOXES, "landmarks": UNKNOWN} | changes
    return augment(image, config=config, rng=np.random.default_rng(seed), mean_bgr=MEAN, **arguments)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "area", "lanczos"])
@pytest.mark.parametrize("multiple", [0.5, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("side", [96, 300])
def test_faces_are_where_the_boxes_say(interpolation: str, multiple: float, side: int) -> None:
    image = painted()
    config = section(side=side, flip=0.5, crop_scales=(multiple,), interpolations=(interpolation,))
    scale = side / int(multiple * 240)
    kept = 0
    for seed in range(6):
        result = run(image, config, seed)
        assert result.image.shape == (side, side, 3)
        found = [seen(result.image, colour) for colour in COLOURS[: len(BOXES)]]
        rest = list(result.boxes)
        for original, visible in zip(BOXES, found, strict=True):
            whole_wh = (original[2:] - original[:2]) * scale
            visible_wh = np.zeros(2) if visible is None else visible[2:] - visible[:2]
            # Cut at one side at most, so that more than half is seen exactly if the centre is inside.
            surplus = (visible_wh - whole_wh / 2).min()
            if abs(surplus) < 1.5:
                rest = [box for box in rest if visible is None or np.abs(box - visible).max() > 1.5]
                continue
            matching = [box for box in rest if visible is not None and np.abs(box - visible).max() <= 1.01]
            assert len(matching) == int(surplus > 0)
            rest = [box for box in rest if not any(box is other for other in matching)]
            kept += len(matching)
        assert not rest
        # At least one face is whole.
        sizes = {tuple(np.round((box[2:] - box[:2]) * scale, 2)) for box in BOXES}
        assert any(tuple(np.round(box[2:] - box[:2], 2)) in sizes for box in result.boxes)
    assert kept >= 6


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_landmarks_are_at_their_dots(flip: float) -> None:
    """Left and right are those of the image, also of the mirrored one."""
    points = np.array([[60, 50], [100, 52], [78, 75], [64, 100], [97, 103]], np.float32)
    image = painted((160, 200), np.zeros((0, 4)))
    for (x, y), colour in zip(points.astype(int), COLOURS, strict=False):
        image[y - 4 : y + 4, x - 4 : x + 4] = colour  # the centre of 8 pixels is on an edge: no half pixel
    config = section(side=320, flip=flip, crop_scales=(0.9,), interpolations=("linear",))
    order = [1, 0, 2, 4, 3] if flip else [0, 1, 2, 3, 4]
    for seed in range(10):
        result = run(image, config, seed, boxes=np.float32([[40, 30, 120, 130]]), landmarks=points[None])
        [marks] = result.landmarks
        for point, colour in zip(marks, COLOURS[order], strict=True):
            box = seen(result.image, colour)
            assert box is not None
            np.testing.assert_allclose(point, (box[:2] + box[2:]) / 2, atol=0.75)
        assert marks[0, 0] < marks[1, 0]
        assert marks[3, 0] < marks[4, 0]


def test_landmarks_outside_stay_where_they_are_and_unknown_ones_unknown() -> None:
    image = painted()
    marks = np.full((5, 5, 2), np.nan, np.float32)
    marks[:, 2] = BOXES[:, :2] - 7  # the nose is up and left of each face
    config = section(side=120, crop_scales=(0.5,), flip=0.5)
    outside = 0
    for seed in range(40):
        result = run(image, config, seed, landmarks=marks)
        assert np.isnan(result.landmarks[:, [0, 1, 3, 4]]).all()
        assert np.isfinite(result.landmarks[:, 2]).all()
        # A scale of 1: where no edge cut the box, the distance says whether the picture is mirrored.
        for box, (x, y) in zip(result.boxes, result.landmarks[:, 2], strict=True):
            if box[0] > 0 and box[1] > 0 and box[2] < 120:
                assert 7 in (box[0] - x, x - box[2])
                assert box[1] - y == 7
            outside += bool(min(x, y) < 0 or x > 120)
    assert outside


def test_the_whole_picture_where_no_crop_holds_a_face() -> None:
    face = np.float32([[10, 10, 190, 90]])
    image = painted((100, 200), face)
    config = section(side=100, crop_scales=(0.3, 0.5), crop_attempts=40)
    result = run(image, config, 0, boxes=face, landmarks=UNKNOWN[:1])
    np.testing.assert_array_equal(result.boxes, [[5, 5, 95, 45]])
    assert (result.image[50:] == MEAN).all()
    assert (result.image[0, 0] == GREY).all()
    # With crops as large as the picture there is one that does.
    inside = run(image, section(side=100, crop_scales=(2.0,)), 0, boxes=face, landmarks=UNKNOWN[:1])
    np.testing.assert_allclose(inside.boxes[0, 2:] - inside.boxes[0, :2], [90, 40])


@pytest.mark.parametrize("interpolation", ["nearest", "area", "lanczos"])
@pytest.mark.parametrize("multiple", [1.0, 2.0, 5.3])
def test_large_crops_put_large_faces_where_their_boxes_say(interpolation: str, multiple: float) -> None:
    face = np.float32([[401, 303, 898, 799]])
    image = painted((1203, 1501), face)
    # In halves of what a pixel of the training picture shows, the picture's edges lie anywhere.
    config = section(side=64, crop_scales=(multiple,), interpolations=(interpolation,), flip=0.5)
    for seed in range(8):
        result = run(image, config, seed, boxes=face, landmarks=UNKNOWN[:1])
        visible = seen(result.image, COLOURS[0])
        assert visible is not None
        assert np.abs(result.boxes[0] - visible).max() <= 1.01


def test_the_mean_colour_of_a_large_crop_is_that_of_the_exact_area() -> None:
    """How much of the training picture a white picture covers, against how much of the crop it fills."""
    for size_hw in ((1000, 1400), (1203, 1501), (997, 1999)):
        image = np.full((*size_hw, 3), 255, np.uint8)
        for multiple in (2.0, 3.7):
            config = section(side=64, crop_scales=(multiple,), interpolations=("area",))
            side = multiple * min(size_hw)
            for seed in range(4):
                found = augment(
                    image,
                    BOXES[:0],
                    UNKNOWN[:0],
                    config=config,
                    rng=np.random.default_rng(seed),
                    mean_bgr=(0, 0, 0),
                ).image
                covered = found[:, :, 0] / 255
                # In pixels: exact but for a row and a column that are left out.
                assert covered.max(axis=1).sum() == pytest.approx(64 * size_hw[0] / side, abs=0.75)
                assert covered.max(axis=0).sum() == pytest.approx(64 * size_hw[1] / side, abs=0.75)


def test_a_picture_that_is_nothing_but_long() -> None:
    for size_hw in ((1, 3000), (3000, 2)):
        result = run(painted(size_hw, BOXES[:0]), section(side=32, crop_scales=(10.0,)), 0,
                     boxes=np.float32([[0, 0, *size_hw[::-1]]]), landmarks=UNKNOWN[:1])  # fmt: skip
        assert result.image.shape == (32, 32, 3)


def test_a_large_crop_of_a_large_picture_takes_the_memory_of_a_small_one() -> None:
    image = np.zeros((2000, 3000, 3), np.uint8)
    config = section(side=64, crop_scales=(10.0,), distort=True)
    tracemalloc.start()
    try:
        run(image, config, 0, boxes=BOXES[:0], landmarks=UNKNOWN[:0])
        # NumPy's memory, in which OpenCV puts its results; the crop has 1.2 GB of pixels.
        assert tracemalloc.get_traced_memory()[1] < image.nbytes
    finally:
        tracemalloc.stop()


def test_a_larger_crop_holds_the_whole_picture_at_any_place() -> None:
    config = section(side=160, crop_range=(2.0, 2.0), crop_scales=None, interpolations=("area",))
    tops = []
    for seed in range(30):
        result = run(painted(), config, seed)
        assert len(result.boxes) == len(BOXES)
        inside = np.abs(result.image.astype(int) - MEAN).max(axis=2) > 8
        rows, columns = np.nonzero(inside)
        # 320 x 240 pixels at a third.
        assert columns.max() - columns.min() == pytest.approx(320 / 3, abs=2)
        assert rows.max() - rows.min() == pytest.approx(240 / 3, abs=2)
        tops.append(rows.min())
    assert min(tops) < 20
    assert max(tops) > 60


@pytest.mark.parametrize("side", [100, 480])
def test_what_is_outside_keeps_the_mean_when_colours_change(side: int) -> None:
    config = section(side=side, distort=True, crop_scales=(2.0,), interpolations=("linear",))
    changed = 0
    for seed in range(30):
        with_colours = run(painted(), config, seed).image
        columns = np.nonzero((with_colours != np.array(MEAN)).any(axis=(0, 2)))[0]
        assert columns.max() - columns.min() + 1 == pytest.approx(320 * side / 480, abs=2)
        changed += not (np.unique(with_colours) == GREY).any()
    assert 5 < changed < 30


def test_boxes_are_clipped_to_the_picture_and_those_outside_are_left_out() -> None:
    boxes = np.float32([[-10, 20, 30, 60], [-50, 0, -5, 30], [70, 70, 130, 140], [5, 5, 5, 40]])
    config = section(side=100, crop_scales=(1.0,))
    result = run(painted((100, 100)), config, 0, boxes=boxes, landmarks=UNKNOWN[:4])
    np.testing.assert_array_equal(result.boxes, [[0, 20, 30, 60], [70, 70, 100, 100]])


def test_small_faces_are_ignored_and_ignored_ones_stay_so() -> None:
    boxes = np.float32([[0, 0, 20, 40], [50, 50, 69.5, 90], [10, 60, 40, 90]])
    ignored = np.array([False, False, True])
    config = section(side=50, crop_scales=(1.0,), min_face=10)
    result = run(painted((100, 100)), config, 0, boxes=boxes, landmarks=UNKNOWN[:3], ignored=ignored)
    assert result.ignored.tolist() == [False, True, True]
    assert ignored.tolist() == [False, False, True]


def test_an_ignored_region_stays_wherever_the_crop_shows_it() -> None:
    """Its centre lies outside most crops, its colour does not; a trained face there is left out."""
    region, face, other = [0, 0, 240, 70], [20, 100, 40, 120], [200, 100, 220, 120]
    boxes = np.float32([region, face, other])
    image = painted((240, 240), boxes)
    config = section(side=96, crop_scales=(0.4,))
    away = 0
    for seed in range(40):
        ignored = np.array([True, False, False])
        result = run(image, config, seed, boxes=boxes, landmarks=UNKNOWN[:3], ignored=ignored)
        visible = seen(result.image, COLOURS[0])
        assert result.ignored.sum() == (visible is not None)
        if visible is not None:
            np.testing.assert_array_equal(result.boxes[result.ignored], [visible])
            centred = run(image, config, seed, boxes=boxes, landmarks=UNKNOWN[:3])
            away += not (centred.boxes == visible).all(axis=1).any()
    assert away > 5


def test_a_crop_holds_a_face_that_is_trained_on() -> None:
    """Neither an ignored face nor one that the crop makes too small is what it is drawn for."""
    boxes = np.float32([[18, 18, 26, 26], [70, 70, 86, 86]])  # no crop of 60 holds both
    for ignored, min_face in (([True, False], 0), ([False, False], 10)):
        config = section(side=50, crop_scales=(0.6,), min_face=min_face)
        for seed in range(20):
            result = run(
                painted((100, 100)),
                config,
                seed,
                boxes=boxes,
                landmarks=UNKNOWN[:2],
                ignored=np.array(ignored),
            )
            assert not result.ignored.all()
            assert len(result.boxes) == 1


def test_a_picture_without_faces_is_cropped_too() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :, 0] = np.arange(200)
    image[:, :, 1] = np.arange(100)[:, None]
    lefts = set()
    for seed in range(20):
        result = run(
            image, section(side=50, crop_scales=(0.5,)), seed, boxes=BOXES[:0], landmarks=UNKNOWN[:0]
        )
        assert (result.boxes.shape, result.landmarks.shape, result.ignored.shape) == ((0, 4), (0, 5, 2), (0,))
        assert int(result.image[0, -1, 0]) - int(result.image[0, 0, 0]) == 49
        lefts.add(int(result.image[0, 0, 0]))
    assert len(lefts) > 10
    assert max(lefts) > 100


def test_the_input_is_neither_changed_nor_shared() -> None:
    image = painted((128, 128), BOXES[:1])
    before, boxes = image.copy(), BOXES[:1].copy()
    for changes in ({}, {"distort": True}, {"flip": 1.0}):
        config = section(crop_scales=(1.0,), **changes)
        result = run(image, config, 1, boxes=boxes, landmarks=UNKNOWN[:1])
        result.image[:] = 0
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(boxes, BOXES[:1])


def test_mirroring_twice_gives_the_picture_back() -> None:
    marks = np.arange(50, dtype=np.float32).reshape(5, 5, 2) + 20
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    config = section(side=256, crop_scales=(1.0,), flip=1.0)
    once = run(image, config, 0, landmarks=marks)
    np.testing.assert_array_equal(once.image, image[:, ::-1])
    twice = run(once.image, config, 0, boxes=once.boxes, landmarks=once.landmarks)
    np.testing.assert_array_equal(twice.image, image)
    # The third face sticks out of this picture, and stays clipped.
    np.testing.assert_array_equal(twice.boxes, np.minimum(BOXES, 256))
    np.testing.assert_array_equal(twice.landmarks, marks)


# Colours


def patches_after(colour: tuple[int, int, int], count: int) -> np.ndarray:
    image = np.full((32, 32, 3), colour, np.uint8)
    config = section(side=32, crop_scales=(1.0,), distort=True)
    rng = np.random.default_rng(1)
    patches = [
        augment(image, BOXES[:0], UNKNOWN[:0], config=config, rng=rng, mean_bgr=MEAN).image
        for _ in range(count)
    ]
    assert all((patch == patch[0, 0]).all() for patch in patches)
    return np.array([patch[0, 0] for patch in patches], int)


def test_brightness_and_contrast() -> None:
    values = patches_after((128, 128, 128), 600)
    assert (values == values[:, :1]).all()  # grey has no colour to change
    levels = values[:, 0]
    # Neither is drawn in a quarter of the cases; a third of a percent more round to the same.
    assert 0.18 < (levels == 128).mean() < 0.33
    assert levels.min() >= (128 - 32) * 0.5 - 1
    assert levels.max() <= (128 + 32) * 1.5 + 1
    assert levels.min() < 70
    assert levels.max() > 200


def test_hue_and_saturation() -> None:
    """What is added to all channels, or multiplies them, changes no hue: it can be told apart."""
    colour = (90, 110, 140)
    hues, greys = [], []
    before = colorsys.rgb_to_hsv(*(value / 255 for value in colour[::-1]))
    for blue, green, red in patches_after(colour, 600).tolist():
        hue = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0]
        if max(blue, green, red) < 255:
            hues.append(((hue - before[0] + 0.5) % 1 - 0.5) * 180)
        greys.append((max(blue, green, red) - min(blue, green, red)) / 50)
    shifts = np.array(hues)
    assert np.abs(shifts).max() <= 18 + 2.5  # rounding of uint8 at such a pale colour
    assert (shifts > 14).any()
    assert (shifts < -14).any()
    # Not drawn in half of the cases, or drawn near 0: 2.5 of 18.
    assert 0.5 < (np.abs(shifts) < 2.5).mean() < 0.68
    assert min(greys) < 0.5
    assert max(greys) > 1.6


def test_no_distortion_leaves_the_colours() -> None:
    image = painted((64, 64), BOXES[:1])
    result = run(
        image, section(side=64, crop_scales=(1.0,)), 5, boxes=BOXES[:1, [0, 0, 2, 2]], landmarks=UNKNOWN[:1]
    )
    np.testing.assert_array_equal(result.image, image)


# Anything


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_whatever_comes(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    corner = st.integers(-20, 100)
    corners = data.draw(
        st.lists(st.tuples(corner, corner, st.integers(0, 60), st.integers(0, 60)), max_size=5)
    )
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    count = len(boxes)
    ignored = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    config = AugmentationSection(
        side=data.draw(st.integers(32, 80)),
        crop_scales=tuple(data.draw(st.lists(st.floats(0.01, 3), min_size=1, max_size=3))),
        crop_attempts=data.draw(st.integers(1, 40)),
        flip=0.5,
    )
    image = np.full((height, width, 3), 7, np.uint8)
    result = augment(
        image,
        boxes,
        np.zeros((count, 5, 2), np.float32),
        config=config,
        rng=np.random.default_rng(data.draw(st.integers(0, 2**32))),
        mean_bgr=MEAN,
        ignored=ignored,
    )
    assert result.image.shape == (config.side, config.side, 3)
    assert (result.boxes.dtype, result.landmarks.dtype) == (np.float32, np.float32)
    assert (result.boxes >= 0).all()
    assert (result.boxes <= config.side).all()
    assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()
    shown = np.clip(boxes, 0, np.tile([width, height], 2))
    trained = (shown[:, 2:] > shown[:, :2]).all(axis=1) & ~ignored
    assert bool((~result.ignored).any()) == bool(trained.any())


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"boxes": BOXES[:, :3]}, ValueError, r"boxes must have shape \(5, 4\), got \(5, 3\)"),
        ({"landmarks": UNKNOWN[:2]}, ValueError, r"landmarks must have shape \(5, 5, 2\), got \(2, 5, 2\)"),
        ({"ignored": np.zeros(2, bool)}, ValueError, r"ignored must have shape \(5,\), got \(2,\)"),
        ({"boxes": BOXES * np.float32(np.nan)}, ValueError, "boxes must be finite"),
        ({"image": np.zeros((5, 5), np.uint8)}, ValueError, r"image must have shape \(H, W, 3\)"),
        ({"image": np.zeros((0, 5, 3), np.uint8)}, ValueError, "not be empty"),
        ({"image": np.zeros((5, 5, 3), np.float32)}, TypeError, "image must be uint8, got float32"),
    ],
)
def test_what_it_does_not_take(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = {"image": painted(), "config": section(), "seed": 0} | changes
    with pytest.raises(kind, match=message):
        run(**arguments)
