"""How good a detector is: the official WIDER FACE protocol, in one call for the whole set."""

from __future__ import annotations

from .matching import match_boxes
from .widerface import Curve, Scores, evaluate

__all__ = ["Curve", "Scores", "evaluate", "match_boxes"]
