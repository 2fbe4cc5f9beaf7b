"""Oracle of the vote on the views of a picture: `TTA.merge`, one face after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.reference import nms, vote

if TYPE_CHECKING:
    from retinaface_fast import TTA
    from retinaface_fast.ops import Faces
    from retinaface_fast.tta import View


def side(box: np.ndarray) -> float:
    width, height = box[2] - box[0], box[3] - box[1]
    return float(np.sqrt(max(width, 0) * max(height, 0)))


def merge(
    tta: TTA,
    found: list[Faces],
    views: list[View],
    *,
    score_threshold: float,
    nms_threshold: float,
    keep_top_k: int | None,
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Box (4,), score and landmarks (5, 2) of each face, highest score first; in double precision."""
    scales = [view.scale for view in views]

    def keeps(view: int, box: np.ndarray) -> bool:
        if tta.max_face_side is None or scales[view] == min(scales):
            return True
        return side(box) * scales[view] <= tta.max_face_side

    candidates = [
        (box, score, points)
        for view, faces in enumerate(found)
        for box, score, points in zip(*faces, strict=True)
        if keeps(view, box)
    ]
    if not candidates:
        return []
    boxes, scores, landmarks = (
        np.array(column).reshape(len(candidates), *shape)
        for column, shape in zip(zip(*candidates, strict=True), [(4,), (), (5, 2)], strict=True)
    )
    faces = []
    for group in vote.groups(boxes, scores, landmarks, tta.vote_threshold):
        if tta.paper_compat and len(group.members) == 1:
            continue
        able = sum(keeps(view, group.box) for view in range(len(views)))
        score = (1 - tta.agreement) * group.best + tta.agreement * min(1.0, group.score_sum / able)
        if score > score_threshold:
            faces.append((group.box, score, group.landmarks))
    faces.sort(key=lambda face: -face[1])
    if tta.paper_compat:
        return faces[: min(keep_top_k or 750, 750)]
    kept: list[tuple[np.ndarray, float, np.ndarray]] = []
    for face in faces:
        if all(
            nms.iou(face[0].astype(np.float32), other[0].astype(np.float32)) <= nms_threshold
            for other in kept
        ):
            kept.append(face)
    return kept[:keep_top_k]
