"""The columns of the package, and what the oracle takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.data import SUBSETS, GroundTruth, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tests.reference.wider_ap import Annotations

    Array = npt.NDArray[Any]


def xyxy(boxes_xywh: Array) -> Array:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:4]], axis=1)


def to_truth(annotations: Mapping[str, Annotations]) -> GroundTruth:
    lengths = [len(annotation.boxes) for annotation in annotations.values()]
    return GroundTruth(
        names=list(annotations),
        boxes=np.concatenate([np.empty((0, 4)), *(xyxy(one.boxes) for one in annotations.values())]),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        counted={
            subset: np.concatenate(
                [np.empty(0, dtype=bool), *(one.counted[subset] for one in annotations.values())]
            )
            for subset in SUBSETS
        },
    )


def to_predictions(rows_xywhs: Mapping[str, Array], names: Sequence[str]) -> list[Prediction]:
    return [Prediction(xyxy(rows_xywhs[name]), rows_xywhs[name][:, 4]) for name in names]
