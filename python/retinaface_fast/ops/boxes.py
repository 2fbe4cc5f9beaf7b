"""Boxes and landmarks: to and from the deltas of anchors, clipping, IoU.

The encoding is that of SSD (Liu et al. 2016, equation 2) with variances (v0, v1):
box centre = anchor centre + delta * v0 * anchor size, box size = anchor size * exp(delta * v1), and a
landmark is encoded as a box centre is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_fast import _core

if TYPE_CHECKING:
    from retinaface_fast._typing import FloatArray

__all__ = [
    "box_iou",
    "clip_boxes",
    "decode_boxes",
    "decode_landmarks",
    "encode_boxes",
    "encode_landmarks",
]


def decode_boxes(
    box_deltas: FloatArray, anchors: FloatArray, *, variances: tuple[float, float] = (0.1, 0.2)
) -> FloatArray:
    """Boxes from the deltas that the network predicts.

    Args:
        box_deltas: (N, 4) float32, (dx, dy, dw, dh) for each anchor.
        anchors: (N, 4) float32 cxcywh, pixels.
        variances: Positive factors of centre and size deltas.

    Returns:
        (N, 4) float32 xyxy, pixels, not clipped to any image. NaN and infinity go through.

    Raises:
        TypeError: If an array is not float32.
        ValueError: If a shape does not fit or a variance is not positive and finite.

    Example:
        >>> import numpy as np
        >>> decode_boxes(np.zeros((1, 4), np.float32), np.array([[8, 8, 16, 16]], np.float32)).tolist()
        [[0.0, 0.0, 16.0, 16.0]]
    """
    return _core.decode_boxes(box_deltas, anchors, variances)


def decode_landmarks(
    landmark_deltas: FloatArray, anchors: FloatArray, *, variances: tuple[float, float] = (0.1, 0.2)
) -> FloatArray:
    """Landmarks from the deltas that the network predicts.

    Args:
        landmark_deltas: (N, 10) float32, (dx, dy) of five points for each anchor.
        anchors: (N, 4) float32 cxcywh, pixels.
        variances: Positive factors of centre and size deltas; only the first is used.

    Returns:
        (N, 5, 2) float32, x and y in pixels: left eye, right eye, nose, left and right mouth corner as seen
        in the image.

    Raises:
        TypeError: If an array is not float32.
        ValueError: If a shape does not fit or a variance is not positive and finite.

    Example:
        >>> import numpy as np
        >>> anchors = np.array([[8, 8, 20, 20]], np.float32)
        >>> decode_landmarks(np.ones((1, 10), np.float32), anchors)[0, 0].tolist()
        [10.0, 10.0]
    """
    return _core.decode_landmarks(landmark_deltas, anchors, variances).reshape(-1, 5, 2)


def encode_boxes(
    boxes: FloatArray, anchors: FloatArray, *, variances: tuple[float, float] = (0.1, 0.2)
) -> FloatArray:
    """Deltas that `decode_boxes` turns into the boxes.

    Args:
        boxes: (N, 4) float32 xyxy, pixels. One without area has no finite size deltas.
        anchors: (N, 4) float32 cxcywh, pixels.
        variances: Positive factors of centre and size deltas.

    Returns:
        (N, 4) float32 (dx, dy, dw, dh).

    Raises:
        TypeError: If an array is not float32.
        ValueError: If a shape does not fit or a variance is not positive and finite.

    Example:
        >>> import numpy as np
        >>> anchors = np.array([[8, 8, 16, 16]], np.float32)
        >>> encode_boxes(np.array([[0, 0, 16, 16]], np.float32), anchors).tolist()
        [[0.0, 0.0, 0.0, 0.0]]
    """
    return _core.encode_boxes(boxes, anchors, variances)


def encode_landmarks(
    landmarks: FloatArray, anchors: FloatArray, *, variances: tuple[float, float] = (0.1, 0.2)
) -> FloatArray:
    """Deltas that `decode_landmarks` turns into the landmarks.

    Args:
        landmarks: (N, 5, 2) float32, x and y in pixels.
        anchors: (N, 4) float32 cxcywh, pixels.
        variances: Positive factors of centre and size deltas; only the first is used.

    Returns:
        (N, 10) float32, (dx, dy) of five points.

    Raises:
        TypeError: If an array is not float32.
        ValueError: If a shape does not fit or a variance is not positive and finite.

    Example:
        >>> import numpy as np
        >>> anchors = np.array([[8, 8, 20, 20]], np.float32)
        >>> encode_landmarks(np.full((1, 5, 2), 10, np.float32), anchors)[0, :2].tolist()
        [1.0, 1.0]
    """
    shape = getattr(landmarks, "shape", None)
    if shape is None:
        raise TypeError(
            f"landmarks: expected a float32 array of shape (N, 5, 2), got {type(landmarks).__name__}"
        )
    if len(shape) != 3 or tuple(shape[1:]) != (5, 2):
        raise ValueError(f"landmarks: expected a float32 array of shape (N, 5, 2), got shape {tuple(shape)}")
    return _core.encode_landmarks(landmarks.reshape(len(landmarks), 10), anchors, variances)


def clip_boxes(boxes: FloatArray, image_size_hw: tuple[int, int]) -> FloatArray:
    """Boxes moved into the image.

    Args:
        boxes: (N, 4) float32 xyxy, pixels.
        image_size_hw: Height and width of the image in pixels.

    Returns:
        (N, 4) float32 with x within [0, width] and y within [0, height]; NaN stays NaN.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a shape or side does not fit.

    Example:
        >>> import numpy as np
        >>> clip_boxes(np.array([[-5, 2, 99, 50]], np.float32), (40, 60)).tolist()
        [[0.0, 2.0, 60.0, 40.0]]
    """
    return _core.clip_boxes(boxes, image_size_hw)


def box_iou(boxes1: FloatArray, boxes2: FloatArray) -> FloatArray:
    """Intersection over union of every pair of boxes.

    Args:
        boxes1: (N, 4) float32 xyxy, pixels.
        boxes2: (M, 4) float32 xyxy, pixels.

    Returns:
        (N, M) float32 within [0, 1]; 0 for boxes that do not overlap or have no area.

    Raises:
        TypeError: If an array is not float32.
        ValueError: If a shape does not fit.

    Example:
        >>> import numpy as np
        >>> a = np.array([[0, 0, 10, 10]], np.float32)
        >>> box_iou(a, np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)).round(3).tolist()
        [[0.3330000042915344, 0.0]]
    """
    return _core.box_iou(boxes1, boxes2)
