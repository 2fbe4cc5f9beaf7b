"""Whether the engines find the same faces in every photograph of the WIDER FACE part, and have the same AP.

    python -m benchmarks.agreement [--engines native torch onnxruntime] [--every N] [--images FOLDER]
                                   [--predictions FOLDER] [--json FILE] [--markdown FILE]

Every engine detects at threshold 0.02 in the pictures' original size, on one thread. Two faces are the same
if their boxes and landmarks differ by at most 0.05 pixel and their scores by at most 0.001. A face that one
engine lacks is a tie if a decision that was close in both is the reason (see `benchmarks.ties`); anything
else is a disagreement. AP is that of the official protocol, by `tests.reference.wider_ap`, and may differ by
0.02 percent points.

Predictions are kept, in the format that WIDER FACE evaluations read, so that an interrupted run goes on. The
engine `float64` may join as the referee: the PyTorch network in double precision. The exit code is 1 where
two engines disagree, 2 where the comparison cannot be made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.reference import wider_ap

from benchmarks import measure
from benchmarks.predictions import FLOAT64, SETTINGS, Predictions, PredictionsError, wider_rows
from benchmarks.ties import PIXELS, SCORE, Side, distances, explain, landmarks_of, match
from retinaface_fast import RetinaFaceError
from retinaface_fast.data import read_names
from retinaface_fast.engines import ENGINES
from retinaface_fast.latency.machine import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: AP of two engines, in percent, may differ by this.
AP = 0.02
PARTS = ("box", "landmark", "score")
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Comparison:
    """What the comparison of two engines found, over all pictures."""

    one: str
    other: str
    pictures: int = 0
    faces: int = 0  #: that both have
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)  #: by part: the difference, and where
    ties: list[dict[str, Any]] = field(default_factory=list)
    disagreements: list[dict[str, Any]] = field(default_factory=list)

    def add(self, picture: str, one: Predictions, other: Predictions) -> None:
        """Compare the faces of one picture."""
        found = one[picture], other[picture]
        matched = match(*found)
        self.pictures += 1
        self.faces += len(matched.pairs)
        mine, its = matched.pairs.T
        points = [landmarks_of(each) for each in found]
        differences = (
            np.abs(found[0].boxes[mine] - found[1].boxes[its]),
            np.abs(points[0][mine] - points[1][its]),
            np.abs(found[0].scores[mine] - found[1].scores[its]),
        )
        for part, difference in zip(PARTS, differences, strict=True):
            largest = float(difference.max(initial=0))
            if largest >= self.largest.get(part, (0.0, ""))[0]:
                self.largest[part] = (largest, picture)
        if len(matched.only_one) + len(matched.only_other):
            sides = Side.of(one, picture), Side.of(other, picture)
            self._explain(picture, sides, matched.only_one)
            self._explain(picture, sides[::-1], matched.only_other, swapped=True)

    def _explain(
        self, picture: str, sides: Sequence[Side], faces: Iterable[int], *, swapped: bool = False
    ) -> None:
        having, lacking = sides
        for face in faces:
            entry = {
                "picture": picture,
                "only": self.other if swapped else self.one,
                "box": having.found.boxes[face].round(3).tolist(),
                "score": float(having.found.scores[face]),
            }
            anchor = int(having.anchors[face])
            if anchor < 0:
                self.disagreements.append({**entry, "why": "not in the raw outputs of the engine"})
            elif anchor in lacking.kept:
                same = int(np.flatnonzero(lacking.anchors == anchor)[0])
                apart = [float(part[same]) for part in distances(face, having.found, lacking.found)]
                twice = max(apart[:2]) <= PIXELS and apart[2] <= SCORE
                why = "it is there twice" if twice else "both have it, too far apart"
                self.disagreements.append({**entry, "why": why, "differences": apart})
            else:
                tie = explain(anchor, having, lacking)
                if tie is None:
                    self.disagreements.append({**entry, "why": "it is missing, and no decision was close"})
                else:
                    self.ties.append({**entry, "kind": tie.kind, "size": float(tie.size), "steps": tie.steps})

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "engines": [self.one, self.other],
            "pictures": self.pictures,
            "faces": self.faces,
            "largest": {
                part: {"difference": size, "in": name} for part, (size, name) in self.largest.items()
            },
            "ties": self.ties,
            "disagreements": self.disagreements,
        }

    def lines(self) -> list[str]:
        """All of it, for people."""
        differing = {entry["picture"] for entry in self.ties + self.disagreements}
        count = f"{len(self.ties)} ties and {len(self.disagreements)} disagreements"
        text = [
            (
                f"**{self.one} and {self.other}**, {self.pictures:,} pictures: "
                f"the same {self.faces:,} faces, and {count} in {len(differing)} pictures"
            ),
            "",
        ]
        for part, (size, name) in self.largest.items():
            unit = "" if part == "score" else " px"
            text.append(f"- largest difference of a {part}: {size:.2g}{unit}, in {name}")
        for kind in sorted({tie["kind"] for tie in self.ties}):
            some = [tie for tie in self.ties if tie["kind"] == kind]
            worst = max(some, key=lambda tie: tie["size"])
            text.append(
                f"- ties of {kind}: {len(some)}; the least even by {worst['size']:.2g}, in {worst['picture']}"
            )
        for entry in self.disagreements:
            apart = entry.get("differences")
            more = f" by {apart[0]:.3g} px, {apart[1]:.3g} px and a score of {apart[2]:.2g}" if apart else ""
            text.append(
                f"- **disagreement**: {entry['picture']}, {entry['only']} at {entry['box']} with "
                f"{entry['score']:.6f}: {entry['why']}{more}"
            )
        return [*text, ""]


def compare(engines: Sequence[Predictions], pictures: Sequence[str], *, progress: bool) -> list[Comparison]:
    """Every engine with every other one."""
    comparisons = [Comparison(one.name, other.name) for one, other in itertools.combinations(engines, 2)]
    for done, picture in enumerate(pictures):
        for comparison, (one, other) in zip(comparisons, itertools.combinations(engines, 2), strict=True):
            comparison.add(picture, one, other)
        if progress and done % 50 == 49:
            print(f"{done + 1} of {len(pictures)} pictures", file=sys.stderr, flush=True)
    return comparisons


def average_precision(
    predictions: Predictions, pictures: Sequence[str], truth: Mapping[str, Any]
) -> dict[str, float]:
    """AP in percent on the easy, medium and hard faces of the pictures."""
    rows = {picture: wider_rows(predictions[picture]) for picture in pictures}
    return {which: 100 * ap for which, ap in wider_ap.average_precision(rows, truth).items()}


def ap_lines(ap: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table of the APs, and by how much they differ."""
    text = ["| AP, % | " + " | ".join(wider_ap.SETS) + " |", "|---|" + "---:|" * len(wider_ap.SETS)]
    text += [
        f"| {name} | " + " | ".join(f"{of[which]:.4f}" for which in wider_ap.SETS) + " |"
        for name, of in ap.items()
    ]
    spread = ap_spread(ap)
    return [*text, "", f"They differ by {spread:.4f} at most{'' if spread <= AP else ': **too much**'}.", ""]


