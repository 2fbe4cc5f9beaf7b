"""How good a detector is: the official WIDER FACE protocol, and average precision for other data sets."""

from __future__ import annotations

from .average_precision import CocoScores, coco_average_precision, voc_average_precision
from .matching import match_boxes
from .protocols import PROTOCOLS, Protocol
from .runner import DetectionRun, Failure, RunProgress, RunSummary, claim_folder
from .widerface import Curve, Scores, evaluate

__all__ = [
    "PROTOCOLS",
    "CocoScores",
    "Curve",
    "DetectionRun",
    "Failure",
    "Protocol",
    "RunProgress",
    "RunSummary",
    "Scores",
    "claim_folder",
    "coco_average_precision",
    "evaluate",
    "match_boxes",
    "voc_average_precision",
]
