"""What the anchors of a picture should say, and pictures put together to a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import ops

from .assignment import IGNORED, assign_anchors
from .batch import Batch, BatchTargets, Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import BoolArray, FloatArray

    from .batch import Sample
    from .recipe import AssignmentSection

__all__ = ["collate", "make_targets"]


def make_targets(
    anchors: FloatArray,
    boxes: FloatArray,
    landmarks: FloatArray,
    *,
    ignored: BoolArray | None = None,
    config: AssignmentSection,
    variances: tuple[float, float],
) -> Targets:
    """Assign the anchors of a picture and encode what those that are faces should say.

    Args:
        anchors: (A, 4) float32 cxcywh, pixels of the training picture.
        boxes: (G, 4) float32 xyxy, pixels of the training picture, with an area; G may be 0.
        landmarks: (G, 5, 2) float32, x and y in pixels of the training picture; NaN where unknown.
        ignored: (G,) bool, faces that are neither faces nor background; none if None.
        config: How anchors are assigned.
        variances: Positive factors of centre and size deltas.

    Returns:
        The targets.

    Raises:
        TypeError: An array has another type.
        ValueError: A shape does not fit, or a box has no area or is not finite.
    """
    assigned = assign_anchors(anchors, boxes, config=config, ignored=ignored)
    if landmarks.shape != (len(boxes), 5, 2):
        raise ValueError(
            f"landmarks: expected a float32 array of shape ({len(boxes)}, 5, 2), one for each box, "
            f"got shape {landmarks.shape}"
        )
    positives = np.flatnonzero(assigned >= 0)
    faces = assigned[positives]
    labels = (assigned >= 0).astype(np.int8)
    labels[assigned == IGNORED] = -1
    return Targets(
        labels=labels,
        positives=positives,
        box_deltas=ops.encode_boxes(boxes[faces], anchors[positives], variances=variances),
        landmark_deltas=_known_deltas(landmarks[faces], anchors[positives], variances),
        landmark_mask=_known(landmarks[faces]),
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put pictures together to a batch.

    Args:
        samples: At least one; all pictures have one size and their targets one number of anchors.

    Returns:
        The batch, in memory of its own; `positives` counts through the anchors of all pictures.

    Raises:
        ValueError: There is no sample, or they differ in size.
    """
    import torch

    if not samples:
        raise ValueError("samples: expected at least one, got none")
    for what, shapes in (
        ("pictures", {sample.image.shape for sample in samples}),
        ("labels", {sample.targets.labels.shape for sample in samples}),
    ):
        if len(shapes) > 1:
            raise ValueError(f"samples: expected {what} of one shape, got {sorted(shapes)}")
    targets = [sample.targets for sample in samples]
    anchors = len(targets[0].labels)
    return Batch(
        images=torch.from_numpy(np.stack([sample.image for sample in samples])),
        targets=BatchTargets(
            labels=torch.from_numpy(np.stack([each.labels for each in targets])),
            positives=torch.from_numpy(
                np.concatenate([each.positives + place * anchors for place, each in enumerate(targets)])
            ),
            box_deltas=torch.from_numpy(np.concatenate([each.box_deltas for each in targets])),
            landmark_deltas=torch.from_numpy(np.concatenate([each.landmark_deltas for each in targets])),
            landmark_mask=torch.from_numpy(np.concatenate([each.landmark_mask for each in targets])),
        ),
        load_seconds=sum(sample.load_seconds for sample in samples),
        assign_seconds=sum(sample.assign_seconds for sample in samples),
        faults=tuple(fault for sample in samples for fault in sample.faults),
    )


def _known(landmarks: FloatArray) -> BoolArray:
    return np.asarray(np.isfinite(landmarks).all(axis=2))


def _known_deltas(landmarks: FloatArray, anchors: FloatArray, variances: tuple[float, float]) -> FloatArray:
    """(P, 10) landmark deltas, 0 for both coordinates of a landmark of which either is not finite."""
    deltas = ops.encode_landmarks(landmarks, anchors, variances=variances).reshape(-1, 5, 2)
    return np.where(_known(landmarks)[:, :, None], deltas, np.float32(0)).reshape(-1, 10)
