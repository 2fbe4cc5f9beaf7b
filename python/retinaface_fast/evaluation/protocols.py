"""Named protocols: how pictures are searched, so that a figure for average precision says what it means."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast import ops
from retinaface_fast.tta import TTA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retinaface_fast.detections import Detections
    from retinaface_fast.detector import FaceDetector
    from retinaface_fast.image import ImageSource

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a detector searches the pictures that it is scored on.

    Thresholds and limits are those that published figures were made with: almost everything is kept, since
    the evaluation itself goes through all thresholds.

    Attributes:
        name: What it is called beside every figure.
        description: What it does, in a few words.
        tta: Sizes at which each picture is searched; None for its own, once.
        score_threshold: A face has score > score_threshold.
        nms_threshold: Of two boxes with IoU > nms_threshold, the one with the lower score is dropped.
        top_k: Most candidates of one search.
        keep_top_k: Most faces of a picture; None for all.
        close_ups: Whether large pictures are searched a second time for close-ups.
        plus_one_widths: Whether the suppression takes a box to be x2 - x1 + 1 wide, in pixels of the picture,
            as the programs do that figures were published with. It merges more of the smallest faces.
    """

    name: str
    description: str
    tta: TTA | None = None
    score_threshold: float = 0.02
    nms_threshold: float = 0.4
    top_k: int = 5000
    keep_top_k: int | None = 750
    close_ups: bool = False
    plus_one_widths: bool = False

    def options(self) -> dict[str, Any]:
        """Return keywords of `FaceDetector`, for a detector that `detect` takes."""
        return {
            "score_threshold": self.score_threshold,
            # The detector knows no such widths: it leaves the suppression to `detect`.
            "nms_threshold": 1.0 if self.plus_one_widths else self.nms_threshold,
            "top_k": self.top_k,
            "keep_top_k": None if self.plus_one_widths else self.keep_top_k,
            "max_side": None,
            "tta": self.tta,
            "close_ups": self.close_ups,
            "tile_side": None,
        }

    def detect(self, detector: FaceDetector, image: ImageSource) -> Detections:
        """Search one picture.

        Args:
            detector: One that was built with `options`.
            image: The picture, see `FaceDetector.detect`.

        Returns:
            The faces.

        Raises:
            ValueError: The detector has other settings than `options`; the message names them.
            Exception: As `FaceDetector.detect`.
        """
        others = [
            f"{name}={value!r} instead of {wanted!r}"
            for name, wanted in self.options().items()
            if (value := getattr(detector, name)) != wanted
        ]
        if others:
            raise ValueError(
                f"detector must be built with the options of the protocol {self.name}, got "
                f"{', '.join(others)}"
            )
        found = detector.detect(image)
        if not self.plus_one_widths:
            return found
        wider = found.boxes + np.array([0, 0, 1, 1], np.float32)
        kept = ops.nms(wider, found.scores, iou_threshold=self.nms_threshold, keep_top_k=self.keep_top_k)
        return found[kept]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON takes them: two protocols that search alike give the same."""
        names = (field.name for field in fields(self) if field.name not in ("name", "description"))
        options = {name: getattr(self, name) for name in names}
        if self.tta is not None:
            tta = asdict(self.tta)
            options["tta"] = {**tta, "short_sides": list(tta["short_sides"])}
        return options


_PAPER_SIDES = (500, 800, 1100, 1400, 1700)

_ALL = (
    Protocol(name="original", description="one search at the picture's own size", plus_one_widths=True),
    Protocol(
        name="default",
        description="as FaceDetector does by itself: at the picture's own size, second look for close-ups",
        close_ups=True,
    ),
    Protocol(
        name="short1600",
        description="one search, the short side brought to 1600 pixels, the long side to 2150 at most",
        tta=TTA(short_sides=(1600,), max_long_side=2150, flip=False),
        plus_one_widths=True,
    ),
    Protocol(
        name="vga",
        description="one search at the size that fits 640x480, or 480x640",
        tta=TTA(short_sides=(480,), max_long_side=640, flip=False),
        plus_one_widths=True,
    ),
    Protocol(
        name="paper",
        description="short sides of 500, 800, 1100, 1400 and 1700 pixels, each also mirrored; boxes voted on "
        "at an overlap of 0.4; faces of more than 400 pixels of a view left to smaller ones, a limit that "
        "the paper does not have",
        tta=TTA(short_sides=_PAPER_SIDES, vote_threshold=0.4, max_face_side=400),
        keep_top_k=None,
    ),
    Protocol(
        name="paper-compat",
        description="the same views; all candidates of all views vote without a suppression before, as in "
        "the code published with the paper (not its +1 widths); what is found only once is dropped, 750 "
        "faces at most, no limit on the size of faces",
        tta=TTA(short_sides=_PAPER_SIDES, vote_threshold=0.4, max_face_side=None, paper_compat=True),
    ),
    Protocol(
        name="ensemble",
        description="as paper, and half of the score is the agreement of the views",
        tta=TTA(short_sides=_PAPER_SIDES, vote_threshold=0.4, max_face_side=400, agreement=0.5),
        keep_top_k=None,
    ),
)

#: The protocols by name.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in _ALL})
