"""Data sets: readers and writers that evaluation and training share."""

from __future__ import annotations

from .records import ATTRIBUTES, SUBSETS, Annotation, GroundTruth, Prediction

__all__ = ["ATTRIBUTES", "SUBSETS", "Annotation", "GroundTruth", "Prediction"]
