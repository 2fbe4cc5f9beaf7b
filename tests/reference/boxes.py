"""Oracles of decoding, encoding, clipping and overlap.

With an anchor (acx, acy, aw, ah) and variances (v0, v1), the deltas (d0, d1, d2, d3) stand for the box

    cx = acx + d0 v0 aw      w = aw exp(d2 v1)
    cy = acy + d1 v0 ah      h = ah exp(d3 v1)      corners: cx -+ w / 2, cy -+ h / 2

and a pair of landmark deltas (dx, dy) for the point (acx + dx v0 aw, acy + dy v0 ah). Every function
computes in the type of its arrays: float64 is the truth, float32 shows what single precision costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def decode_boxes(box_deltas: Array, anchors: Array, variances: tuple[float, float] = (0.1, 0.2)) -> Array:
    """(A, 4) deltas and (A, 4) anchors, cxcywh, to (A, 4) boxes, xyxy."""
    v0, v1 = (box_deltas.dtype.type(variance) for variance in variances)
    half = box_deltas.dtype.type(0.5)
    with np.errstate(all="ignore"):
        centres = anchors[:, :2] + box_deltas[:, :2] * v0 * anchors[:, 2:]
        sizes = anchors[:, 2:] * np.exp(box_deltas[:, 2:] * v1)
        return np.concatenate([centres - half * sizes, centres + half * sizes], axis=1)


def encode_boxes(boxes: Array, anchors: Array, variances: tuple[float, float] = (0.1, 0.2)) -> Array:
    """The inverse of `decode_boxes`."""
    v0, v1 = (boxes.dtype.type(variance) for variance in variances)
    half = boxes.dtype.type(0.5)
    with np.errstate(all="ignore"):
        centres = (boxes[:, :2] + boxes[:, 2:]) * half
        sizes = boxes[:, 2:] - boxes[:, :2]
        return np.concatenate(
            [(centres - anchors[:, :2]) / (v0 * anchors[:, 2:]), np.log(sizes / anchors[:, 2:]) / v1], axis=1
        )


def decode_landmarks(
    landmark_deltas: Array, anchors: Array, variances: tuple[float, float] = (0.1, 0.2)
) -> Array:
    """(A, 10) deltas, x and y of five points in turn, to (A, 5, 2) points."""
    v0 = landmark_deltas.dtype.type(variances[0])
    points = landmark_deltas.reshape(-1, 5, 2)
    with np.errstate(all="ignore"):
        return anchors[:, None, :2] + points * v0 * anchors[:, None, 2:]


def encode_landmarks(landmarks: Array, anchors: Array, variances: tuple[float, float] = (0.1, 0.2)) -> Array:
    """The inverse of `decode_landmarks`."""
    v0 = landmarks.dtype.type(variances[0])
    with np.errstate(all="ignore"):
        deltas = (landmarks - anchors[:, None, :2]) / (v0 * anchors[:, None, 2:])
    return deltas.reshape(-1, 10)


def clip_boxes(boxes: Array, image_size_hw: tuple[int, int]) -> Array:
    """Corners moved into the picture: 0 <= x <= width, 0 <= y <= height."""
    height, width = image_size_hw
    limits = np.array([width, height, width, height], dtype=boxes.dtype)
    return np.minimum(np.maximum(boxes, boxes.dtype.type(0)), limits)


def box_iou(boxes1: Array, boxes2: Array) -> Array:
    """(N, M) overlaps, in the type of the boxes: no +1 on widths, an inverted box overlaps nothing.

    The order of the operations is that of torchvision, so that float32 gives the same bits:
    `inter / (area1 + area2 - inter)`.
    """
    zero = boxes1.dtype.type(0)
    with np.errstate(all="ignore"):
        area1 = (boxes1[:, 2] - boxes1[:, 0]) * (boxes1[:, 3] - boxes1[:, 1])
        area2 = (boxes2[:, 2] - boxes2[:, 0]) * (boxes2[:, 3] - boxes2[:, 1])
        top_left = np.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
        bottom_right = np.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
        width, height = np.moveaxis(np.maximum(bottom_right - top_left, zero), 2, 0)
        inter = width * height
        return inter / (area1[:, None] + area2[None, :] - inter)
