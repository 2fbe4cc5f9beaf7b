"""How good a detector is: the official WIDER FACE protocol, and average precision for other data sets."""

from __future__ import annotations

from .average_precision import CocoScores, coco_average_precision, voc_average_precision
from .contact_sheet import ContactSheet, sheet_of_false_positives, sheet_of_misses
from .curves import plot_curves
from .matching import match_boxes
from .protocols import PROTOCOLS, Protocol
from .report import build_report, heights_to_table, report_to_markdown, reports_to_table
from .runner import DetectionRun, Failure, RunProgress, RunSummary, claim_folder
from .widerface import Curve, Scores, evaluate

__all__ = [
    "PROTOCOLS",
    "CocoScores",
    "ContactSheet",
    "Curve",
    "DetectionRun",
    "Failure",
    "Protocol",
    "RunProgress",
    "RunSummary",
    "Scores",
    "build_report",
    "claim_folder",
    "coco_average_precision",
    "evaluate",
    "heights_to_table",
    "match_boxes",
    "plot_curves",
    "report_to_markdown",
    "reports_to_table",
    "sheet_of_false_positives",
    "sheet_of_misses",
    "voc_average_precision",
]
