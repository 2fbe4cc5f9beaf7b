"""Named protocols: how pictures are searched, so that a figure for average precision says what it means."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a detector searches the pictures that it is scored on.

    Thresholds and limits are those that published figures were made with: almost everything is kept, since
    the evaluation itself goes through all thresholds.

    Attributes:
        name: What it is called beside every figure.
        description: What it does, in a few words.
        score_threshold: A face has score > score_threshold.
        nms_threshold: Of two boxes with IoU > nms_threshold, the one with the lower score is dropped.
        top_k: Most candidates of one search.
        keep_top_k: Most faces of a picture.
    """

    name: str
    description: str
    score_threshold: float = 0.02
    nms_threshold: float = 0.4
    top_k: int = 5000
    keep_top_k: int = 750

    def options(self) -> dict[str, Any]:
        """Return the settings as keywords of `FaceDetector`."""
        return {
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "top_k": self.top_k,
            "keep_top_k": self.keep_top_k,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON takes them: two protocols that search alike give the same."""
        return self.options()


#: The protocols by name.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (Protocol(name="original", description="one search at the picture's own size"),)
    }
)
