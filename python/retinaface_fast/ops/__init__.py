"""The operations around the network, in C++: anchors, boxes, landmarks, NMS, box voting and post-processing.

Arrays are float32 NumPy arrays; contiguous ones are read in place, others are copied once. Lengths are
pixels, the origin is the top left corner of the image, boxes are (x1, y1, x2, y2) without "+1". All functions
release the GIL while they compute and may be called from many threads.
"""

from __future__ import annotations

from retinaface_fast.anchor_config import P2_P6, P3_P5, AnchorConfig

from .anchors import generate_anchors
from .boxes import (
    box_iou,
    clip_boxes,
    decode_boxes,
    decode_landmarks,
    encode_boxes,
    encode_landmarks,
)
from .nms import nms
from .postprocess import Faces, postprocess
from .simd import simd_level, simd_levels
from .vote import Votes, vote_boxes

__all__ = [
    "P2_P6",
    "P3_P5",
    "AnchorConfig",
    "Faces",
    "Votes",
    "box_iou",
    "clip_boxes",
    "decode_boxes",
    "decode_landmarks",
    "encode_boxes",
    "encode_landmarks",
    "generate_anchors",
    "nms",
    "postprocess",
    "simd_level",
    "simd_levels",
    "vote_boxes",
]
