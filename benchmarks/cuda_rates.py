"""Pictures per second of the whole detection, for `benchmarks.cuda`."""

from __future__ import annotations

import os
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import cuda_cases
from benchmarks.cuda_ways import quartiles
from retinaface_fast import FaceDetector
from retinaface_fast.weights import load_weights
from retinaface_fast.weights.cache import OFFLINE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cuda_cases import UInt8Array
    from retinaface_fast.ops import Faces

SIZES = {"640x480": cuda_cases.VGA, "1920x1080": cuda_cases.FULL_HD, "4096x2160": cuda_cases.UHD}
LIMITS: dict[str, Any] = {"score_threshold": 0.5, "nms_threshold": 0.4, "top_k": 5000, "keep_top_k": 750}


def rate(call: Callable[[], object], pictures: int, *, seconds: float) -> dict[str, float]:
    """Pictures per second of calls that end with faces on the host: median and quartiles."""
    for _ in range(3):
        call()
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return quartiles([pictures / taken for taken in times])


def differences(some: list[Faces], others: list[Faces]) -> dict[str, float]:
    """Faces at the same place, how far their scores and boxes are apart at most; and how many are alone."""
    alone, score, pixels = 0, 0.0, 0.0
    for ours, theirs in zip(some, others, strict=True):
        alone += abs(len(ours.scores) - len(theirs.scores))
        if len(ours.scores) == 0 or len(theirs.scores) == 0:
            continue
        apart = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(axis=2)
        nearest = apart.argmin(axis=1)
        side = np.minimum(*(theirs.boxes[nearest, k + 2] - theirs.boxes[nearest, k] for k in (0, 1)))
        same = apart.min(axis=1) < side / 4
        alone += int(np.sum(~same))
        if same.any():
            pixels = max(pixels, float(apart.min(axis=1)[same].max()))
            score = max(score, float(np.abs(ours.scores - theirs.scores[nearest])[same].max()))
    return {"without_partner": alone, "score": score, "pixels": pixels}


def rates(pictures: list[UInt8Array], device: str, *, quick: bool, download: bool = False) -> dict[str, Any]:
    """Each model, engine, precision, size and number of pictures; what fails says why."""
    if not download:
        os.environ[OFFLINE_VARIABLE] = "1"
    seconds = 0.2 if quick else 5.0
    sizes = dict(list(SIZES.items())[:1]) if quick else SIZES
    batches = (2,) if quick else (16, 64)
    rows: list[dict[str, Any]] = []

    def add(what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        try:
            rows.append({**what, **measure()})
        except Exception as error:
            rows.append(
                {**what, "failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            )

    contestants: list[tuple[str, str, dict[str, Any]]] = [
        (
            model,
            f"torch on {device}, {precision}",
            {"engine": "torch", "device": device, "precision": precision},
        )
        for model in ("mobilenet0.25", "resnet50")
        for precision in ("float32", "float16")
    ]
    contestants.append(("mobilenet0.25", "native on the CPU", {"engine": "native", "device": "cpu"}))
    for model, name, options in contestants:
        what = {"model": model, "who": name}
        try:
            detector = FaceDetector(model, close_ups=False, **options)
        except Exception as error:  # no weights, no half precision, no device
            rows.append({**what, "failed": f"{type(error).__name__}: {error}"})
            continue
        for label, size in sizes.items():
            picture = cuda_cases.compose(pictures, size, 1)

            def single(detector: FaceDetector = detector, picture: UInt8Array = picture) -> dict[str, Any]:
                return {
                    "faces": len(detector.detect(picture)),
                    "rate": rate(lambda: detector.detect(picture), 1, seconds=seconds),
                }

            add({**what, "size": label, "pictures": 1}, single)
        for count in batches:

            def batch(
                model: str = model, options: dict[str, Any] = options, count: int = count
            ) -> dict[str, Any]:
                return batch_rate(model, options, pictures, count, seconds)

            add({**what, "size": "640x480", "pictures": count}, batch)
    return {"rows": rows}


def batch_rate(
    model: str, options: dict[str, Any], pictures: list[UInt8Array], count: int, seconds: float
) -> dict[str, Any]:
    """A batch as one call of the engine, or of the detector where the engine takes one picture at a time."""
    images = np.stack([cuda_cases.compose(pictures, cuda_cases.VGA, number) for number in range(count)])
    if options["engine"] == "native":
        detector = FaceDetector(model, close_ups=False, **options)
        return {
            "faces": sum(len(found) for found in detector.detect_batch(images)),
            "rate": rate(lambda: detector.detect_batch(images), count, seconds=seconds),
        }
    from retinaface_fast.engines.torch_engine import TorchEngine

    weights = load_weights(model)

    def engine(precision: str) -> Any:
        return TorchEngine(weights, device=options["device"], precision=precision)

    def detect(engine: Any) -> Any:
        return engine.detect_batch(images, color="bgr", **LIMITS)

    own = engine(options["precision"])
    faces = detect(own)
    result = {
        "faces": sum(len(found.scores) for found in faces),
        "postprocessing": own.postprocessing,
        "rate": rate(lambda: detect(own), count, seconds=seconds),
    }
    if options["precision"] != "float32":
        result["beside_float32"] = differences(faces, detect(engine("float32")))
    return result
