"""A tiny run: a few pictures composed of two portraits, and a recipe that takes milliseconds a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from benchmarks.scenes import portraits

from retinaface_fast.training import Recipe, Trainer, load_recipe, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retinaface_fast.training import TrainingResult

RECIPE = """
[augmentation]
side = 64
crop_scales = [1.0]
distort = false
flip = 0.0
interpolations = ["linear"]
[optimiser]
kind = "adamw"
lr = 2e-3
weight_decay = 0.0
clip_norm = 10.0
[schedule]
epochs = 2
kind = "cosine"
[training]
batch_size = 4
[validation]
every = 1
"""

#: The faces in `benchmarks.scenes.portraits`, and their five points, as shares of the pictures: by eye.
_FACE = np.float32([[0.24, 0.28, 0.76, 0.88], [0.22, 0.20, 0.72, 0.74]])
_POINTS = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def write_recipe(folder: Path) -> Path:
    """Write the recipe to a file, and return it."""
    path = folder / "tiny.toml"
    path.write_text(RECIPE)
    return path


def recipe(folder: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe, with other values by `section.key`."""
    return load_recipe(write_recipe(folder), changes)


def write_data(folder: Path, *, pictures: int, side: int = 64, landmarks: bool = True, seed: int = 0) -> Path:
    """Write `label.txt` and pictures with one or two faces each, and return the folder."""
    rng = np.random.default_rng(seed)
    lines = []
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        picture = cv2.resize(rng.integers(60, 180, (5, 5, 3), np.uint8), (side, side))
        lines.append(f"# {number}.jpg")
        both = rng.random() < 0.5
        for place in range(1 + both):
            which = int(rng.integers(2))
            size = int(side * (0.5 if both else rng.uniform(0.6, 0.95)))
            x = place * side // 2 if both else int(rng.integers(side - size + 1))
            y = int(rng.integers(side - size + 1))
            head = cv2.resize(portraits()[which], (size, size), interpolation=cv2.INTER_AREA)
            picture[y : y + size, x : x + size] = head
            x1, y1, x2, y2 = (_FACE[which] * size + (x, y, x, y)).tolist()
            values = [x1, y1, x2 - x1, y2 - y1]
            for a, b in _POINTS.tolist():
                known = (x1 + a * (x2 - x1), y1 + b * (y2 - y1), 0.0)
                values += known if landmarks else (-1.0, -1.0, -1.0)
            lines.append(" ".join(f"{value:.2f}" for value in [*values, 0.9]))
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), picture)
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_folded(folder: Path, data: Path) -> Path:
    """Train a little, and return the weights that a run leaves: batch norm is folded into them."""
    records = read_records(data).records
    run = Trainer(recipe(folder, {"schedule.epochs": 15}), records, folder / "run", workers=0, device="cpu")
    path = run.run().last
    assert path is not None
    return path


#: To train such weights as they are, with steps so small that rounding is not amplified: at three times this
#: rate two runs that differ in the last bit differ by 5% after eight steps.
AS_IS: dict[str, Any] = {
    "training.batch_norm": "as-is",
    "optimiser.kind": "sgd",
    "optimiser.lr": 1e-4,
    "schedule.epochs": 4,
}


def losses_of(trainer: Trainer) -> tuple[TrainingResult, list[float]]:
    """Run, and return the result and the loss of each step."""
    losses: list[float] = []
    result = trainer.run(progress=lambda state: losses.append(state.losses["loss"]) if state.losses else None)
    return result, losses


def contents(folder: Path) -> dict[str, bytes]:
    """What a run has come to, byte by byte: the weights and the tensors of its checkpoints."""
    paths = [*folder.glob("*.safetensors"), *folder.glob("checkpoints/*/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
