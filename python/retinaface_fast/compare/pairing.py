"""Which faces two detectors have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._validation import check_fraction
from retinaface_fast.ops import box_iou

if TYPE_CHECKING:
    from retinaface_fast._typing import DoubleArray, IntArray
    from retinaface_fast.detections import Detections

__all__ = ["DEFAULT_MIN_IOU", "FacePairs", "pair_faces"]

#: dlib frames a face in another way than RetinaFace: in squares, a tenth wider and a sixth less high. On 284
#: pictures of WIDER FACE, HOG found 265 faces, and 487 in the doubled pictures; on 60 of them the CNN found
#: 93. The greatest overlap of each of these with a face of RetinaFace has a median of 0.70; 838 of them have
#: at least 0.35, the other 7 have 0.19 or less. The 0.5 of evaluations would lose 16 of the 838.
DEFAULT_MIN_IOU = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class FacePairs:
    """The faces that two detectors found both, and those that only one of them found.

    Attributes:
        pairs: (P, 2) int64, index of the face in the first and in the second result; the pair with the
            greatest overlap first.
        ious: (P,) float64, intersection over union of the two boxes.
        landmark_distances: (P, 5) float64, how far the two points of each landmark lie apart, as a fraction
            of the height of the first box, in the order of `LANDMARK_NAMES`; NaN where one of the two faces
            lacks the landmark.
        only_first: (A,) int64, faces of the first result that are in no pair, in their order.
        only_second: (B,) int64, those of the second.
    """

    pairs: IntArray
    ious: DoubleArray
    landmark_distances: DoubleArray
    only_first: IntArray
    only_second: IntArray

    def __len__(self) -> int:
        return len(self.pairs)


def check_min_iou(value: object) -> float:
    """Return the least overlap of a pair as a float, or say that it must be above 0 and at most 1."""
    min_iou = check_fraction(value, "min_iou")
    if min_iou == 0:
        raise ValueError("min_iou must be greater than 0: with 0 every face would be every other's pair")
    return min_iou


def pair_faces(first: Detections, second: Detections, *, min_iou: float = DEFAULT_MIN_IOU) -> FacePairs:
    """Decide which faces of two results are the same.

    Of all boxes, the two that overlap most make a pair, then the two that do among the rest, as long as their
    IoU is at least `min_iou`; each face is in one pair at most. So a pair that is evident is never broken up
    to make two poor ones of it, as an assignment with the greatest sum of overlaps would, and what two faces
    become depends on their neighbours alone. Of equal overlaps, that of the earlier face of the first result
    goes first, then that of the earlier one of the second: the earlier a face, the higher its score.

    Args:
        first: Faces of a picture.
        second: Faces of the same picture.
        min_iou: Least intersection over union of a pair; within (0, 1].

    Returns:
        The pairs, and who is in none.

    Raises:
        ValueError: `min_iou` is out of range, or the results are of pictures of different sizes.
        TypeError: `min_iou` is no number.

    Examples:
        >>> import numpy as np
        >>> from retinaface_fast import Detections
        >>> points = np.full((2, 5, 2), np.nan)
        >>> one = Detections([[0, 0, 10, 10], [50, 0, 60, 10]], [0.9, 0.8], points, image_size=(20, 80))
        >>> other = Detections([[20, 0, 30, 10], [1, 0, 11, 10]], [2.5, 0.4], points, image_size=(20, 80))
        >>> found = pair_faces(one, other)
        >>> found.pairs.tolist(), found.ious.round(3).tolist()
        ([[0, 1]], [0.818])
        >>> found.only_first.tolist(), found.only_second.tolist()
        ([1], [0])
    """
    min_iou = check_min_iou(min_iou)
    if first.image_size != second.image_size:
        raise ValueError(
            f"first and second must be results of one picture, got sizes of {first.image_size} and "
            f"{second.image_size}"
        )
    ious = np.asarray(box_iou(first.boxes, second.boxes), np.float64)
    rows, columns = np.nonzero(ious >= min_iou)
    # Stable, and np.nonzero goes row by row: that is the order of equals.
    order = np.argsort(-ious[rows, columns], kind="stable")
    free_first, free_second = np.ones(len(first), np.bool_), np.ones(len(second), np.bool_)
    chosen = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free_first[row] and free_second[column]:
            free_first[row] = free_second[column] = False
            chosen.append((row, column))
    pairs = np.array(chosen, np.int64).reshape(-1, 2)
    of_first, of_second = pairs.T
    points = np.asarray(first.landmarks[of_first], np.float64)
    apart = np.linalg.norm(points - second.landmarks[of_second], axis=2)
    heights = np.asarray(first.boxes[of_first, 3] - first.boxes[of_first, 1], np.float64)
    return FacePairs(
        pairs=pairs,
        ious=ious[of_first, of_second],
        landmark_distances=apart / heights[:, None],
        only_first=np.flatnonzero(free_first).astype(np.int64),
        only_second=np.flatnonzero(free_second).astype(np.int64),
    )
