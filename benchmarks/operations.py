"""The core operations on fixed inputs and one thread, and the reference kernels of `guard`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import jobs, measure, opponents, runtimes, scenes
from retinaface_fast import ops
from retinaface_fast.latency.answers import assert_same_faces
from retinaface_fast.latency.contestants import make_detector
from retinaface_fast.latency.rows import ROWS
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenes import Scene


@dataclass(frozen=True)
class Operation:
    """What is measured.

    Attributes:
        name: What the tables call it.
        reference: Name of the reference kernel that has the same bottleneck.
        call: Does it once.
        check: Does it once, and raises an AssertionError where the answer is wrong.
    """

    name: str
    reference: str
    call: Callable[[], object]
    check: Callable[[], object]


def _multiply() -> Callable[[], object]:
    left, right = np.random.default_rng(0).random((2, 256, 256), dtype=np.float32)
    product = np.empty_like(left)
    return lambda: np.matmul(left, right, out=product)


def _search() -> Callable[[], object]:
    rng = np.random.default_rng(1)
    table = np.sort(rng.random(4096, dtype=np.float32))
    keys = rng.random(4096, dtype=np.float32)
    return lambda: np.searchsorted(table, keys)


#: Kernels that are not ours, and cost what the machine lets them. Both stay within the caches of one core, as
#: what is measured does. `multiply`: NumPy's product of 256x256 matrices, by its BLAS, is bound by the vector
#: units, as the network is. `search`: binary searches in 16 KB are bound by branches that nobody can foretell
#: and by the first level of the cache, as candidates and suppression are; and decoding has followed it more
#: closely than anything else. A copy of 8 MB and a sum in the second level of the cache were tried: from run
#: to run they varied by 31% and 17% on a busy machine, where most operations, which wait for no memory,
#: varied by 7 to 11%.
REFERENCES: dict[str, Callable[[], Callable[[], object]]] = {"multiply": _multiply, "search": _search}


def anchors() -> Operation:
    size = (640, 640)

    def check() -> None:
        np.testing.assert_allclose(ops.generate_anchors(size), opponents.anchors_in_numpy(size), rtol=1e-5)

    return Operation("anchors 640x640", "search", lambda: ops.generate_anchors(size), check)


def decode_boxes(scene: Scene) -> Operation:
    deltas, boxes = scene.outputs.box_deltas[0], ops.generate_anchors(scene.image_size_hw)

    def check() -> None:
        expected = opponents.decode_in_numpy(deltas, boxes)
        np.testing.assert_allclose(ops.decode_boxes(deltas, boxes), expected, atol=1e-3)

    return Operation("decode boxes 640x640", "search", lambda: ops.decode_boxes(deltas, boxes), check)


def decode_landmarks(scene: Scene) -> Operation:
    deltas, boxes = scene.outputs.landmark_deltas[0], ops.generate_anchors(scene.image_size_hw)

    def check() -> None:
        expected = opponents.decode_landmarks_in_numpy(deltas, boxes)
        np.testing.assert_allclose(ops.decode_landmarks(deltas, boxes), expected, atol=1e-3)

    return Operation("decode landmarks 640x640", "search", lambda: ops.decode_landmarks(deltas, boxes), check)


def nms(name: str, scene: Scene) -> Operation:
    boxes, scores = scenes.candidates(scene)

    def check() -> None:
        expected = opponents.greedy(boxes, scores, 0.4)
        np.testing.assert_array_equal(ops.nms(boxes, scores, iou_threshold=0.4), expected)

    return Operation(f"nms {name}", "search", lambda: ops.nms(boxes, scores, iou_threshold=0.4), check)


def postprocess(name: str, reference: str, scene: Scene, threshold: float) -> Operation:
    outputs = scene.outputs
    options = opponents.Options(threshold)

    def call() -> ops.Faces:
        return ops.postprocess(
            outputs.class_logits,
            outputs.box_deltas,
            outputs.landmark_deltas,
            scene.image_size_hw,
            scores_are="logits",
            **options._asdict(),
        )[0]

    def check() -> None:
        single = outputs.class_logits[0], outputs.box_deltas[0], outputs.landmark_deltas[0]
        expected = opponents.best_numpy(
            *single,
            scene.image_size_hw,
            options,
            logits=True,
            suppress=opponents.greedy,
            find=opponents.above_by_columns,
        )
        measure.assert_same_faces(call(), expected, f"postprocess {name}")

    return Operation(f"postprocess {name}", reference, call, check)


def network(size_hw: tuple[int, int]) -> Operation:
    image, _ = jobs.picture(size_hw)
    runtime = runtimes.make(f"{runtimes.OURS}native", load_weights("mobilenet0.25"), size_hw, threads=1)
    runtime.show(image)
    runtime.prepare()

    def check() -> None:
        runtime.run()
        error = jobs.error_of(runtime.outputs(), jobs.reference(image))
        assert error <= jobs.TOLERANCE, f"the network is off by {error:.1e} of the range"

    return Operation(f"network {size_hw[1]}x{size_hw[0]}", "multiply", runtime.run, check)


def detect(size_hw: tuple[int, int]) -> Operation:
    image, _ = jobs.picture(size_hw)
    detector = make_detector(ROWS["native"], image, threads=1)

    def check() -> None:
        judge = make_detector(ROWS["onnxruntime"], image, threads=1)
        assert_same_faces(detector.read(detector.call()), judge.read(judge.call()), "native")

    return Operation(f"detect {size_hw[1]}x{size_hw[0]}", "multiply", detector.call, check)


def core_operations() -> list[Operation]:
    """All of them.

    Raises:
        scenes.MissingError: Something that the inputs are made of is not installed.
    """
    crowd, crowd_4k, quiet_4k = scenes.crowd_640(), scenes.crowd_4k(), scenes.quiet_4k()
    return [
        anchors(),
        decode_boxes(crowd),
        decode_landmarks(crowd),
        nms("640x640", crowd),
        nms("4K", crowd_4k),
        postprocess("640x640", "search", crowd, 0.02),
        postprocess("4K, crowd", "search", crowd_4k, 0.02),
        postprocess("4K, one face", "search", quiet_4k, 0.6),
        network((480, 640)),
        detect((480, 640)),
        detect((1080, 1920)),
    ]
