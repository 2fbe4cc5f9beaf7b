"""The anchors of a feature pyramid, described: which strides, which sizes.

This module needs nothing but Python, so that a network configuration or a weights file can be read without
the compiled core. `retinaface_fast.ops.generate_anchors` turns a description into arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["P2_P6", "P3_P5", "AnchorConfig"]

# Pixels: what the core can count, and what float32 arithmetic on anchors can bear.
_LONGEST_SIDE = 1 << 20
_SMALLEST_SIZE = 1e-3


def _as_tuple(name: str, value: object, expected: str) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class AnchorConfig:
    """Square anchors on the levels of a feature pyramid.

    Anchors are ordered by level, row, column and size; the centre of cell (row i, column j) of a level lies
    at ((j + 0.5) * stride, (i + 0.5) * stride) pixels from the top left corner of the image.

    Args:
        strides: Pixels between neighbouring cells, one integer of at least 1 for each level.
        sizes: For each level, the sides of the anchors of a cell, pixels within [0.001, 1048576].

    Raises:
        TypeError: If a stride is not an integer or a size is not a number.
        ValueError: If there is no level, the lengths differ, or a stride or size is out of range.

    Example:
        >>> config = AnchorConfig(strides=(8, 16), sizes=((16, 32), (64,)))
        >>> config.feature_sizes_hw((100, 50))
        ((13, 7), (7, 4))
        >>> config.num_anchors((100, 50))
        210
    """

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        strides = _as_tuple("strides", self.strides, "integers")
        sizes = tuple(
            _as_tuple("sizes", level, "numbers for each level")
            for level in _as_tuple("sizes", self.sizes, "a sequence for each level")
        )
        if not strides:
            raise ValueError("strides: expected at least one level, got none")
        for stride in strides:
            if isinstance(stride, bool) or not isinstance(stride, int):
                raise TypeError(f"strides: expected integers, got {stride!r}")
            if not 1 <= stride <= _LONGEST_SIDE:
                raise ValueError(f"strides: expected pixels within [1, {_LONGEST_SIDE}], got {stride}")
        if len(sizes) != len(strides):
            raise ValueError(f"sizes: expected one entry for each stride, {len(strides)}, got {len(sizes)}")
        for level in sizes:
            if not level:
                raise ValueError("sizes: expected at least one for each level, got none")
            for size in level:
                if isinstance(size, bool) or not isinstance(size, (int, float)):
                    raise TypeError(f"sizes: expected numbers, got {size!r}")
                if not _SMALLEST_SIZE <= size <= _LONGEST_SIDE:
                    raise ValueError(
                        f"sizes: expected pixels within [{_SMALLEST_SIZE}, {_LONGEST_SIDE}], got {size}"
                    )
        object.__setattr__(self, "strides", strides)
        object.__setattr__(self, "sizes", tuple(tuple(float(size) for size in level) for level in sizes))

    @property
    def anchors_per_cell(self) -> tuple[int, ...]:
        """Number of anchors in one cell of each level."""
        return tuple(len(level) for level in self.sizes)

    def feature_sizes_hw(self, image_size_hw: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the feature map of each level: the image divided by the stride, rounded up.

        Args:
            image_size_hw: Height and width of the image in pixels.

        Returns:
            One (rows, columns) for each level.

        Raises:
            ValueError: If a side is less than 1.
        """
        height, width = image_size_hw
        if height < 1 or width < 1:
            raise ValueError(f"image_size_hw: expected at least 1x1 pixels, got {image_size_hw}")
        return tuple((-(-height // stride), -(-width // stride)) for stride in self.strides)

    def num_anchors(self, image_size_hw: tuple[int, int]) -> int:
        """Number of anchors of an image.

        Args:
            image_size_hw: Height and width of the image in pixels.

        Returns:
            The sum over all levels of rows * columns * anchors per cell.

        Raises:
            ValueError: If a side is less than 1.
        """
        features = self.feature_sizes_hw(image_size_hw)
        return sum(h * w * n for (h, w), n in zip(features, self.anchors_per_cell, strict=True))


#: Three levels with two sizes each, as the popular PyTorch port and the published weights have it: 16,800
#: anchors at 640x640.
P3_P5 = AnchorConfig(strides=(8, 16, 32), sizes=((16, 32), (64, 128), (256, 512)))

#: The paper's five levels with three sizes each, in steps of 2^(1/3) from 16 to 406 pixels (Deng et al. 2019,
#: table 1): 102,300 anchors at 640x640.
P2_P6 = AnchorConfig(
    strides=(4, 8, 16, 32, 64),
    sizes=tuple(tuple(16.0 * 2.0 ** (level + third / 3.0) for third in range(3)) for level in range(5)),
)
