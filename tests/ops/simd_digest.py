"""Digests of what every operation computes, for one SIMD level against another.

`python -m tests.ops.simd_digest` prints the level in use and one SHA-256 for each operation, over inputs of
many lengths, with ties, NaN, infinities, subnormal and huge numbers among them. The level is chosen when the
core is imported, so `tests.ops.test_simd` starts one process for each.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast import ops
from tests.ops.agreement import P2_P6, P3_P5
from tests.ops.samples import BOX_KINDS, as_probabilities, random_outputs, random_scores, spoil

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

LENGTHS = [*range(20), 31, 32, 33, 63, 64, 65, 1000]


def _canonical(array: npt.NDArray[Any]) -> bytes:
    """Bytes of an array, every NaN the same: its sign and payload are not part of the contract."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.float32:
        array = np.where(np.isnan(array), np.float32(np.nan), array)
    return repr((array.shape, array.dtype.str)).encode() + array.tobytes()


def _digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(_canonical(array))
    return digest.hexdigest()


def _hostile(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Any bit pattern, half of the time; ordinary numbers otherwise."""
    patterns = rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
    ordinary = rng.normal(0, 20, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.5, patterns, ordinary)


def _boxes() -> Iterable[npt.NDArray[Any]]:
    rng = np.random.default_rng(1)
    for count in LENGTHS:
        anchors = np.resize(P2_P6.anchors((64, 64)).astype(np.float32), (count, 4))
        for deltas in (rng.normal(0, 3, (count, 14)).astype(np.float32), _hostile(rng, (count, 14))):
            boxes = ops.decode_boxes(deltas[:, :4], anchors)
            yield boxes
            yield ops.decode_landmarks(deltas[:, 4:], anchors, variances=(0.3, 0.1))
            yield ops.encode_boxes(boxes, anchors)
            yield ops.clip_boxes(boxes, (40, 50))
            yield ops.box_iou(boxes, boxes[::3])


def _exp() -> Iterable[npt.NDArray[Any]]:
    """Every exponent, through the size of a box."""
    steps = np.concatenate([np.linspace(-110, 110, 200_001), np.linspace(-1e-3, 1e-3, 2001)])
    deltas = np.zeros((len(steps), 4), dtype=np.float32)
    deltas[:, 2] = deltas[:, 3] = steps
    yield ops.decode_boxes(deltas, np.tile(np.float32([0, 0, 1, 1]), (len(steps), 1)), variances=(1.0, 1.0))


def _sigmoid() -> Iterable[npt.NDArray[Any]]:
    """Every score, through the scores of faces of which none suppresses another."""
    size = (512, 512)
    raw = random_outputs(np.random.default_rng(2), size)
    count = raw.class_scores.shape[1]
    raw.class_scores[0, :, 0] = 0
    raw.class_scores[0, :, 1] = np.linspace(-110, 110, count)
    for threshold in (0.0, 0.02, 0.5, 0.6, 0.99999):
        (faces,) = ops.postprocess(
            *raw, size, score_threshold=threshold, nms_threshold=1.0, top_k=None, keep_top_k=None
        )
        yield faces.scores


def _nms() -> Iterable[npt.NDArray[Any]]:
    rng = np.random.default_rng(3)
    for draw in BOX_KINDS.values():
        for count in (*LENGTHS, 255, 256, 257, 383, 384, 385, 3000):
            boxes, scores = draw(rng, count), random_scores(rng, count)
            for threshold in (0.0, 0.3, 1 / 3, 0.4, 0.5, 1.0):
                yield ops.nms(boxes, scores, iou_threshold=threshold)


def _postprocess() -> Iterable[npt.NDArray[Any]]:
    rng = np.random.default_rng(4)
    for height in (1, 7, 40, 97):
        for width in (1, 9, 33, 130):
            for grid in (P3_P5, P2_P6):
                raw = random_outputs(rng, (height, width), grid=grid, batch=2)
                for share in (0.0, 0.05):
                    outputs = spoil(rng, raw, share)
                    for kind, scores in (("logits", outputs), ("probabilities", as_probabilities(raw))):
                        for threshold in (0.0, 0.02, 0.6):
                            options: dict[str, Any] = {"scores_are": kind, "score_threshold": threshold}
                            options["config"] = grid.config
                            for faces in ops.postprocess(*scores, (height, width), **options):
                                yield from faces


PARTS = {"boxes": _boxes, "exp": _exp, "sigmoid": _sigmoid, "nms": _nms, "postprocess": _postprocess}


def main() -> None:
    digests = {name: _digest(part()) for name, part in PARTS.items()}
    json.dump({"level": ops.simd_level(), "digests": digests}, sys.stdout)


if __name__ == "__main__":
    main()
