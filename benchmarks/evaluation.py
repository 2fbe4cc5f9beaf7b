"""How long it takes to score the predictions of the whole WIDER FACE validation set.

    python -m benchmarks.evaluation [--ground-truth FOLDER] [--per-picture N] [--rounds N] [--json FILE]

The predictions are made up: most of the annotated faces, moved about, some of them twice, and false alarms to
fill up the number per picture. Three contestants give the average precision of all three subsets, on one
thread:

- `retinaface_fast.evaluation.evaluate`;
- the oracle of the tests, `tests.reference.wider_ap`, which follows the official program: prediction by
  prediction, subset by subset;
- the same in NumPy with more haste: all overlaps of a picture at once, and once for all subsets.

The answers are compared before the times are looked at. Printed are medians of the thread's CPU time; they
begin with the predictions in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tests.evaluation.conversion import to_predictions, to_truth
from tests.reference import wider_ap

from benchmarks import measure
from retinaface_fast.evaluation import evaluate
from retinaface_fast.latency.machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.reference.wider_ap import Annotations

Array = npt.NDArray[Any]

OURS = "native"
#: What the project promises, over the oracle.
TARGET = 50.0
GROUND_TRUTH = Path(__file__).resolve().parents[2] / "shared" / "wider" / "ground_truth"


def made_up_faces(pictures: int, seed: int = 0) -> dict[str, Annotations]:
    """Annotations for where the official ones are not: a few faces in most pictures, crowds in some."""
    rng = np.random.default_rng(seed)
    truth = {}
    for picture in range(pictures):
        count = int(rng.choice([0, 1, 3, 10, 100], p=[0.02, 0.4, 0.4, 0.15, 0.03]))
        sides = np.exp(rng.uniform(np.log(6), np.log(300), count))
        boxes = np.column_stack([rng.uniform(0, 900, (count, 2)), sides, 1.2 * sides]).round()
        counted = {
            which: boxes[:, 3] > least for which, least in zip(wider_ap.SETS, (50, 30, 10), strict=True)
        }
        truth[f"event/{picture}"] = wider_ap.Annotations(boxes, counted)
    return truth


def made_up_predictions(
    truth: Mapping[str, Annotations], per_picture: int, seed: int = 0
) -> dict[str, Array]:
    """(N, 5) x, y, width, height, score by picture, in quarters of a pixel."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, annotated in truth.items():
        faces = annotated.boxes[rng.random(len(annotated.boxes)) < 0.9]
        faces = np.concatenate([faces, faces[rng.random(len(faces)) < 0.2]])
        alarms = max(per_picture - len(faces), 0)
        sides = np.exp(rng.uniform(np.log(6), np.log(300), alarms))
        boxes = np.concatenate(
            [
                faces + rng.normal(0, 0.1, faces.shape) * faces[:, [2, 3, 2, 3]],
                np.column_stack([rng.uniform(0, 900, (alarms, 2)), sides, 1.2 * sides]),
            ]
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
        scores = np.concatenate([rng.beta(3, 1, len(faces)), rng.beta(1, 6, alarms)])
        order = np.argsort(-scores)
        found[name] = np.column_stack([np.rint(4 * boxes) / 4, scores])[order]
    return found


def numpy_in_haste(found: Mapping[str, Array], truth: Mapping[str, Annotations]) -> dict[str, float]:
    """What `wider_ap.average_precision` gives, as fast as NumPy does it picture by picture."""
    thresholds = 1 - np.arange(1, wider_ap.THRESHOLDS + 1) / wider_ap.THRESHOLDS
    shown = {which: np.zeros(wider_ap.THRESHOLDS) for which in wider_ap.SETS}
    right = {which: np.zeros(wider_ap.THRESHOLDS) for which in wider_ap.SETS}
    for name, rows in wider_ap.normalised(found).items():
        boxes = truth[name].boxes
        if not len(rows) or not len(boxes):
            continue
        a = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)[:, None]
        b = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)[None]
        sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0)
        shared = sides[..., 0] * sides[..., 1]
        areas = (rows[:, 2] + 1) * (rows[:, 3] + 1)
        overlap = shared / (areas[:, None] + (boxes[:, 2] + 1) * (boxes[:, 3] + 1) - shared)
        best = overlap.argmax(axis=1)
        matched = np.flatnonzero(overlap[np.arange(len(rows)), best] >= 0.5)
        first = matched[np.unique(best[matched], return_index=True)[1]]
        passing = np.searchsorted(-rows[:, 4], -thresholds, side="right")
        for which in wider_ap.SETS:
            counted = truth[name].counted[which]
            judged, is_right = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
            judged[matched] = counted[best[matched]]
            is_right[first] = counted[best[first]]
            shown[which] += np.concatenate([[0], np.cumsum(judged)])[passing]
            right[which] += np.concatenate([[0], np.cumsum(is_right)])[passing]
    faces = {which: sum(int(one.counted[which].sum()) for one in truth.values()) for which in wider_ap.SETS}
    return {
        which: wider_ap.area(right[which] / np.maximum(shown[which], 1), right[which] / max(faces[which], 1))
        for which in wider_ap.SETS
    }


