"""Use an installed wheel where little more than NumPy is there: the core and the weights do what they should.

safetensors is needed besides, to read the weights; neither torch nor OpenCV is imported.
"""

from __future__ import annotations

import sys
from importlib.resources import files

import numpy as np

import retinaface_fast
from retinaface_fast import FaceDetector, ops

boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], np.float32)
scores = np.array([0.8, 0.9, 0.7], np.float32)
assert ops.nms(boxes, scores, iou_threshold=0.4).tolist() == [1, 2]

# A face at one anchor and background everywhere else comes back as that anchor.
anchors = ops.generate_anchors((96, 128))
logits = np.zeros((1, len(anchors), 2), np.float32)
logits[..., 0] = 20
logits[0, 100] = (-20, 20)
(faces,) = ops.postprocess(
    logits,
    np.zeros((1, len(anchors), 4), np.float32),
    np.zeros((1, len(anchors), 10), np.float32),
    (96, 128),
)
center, size = anchors[100, :2], anchors[100, 2:]
expected = np.concatenate([center - size / 2, center + size / 2])
assert faces.boxes.shape == (1, 4)
assert np.allclose(faces.boxes[0], expected, atol=1e-4), (faces.boxes, expected)

# The whole way of an array. Without a face in the picture scores are low, but above 0.
detector = FaceDetector(score_threshold=0.0, top_k=10)
picture = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
found = detector.detect(picture)
assert (found.engine, found.device) == ("native", "cpu")
assert 0 < len(found) <= 10
assert np.isfinite(found.boxes).all()
assert FaceDetector(score_threshold=0.0, top_k=10, threads=1).detect(picture) == found

recipes = files("retinaface_fast.training") / "recipes"
assert (recipes / "finetune.toml").is_file(), "the recipes are not in the wheel"

for heavy in ("torch", "cv2"):
    assert heavy not in sys.modules, f"{heavy} was imported"
print(
    f"retinaface_fast {retinaface_fast.__version__}: it detects, SIMD level {ops.simd_level()}, "
    f"threads {detector.threads}"
)
