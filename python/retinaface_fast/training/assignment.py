"""Which anchors are faces, which are background and which are neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinaface_fast import _core

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
    the last has it.

    At last, background is left out where an ignored face may be found: its IoU with that is > 0 and >=
    `config.negative_iou` or >= half of the highest IoU that the ignored face has with any anchor, or at least
    half of the anchor's area lies inside the ignored box. Half of the highest, because a face smaller than
    all anchors reaches `config.negative_iou` with none: with the smallest, of 16 pixels, it takes 9.5. Left
    out are then the anchors nearest to its size that hold about half of it. The area is COCO's rule for
    crowds, whose faces are smaller than the box around them.

    It is the assignment of SSD (Liu et al. 2016, section 2.2). In a well-known PyTorch port of RetinaFace, a
    face whose best IoU is below its limit, 0.2, makes no face of that anchor but still takes it from the face
    it had, whose box is then learnt from the wrong anchor; here such a face takes nothing.

    IoU is that of `ops.box_iou`, in float32, and thresholds are rounded to float32, so that an IoU of
    7 / 20 is >= 0.35.

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
        >>> import numpy as np
        >>> from retinaface_fast.training.recipe import AssignmentSection
        >>> anchors = np.array([[8, 8, 16, 16], [8, 8, 32, 32], [40, 40, 16, 16]], np.float32)
        >>> boxes = np.array([[0, 0, 16, 20]], np.float32)
        >>> assign_anchors(anchors, boxes, config=AssignmentSection()).tolist()
        [0, -1, -1]
    """
    return _core.assign_anchors(
        anchors,
        boxes,
        ignored,
        config.positive_iou,
        config.negative_iou,
        config.force,
        config.force_min_iou,
    )
