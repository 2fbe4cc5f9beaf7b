"""Average precision by the rules of Pascal VOC and of COCO, for boxes of any data set.

The two differ in more than the overlap they ask for, so that neither can be had from the other's program. VOC
compares a prediction with the box that it overlaps most and calls it wrong if that one is taken, and computes
overlaps with widths of x2 - x1 + 1, as WIDER FACE does; COCO gives it the best box that is still free, and
has no +1. VOC is computed here, COCO by its authors' own program, pycocotools.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retinaface_fast._validation import check_fraction, check_positive_int
from retinaface_fast.errors import MissingDependencyError

from ._columns import join_boxes, join_predictions
from .matching import match_boxes
from .widerface import area_under_curve, first_finders

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retinaface_fast._typing import BoolArray, DoubleArray, IntArray
    from retinaface_fast.data.records import Prediction

__all__ = ["CocoScores", "coco_average_precision", "voc_average_precision"]

#: Index of the category in COCO's terms: there is one.
_FACE = 1
#: COCO's areas in pixels; what ends where another begins belongs to both.
_AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True, slots=True)
class CocoScores:
    """The figures of COCO, each from 0 to 1; NaN where no box counts.

    Attributes:
        ap: Average precision at 101 recalls, averaged over the overlaps 0.50, 0.55 ... 0.95.
        ap50: The same for an overlap of 0.50 alone.
        ap75: The same for an overlap of 0.75 alone.
        ap_small: Of boxes up to 32 x 32 pixels.
        ap_medium: Of boxes from 32 x 32 to 96 x 96 pixels.
        ap_large: Of boxes from 96 x 96 pixels.
        ar: Recall of all predictions, averaged over the overlaps.
        ar_small: Of boxes up to 32 x 32 pixels.
        ar_medium: Of boxes from 32 x 32 to 96 x 96 pixels.
        ar_large: Of boxes from 96 x 96 pixels.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float


def voc_average_precision(
    predictions: Sequence[Prediction],
    truth_boxes: Sequence[DoubleArray],
    *,
    ignored: Sequence[BoolArray] | None = None,
    iou_threshold: float = 0.5,
    interpolation: Literal["all", "11"] = "all",
) -> float:
    """Average precision by the rules of Pascal VOC (`VOCevaldet.m` of its development kit).

    Args:
        predictions: One for each picture: boxes (N, 4) xyxy in pixels, scores (N,) of any range.
        truth_boxes: (G, 4) xyxy in pixels for each picture.
        ignored: (G,) bool for each picture: boxes that are "difficult"; who finds one is neither right nor
            wrong. None if all boxes count.
        iou_threshold: What it takes to find a box, by >=; within (0, 1].
        interpolation: "all" for the area under the curve, as from 2010 on; "11" for the mean of the highest
            precision at recalls >= 0, 0.1 ... 1, as before.

    Returns:
        From 0 to 1; NaN if no box counts.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If lengths or shapes do not fit, a number is out of range, NaN or infinite.

    Example:
        >>> import numpy as np
        >>> from retinaface_fast.data import Prediction
        >>> faces = np.array([[0, 0, 20, 20], [40, 0, 60, 20]], np.float64)
        >>> found = Prediction(faces[:1] + 1, np.array([0.9]))
        >>> voc_average_precision([found], [faces])
        0.5
    """
    iou_threshold = check_fraction(iou_threshold, "iou_threshold")
    if iou_threshold == 0:
        raise ValueError("iou_threshold must be greater than 0: with 0 every box would be found")
    if interpolation not in ("all", "11"):
        raise ValueError(f'interpolation must be "all" or "11", got {interpolation!r}')
    names = _names(predictions, truth_boxes)
    found, scores, offsets = join_predictions(predictions, names)
    boxes, counted, box_offsets = join_boxes(truth_boxes, ignored, names)
    if not counted.any():
        return float("nan")
    best, overlaps = match_boxes(found, offsets, boxes, box_offsets)
    matched = overlaps >= iou_threshold
    finders = first_finders(best, matched, scores, len(boxes))
    right = np.zeros(len(found), dtype=np.bool_)
    right[finders[counted & (finders >= 0)]] = True
    left_out = np.zeros(len(found), dtype=np.bool_)
    left_out[matched] = ~counted[best[matched]]

    ranked = np.argsort(-scores, kind="stable")
    ranked = ranked[~left_out[ranked]]
    num_right = np.cumsum(right[ranked])
    precision = num_right / np.arange(1, len(ranked) + 1)
    recall = num_right / np.count_nonzero(counted)
    if interpolation == "all":
        return area_under_curve(precision, recall)
    levels = np.arange(11) / 10  # unlike multiples of 0.1, which 3 / 10 is less than
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in levels]))


