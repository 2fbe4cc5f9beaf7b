"""Small pictures with a drawn face each, in every layout that `retinaface-fast train` reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RECIPE = """
[augmentation]
side = 64
crop_attempts = 10
[schedule]
epochs = 2
milestones = []
[training]
batch_size = 4
"""

TINY = ["--config", "small.toml", "--workers", "0", "--device", "cpu"]

Face = tuple[tuple[int, int, int, int], list[tuple[float, float]]]


def faces(count: int) -> list[Face]:
    """Boxes x, y, width, height, and the five points of each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        w = int(rng.integers(24, 44))
        x, y = int(rng.integers(0, 128 - w)), int(rng.integers(0, 90 - w))
        points = [
            (x + a * w, y + b * w) for a, b in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.3, 0.8), (0.7, 0.8))
        ]
        found.append(((x, y, w, w), points))
    return found


def write_pictures(folder: Path, drawn: Sequence[Face]) -> None:
    folder.mkdir(parents=True)
    for index, ((x, y, w, h), points) in enumerate(drawn):
        image = np.full((96, 128, 3), 90, np.uint8)
        cv2.ellipse(image, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, (150, 180, 230), -1)
        for px, py in points:
            cv2.circle(image, (int(px), int(py)), 2, (20, 20, 20), -1)
        assert cv2.imwrite(str(folder / f"a{index}.png"), image)
        (folder / f"a{index}.png").rename(folder / f"a{index}.jpg")  # what it is, its bytes say


def label_lines(drawn: Sequence[Face], *, landmarks: bool) -> list[str]:
    lines = []
    for index, (box, points) in enumerate(drawn):
        numbers = [
            *box,
            *((f"{x:.1f} {y:.1f} 0.0" for x, y in points) if landmarks else ()),
            *([0.9] * landmarks),
        ]
        lines += [f"# ev/a{index}.jpg", " ".join(map(str, numbers))]
    return lines


def write_label(folder: Path, drawn: Sequence[Face], *, landmarks: bool = True) -> None:
    write_pictures(folder / "images" / "ev", drawn)
    (folder / "label.txt").write_text("\n".join(label_lines(drawn, landmarks=landmarks)) + "\n")


def write_wider(folder: Path, drawn: Sequence[Face]) -> None:
    write_pictures(folder / "WIDER_train" / "images" / "ev", drawn)
    (folder / "wider_face_split").mkdir()
    lines = []
    for index, (box, _) in enumerate(drawn):
        lines += [f"ev/a{index}.jpg", "1", " ".join(map(str, (*box, 0, 0, 0, 0, 0, 0)))]
    (folder / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")


def write_coco(folder: Path, drawn: Sequence[Face]) -> None:
    write_pictures(folder / "images", drawn)
    size = {"width": 128, "height": 96}
    record: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"a{i}.jpg", **size} for i in range(len(drawn))],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": list(box), "iscrowd": 0}
            for i, (box, _) in enumerate(drawn)
        ],
        "categories": [{"id": 1, "name": "face"}],
    }
    (folder / "faces.json").write_text(json.dumps(record))
