"""Imports of packages that are wanted only by some functions."""

from __future__ import annotations

from typing import Any

from .errors import MissingDependencyError


def import_cv2(purpose: str) -> Any:
    """Import OpenCV, or say what to install.

    Args:
        purpose: What it is needed for, as the end of the sentence "OpenCV is needed …".
    """
    try:
        import cv2
    except ImportError as error:
        missing = MissingDependencyError("OpenCV", extra="", purpose=purpose)
        # OpenCV is no extra of this package: servers choose between two distributions of it.
        message = (
            f"OpenCV is needed {purpose} and cannot be imported ({error}): install opencv-python, or "
            "opencv-python-headless on a machine without a display (no libGL)"
        )
        missing.msg = message  # what str() of an ImportError gives
        missing.args = (message,)
        raise missing from error
    return cv2