def coco_average_precision(
    predictions: Sequence[Prediction],
    truth_boxes: Sequence[DoubleArray],
    *,
    ignored: Sequence[BoolArray] | None = None,
    max_detections: int = 100,
) -> CocoScores:
    """Average precision and recall by the rules of COCO, computed by pycocotools.

    Args:
        predictions: One for each picture: boxes (N, 4) xyxy in pixels, scores (N,) of any range.
        truth_boxes: (G, 4) xyxy in pixels for each picture.
        ignored: (G,) bool for each picture: regions that are left out, COCO's crowds; a prediction of which
            enough lies within one is neither right nor wrong, and any number may. None if all boxes count.
        max_detections: Of each picture, only this many predictions with the highest scores take part.
            COCO says 100, which is too few for crowds of faces.

    Returns:
        The ten figures.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If lengths or shapes do not fit, or a number is NaN or infinite.
        MissingDependencyError: pycocotools is not installed.
    """
    max_detections = check_positive_int(max_detections, "max_detections")
    names = _names(predictions, truth_boxes)
    found, scores, offsets = join_predictions(predictions, names)
    boxes, counted, box_offsets = join_boxes(truth_boxes, ignored, names)

    annotations = _BoxSet(boxes, box_offsets, [{"iscrowd": int(not counts)} for counts in counted])
    evaluator = _quiet_evaluator()(
        annotations, _BoxSet(found, offsets, [{"score": float(score)} for score in scores]), "bbox"
    )
    parameters = evaluator.params
    parameters.maxDets = [max_detections]
    parameters.areaRng = [list(limits) for limits in _AREAS.values()]
    parameters.areaRngLbl = list(_AREAS)
    evaluator.evaluate()
    evaluator.accumulate()
    # overlaps, recalls, category, area, detections; -1 where no box counts
    precision = np.asarray(evaluator.eval["precision"])[:, :, 0, :, 0]
    recall = np.asarray(evaluator.eval["recall"])[:, 0, :, 0]
    precision, recall = (np.where(values < 0, np.nan, values) for values in (precision, recall))
    of_areas = dict(zip(_AREAS, precision.mean(axis=(0, 1)).tolist(), strict=True))
    recall_of_areas = dict(zip(_AREAS, recall.mean(axis=0).tolist(), strict=True))
    at = {float(overlap): row for overlap, row in zip(parameters.iouThrs.round(2), precision, strict=True)}
    return CocoScores(
        ap=of_areas["all"],
        ap50=float(at[0.5][:, 0].mean()),
        ap75=float(at[0.75][:, 0].mean()),
        ap_small=of_areas["small"],
        ap_medium=of_areas["medium"],
        ap_large=of_areas["large"],
        ar=recall_of_areas["all"],
        ar_small=recall_of_areas["small"],
        ar_medium=recall_of_areas["medium"],
        ar_large=recall_of_areas["large"],
    )


def _names(predictions: Sequence[Prediction], truth_boxes: Sequence[DoubleArray]) -> list[str]:
    """What the pictures, which have no names, are called in a message."""
    if len(predictions) != len(truth_boxes):
        raise ValueError(
            f"predictions: expected one for each of the {len(truth_boxes)} pictures of truth_boxes, "
            f"got {len(predictions)}"
        )
    return [f"picture {index}" for index in range(len(truth_boxes))]


class _BoxSet:
    """What the evaluation of pycocotools asks of its class COCO, without the file that one wants to read.

    Args:
        boxes: (N, 4) xyxy.
        offsets: (pictures + 1,) where each picture's begin.
        more: What there is to say of each box besides.
    """

    def __init__(self, boxes: DoubleArray, offsets: IntArray, more: Iterable[dict[str, Any]]) -> None:
        pictures = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).tolist()
        sides = boxes[:, 2:] - boxes[:, :2]
        rows = np.concatenate([boxes[:, :2], sides], axis=1).tolist()
        self._num_pictures = len(offsets) - 1
        # Numbers from 1: to pycocotools the box 0 is "found nothing".
        self._annotations = [
            {
                "id": number,
                "image_id": picture,
                "category_id": _FACE,
                "bbox": row,
                "area": row[2] * row[3],
                **extra,
            }
            for number, (picture, row, extra) in enumerate(zip(pictures, rows, more, strict=True), 1)
        ]

    def getImgIds(self) -> list[int]:  # noqa: N802 -- the names are pycocotools'
        return list(range(self._num_pictures))

    def getCatIds(self) -> list[int]:  # noqa: N802
        return [_FACE]

    def getAnnIds(self, *, imgIds: object, catIds: object) -> None:  # noqa: N802, N803
        """All of them are wanted, always."""

    def loadAnns(self, ids: None) -> list[dict[str, Any]]:  # noqa: N802
        return self._annotations


def _quiet_evaluator() -> Any:
    """The class COCOeval with methods that print nothing.

    They are copies that see another `print`: nothing is changed that others use, as a redirected standard
    output would be, in which the lines of other threads are lost.
    """
    try:
        from pycocotools import cocoeval
    except ImportError as error:
        raise MissingDependencyError(
            "pycocotools", purpose="average precision by the rules of COCO", extra="eval"
        ) from error
    silent = {**vars(cocoeval), "print": lambda *_: None}
    methods = {
        name: FunctionType(getattr(cocoeval.COCOeval, name).__code__, silent, name, (None,))
        for name in ("evaluate", "accumulate")
    }
    return type("QuietEvaluator", (cocoeval.COCOeval,), methods)
