"""Large pictures in overlapping tiles, so that no more than a tile is in the network at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ._typing import FloatArray

__all__ = ["MARGIN", "SMALLEST_TILE", "Tile", "tile_grid"]

#: What a tile sees beyond its own part, in pixels. The MobileNet networks look 285 pixels far from an
#: anchor, and the centre of a face of 500 pixels lies up to some 100 pixels from that of its anchor.
MARGIN = 384
#: Within so many pixels of a border, the tiles on both sides answer for a face.
_SHARED = 1 / 16
#: Shortest side that a tile may have: below, it would consist of margins.
SMALLEST_TILE = 1280


class Tile(NamedTuple):
    """A part of a picture, in its pixels."""

    #: What is searched: left, top, right, bottom.
    outer: tuple[int, int, int, int]
    #: Where the centres of the faces lie that this tile answers for; the tiles of a picture share out the
    #: plane, for faces at the edge may have theirs outside.
    inner: tuple[float, float, float, float]

    def owns(self, boxes: FloatArray) -> npt.NDArray[np.bool_]:
        """Return for each of (N, 4) xyxy boxes, in pixels of the picture, whether this tile answers for it.

        Two tiles may compute a centre that differs in its last digits. Close to their border both answer: one
        of two equal boxes is suppressed later, but none is lost between them.
        """
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        left, top, right, bottom = self.inner
        owned: npt.NDArray[np.bool_] = (
            (x >= left - _SHARED) & (x <= right + _SHARED) & (y >= top - _SHARED) & (y <= bottom + _SHARED)
        )
        return owned


def tile_grid(size_hw: tuple[int, int], tile_side: int, stride: int) -> list[Tile]:
    """Cut a picture into tiles.

    Args:
        size_hw: Height and width of the picture.
        tile_side: Longest side of a tile.
        stride: The network's coarsest stride: tiles begin at its multiples, where the network
            computes what it computes of the whole picture.

    Returns:
        The tiles, row by row; a single one where the picture fits.
    """
    rows, columns = (_cut(length, tile_side, stride) for length in size_hw)
    return [
        Tile((x_from, y_from, x_to, y_to), (left, top, right, bottom))
        for (y_from, y_to), (top, bottom) in rows
        for (x_from, x_to), (left, right) in columns
    ]


def _cut(length: int, tile_side: int, stride: int) -> list[tuple[tuple[int, int], tuple[float, float]]]:
    """Cut one axis into as few parts as there can be, of about one length; what is searched, and owned."""
    if length <= tile_side:
        return [((0, length), (-math.inf, math.inf))]
    margin = -(-MARGIN // stride) * stride
    strides = -(-length // stride)
    parts = 2
    while -(-strides // parts) * stride + min(parts - 1, 2) * margin > tile_side:
        parts += 1
    bounds = [part * strides // parts * stride for part in range(parts)] + [length]
    owned = [-math.inf, *bounds[1:-1], math.inf]
    return [
        ((max(0, bounds[i] - margin), min(length, bounds[i + 1] + margin)), (owned[i], owned[i + 1]))
        for i in range(parts)
    ]
