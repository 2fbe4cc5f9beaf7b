"""Faces of many pictures as columns: what was annotated, what counts, what was found.

Boxes are xyxy in pixels with the origin at the top left corner, in float64: the official evaluation computes
overlaps in double precision from numbers with decimals. A picture is named `event/name`, without its suffix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from retinaface_fast._typing import FloatArray

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
    """

    name: str
    boxes: FloatArray
    attributes: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    landmarks: FloatArray | None = None


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
    """

    names: Sequence[str]
    boxes: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    counted: Mapping[str, npt.NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.names)
