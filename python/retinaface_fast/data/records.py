"""Faces of many pictures as columns: what was annotated, what counts, what was found.

Boxes are xyxy in pixels with the origin at the top left corner, in float64: the official evaluation computes
overlaps in double precision from numbers with decimals. A picture is named `event/name`, without its suffix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from retinaface_fast._typing import FloatArray, IntArray

__all__ = ["ATTRIBUTES", "SUBSETS", "Annotation", "GroundTruth", "Prediction"]

#: The subsets of the validation set on which average precision is stated, each within the next.
SUBSETS = ("easy", "medium", "hard")

#: What WIDER FACE says of each face, in the order of the columns. 0 is none or normal; blur and occlusion go
#: to 2 (heavy), the others to 1.
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """The annotated faces of one picture, as its file has them: boxes without area and invalid ones, too.

    Attributes:
        name: `event/name`, without a suffix.
        boxes: (N, 4) float32 xyxy in pixels.
        attributes: (N,) int8 by name, of `ATTRIBUTES`; empty for files that say nothing of them.
        landmarks: (N, 5, 2) float32, x and y in pixels, left and right as seen in the image; NaN where a face
            has none.
        line: The line of the file, from 1, that names the picture; 0 where there is no file.
        face_lines: (N,) int64, the line of each face likewise; empty where there is no file.
    """

    name: str
    boxes: FloatArray
    attributes: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    landmarks: FloatArray | None = None
    line: int = 0
    face_lines: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The faces that were found in one picture.

    Attributes:
        boxes: (N, 4) float64 xyxy in pixels.
        scores: (N,) float64, higher is surer.
        landmarks: (N, 5, 2) float64 in pixels; None where the file has none.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """The faces that an evaluation looks for, those of all pictures in one array.

    Attributes:
        names: The pictures, `event/name` without a suffix, in order.
        boxes: (G, 4) float64 xyxy in pixels.
        offsets: (pictures + 1,) int64: the boxes of picture i are `boxes[offsets[i]:offsets[i + 1]]`.
        counted: (G,) bool by subset: which boxes are to be found. Who finds another is neither right nor
            wrong.

    Raises:
        TypeError: A column is no array, or has another dtype.
        ValueError: A column has another shape, a coordinate is NaN or infinite, or the offsets do not go from
            0 to G without falling.
    """

    names: Sequence[str]
    boxes: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    counted: Mapping[str, npt.NDArray[np.bool_]]

    def __post_init__(self) -> None:
        # Whatever else goes in comes out as figures that look right: integer masks are indices to NumPy.
        num_boxes = _check_column(self.boxes, "boxes", np.float64, (None, 4))
        if not np.isfinite(self.boxes).all():
            row = int(np.flatnonzero(~np.isfinite(self.boxes).all(axis=1))[0])
            raise ValueError(f"boxes must be finite, got {self.boxes[row].tolist()} in row {row}")
        _check_column(self.offsets, "offsets", np.int64, (len(self.names) + 1,))
        if self.offsets[0] != 0 or self.offsets[-1] != num_boxes or (np.diff(self.offsets) < 0).any():
            raise ValueError(
                f"offsets must go from 0 to {num_boxes}, the number of boxes, and never fall, got "
                f"{np.array2string(self.offsets, threshold=8, separator=', ')}"
            )
        for subset, mask in self.counted.items():
            _check_column(mask, f"counted[{subset!r}]", np.bool_, (num_boxes,))

    def __len__(self) -> int:
        return len(self.names)


def _check_column(array: object, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> int:
    """Say that an array must have this dtype and shape, unless it has; return its length."""
    wanted = np.dtype(dtype)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an array of {wanted}, got {type(array).__name__}")
    if array.dtype != wanted:
        raise TypeError(f"{name} must be {wanted}, got {array.dtype}")
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        sides = ", ".join("G" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have the shape ({sides}{',' * (len(shape) == 1)}), got {array.shape}")
    return len(array)
