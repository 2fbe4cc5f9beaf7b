"""Imports of packages that are wanted only by some functions."""

from __future__ import annotations

from typing import Any

from .errors import MissingDependencyError


def import_cv2(purpose: str) -> Any:
    """Import OpenCV, or say what to install.

    Args:
        purpose: What it is needed for, as the end of the sentence "OpenCV is needed for …".
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "OpenCV",
            purpose=purpose,
            advice=f"it cannot be imported ({error}); install opencv-python, or opencv-python-headless on a "
            "machine without a display (no libGL)",
        ) from error
    return cv2
