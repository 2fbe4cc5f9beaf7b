"""The comparison of the fused post-processing, as a table and as JSON.

    python -m benchmarks.postprocess [--json FILE] [--rounds N]

Every contestant answers the same question on the same real outputs, the answers are compared, then all take
turns in every round on one thread. Printed are medians, and how many times `ops.postprocess` fits into
each.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, opponents, scenes
from retinaface_fast import ops
from retinaface_fast.latency.machine import machine

#: What the project promises, looked at after the table: factor over the pure-Python way at 640x640, factor
#: over the best NumPy way wherever there is more than the scan to do, share of the memory's read bandwidth.
TARGETS = {"pure Python": 500.0, "best NumPy": 15.0, "bandwidth": 0.5}


def contestants(scene: scenes.Scene, options: opponents.Options, *, logits: bool) -> dict[str, Any]:
    """Everyone who can answer, by name; each returns faces of one image."""
    outputs = scene.outputs
    class_scores = outputs.class_logits if logits else outputs.class_probabilities
    size = scene.image_size_hw
    single = class_scores[0], outputs.box_deltas[0], outputs.landmark_deltas[0]

    keywords = {"scores_are": "logits" if logits else "probabilities", **options._asdict()}

    def fused() -> ops.Faces:
        return ops.postprocess(class_scores, outputs.box_deltas, outputs.landmark_deltas, size, **keywords)[0]

    found: dict[str, Any] = {"ops.postprocess": fused}
    if not logits:  # the popular port ends in a softmax
        for name, make in (
            ("pure Python", opponents.anchors_the_popular_way),
            ("pure Python, lean loops", opponents.anchors_in_lean_loops),
        ):
            found[name] = functools.partial(opponents.pure_python, *single, size, options, make_anchors=make)
    ways = itertools.product(opponents.suppressions().items(), opponents.FILTERS.items())
    for (name, suppress), (filter_name, find) in ways:
        if suppress is opponents.all_pairs and np.count_nonzero(single[0][:, 1] > single[0][:, 0]) > 2000:
            continue  # a matrix of gigabytes
        found[f"{name}, {filter_name}"] = functools.partial(
            opponents.best_numpy, *single, size, options, logits=logits, suppress=suppress, find=find
        )
    return found


def compare(
    scene: scenes.Scene, options: opponents.Options, *, logits: bool, rounds: int, cold: bool = False
) -> dict[str, Any]:
    """One row of the table: seconds of everyone, after the answers have been compared."""
    calls = contestants(scene, options, logits=logits)
    expected = calls["ops.postprocess"]()
    for name, call in calls.items():
        measure.assert_same_faces(call(), expected, name)
    heavy = {name: call for name, call in calls.items() if name.startswith("pure")}
    light = {name: call for name, call in calls.items() if name not in heavy}
    # First a short race of the NumPy ways, then the final of the best two: fewer runners, more rounds.
    qualifying = measure.interleaved(light, rounds=3)
    best = sorted((name for name in light if name != "ops.postprocess"), key=qualifying.__getitem__)[:2]
    final = {name: light[name] for name in ("ops.postprocess", *best)}
    before = measure.Evict() if cold else None
    seconds = measure.interleaved({**final, **heavy}, rounds=rounds, before=before)
    fused = seconds["ops.postprocess"]
    best_name = min(best, key=seconds.__getitem__)
    scores = scene.outputs.class_probabilities[0, :, 1]
    return {
        "scene": scene.name,
        "scores_are": "logits" if logits else "probabilities",
        "caches": "evicted" if cold else "warm",
        "options": options._asdict(),
        "candidates": int((scores > options.score_threshold).sum()),
        "faces": len(expected.scores),
        "seconds": {**{name: qualifying[name] for name in light}, **seconds},
        "best_numpy": best_name,
        "times_best_numpy": seconds[best_name] / fused,
        "times_pure_python": seconds["pure Python"] / fused if heavy else None,
        "times_lean_python": seconds["pure Python, lean loops"] / fused if heavy else None,
    }


def scan(rounds: int) -> dict[str, Any]:
    """Bandwidth of the fused call where there is hardly a candidate, on arrays that no cache holds."""
    scene = scenes.quiet_4k()
    logits = scene.outputs.class_logits
    copies = [logits.copy() for _ in range(max(8, int(160e6 / logits.nbytes)))]
    outputs = scene.outputs

    def all_copies() -> None:
        for copy in copies:
            ops.postprocess(
                copy, outputs.box_deltas, outputs.landmark_deltas, scene.image_size_hw, score_threshold=0.6
            )

    def memory() -> None:
        bandwidths.append(measure.read_bandwidth(rounds=1))

    bandwidths: list[float] = []
    seconds = measure.interleaved({"scan": all_copies, "memory": memory}, rounds=rounds)["scan"]
    scanned = sum(copy.nbytes for copy in copies) / seconds
    read = float(np.median(bandwidths))
    return {"scene": scene.name, "scanned": scanned, "read": read, "share": scanned / read}


def _row(result: dict[str, Any]) -> str:
    def times(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}x" if value >= 100 else f"{value:.1f}x"

    def micro(name: str) -> str:
        return f"{result['seconds'][name] * 1e6:,.0f}" if name in result["seconds"] else ""

    label = f"{result['scene']}, {result['options']['score_threshold']}, {result['scores_are']}"
    if result["caches"] != "warm":
        label += ", caches evicted"
    if result["options"]["top_k"] > 5000:
        label += ", no top_k"
    return (
        f"{label:<66}{result['candidates']:>7,}{result['faces']:>6,}{micro('ops.postprocess'):>9}"
        f"{micro(result['best_numpy']):>10}{times(result['times_best_numpy']):>8}"
        f"{micro('pure Python'):>11}{times(result['times_pure_python']):>8}"
        f"{times(result['times_lean_python']):>8}  {result['best_numpy']}"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--rounds", type=int, default=21)
    parsed = parser.parse_args(arguments)
    measure.use_one_thread()

    vga = [scene for scene in (scenes.crowd_640(), scenes.wider_640()) if scene is not None]
    everything = 10**6
    plan: list[tuple[scenes.Scene, opponents.Options, bool, bool]] = [
        (scene, opponents.Options(threshold), logits, cold)
        for scene in vga
        for threshold in (0.02, 0.6)
        for logits, cold in ((False, False), (True, False), (False, True))
    ]
    for logits in (False, True):
        plan.append((scenes.crowd_4k(), opponents.Options(0.02), logits, False))
        plan.append(
            (
                scenes.crowd_4k(),
                opponents.Options(0.02, top_k=everything, keep_top_k=everything),
                logits,
                False,
            )
        )
        plan.append((scenes.quiet_4k(), opponents.Options(0.6), logits, False))

    print(f"{machine()}, core: {ops.simd_level()}; one thread, medians in microseconds")
    print(
        f"{'outputs of, threshold, scores':<66}{'cands':>7}{'faces':>6}{'fused':>9}{'NumPy':>10}{'':>8}"
        f"{'Python':>11}{'':>8}{'lean':>8}  best NumPy way"
    )
    results = []
    for scene, options, logits, cold in plan:
        rounds = parsed.rounds if scene.image_size_hw[0] <= 640 else max(5, parsed.rounds // 3)
        results.append(compare(scene, options, logits=logits, rounds=rounds, cold=cold))
        print(_row(results[-1]), flush=True)
    bandwidth = scan(max(5, parsed.rounds // 3))
    print(
        f"scan of {bandwidth['scene']}, out of cache: {bandwidth['scanned'] / 1e9:.2f} GB/s of the machine's "
        f"{bandwidth['read'] / 1e9:.2f} GB/s, {bandwidth['share']:.0%}"
    )
    warm = [result for result in results if result["caches"] == "warm"]
    python = min(r["times_pure_python"] for r in warm if r["times_pure_python"] and "640" in r["scene"])
    numpy = min(r["times_best_numpy"] for r in warm if r["candidates"] > 400)
    for what, value, target in (
        ("times the pure-Python way at 640x640, worst case", python, TARGETS["pure Python"]),
        ("times the best NumPy way, worst case", numpy, TARGETS["best NumPy"]),
        ("of the read bandwidth", bandwidth["share"], TARGETS["bandwidth"]),
    ):
        print(f"{'met   ' if value >= target else 'MISSED'} {value:8.2f} {what}, promised {target:g}")
    if parsed.json:
        record = {
            "machine": machine(),
            "simd": ops.simd_level(),
            "results": results,
            "scan": bandwidth,
        }
        parsed.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    if measure.ONE_THREAD.items() <= os.environ.items():
        sys.exit(main())
    # The libraries are loaded by now: once more, in a process that has the variables from the start.
    again = [sys.executable, "-m", "benchmarks.postprocess", *sys.argv[1:]]
    sys.exit(subprocess.run(again, env=os.environ | measure.ONE_THREAD, check=False).returncode)
