"""Data sets: readers and writers that evaluation and training share."""

from __future__ import annotations

from .coco import read_coco
from .ground_truth import read_attributes, read_ground_truth
from .records import ATTRIBUTES, SUBSETS, Annotation, GroundTruth, Prediction
from .widerface import (
    read_annotations,
    read_labels,
    read_names,
    read_prediction,
    read_predictions,
    write_prediction,
)

__all__ = [
    "ATTRIBUTES",
    "SUBSETS",
    "Annotation",
    "GroundTruth",
    "Prediction",
    "read_annotations",
    "read_attributes",
    "read_coco",
    "read_ground_truth",
    "read_labels",
    "read_names",
    "read_prediction",
    "read_predictions",
    "write_prediction",
]
