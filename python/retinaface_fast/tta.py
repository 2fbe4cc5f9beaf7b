"""Test-time augmentation: search a picture at several sizes, and mirrored, and vote on what is found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import ops
from ._validation import check_bool, check_fraction, check_optional_positive_int, check_positive_int

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._typing import FloatArray

__all__ = ["TTA", "View"]

#: No picture is enlarged beyond so many pixels: long thin ones would take all memory.
_MOST_ENLARGED = 2**24
#: Most faces that the published evaluation of the paper writes for a picture.
_PAPER_FACES = 750


class View(NamedTuple):
    """One of the pictures that are searched in place of the original."""

    #: Pixels of the view per pixel of the original.
    scale: float
    flipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TTA:
    """How often, and at which sizes, a picture is searched; for `FaceDetector(tta=…)`.

    The defaults are sizes and vote of the paper's test protocol (Deng et al. 2019, section 4.3): five sizes,
    each of them mirrored, too, with a limit on faces that the paper has not (`max_face_side`). That finds
    many more small faces; a picture of 1024x768 has 24 times as many pixels in all views as by itself.
    `TTA(short_sides=(None,))` searches the picture at its own size and mirrored.

    Each view is searched with the detector's settings, but from a score of 0.02 on if its threshold is
    higher, and suppressed by itself. A detector's max_side shrinks the picture before.
    Then `ops.vote_boxes` makes one face of all that overlap: its box and landmarks are means weighted by the
    scores. Its score is the best one, or with `agreement` takes into account how many views found it. What
    still overlaps by more than the detector's nms_threshold is suppressed. Where there is only one view, no
    vote is taken: the faces are those of a search at that size.

    Attributes:
        short_sides: Lengths in pixels to which the shorter side of the picture is brought, up or down; None
            among them stands for the picture as it is. Sizes that come out equal are searched once. Nothing
            is enlarged beyond 2**24 pixels, 4096x4096.
        flip: Whether each size is searched mirrored, too.
        max_long_side: The longer side is never enlarged beyond, or left above, so many pixels: a view that it
            would be smaller than `short_sides` says. None for no limit. Does not apply to None in
            `short_sides`.
        vote_threshold: From 0 to 1; candidates with an IoU >= vote_threshold are one face.
        max_face_side: Faces whose box in a view has a geometric mean side of more than so many pixels of the
            view are left to smaller views; the smallest view keeps all. None for no limit, which is what the
            paper does, at the price of some AP.
        agreement: From 0 to 1; the weight in the score of the agreement of the views: score = (1 - agreement)
            * best + agreement * min(1, sum of the scores / number of views that keep faces of that size).
        paper_compat: Do as the code that was published with the paper: all candidates of all views vote,
            without a suppression in each view before; what was found only once is dropped; voted faces are
            not suppressed again, and 750 are returned at most. Its widths of x2 - x1 + 1 are not taken over.

    Raises:
        TypeError: An attribute has the wrong type.
        ValueError: A number is out of range, or there is no size.

    Examples:
        >>> [view.scale for view in TTA(short_sides=(None, 240), flip=False).views((480, 640))]
        [1.0, 0.5]
    """

    short_sides: Sequence[int | None] = (500, 800, 1100, 1400, 1700)
    flip: bool = True
    max_long_side: int | None = None
    vote_threshold: float = 0.4
    max_face_side: int | None = 400
    agreement: float = 0.0
    paper_compat: bool = False

    def __post_init__(self) -> None:
        checked = {
            "short_sides": _check_sides(self.short_sides),
            "flip": check_bool(self.flip, "flip"),
            "max_long_side": check_optional_positive_int(self.max_long_side, "max_long_side"),
            "vote_threshold": check_fraction(self.vote_threshold, "vote_threshold"),
            "max_face_side": check_optional_positive_int(self.max_face_side, "max_face_side"),
            "agreement": check_fraction(self.agreement, "agreement"),
            "paper_compat": check_bool(self.paper_compat, "paper_compat"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def views(self, size_hw: tuple[int, int]) -> list[View]:
        """Return the views of a picture of this height and width, in the order in which they are searched."""
        scales = dict.fromkeys(self._scale(size_hw, side) for side in self.short_sides)
        flips = (False, True) if self.flip else (False,)
        return [View(scale, flipped) for scale in scales for flipped in flips]

    def _scale(self, size_hw: tuple[int, int], short_side: int | None) -> float:
        if short_side is None:
            return 1.0
        shorter, longer = sorted(size_hw)
        scale = short_side / shorter
        if self.max_long_side is not None:
            scale = min(scale, self.max_long_side / longer)
        return min(scale, max(1.0, math.sqrt(_MOST_ENLARGED / (shorter * longer))))

    def merge(
        self,
        found: Sequence[ops.Faces],
        views: Sequence[View],
        *,
        score_threshold: float,
        nms_threshold: float,
        keep_top_k: int | None,
    ) -> ops.Faces:
        """Vote on what the views found.

        Args:
            found: For each view its faces, in pixels of the picture.
            views: The views.
            score_threshold: A face that is returned has score > score_threshold.
            nms_threshold: Of two voted faces with IoU > nms_threshold, the lower is dropped.
            keep_top_k: Most faces that are returned; all if None.

        Returns:
            The faces in pixels of the picture, highest score first.
        """
        smallest = min(view.scale for view in views)
        limits = [self._largest_face(view.scale, smallest) for view in views]
        kept = [
            ops.Faces(*(column[box_sides(faces.boxes) <= limit] for column in faces))
            for faces, limit in zip(found, limits, strict=True)
        ]
        votes = ops.vote_boxes(
            *(np.concatenate(columns) for columns in zip(*kept, strict=True)),
            iou_threshold=self.vote_threshold,
        )
        assert votes.landmarks is not None
        scores = votes.scores
        if self.agreement > 0:
            able = (box_sides(votes.boxes)[:, None] <= np.array(limits)).sum(axis=1)
            together = np.minimum(1, votes.score_sums / np.maximum(able, 1))
            mixed = (1 - self.agreement) * votes.scores + self.agreement * together
            scores = mixed.astype(np.float32)
        chosen = scores > score_threshold
        if self.paper_compat:
            chosen &= votes.members > 1
            keep_top_k = min(keep_top_k or _PAPER_FACES, _PAPER_FACES)
        boxes, scores, landmarks = votes.boxes[chosen], scores[chosen], votes.landmarks[chosen]
        order = ops.nms(
            boxes, scores, iou_threshold=1.0 if self.paper_compat else nms_threshold, keep_top_k=keep_top_k
        )
        return ops.Faces(boxes[order], scores[order], landmarks[order])

    def _largest_face(self, scale: float, smallest_scale: float) -> float:
        """Largest side, in pixels of the picture, of a face that a view of this scale keeps."""
        if self.max_face_side is None or scale <= smallest_scale:
            return np.inf
        return self.max_face_side / scale


def _check_sides(value: object) -> tuple[int | None, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        kind = type(value).__name__
        raise TypeError(f"short_sides must be a sequence of integers or None, got {kind} {value!r}")
    sides = tuple(
        None if side is None else check_positive_int(side, f"short_sides[{index}]")
        for index, side in enumerate(value)
    )
    if not sides:
        raise ValueError("short_sides must hold at least one size, got none")
    return sides


def box_sides(boxes: FloatArray) -> FloatArray:
    """(N,) float32: geometric mean of width and height of (N, 4) xyxy boxes, pixels."""
    lengths = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    sides: FloatArray = np.sqrt(lengths[:, 0] * lengths[:, 1])
    return sides
