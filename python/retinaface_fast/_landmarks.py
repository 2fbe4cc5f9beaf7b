"""The five landmarks: their names, and which of them a detector could not give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._typing import AnyArray, BoolArray

#: The five landmarks in their order, left and right as seen in the image.
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def unknown_landmarks(landmarks: AnyArray) -> BoolArray:
    """Return which landmarks are unknown: (..., 5) bool of (..., 5, 2), True where x or y is NaN."""
    return np.asarray(np.isnan(landmarks).any(axis=-1))
