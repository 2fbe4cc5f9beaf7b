"""How far the landmarks of one file of weights lie from those of another, on the faces that both find.

    python -m benchmarks.landmarks mobilenet0.25 run/best.safetensors --images DIR --names FILE

Distances are means over the five points, in percent of the square root of the area of the first one's box. A
face is found by both where their boxes have an IoU >= 0.5 and each has a score > 0.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast import FaceDetector, ops
from retinaface_fast.data import read_names
from retinaface_fast.weights import load_weights

if TYPE_CHECKING:
    from retinaface_fast import Detections


def distances(first: Detections, second: Detections) -> list[float]:
    """Return the mean distance of each face of the first that the second has, too, as a part of its side."""
    if not len(first) or not len(second):
        return []
    overlaps = ops.box_iou(first.boxes, second.boxes)
    found = []
    for face, best in enumerate(overlaps.argmax(axis=1)):
        if overlaps[face, best] < 0.5:
            continue
        offsets = first.landmarks[face] - second.landmarks[best]
        side = np.sqrt(np.prod(first.boxes[face, 2:] - first.boxes[face, :2]))
        found.append(float(np.linalg.norm(offsets, axis=1).mean() / side))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("first", help="name or file of weights")
    parser.add_argument("second", help="name or file of weights")
    parser.add_argument("--images", type=Path, required=True, help="folder of <event>/<name>.jpg")
    parser.add_argument("--names", type=Path, required=True, help="list of the pictures")
    arguments = parser.parse_args()
    detectors = [FaceDetector(weights=load_weights(source)) for source in (arguments.first, arguments.second)]
    found: list[float] = []
    for name in read_names(arguments.names):
        first, second = (detector.detect(arguments.images / f"{name}.jpg") for detector in detectors)
        found += distances(first, second)
    values = 100 * np.array(found)
    print(
        f"{len(values):,} faces: mean {values.mean():.2f} %, median {np.median(values):.2f} %, "
        f"9 of 10 below {np.percentile(values, 90):.2f} %"
    )


if __name__ == "__main__":
    main()
