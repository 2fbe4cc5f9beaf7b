"""A set of a few dozen faces in two events, for what reports show."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinaface_fast.data import SUBSETS
from tests.reference.wider_ap import Annotations

Array = np.ndarray[Any, Any]


def made_up_set(seed: int = 3, pictures: int = 12) -> tuple[dict[str, Array], dict[str, Annotations]]:
    """Faces of all heights apart from one another, most of them found, and false alarms.

    Returns:
        (N, 5) x, y, width, height, score by picture; and the annotations.
    """
    rng = np.random.default_rng(seed)
    found, truth = {}, {}
    for picture in range(pictures):
        name = f"{('0--Parade', '12--Group')[picture % 2]}/{picture:03}"
        count = int(rng.integers(0, 7))
        sides = rng.choice([9, 15, 16, 20, 31, 32, 40, 63, 64, 100, 128, 200, 256, 300], count)
        places = 400 * np.column_stack([np.arange(count) % 3, np.arange(count) // 3])
        boxes = np.column_stack([places, sides, sides]).astype(np.float64)
        counted = {subset: sides >= least for subset, least in zip(SUBSETS, (60, 30, 10), strict=True)}
        truth[name] = Annotations(boxes, counted)
        kept = boxes[rng.random(count) < 0.8]
        near = kept + np.rint(kept[:, [2, 3, 2, 3]] * rng.normal(0, 0.1, kept.shape) * 4) / 4
        alarms = int(rng.integers(0, 4))
        wrong = np.column_stack(
            [rng.integers(900, 1200, (alarms, 2)), *[rng.choice([12, 24, 48, 96, 190, 300], alarms)] * 2]
        )
        all_boxes = np.concatenate([near, near[:1] + 0.25, wrong])
        found[name] = np.column_stack([all_boxes, rng.random(len(all_boxes))])
    return found, truth
