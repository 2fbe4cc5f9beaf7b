"""RetinaFace beside dlib: dlib's detectors behind the same interface, and what both find in a picture."""

from __future__ import annotations
