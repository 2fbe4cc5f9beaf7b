"""Anchors as arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from retinaface_fast import _core
from retinaface_fast.anchor_config import P3_P5, AnchorConfig

if TYPE_CHECKING:
    from retinaface_fast._typing import FloatArray

__all__ = ["generate_anchors"]


@lru_cache(maxsize=64)
def _pyramid(config: AnchorConfig) -> _core.AnchorPyramid:
    return _core.AnchorPyramid(config.strides, config.sizes)


def native_pyramid(config: AnchorConfig) -> _core.AnchorPyramid:
    """The core's form of a description, made once."""
    if not isinstance(config, AnchorConfig):
        raise TypeError(f"config: expected an AnchorConfig, got {type(config).__name__}")
    return _pyramid(config)


def generate_anchors(image_size_hw: tuple[int, int], *, config: AnchorConfig = P3_P5) -> FloatArray:
    """Anchors of an image, for every cell of every level.

    Feature maps have ceil(height / stride) rows and ceil(width / stride) columns, so any image size works.

    Args:
        image_size_hw: Height and width of the image in pixels, each within [1, 1048576].
        config: Strides and sizes of the levels.

    Returns:
        (A, 4) float32: centre x, centre y, width and height in pixels, ordered by level, row, column, size.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a side is out of range or there are more than 2^31 - 1 anchors.

    Example:
        >>> generate_anchors((640, 640)).shape
        (16800, 4)
        >>> generate_anchors((8, 8))[:2].tolist()
        [[4.0, 4.0, 16.0, 16.0], [4.0, 4.0, 32.0, 32.0]]
    """
    return native_pyramid(config).generate(image_size_hw)
