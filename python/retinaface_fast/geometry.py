"""One object that knows how the picture that is worked on lies in the picture that was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._typing import FloatArray

__all__ = ["Geometry"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a picture that is worked on lies in the original picture: a scale and an offset for each axis.

    Coordinates are continuous: pixel `i` covers the interval from `i` to `i + 1`, the origin is the top left
    corner of the picture and the right edge of a picture is at its width. In this frame resizing is a plain
    multiplication. (`cv2.resize` looks different, `x_src = (x_dst + 0.5) * scale - 0.5`, because it counts
    pixel centres, which lie at `i + 0.5` here: the halves cancel.)

    Attributes:
        original_size_hw: Height and width of the original, upright picture in pixels.
        size_hw: Height and width of the picture that is worked on.
        scale_xy: Pixels of the original per pixel of this picture.
        offset_xy: Where the top left corner of this picture lies in the original, in original pixels. Zero,
            but for a picture that was decoded at a reduced scale and then turned: its decoder rounds the
            size up, and the turn brings the surplus to the left or the top.

    Examples:
        >>> import numpy as np
        >>> geometry = Geometry((480, 640), (240, 320), scale_xy=(2.0, 2.0))
        >>> geometry.boxes_to_original(np.float32([[1, 2, 3, 4]])).tolist()
        [[2.0, 4.0, 6.0, 8.0]]
    """

    original_size_hw: tuple[int, int]
    size_hw: tuple[int, int]
    scale_xy: tuple[float, float] = (1.0, 1.0)
    offset_xy: tuple[float, float] = (0.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether both pictures have one frame."""
        return self.scale_xy == (1.0, 1.0) and self.offset_xy == (0.0, 0.0)

    def points_to_original(self, points: FloatArray) -> FloatArray:
        """Map points of this picture to the original.

        Args:
            points: (..., 2) float32, x and y in pixels of this picture.

        Returns:
            (..., 2) float32 in pixels of the original; `points` itself where the frames are one.
        """
        if self.is_identity:
            return points
        scale, offset = np.asarray(self.scale_xy), np.asarray(self.offset_xy)
        mapped: FloatArray = (points * scale + offset).astype(np.float32)
        return mapped

    def boxes_to_original(self, boxes: FloatArray) -> FloatArray:
        """Map boxes of this picture to the original.

        Args:
            boxes: (N, 4) float32 xyxy in pixels of this picture.

        Returns:
            (N, 4) float32 xyxy in pixels of the original; `boxes` itself where the frames are one.
        """
        return self.points_to_original(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