def contestants(
    found: Mapping[str, Array], truth: Mapping[str, Annotations]
) -> dict[str, Callable[[], Mapping[str, float]]]:
    """Everyone who can answer, by name; each returns the average precision of the subsets."""
    columns = to_truth(truth)
    predictions = to_predictions(found, columns.names)
    return {
        OURS: lambda: evaluate(predictions, columns).ap,
        "NumPy oracle": lambda: wider_ap.average_precision(found, truth),
        "NumPy in haste": lambda: numpy_in_haste(found, truth),
    }


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    """CPU seconds of each round."""
    seconds = []
    for _ in range(rounds):
        started = measure.clock()
        call()
        seconds.append(measure.clock() - started)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ground-truth", type=Path, default=GROUND_TRUTH, help="folder of the .mat files")
    parser.add_argument("--per-picture", type=int, default=200, help="predictions (default: 200)")
    parser.add_argument("--rounds", type=int, default=2, help="of the slow ones; ours has ten times as many")
    parser.add_argument("--json", type=Path, help="write everything here")
    parsed = parser.parse_args()

    truth = wider_ap.read_ground_truth(parsed.ground_truth)
    found = made_up_predictions(truth, parsed.per_picture)
    calls = contestants(found, truth)
    expected = calls[OURS]()
    faces = sum(len(annotated.boxes) for annotated in truth.values())
    predictions = sum(len(rows) for rows in found.values())
    print(f"{machine()}; one thread, medians")
    print(f"{len(truth):,} pictures, {faces:,} annotated boxes, {predictions:,} predictions")
    print("AP " + " / ".join(f"{which} {100 * expected[which]:.3f}" for which in wider_ap.SETS))

    medians = {}
    for name, call in calls.items():
        found_ap = call()
        assert all(abs(found_ap[which] - expected[which]) < 1e-12 for which in wider_ap.SETS), name
        medians[name] = float(np.median(timed(call, parsed.rounds * (10 if name == OURS else 1))))
        print(f"{name:<16}{medians[name]:10.3f} s{medians[name] / medians[OURS]:10.1f} times", flush=True)
    ratio = medians["NumPy oracle"] / medians[OURS]
    verdict = "met   " if ratio >= TARGET else "MISSED"
    print(f"{verdict} {ratio:8.1f} times the oracle, promised {TARGET:g}")
    if parsed.json:
        record = {
            "machine": machine(),
            "pictures": len(truth),
            "boxes": faces,
            "predictions": predictions,
            "ap": dict(expected),
            "seconds": medians,
        }
        parsed.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    if measure.ONE_THREAD.items() <= os.environ.items():
        sys.exit(main())
    # The libraries are loaded by now: once more, in a process that has the variables from the start.
    again = [sys.executable, "-m", "benchmarks.evaluation", *sys.argv[1:]]
    sys.exit(subprocess.run(again, env=os.environ | measure.ONE_THREAD, check=False).returncode)
