"""Pictures per second of the whole detection, for `benchmarks.cuda`."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import cuda_cases
from benchmarks.cuda_ways import quartiles
from retinaface_fast import EngineError, FaceDetector, WeightsError
from retinaface_fast.weights import load_weights
from retinaface_fast.weights.cache import OFFLINE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


# --- TF32


def tf32_flags() -> dict[str, bool]:
    """Whether torch may round what convolutions and products take to TF32, 10 bits instead of 23."""
    import torch

    return {
        "cudnn": torch.backends.cudnn.allow_tf32,
        "matmul": torch.backends.cuda.matmul.allow_tf32,
    }


@contextlib.contextmanager
def tf32(flags: dict[str, bool]) -> Iterator[None]:
    """With these flags, and with the old ones afterwards. As it comes, torch allows it to convolutions."""
    before = tf32_flags()
    try:
        _set_tf32(flags)
        yield
    finally:
        _set_tf32(before)


def _set_tf32(flags: dict[str, bool]) -> None:
    import torch

    torch.backends.cudnn.allow_tf32 = flags["cudnn"]
    torch.backends.cuda.matmul.allow_tf32 = flags["matmul"]


WITHOUT_TF32 = {"cudnn": False, "matmul": False}


# --- answers


def differences(some: list[Faces], others: list[Faces]) -> dict[str, float]:
    """How far scores and boxes of the same faces are apart at most, and how many faces of either are alone.

    Two are the same if each is the nearest of the other, within a quarter of the second one's side.
    """
    alone, score, pixels = 0, 0.0, 0.0
    for ours, theirs in zip(some, others, strict=True):
        alone += len(ours.scores) + len(theirs.scores)
        if len(ours.scores) == 0 or len(theirs.scores) == 0:
            continue
        apart = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(axis=2)
        nearest = apart.argmin(axis=1)
        mutual = apart.argmin(axis=0)[nearest] == np.arange(len(nearest))
        side = np.minimum(*(theirs.boxes[nearest, k + 2] - theirs.boxes[nearest, k] for k in (0, 1)))
        same = mutual & (apart.min(axis=1) < side / 4)
        alone -= 2 * int(np.sum(same))
        if same.any():
            pixels = max(pixels, float(apart.min(axis=1)[same].max()))
            score = max(score, float(np.abs(ours.scores - theirs.scores[nearest])[same].max()))
    return {"without_partner": alone, "score": score, "pixels": pixels}


# --- rates


#: Name, precision of the engine, and whether torch may do as it likes with TF32. What is compared with is the
#: first.
ARITHMETIC = (
    ("float32", "float32", False),
    ("float32 as torch does it (TF32)", "float32", True),
    ("float16", "float16", True),
)


def rates(pictures: list[UInt8Array], device: str, *, quick: bool, download: bool = False) -> dict[str, Any]:
    """Each model, engine, arithmetic, size and number of pictures; what fails or is missing says why."""
    if not download:
        os.environ[OFFLINE_VARIABLE] = "1"
    as_it_comes = tf32_flags()
    rows: list[dict[str, Any]] = []
    for model in ("mobilenet0.25", "resnet50"):
        for name, precision, as_torch_does in ARITHMETIC:
            options = {"engine": "torch", "device": device, "precision": precision}
            flags = as_it_comes if as_torch_does else WITHOUT_TF32
            what = {"model": model, "who": f"torch on {device}, {name}", "tf32": flags}
            with tf32(flags):
                rows += rates_of(what, pictures, options, quick=quick)
    what = {"model": "mobilenet0.25", "who": "native on the CPU"}
    rows += rates_of(what, pictures, {"engine": "native", "device": "cpu"}, quick=quick)
    return {"rows": rows}


def rates_of(
    what: dict[str, Any], pictures: list[UInt8Array], options: dict[str, Any], *, quick: bool
) -> list[dict[str, Any]]:
    """Of one engine, all sizes and numbers of pictures."""
    seconds = 0.2 if quick else 5.0
    model = what["model"]
    try:
        detector = FaceDetector(model, close_ups=False, **options)
    except WeightsError as error:
        said = str(error)
        if OFFLINE_VARIABLE in said:
            return [{**what, "missing": "its weights are not here (--download fetches them)", "said": said}]
        return [{**what, "missing": f"its weights cannot be loaded: {said}"}]
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        # Half the precision is for devices, which is no failure where the script is only tried.
        on_cpu = options["device"] == "cpu" and options.get("precision") == "float16"
        if on_cpu and isinstance(error, EngineError):
            return [{**what, "missing": "needs a CUDA device", "said": said}]
        return [{**what, "failed": said}]
    rows: list[dict[str, Any]] = []

    def add(label: str, count: int, measure: Callable[[], dict[str, Any]]) -> None:
        row = {**what, "size": label, "pictures": count}
        try:
            rows.append({**row, **measure()})
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            rows.append({**row, "failed": said, "traceback": traceback.format_exc()})

    for label, size in list(SIZES.items())[: 1 if quick else None]:
        picture = cuda_cases.compose(pictures, size, 1)

        def single(picture: UInt8Array = picture) -> dict[str, Any]:
            return {
                "faces": len(detector.detect(picture)),
                "rate": rate(lambda: detector.detect(picture), 1, seconds=seconds),
            }

        add(label, 1, single)
    for count in (2,) if quick else (16, 64):

        def batch(count: int = count) -> dict[str, Any]:
            return batch_rate(what, options, pictures, count, seconds)

        add("640x480", count, batch)
    return rows


def batch_rate(
    what: dict[str, Any], options: dict[str, Any], pictures: list[UInt8Array], count: int, seconds: float
) -> dict[str, Any]:
    """A batch as one call of the engine, or of the detector where the engine takes one picture at a time."""
    images = np.stack([cuda_cases.compose(pictures, cuda_cases.VGA, number) for number in range(count)])
    if options["engine"] == "native":
        detector = FaceDetector(what["model"], close_ups=False, **options)
        return {
            "faces": sum(len(found) for found in detector.detect_batch(images)),
            "rate": rate(lambda: detector.detect_batch(images), count, seconds=seconds),
        }
    from retinaface_fast.engines.torch_engine import TorchEngine

    weights = load_weights(what["model"])

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
    if options["precision"] != "float32" or what["tf32"] != WITHOUT_TF32:
        with tf32(WITHOUT_TF32):
            result["beside_float32"] = differences(faces, detect(engine("float32")))
    return result
