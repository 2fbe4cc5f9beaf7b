"""What `benchmarks.cuda` gives to everyone: raw outputs of the network on pictures, and made-up ones."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import scenes
from retinaface_fast.anchor_config import P3_P5
from retinaface_fast.engines.base import RawOutputs

if TYPE_CHECKING:
    from pathlib import Path

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

VGA, FULL_HD, UHD = (480, 640), (1080, 1920), (2160, 4096)
#: Pixels of a tile of `compose`, from and to: a face fills a third of it, more or less.
TILE = 120, 280


class MissingPicturesError(Exception):
    """There is nothing to look at; the message says what to give."""


@dataclass(frozen=True)
class Case:
    """A batch of raw outputs, and of what image size they are."""

    name: str
    image_size_hw: tuple[int, int]
    outputs: RawOutputs

    @property
    def batch_size(self) -> int:
        return len(self.outputs.class_scores[0])

    @property
    def probabilities(self) -> FloatArray:
        """(B, A) of the faces, near enough to count candidates."""
        scores = np.concatenate(self.outputs.class_scores, axis=1)
        if self.outputs.scores_are == "probabilities":
            return scores[..., 1]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(1 / (1 + np.exp(scores[..., 0] - scores[..., 1])), dtype=np.float32)


class Tensors(NamedTuple):
    """The outputs of a case as torch tensors of a device, one for each level."""

    class_scores: list[Any]
    box_deltas: list[Any]
    landmark_deltas: list[Any]


def on_device(case: Case, device: str) -> Tensors:
    import torch

    outputs = case.outputs
    return Tensors(
        *(
            [torch.from_numpy(level).to(device) for level in levels]
            for levels in (outputs.class_scores, outputs.box_deltas, outputs.landmark_deltas)
        )
    )


# --- pictures


def read_pictures(paths: list[Path]) -> list[UInt8Array]:
    """The pictures of files and folders, BGR; without any, the astronaut and the cat of scikit-image.

    Raises:
        MissingPicturesError: If none can be read.
    """
    import cv2

    files = [
        file
        for path in paths
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    if not paths:
        try:
            files = [
                scenes.distribution_file("scikit-image", f"skimage/data/{name}.png")
                for name in ("astronaut", "chelsea")
            ]
        except scenes.MissingError as error:
            raise MissingPicturesError(f"{error}: install scikit-image, or name --pictures") from error
    pictures = [picture for file in files if (picture := cv2.imread(str(file))) is not None]
    if not pictures:
        raise MissingPicturesError(f"no picture could be read from {[str(path) for path in paths]}")
    return [np.asarray(picture, dtype=np.uint8) for picture in pictures]


def compose(pictures: list[UInt8Array], image_size_hw: tuple[int, int], number: int) -> UInt8Array:
    """Picture `number` of that size: tiles of the given ones, mirrored and shaded at random."""
    import cv2

    rng = np.random.default_rng(number)
    height, width = image_size_hw
    tile = rng.uniform(*TILE)
    rows, columns = max(1, round(height / tile)), max(1, round(width / tile))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    ys, xs = (np.linspace(0, n, k + 1).astype(int) for n, k in ((height, rows), (width, columns)))
    for y1, y2 in itertools.pairwise(ys):
        for x1, x2 in itertools.pairwise(xs):
            picture = pictures[int(rng.integers(len(pictures)))]
            if rng.random() < 0.5:
                picture = picture[:, ::-1]
            shade = np.float32(0.6 + 0.6 * rng.random())
            # As much of it as has the shape of the tile, from the middle, and rather from the top.
            scale = min(picture.shape[0] / (y2 - y1), picture.shape[1] / (x2 - x1))
            rows_of, columns_of = max(1, int((y2 - y1) * scale)), max(1, int((x2 - x1) * scale))
            left = (picture.shape[1] - columns_of) // 2
            part = picture[:rows_of, left : left + columns_of]
            small = cv2.resize(np.ascontiguousarray(part), (int(x2 - x1), int(y2 - y1)))
            canvas[y1:y2, x1:x2] = np.clip(small * shade, 0, 255).astype(np.uint8)
    return canvas


@functools.cache
def _engine() -> Any:
    from retinaface_fast.engines.torch_engine import TorchEngine
    from retinaface_fast.weights import load_weights

    # On the CPU, so that everyone is asked the same on every machine.
    return TorchEngine(load_weights("mobilenet0.25"), device="cpu")


def real_case(name: str, pictures: list[UInt8Array], image_size_hw: tuple[int, int], batch_size: int) -> Case:
    """What MobileNet-0.25 says of so many composed pictures."""
    runs = [
        _engine().run(compose(pictures, image_size_hw, number)[None], color="bgr")
        for number in range(batch_size)
    ]
    levels = [
        tuple(np.concatenate(arrays) for arrays in zip(*(getattr(run, part) for run in runs), strict=True))
        for part in ("class_scores", "box_deltas", "landmark_deltas")
    ]
    return Case(name, image_size_hw, RawOutputs(*levels, scores_are="logits"))


# --- made-up outputs


def random_case(
    name: str,
    image_size_hw: tuple[int, int],
    batch_size: int,
    *,
    seed: int,
    mean_logit: float = 1.0,
    hard: bool = False,
) -> Case:
    """Random outputs. The logit of a face is normal about the mean with deviation 2.

    `hard` rounds the scores, so that many are equal, and strews NaN, infinities and boxes without an area.
    """
    rng = np.random.default_rng(seed)
    features = P3_P5.feature_sizes_hw(image_size_hw)
    lengths = [
        rows * columns * len(sizes) for (rows, columns), sizes in zip(features, P3_P5.sizes, strict=True)
    ]
    scores, boxes, landmarks = (
        [rng.standard_normal((batch_size, length, width), dtype=np.float32) for length in lengths]
        for width in (2, 4, 10)
    )
    for level, deltas, points in zip(scores, boxes, landmarks, strict=True):
        np.multiply(level, np.float32(2**0.5), out=level)
        level[..., 1] += np.float32(mean_logit)
        if not hard:
            continue
        level[...] = np.round(level * 2) / 2
        odd = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 400.0, -600.0])
        for array in (level, deltas, points):
            rows = rng.random(array.shape[:2]) < 0.02
            array[rows, int(rng.integers(array.shape[2]))] = rng.choice(odd, int(rows.sum()))
    return Case(name, image_size_hw, RawOutputs(tuple(scores), tuple(boxes), tuple(landmarks), "logits"))
