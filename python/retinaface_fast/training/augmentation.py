"""From a picture and its faces to a square training picture: crop, resize, colours, mirror."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retinaface_fast._imports import import_cv2

if TYPE_CHECKING:
    from retinaface_fast._typing import BoolArray, DoubleArray, FloatArray, UInt8Array

    from .recipe import AugmentationSection, Interpolation

__all__ = ["Augmented", "augment"]

#: Left and right change places in a mirror: eyes, nose, corners of the mouth.
_MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]

#: Crops that are drawn at once: most pictures take one of the first, few need hundreds.
_DRAWN_AT_ONCE = 16

#: Crops that are so many times as large as the training picture are halved first, as `retinaface_fast.image`
#: does it for detection: else small faces dissolve into aliasing, and Lanczos takes 11 ms from 1366 to 320.
_HALVED_FROM = 3

# Changes of colour as SSD has them (Liu et al. 2016, arXiv 1512.02325, section 2.2), each with chance 1/2.
# Hue in OpenCV's half degrees.
_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18


class Augmented(NamedTuple):
    """A training picture and the faces in it.

    Attributes:
        image: (side, side, 3) uint8 BGR.
        boxes: (N, 4) float32 xyxy in its pixels, clipped to what it shows of the original.
        landmarks: (N, 5, 2) float32 likewise, not clipped; NaN where unknown.
        ignored: (N,) bool.
    """

    image: UInt8Array
    boxes: FloatArray
    landmarks: FloatArray
    ignored: BoolArray


class _Crop(NamedTuple):
    """A square of the picture, which may be larger than it: the corner and the side in pixels."""

    x: int
    y: int
    side: int


def augment(
    image: UInt8Array,
    boxes: FloatArray,
    landmarks: FloatArray,
    *,
    config: AugmentationSection,
    rng: np.random.Generator,
    mean_bgr: tuple[float, float, float],
    ignored: BoolArray | None = None,
) -> Augmented:
    """Make a training picture.

    A square crop is drawn until one holds a face whole that is trained on; none is refused where there is no
    such face. A crop larger than the picture holds as much of it as it can, and the rest is filled. If all
    `config.crop_attempts` fail, the whole picture is taken, at the top left of a square as long as its longer
    side. Faces stay if their centre lies within the crop, not on its edge; as the centre counts that of what
    the picture shows of the box. Ignored ones stay if the crop shows any of them, else what it shows of a
    crowd would be background.

    Boxes are clipped to picture and crop, landmarks are not: the network is to learn where they are, and
    at an edge of the crop is where they are not.

    Colours change on the smaller of the crop and the training picture: but for what is clipped at 0 and 255,
    the order of both steps makes little difference to the pixels, and up to 8 ms to the time.

    Args:
        image: (H, W, 3) uint8 BGR; it is not changed.
        boxes: (N, 4) float32 xyxy in its pixels, finite.
        landmarks: (N, 5, 2) float32 likewise; NaN where unknown.
        config: What is done.
        rng: What is drawn from.
        mean_bgr: Blue, green and red of what lies outside the picture, from 0 to 255.
        ignored: (N,) bool, faces that are neither face nor background; None for none.

    Returns:
        The training picture. Faces that are too small for `config.min_face` are ignored in it.

    Raises:
        TypeError: An array has another dtype.
        ValueError: An array has another shape, or the picture is empty.
    """
    ignored = _check(image, boxes, landmarks, ignored)
    height, width = image.shape[:2]
    # A box may be marked beyond the edge of its picture; what is there is no part of the face.
    corners = np.clip(boxes.astype(np.float64), 0, [width, height, width, height])
    crop = _draw_crop(corners[~ignored], (height, width), config, rng)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    origin = np.array([crop.x, crop.y], np.float64)
    is_centred = ((centres > origin) & (centres < origin + crop.side)).all(axis=1)
    is_shown = ((corners[:, 2:] > origin) & (corners[:, :2] < origin + crop.side)).all(axis=1)
    kept = np.where(ignored, is_shown, is_centred)
    scale = config.side / crop.side
    corners = np.clip(corners[kept] - np.tile(origin, 2), 0, crop.side) * scale
    points = (landmarks[kept].astype(np.float64) - origin) * scale
    pixels = _render(image, crop, config, rng, mean_bgr)
    if rng.random() < config.flip:
        pixels = import_cv2("augmentation").flip(pixels, 1)
        corners[:, [0, 2]] = config.side - corners[:, [2, 0]]
        points = points[:, _MIRRORED_LANDMARKS]
        points[:, :, 0] = config.side - points[:, :, 0]
    too_small = (corners[:, 2:] - corners[:, :2]).min(axis=1, initial=np.inf) < config.min_face
    shown = corners.astype(np.float32)
    # What lies outside the picture has none any more, and rounding may take the last of it.
    has_area = np.all(shown[:, 2:] > shown[:, :2], axis=1)
    return Augmented(
        image=pixels,
        boxes=shown[has_area],
        landmarks=points.astype(np.float32)[has_area],
        ignored=(ignored[kept] | too_small)[has_area],
    )


def _check(
    image: UInt8Array, boxes: FloatArray, landmarks: FloatArray, ignored: BoolArray | None
) -> BoolArray:
    count = len(boxes)
    if ignored is None:
        ignored = np.zeros(count, np.bool_)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must have shape (H, W, 3) and not be empty, got {image.shape}")
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, got {image.dtype}")
    for name, array, shape in (
        ("boxes", boxes, (count, 4)),
        ("landmarks", landmarks, (count, 5, 2)),
        ("ignored", ignored, (count,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes must be finite")
    return ignored


def _draw_crop(
    faces: DoubleArray, size_hw: tuple[int, int], config: AugmentationSection, rng: np.random.Generator
) -> _Crop:
    """Draw the square of the picture that is shown; `faces` are those that are trained on."""
    height, width = size_hw
    for first in range(0, config.crop_attempts, _DRAWN_AT_ONCE):
        count = min(_DRAWN_AT_ONCE, config.crop_attempts - first)
        sides = np.maximum(1, (_draw_scales(config, rng, count) * min(size_hw)).astype(np.int64))
        grids = np.array([1 << _halvings(side, config.side) for side in sides.tolist()])
        sides -= sides % grids
        room = np.stack([width - sides, height - sides], axis=1)
        # Where the crop is the larger one, its origin lies outside the picture by up to the difference.
        origins = rng.integers(np.minimum(room, 0), np.maximum(room, 0), endpoint=True)
        origins += np.where(origins < 0, -origins % grids[:, None], 0)
        if len(faces):
            ends = origins + sides[:, None]
            inside = (faces[None, :, :2] >= origins[:, None]) & (faces[None, :, 2:] <= ends[:, None])
            side = (faces[:, 2:] - faces[:, :2]).min(axis=1)
            least = config.min_face * sides / config.side
            whole = inside.all(axis=2) & (side > 0) & (side >= least[:, None])
            accepted = np.flatnonzero(whole.any(axis=1))
        else:
            accepted = np.zeros(1, np.int64)
        if len(accepted):
            chosen = int(accepted[0])
            return _Crop(int(origins[chosen, 0]), int(origins[chosen, 1]), int(sides[chosen]))
    grid = 1 << _halvings(max(size_hw), config.side)
    return _Crop(0, 0, -(-max(size_hw) // grid) * grid)


def _halvings(crop_side: int, side: int) -> int:
    """How often a crop is halved before it is resized.

    Its side, and how far it sticks out on the left and at the top, are multiples of what is then a pixel: so
    what it shows of the picture is halved alone, and what is outside is added when it is small.
    """
    halvings = 0
    while crop_side >> halvings >= _HALVED_FROM * side:
        halvings += 1
    return halvings


def _draw_scales(config: AugmentationSection, rng: np.random.Generator, count: int) -> DoubleArray:
    if config.crop_range is not None:
        return rng.uniform(*config.crop_range, size=count)
    return rng.choice(np.array(config.crop_scales, np.float64), size=count)


def _render(
    image: UInt8Array,
    crop: _Crop,
    config: AugmentationSection,
    rng: np.random.Generator,
    mean_bgr: tuple[float, float, float],
) -> UInt8Array:
    cv2 = import_cv2("augmentation")
    height, width = image.shape[:2]
    left, top = max(0, crop.x), max(0, crop.y)
    right, bottom = min(width, crop.x + crop.side), min(height, crop.y + crop.side)
    pixels = image[top:bottom, left:right]
    interpolation = config.interpolations[int(rng.integers(len(config.interpolations)))]
    size_wh = (config.side, config.side)
    fill = tuple(round(value) for value in mean_bgr)
    margins = (top - crop.y, crop.y + crop.side - bottom, left - crop.x, crop.x + crop.side - right)
    is_larger = crop.side > config.side
    if config.distort and not is_larger:
        pixels = _distort(pixels, rng)
    halvings = _halvings(crop.side, config.side)
    pixels = _halved(pixels, halvings)
    if any(margins):
        whole = np.full((crop.side >> halvings, crop.side >> halvings, 3), fill, np.uint8)
        y, x = margins[0] >> halvings, margins[2] >> halvings
        whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        pixels = whole
    if len(pixels) != config.side:
        pixels = cv2.resize(pixels, size_wh, interpolation=_flag(interpolation))
    if config.distort and is_larger:
        pixels = _distort(pixels, rng)
        if any(margins):
            _fill_margins(pixels, [margin * config.side / crop.side for margin in margins], fill)
    return pixels.copy() if np.may_share_memory(pixels, image) else pixels


def _halved(pixels: UInt8Array, times: int) -> UInt8Array:
    """Halve height and width so often, without the last rows and columns that fill no pixel."""
    cv2 = import_cv2("augmentation")
    height, width = (length >> times << times for length in pixels.shape[:2])
    pixels = pixels[:height, :width]
    if not pixels.size:
        return np.zeros((height >> times, width >> times, 3), np.uint8)
    for _ in range(times):
        height, width = height // 2, width // 2
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return pixels


def _fill_margins(pixels: UInt8Array, margins: list[float], fill: tuple[int, ...]) -> None:
    """Fill top, bottom, left and right of a square again, as far as a pixel lies more in them than not."""
    side = len(pixels)
    top, bottom, left, right = (math.floor(margin + 0.5) for margin in margins)
    for part in (
        pixels[:top],
        pixels[side - bottom :],
        pixels[:, :left],
        pixels[:, side - right :],
    ):
        part[:] = fill


def _flag(interpolation: Interpolation) -> int:
    cv2 = import_cv2("augmentation")
    flags = {
        # Not INTER_NEAREST: it takes the pixel up to half a pixel up and left, and boxes would not fit.
        "nearest": cv2.INTER_NEAREST_EXACT,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    return int(flags[interpolation])


def _distort(pixels: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Change brightness, contrast, saturation and hue, each with chance 1/2.

    Contrast comes before or after saturation and hue, with equal chances. Tables do all that is linear; a
    table on a table rounds as often as doing one after the other would.
    """
    cv2 = import_cv2("augmentation")
    is_drawn = rng.random(5) < 0.5
    brightness = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) if is_drawn[0] else 0.0
    contrast = rng.uniform(*_CONTRAST) if is_drawn[1] else 1.0
    saturation = rng.uniform(*_SATURATION) if is_drawn[2] else 1.0
    hue = int(rng.integers(-_HUE, _HUE, endpoint=True)) if is_drawn[3] else 0
    levels = np.arange(256, dtype=np.float64)
    contrast_table = _as_table(levels * contrast)
    table = _as_table(levels + brightness)
    if is_drawn[4]:
        table = contrast_table[table]
    if is_drawn[0] or (is_drawn[4] and is_drawn[1]):
        pixels = cv2.LUT(pixels, table)
    if is_drawn[2] or is_drawn[3]:
        hues = ((np.arange(256) + hue) % 180).astype(np.uint8)
        tables = np.stack([hues, _as_table(levels * saturation), levels.astype(np.uint8)], axis=1)
        hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        pixels = cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2BGR)
    if is_drawn[1] and not is_drawn[4]:
        pixels = cv2.LUT(pixels, contrast_table)
    return pixels


def _as_table(values: DoubleArray) -> UInt8Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
