"""Oracle of the anchor grid.

A level with stride `s` has a feature map of ceil(height / s) rows and ceil(width / s) columns. Each of its
cells carries one square anchor per size of the level, with its centre at ((column + 0.5) s, (row + 0.5) s)
pixels. The index of an anchor runs over level, row, column and size, the last one fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Strides = Sequence[int]
Sizes = Sequence[Sequence[float]]

#: The usual recipe: three levels, two sizes per cell.
P3_P5_STRIDES: Strides = (8, 16, 32)
P3_P5_SIZES: Sizes = ((16, 32), (64, 128), (256, 512))

#: The paper (arXiv 1905.00641, table 1): five levels, three sizes per cell, a step of 2^(1/3).
P2_P6_STRIDES: Strides = (4, 8, 16, 32, 64)
P2_P6_SIZES: Sizes = tuple(tuple(16.0 * 2.0 ** (level + step / 3) for step in range(3)) for level in range(5))


class Anchor(NamedTuple):
    """One anchor, in pixels of the network's input."""

    cx: float
    cy: float
    width: float
    height: float


def feature_sizes_hw(image_size_hw: tuple[int, int], strides: Strides) -> list[tuple[int, int]]:
    """Rows and columns of every level's feature map."""
    height, width = image_size_hw
    return [((height + stride - 1) // stride, (width + stride - 1) // stride) for stride in strides]


def count(image_size_hw: tuple[int, int], strides: Strides, sizes: Sizes) -> int:
    """Number of anchors over all levels."""
    return sum(
        rows * columns * len(level_sizes)
        for (rows, columns), level_sizes in zip(feature_sizes_hw(image_size_hw, strides), sizes, strict=True)
    )


def iterate(image_size_hw: tuple[int, int], strides: Strides, sizes: Sizes) -> Iterator[Anchor]:
    """Every anchor, in index order."""
    feature_sizes = feature_sizes_hw(image_size_hw, strides)
    for stride, level_sizes, (rows, columns) in zip(strides, sizes, feature_sizes, strict=True):
        for row in range(rows):
            for column in range(columns):
                for size in level_sizes:
                    yield Anchor((column + 0.5) * stride, (row + 0.5) * stride, size, size)


def at(index: int, image_size_hw: tuple[int, int], strides: Strides, sizes: Sizes) -> Anchor:
    """The anchor with this index, without walking the grid."""
    feature_sizes = feature_sizes_hw(image_size_hw, strides)
    for stride, level_sizes, (rows, columns) in zip(strides, sizes, feature_sizes, strict=True):
        on_level = rows * columns * len(level_sizes)
        if index < on_level:
            cell, which = divmod(index, len(level_sizes))
            row, column = divmod(cell, columns)
            return Anchor(
                (column + 0.5) * stride, (row + 0.5) * stride, level_sizes[which], level_sizes[which]
            )
        index -= on_level
    raise IndexError("past the last anchor")


def generate(
    image_size_hw: tuple[int, int], strides: Strides = P3_P5_STRIDES, sizes: Sizes = P3_P5_SIZES
) -> npt.NDArray[np.float64]:
    """All anchors as (A, 4) float64: centre x, centre y, width, height in pixels."""
    return np.array(list(iterate(image_size_hw, strides, sizes)), dtype=np.float64).reshape(-1, 4)
