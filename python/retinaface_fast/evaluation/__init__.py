"""How good a detector is: the official WIDER FACE protocol, in one call for the whole set."""

from __future__ import annotations

from .matching import match_boxes
from .protocols import PROTOCOLS, Protocol
from .runner import DetectionRun, Failure, RunProgress, RunSummary, claim_folder
from .widerface import Curve, Scores, evaluate

__all__ = [
    "PROTOCOLS",
    "Curve",
    "DetectionRun",
    "Failure",
    "Protocol",
    "RunProgress",
    "RunSummary",
    "Scores",
    "claim_folder",
    "evaluate",
    "match_boxes",
]
