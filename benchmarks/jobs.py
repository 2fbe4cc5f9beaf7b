"""What `benchmarks.engines` runs in fresh processes: `python -m benchmarks.jobs JOB ANSWER`, two JSON files.

A job is pinned to its processors by the process that starts it, before anything here is imported, so that
every library counts as many processors as it may use threads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import graphs, runtimes, scenes
from retinaface_fast.latency import turns
from retinaface_fast.latency.memory import peak_of
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.graphs import FloatArray, UInt8Array

#: Ours may be off by this share of the range of the reference; the opponents by more, because MNN with its
#: large Winograd tiles is.
TOLERANCE = 1e-4
TOLERANCE_OF_OPPONENTS = 1e-3
#: Height and width of a picture that takes no memory to speak of.
TINY = (64, 64)


def picture(size_hw: tuple[int, int]) -> tuple[UInt8Array, str]:
    """A crowd of the size, contiguous BGR, and what it is made of; noise where its pictures are missing."""
    sides = (96, 144, 72, 200, 112) if size_hw[0] <= 640 else (200, 300, 140, 420, 180)
    try:
        return np.ascontiguousarray(scenes.crowd(size_hw, sides=sides)), "composed crowd"
    except (scenes.MissingError, ImportError) as error:
        noise = np.random.default_rng(7).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        return noise, f"noise, because {error}"


def reference(image: UInt8Array) -> list[FloatArray]:
    """The raw outputs that everyone is compared with: ONNX Runtime on the graph that the package exports."""
    from retinaface_fast.engines.onnxruntime_engine import OnnxRuntimeEngine

    raw = OnnxRuntimeEngine(load_weights(graphs.MODEL), device="cpu", threads=1).run(image[None], color="bgr")
    return [*raw.class_scores, *raw.box_deltas, *raw.landmark_deltas]


def error_of(outputs: list[FloatArray], expected: list[FloatArray]) -> float:
    """The greatest difference of any head, as a share of the range of its values over all levels."""
    worst = 0.0
    for head in range(0, len(expected), len(graphs.STRIDES)):
        levels = slice(head, head + len(graphs.STRIDES))
        found, wanted = (
            np.concatenate([a.ravel() for a in arrays[levels]]) for arrays in (outputs, expected)
        )
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - wanted).max() / np.ptp(wanted)))
    return worst


def network(
    names: list[str], size_hw: tuple[int, int], threads: int, rounds: int, turn_seconds: float
) -> dict[str, Any]:
    """Times of the network alone, after everyone's outputs have been compared.

    Returns:
        For every name either the times or `failed`, the reason why there are none.
    """
    image, content = picture(size_hw)
    weights = load_weights(graphs.MODEL)
    expected = reference(image)
    results: dict[str, Any] = {}
    calls: dict[str, Callable[[], object]] = {}
    for name in names:
        try:
            runtime = runtimes.make(name, weights, size_hw, threads)
            runtime.show(image)
            runtime.prepare()
            runtime.run()
            runtime.run()  # a second time, in memory that the first has left behind
            error = error_of(runtime.outputs(), expected)
        except Exception as exception:  # whatever it is, the others shall have their turns
            results[name] = {"failed": f"{type(exception).__name__}: {exception}"}
            continue
        allowed = TOLERANCE if name.startswith(runtimes.OURS) else TOLERANCE_OF_OPPONENTS
        if error > allowed:
            results[name] = {
                "failed": f"its outputs are off by {error:.1e} of the range, allowed {allowed:g}"
            }
            continue
        results[name] = {"error": error}
        calls[name] = runtime.run
    for name, times in _times(calls, rounds, turn_seconds).items():
        results[name] |= times
    return {"picture": content, "results": results}


def _times(
    calls: dict[str, Callable[[], object]], rounds: int, turn_seconds: float
) -> dict[str, dict[str, Any]]:
    if not calls:
        return {}
    found = turns.take_turns(calls, rounds=rounds, turn_seconds=turn_seconds)
    return {
        name: times.summary() if times.failed is None else {"failed": times.failed}
        for name, times in found.items()
    }


def memory(name: str, size_hw: tuple[int, int], threads: int) -> dict[str, Any]:
    """Peak memory of the process over its loaded state, of the network of someone else.

    Some allocate while they compile for a size: they are loaded when they have run a tiny picture, and
    compile for the real one after that. What the float32 picture takes is not counted.
    """
    image, _ = picture(size_hw)
    weights = load_weights(graphs.MODEL)
    tiny = runtimes.make(name, weights, TINY, threads)
    tiny.show(np.zeros((*TINY, 3), np.uint8))
    tiny.prepare()
    tiny.run()
    blob = graphs.blob_of(weights, image)

    def calls() -> None:
        runtime = runtimes.make(name, weights, size_hw, threads)
        runtime.take(blob)
        runtime.prepare()
        for _ in range(3):
            runtime.run()

    return peak_of(calls)


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"network": network, "memory": memory}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    job["size_hw"] = tuple(job["size_hw"])
    Path(sys.argv[2]).write_text(json.dumps(JOBS[job.pop("job")](**job)))
