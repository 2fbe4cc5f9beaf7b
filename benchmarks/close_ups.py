"""What the second look at a large picture finds, what it drops, and what it costs.

    python -m benchmarks.close_ups ../shared/wider

Faces of WIDER FACE are enlarged so that they fill their picture, and searched once and twice: how many are
found, and how many boxes are no face. Then crowds are enlarged, in which faces of 200 to 700 pixels are found
by a single search, too: how many of the true and of the false ones the second look drops.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from retinaface_fast import FaceDetector, ops
from retinaface_fast.data import read_ground_truth, read_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast.data import GroundTruth

Array = npt.NDArray[Any]


def sides(boxes: Array) -> Array:
    """Geometric mean sides of (N, 4) boxes."""
    return np.asarray(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))


def of_picture(truth: GroundTruth, index: int) -> Array:
    """(N, 4) annotated boxes of a picture."""
    return truth.boxes[truth.offsets[index] : truth.offsets[index + 1]]


def read(images: Path, name: str) -> Array:
    """Pixels of a picture."""
    picture = cv2.imread(str(images / f"{name}.jpg"))
    if picture is None:
        raise SystemExit(f"close_ups: {images / name}.jpg cannot be read")
    return np.asarray(picture)


def best_overlaps(boxes: Array, others: Array) -> Array:
    """(N,) largest overlap of each box with any of the others."""
    iou = ops.box_iou(boxes.astype(np.float32), others.astype(np.float32))
    return np.asarray(iou.max(axis=1, initial=0))


def filling(detectors: dict[str, FaceDetector], images: Path, truth: GroundTruth, side: int) -> None:
    """Print what is found of the forty largest faces, each filling its picture."""
    faces = [(box, name) for i, name in enumerate(truth.names) for box in of_picture(truth, i)]
    faces.sort(key=lambda face: -float(np.prod(face[0][2:] - face[0][:2])))
    found, false = dict.fromkeys(detectors, 0), dict.fromkeys(detectors, 0)
    for box, name in faces[:40]:
        picture = read(images, name)
        margin = 0.3 * (box[2:] - box[:2])
        limit = np.array(picture.shape[1::-1])
        low = np.clip(box[:2] - margin, 0, limit).astype(int)
        high = np.clip(box[2:] + margin, 0, limit).astype(int)
        scale = side / float(sides(box[None])[0])
        crop = picture[low[1] : high[1], low[0] : high[0]]
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        target = ((box.reshape(2, 2) - low) * scale).reshape(1, 4)
        for kind, detector in detectors.items():
            boxes = detector.detect(crop).boxes
            found[kind] += int(best_overlaps(target, boxes)[0] > 0.5)
            false[kind] += int((best_overlaps(boxes, target) < 0.3).sum())
    print(
        f"40 faces of {side} pixels: " + ", ".join(f"{k}: {found[k]} found, {false[k]} false" for k in found)
    )


def crowds(
    detectors: dict[str, FaceDetector], images: Path, truth: GroundTruth, scale: int, most: int
) -> None:
    """Print how many faces of 200 pixels and more are left in enlarged pictures."""
    chosen = [
        index
        for index in range(len(truth.names))
        if (
            (scale * sides(of_picture(truth, index)) > 200) & (scale * sides(of_picture(truth, index)) < 700)
        ).any()
    ]
    true, false = dict.fromkeys(detectors, 0), dict.fromkeys(detectors, 0)
    for index in chosen[:: max(1, len(chosen) // most)][:most]:
        picture = read(images, truth.names[index])
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
        for kind, detector in detectors.items():
            boxes = detector.detect(picture).boxes
            overlaps = best_overlaps(boxes[sides(boxes) > 200], scale * of_picture(truth, index))
            true[kind] += int((overlaps > 0.5).sum())
            false[kind] += int((overlaps < 0.3).sum())
    print(f"enlarged {scale} times: " + ", ".join(f"{k}: {true[k]} true, {false[k]} false" for k in true))


def cost(detectors: dict[str, FaceDetector], size_hw: tuple[int, int], rounds: int = 15) -> None:
    """Print how much longer two searches take than one."""
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    seconds: dict[str, list[float]] = {kind: [] for kind in detectors}
    for _ in range(rounds):
        for kind, detector in detectors.items():
            started = time.perf_counter()
            detector.detect(picture)
            seconds[kind].append(time.perf_counter() - started)
    once, twice = (statistics.median(seconds[kind]) for kind in ("once", "twice"))
    print(f"{size_hw[1]}x{size_hw[0]}: {twice / once:.3f} times as long, one thread")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.close_ups", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("wider", type=Path, help="folder with images/, images.txt and ground_truth/")
    folder = parser.parse_args(argv).wider
    truth = read_ground_truth(folder / "ground_truth", read_names(folder / "images.txt"))
    twice = FaceDetector(engine="native", threads=1)
    detectors = {"once": twice.replace(close_ups=False), "twice": twice}
    for size_hw in ((720, 1280), (1080, 1920), (2160, 4096)):
        cost(detectors, size_hw)
    for side in (500, 800, 1300, 2400):
        filling(detectors, folder / "images", truth, side)
    for scale, most in ((1, 150), (4, 45)):
        crowds(detectors, folder / "images", truth, scale, most)
    return 0


if __name__ == "__main__":
    sys.exit(main())
