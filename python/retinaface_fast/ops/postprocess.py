"""From raw network outputs to faces in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from retinaface_fast import _core
from retinaface_fast.anchor_config import P3_P5, AnchorConfig

from .anchors import native_pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import FloatArray

__all__ = ["Faces", "postprocess"]


class Faces(NamedTuple):
    """The faces of one image, highest score first.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels of the network's input, not clipped to it.
        scores: (N,) float32 within [0, 1].
        landmarks: (N, 5, 2) float32, x and y in pixels of the network's input: left eye, right eye, nose,
            left and right mouth corner as seen in the image.
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray


def postprocess(
    class_scores: FloatArray | Sequence[FloatArray],
    box_deltas: FloatArray | Sequence[FloatArray],
    landmark_deltas: FloatArray | Sequence[FloatArray],
    image_size_hw: tuple[int, int],
    *,
    config: AnchorConfig = P3_P5,
    scores_are: Literal["logits", "probabilities"] = "logits",
    variances: tuple[float, float] = (0.1, 0.2),
    score_threshold: float = 0.5,
    nms_threshold: float = 0.4,
    top_k: int | None = 5000,
    keep_top_k: int | None = 750,
    threads: int = 1,
) -> list[Faces]:
    """Faces from the raw outputs of the network, for a batch of images of one size.

    One pass: the scores are compared with the threshold as logits; only what passes is decoded, with its
    anchor computed from its index; the top_k are ordered and suppressed, and the landmarks of the kept ones
    decoded. Each output is an array over all levels, or a list or tuple with one array for each level.
    float32 arrays whose rows are contiguous are read in place, and the GIL is released.

    A candidate has score > score_threshold, where the score is the sigmoid of face logit - background logit,
    or the face probability; NaN is none. Candidates compete by score, equal ones by index. Those among the
    top_k whose box is not finite are dropped. Landmarks are passed on as they are.

    Args:
        class_scores: (B, A, 2) float32, background and face; per level (B, A_level, 2).
        box_deltas: (B, A, 4) float32; per level (B, A_level, 4).
        landmark_deltas: (B, A, 10) float32; per level (B, A_level, 10).
        image_size_hw: Height and width in pixels of the network's input.
        config: Anchors of the network.
        scores_are: Whether class_scores are logits or probabilities (after softmax).
        variances: Positive factors of centre and size deltas.
        score_threshold: Within [0, 1]; a face has score > score_threshold.
        nms_threshold: Within [0, 1]; an IoU > nms_threshold suppresses.
        top_k: Candidates of one image that enter suppression; all if None.
        keep_top_k: Faces of one image that are returned; all if None.
        threads: At most this many threads share out the images of the batch; the result is the same.

    Returns:
        One `Faces` for each image.

    Raises:
        TypeError: If an array is not float32 or a number is not one.
        ValueError: If a shape does not fit the image size and anchors, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> logits = np.zeros((1, P3_P5.num_anchors((32, 32)), 2), np.float32)
        >>> logits[0, :, 0] = 9
        >>> logits[0, 7, 1] = 12
        >>> boxes, landmarks = np.zeros((1, 42, 4), np.float32), np.zeros((1, 42, 10), np.float32)
        >>> [faces] = postprocess(logits, boxes, landmarks, (32, 32))
        >>> faces.boxes.tolist(), faces.scores.round(3).tolist()
        ([[12.0, -12.0, 44.0, 20.0]], [0.953000009059906])
    """
    if scores_are not in ("logits", "probabilities"):
        raise ValueError(f"scores_are: expected 'logits' or 'probabilities', got {scores_are!r}")
    found = _core.postprocess(
        native_pyramid(config),
        class_scores,
        box_deltas,
        landmark_deltas,
        image_size_hw,
        scores_are == "probabilities",
        variances,
        score_threshold,
        nms_threshold,
        top_k,
        keep_top_k,
        threads,
    )
    return [Faces(*faces) for faces in found]
