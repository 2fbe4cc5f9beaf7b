"""The picture that everyone searches: a crowd composed of one portrait at known places, or one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast.errors import MissingDependencyError
from retinaface_fast.image import read_image

if TYPE_CHECKING:
    import os

    from retinaface_fast._typing import FloatArray, UInt8Array

__all__ = ["Scene", "compose", "cover"]

#: In pixels of matplotlib's portrait of Grace Hopper: a square around the head, and the face, drawn by hand,
#: from the brim of the cap to the chin and from ear to ear. Left, top, right, bottom.
_HEAD = (95, 10, 435, 350)
_FACE = (176, 118, 352, 328)
#: Sides of the heads, row by row, for pictures whose shorter side is below and from this many pixels on.
_LARGE_FROM = 720
_SIDES = {False: (200, 96, 144, 72, 112), True: (300, 140, 200, 420, 180)}
_PURPOSE = "composing the picture that is searched"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, and what is known of it.

    Attributes:
        image: (H, W, 3) uint8 BGR, contiguous.
        places: (N, 4) float32 xyxy in pixels, the box of every face; None where nobody knows.
        content: What it shows, in a few words.
    """

    image: UInt8Array
    places: FloatArray | None
    content: str


def compose(size_hw: tuple[int, int]) -> Scene:
    """Compose a crowd: rows of one portrait at five sizes, mirrored and shaded, nothing cut off or covered.

    Args:
        size_hw: Height and width in pixels. At least one head is in a picture of any size.

    Returns:
        The same picture for the same size on every machine with the same OpenCV, to the last bits.

    Raises:
        MissingDependencyError: matplotlib, which has the portrait, or OpenCV is not installed.
    """
    cv2 = import_cv2(_PURPOSE)
    portrait = read_image(_portrait()).to_color("bgr")
    left, top, right, bottom = _HEAD
    head = portrait[top:bottom, left:right]
    face = (np.array(_FACE) - np.array([left, top, left, top])) / (right - left)
    rng = np.random.default_rng(5)
    height, width = size_hw
    coarse = rng.integers(90, 140, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture: UInt8Array = np.ascontiguousarray(
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    )
    places = []
    for top, side, lefts in _rows(size_hw):
        resized = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        for left in lefts:
            mirrored = rng.random() < 0.5
            shaded = resized[:, ::-1] if mirrored else resized
            shaded = np.clip(shaded * rng.uniform(0.75, 1.15), 0, 255).astype(np.uint8)
            picture[top : top + side, left : left + side] = shaded
            x1, y1, x2, y2 = face
            if mirrored:
                x1, x2 = 1 - x2, 1 - x1
            places.append([left + side * x1, top + side * y1, left + side * x2, top + side * y2])
    return Scene(
        picture,
        np.array(places, np.float32),
        "crowd of 1 face" if len(places) == 1 else f"crowd of {len(places)} faces",
    )


def _rows(size_hw: tuple[int, int]) -> list[tuple[int, int, list[int]]]:
    """Top, side of the heads and their left edges, row by row."""
    height, width = size_hw
    sides = _SIDES[min(size_hw) >= _LARGE_FROM]
    rows: list[tuple[int, int, list[int]]] = []
    top = 0
    while True:
        side = min(sides[len(rows) % len(sides)], height, width)
        if top + side > height:
            # What is left at the bottom may take a row of smaller ones.
            side = max((other for other in sides if top + other <= height), default=0)
        if not side:
            return rows
        step = side + side // 8
        count = (width - side) // step + 1
        start = (width - side - (count - 1) * step) // 2
        rows.append((top, side, [start + index * step for index in range(count)]))
        top += side + side // 16


def _portrait() -> Path:
    try:
        from matplotlib import cbook
    except ImportError as error:
        raise MissingDependencyError("matplotlib", purpose=_PURPOSE, extra="benchmark") from error
    return Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def cover(path: str | os.PathLike[str], size_hw: tuple[int, int]) -> Scene:
    """Resize a picture of one's own until it covers a size, and cut off what is too much at both ends.

    Args:
        path: A file that `read_image` reads.
        size_hw: Height and width in pixels.

    Raises:
        ImageError: The picture cannot be read.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = import_cv2(_PURPOSE)
    pixels = read_image(path).to_color("bgr")
    (height, width), (wanted_height, wanted_width) = pixels.shape[:2], size_hw
    scale = max(wanted_height / height, wanted_width / width)
    size = max(wanted_width, round(width * scale)), max(wanted_height, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, size, interpolation=way)
    left, top = (size[0] - wanted_width) // 2, (size[1] - wanted_height) // 2
    image = np.ascontiguousarray(resized[top : top + wanted_height, left : left + wanted_width])
    return Scene(image, None, Path(path).name)
