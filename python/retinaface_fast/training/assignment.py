"""Which anchors are faces, which are background and which are neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinaface_fast import ops

if TYPE_CHECKING:
    from retinaface_fast._typing import BoolArray, FloatArray, IntArray

    from .recipe import AssignmentSection

__all__ = ["IGNORED", "NEGATIVE", "assign_anchors"]

#: An anchor that is background.
NEGATIVE: Final = -1
#: An anchor that is neither a face nor background.
IGNORED: Final = -2


def assign_anchors(
    anchors: FloatArray, boxes: FloatArray, *, config: AssignmentSection, ignored: BoolArray | None = None
) -> IntArray:
    """Give each anchor a face, the background or neither.

    An anchor belongs to the face with which its IoU is highest, the first of equals, if that IoU is >=
    `config.positive_iou`; it is background if it is < `config.negative_iou`, and left out in between. With
    `config.force`, each face then takes the anchor with which its IoU is highest, the first of equals, from
    whatever that was, if the IoU is >= `config.force_min_iou` and > 0; of several faces that take one anchor
    the last has it. Background with an IoU >= `config.negative_iou` with an ignored face is left out.

    It is the assignment of SSD (Liu et al. 2016, section 2.2). In a well-known PyTorch port of RetinaFace, a
    face whose best IoU is below its limit, 0.2, makes no face of that anchor but still takes it from the face
    it had, whose box is then learnt from the wrong anchor; here such a face takes nothing.

    IoU is `ops.box_iou`, in float32, and thresholds are rounded to float32: an IoU of 7 / 20 is >= 0.35.

    Args:
        anchors: (A, 4) float32 cxcywh, pixels of the training picture. One that is not finite overlaps
            nothing.
        boxes: (G, 4) float32 xyxy, pixels of the training picture; G may be 0.
        config: The thresholds.
        ignored: (G,) bool, faces that are neither faces nor background; none if None.

    Returns:
        (A,) int64: row of `boxes`, or `NEGATIVE`, or `IGNORED`.

    Raises:
        TypeError: An array has another type.
        ValueError: A shape does not fit, or a box has no area or is not finite.

    Example:
        >>> from retinaface_fast.training.recipe import AssignmentSection
        >>> anchors = np.array([[8, 8, 16, 16], [8, 8, 32, 32], [40, 40, 16, 16]], np.float32)
        >>> boxes = np.array([[0, 0, 16, 20]], np.float32)
        >>> assign_anchors(anchors, boxes, config=AssignmentSection()).tolist()
        [0, -1, -1]
    """
    skip = _checked(boxes, ignored)
    corners = np.concatenate(
        [anchors[:, :2] - anchors[:, 2:] / np.float32(2), anchors[:, :2] + anchors[:, 2:] / np.float32(2)],
        axis=1,
    )
    iou = ops.box_iou(corners, boxes)
    assigned = np.full(len(anchors), NEGATIVE, np.int64)
    faces = np.flatnonzero(~skip)
    if len(faces) and len(anchors):
        of_faces = iou[:, faces]
        best = of_faces.max(axis=1)
        assigned = np.where(best >= np.float32(config.negative_iou), IGNORED, assigned)
        positive = best >= np.float32(config.positive_iou)
        assigned = np.where(positive, faces[of_faces.argmax(axis=1)], assigned)
        if config.force:
            most = of_faces.max(axis=0)
            taken = of_faces.argmax(axis=0)
            for place in np.flatnonzero((most >= np.float32(config.force_min_iou)) & (most > 0)):
                assigned[taken[place]] = faces[place]
    near = (iou[:, skip] >= np.float32(config.negative_iou)).any(axis=1)
    assigned[near & (assigned == NEGATIVE)] = IGNORED
    return assigned


def _checked(boxes: FloatArray, ignored: BoolArray | None) -> BoolArray:
    shape = np.shape(boxes)
    if len(shape) != 2 or shape[1] != 4:
        raise ValueError(f"boxes: expected a float32 array of shape (G, 4), got shape {shape}")
    with np.errstate(invalid="ignore"):
        fits = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if not fits.all():
        at = int(np.flatnonzero(~fits)[0])
        raise ValueError(f"boxes: expected finite boxes with an area, got {boxes[at].tolist()} in row {at}")
    if ignored is None:
        return np.zeros(len(boxes), np.bool_)
    kind = getattr(ignored, "dtype", type(ignored).__name__)
    if kind != np.dtype(np.bool_):
        raise TypeError(f"ignored: expected a bool array of shape ({len(boxes)},), got {kind}")
    if ignored.shape != (len(boxes),):
        raise ValueError(f"ignored: expected shape ({len(boxes)},), one for each box, got {ignored.shape}")
    return ignored
