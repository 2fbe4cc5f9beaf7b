"""Box voting."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from retinaface_fast import _core

if TYPE_CHECKING:
    from retinaface_fast._typing import FloatArray, IntArray

__all__ = ["Votes", "vote_boxes"]


class Votes(NamedTuple):
    """Groups of candidates, highest of the best scores first.

    Attributes:
        boxes: (G, 4) float32 xyxy, pixels: means of the candidates' boxes, weighted by their scores.
        scores: (G,) float32: the best score of each group.
        landmarks: (G, 5, 2) float32, pixels: means like the boxes; None without landmarks.
        score_sums: (G,) float32: sum of the scores of each group.
        members: (G,) int64: number of candidates in each group.
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray | None
    score_sums: FloatArray
    members: IntArray


def vote_boxes(
    boxes: FloatArray,
    scores: FloatArray,
    landmarks: FloatArray | None = None,
    *,
    iou_threshold: float = 0.4,
) -> Votes:
    """Make one box of all candidates for a face, as several searches of one picture give them.

    Candidates are taken by score, highest first, and by index where scores are equal. The first that is left
    and all others left that overlap it with an IoU >= iou_threshold are a group; its box and landmarks are
    the means of theirs, weighted by their scores, summed in double precision. The idea is that of Gidaris and
    Komodakis 2015, "Object detection via a multi-region and semantic segmentation-aware CNN model".

    Args:
        boxes: (N, 4) float32 xyxy, pixels. A box without area, or with a coordinate that is not finite, is a
            group of its own.
        scores: (N,) float32, finite and >= 0. A group whose scores are all 0 keeps its first box.
        landmarks: (N, 5, 2) float32, pixels; None if there are none.
        iou_threshold: Within [0, 1]; an IoU >= iou_threshold joins, if there is any overlap.

    Returns:
        The groups.

    Raises:
        TypeError: If an array is not float32 or the threshold is not a number.
        ValueError: If a shape does not fit, or a score or the threshold is out of range.

    Example:
        >>> import numpy as np
        >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [20, 0, 30, 10]], np.float32)
        >>> votes = vote_boxes(boxes, np.array([0.75, 0.25, 0.5], np.float32))
        >>> votes.boxes.tolist(), votes.members.tolist()
        ([[0.0, 0.0, 10.0, 10.5], [20.0, 0.0, 30.0, 10.0]], [2, 1])
    """
    rows = landmarks
    if landmarks is not None:
        shape = getattr(landmarks, "shape", None)
        if shape is None:
            raise TypeError(
                f"landmarks: expected a float32 array of shape (N, 5, 2), got {type(landmarks).__name__}"
            )
        if len(shape) != 3 or tuple(shape[1:]) != (5, 2):
            raise ValueError(
                f"landmarks: expected a float32 array of shape (N, 5, 2), got shape {tuple(shape)}"
            )
        rows = landmarks.reshape(len(landmarks), 10)
    voted, best, points, sums, members = _core.vote_boxes(boxes, scores, rows, iou_threshold)
    return Votes(voted, best, None if points is None else points.reshape(-1, 5, 2), sums, members)