def ap_spread(ap: Mapping[str, Mapping[str, float]]) -> float:
    """The largest difference of two engines on any set."""
    return max(
        max(of[which] for of in ap.values()) - min(of[which] for of in ap.values()) for which in wider_ap.SETS
    )


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=(*ENGINES, FLOAT64), default=["native", "torch"])
    parser.add_argument(
        "--images", type=Path, default=ROOT.parent / "shared" / "wider", help="folder of images.txt"
    )
    parser.add_argument(
        "--predictions", type=Path, default=ROOT / "build" / "agreement", help="where they are kept"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take one of N pictures")
    parser.add_argument("--json", type=Path, help="write all of it")
    parser.add_argument("--markdown", type=Path, help="write what is printed")
    options = parser.parse_args(arguments)
    if len(set(options.engines)) < max(2, len(options.engines)):
        parser.error("--engines: name two or more different ones")
    if options.every < 1:
        parser.error(f"--every: expected at least 1, got {options.every}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = arguments_of(arguments)
    measure.use_one_thread()
    try:
        pictures = read_names(options.images / "images.txt")[:: options.every]
        truth = wider_ap.read_ground_truth(options.images / "ground_truth", pictures)
        engines = [
            Predictions(name, options.images / "images", options.predictions) for name in options.engines
        ]
        comparisons = compare(engines, pictures, progress=True)
    except (OSError, ImportError, ValueError, RetinaFaceError, PredictionsError) as error:
        print(error, file=sys.stderr)
        return 2
    ap = {engine.name: average_precision(engine, pictures, truth) for engine in engines}
    lines = [line for comparison in comparisons for line in comparison.lines()] + ap_lines(ap)
    print("\n".join(lines))
    record = {
        "machine": machine(),
        "settings": SETTINGS,
        "comparisons": [comparison.record() for comparison in comparisons],
        "ap": ap,
    }
    if options.json:
        options.json.write_text(json.dumps(record, indent=2))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    agree = not any(comparison.disagreements for comparison in comparisons) and ap_spread(ap) <= AP
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
