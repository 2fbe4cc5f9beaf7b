"""Seeded inputs: raw network outputs that are plausible, and boxes that are anything but."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tests.ops.agreement import P3_P5, Grid, RawOutputs

if TYPE_CHECKING:
    from collections.abc import Callable

FloatArray = npt.NDArray[np.float32]

#: Where logits are drawn from. Two different differences are at least 1/8 apart, so their scores differ by
#: more than 4e-5 of their value, a hundred times what the rounding of a sigmoid can do; equal ones tie.
LOGIT_STEP = 1.0 / 8.0


def random_outputs(
    rng: np.random.Generator,
    image_size_hw: tuple[int, int],
    *,
    grid: Grid = P3_P5,
    batch: int = 1,
    face_share: float = 0.2,
    spread: float = 1.5,
) -> RawOutputs:
    """Logits on a grid, so that many scores tie and no two others are near; deltas as a network gives them.

    A share of the anchors leans towards a face; neighbours overlap, so that suppression has work to do.
    """
    count = grid.count(image_size_hw)
    lean = np.where(rng.random((batch, count)) < face_share, 2.0, -3.0)
    difference = np.round(np.clip(rng.normal(lean, spread), -8, 8) / LOGIT_STEP) * LOGIT_STEP
    background = np.round(rng.normal(0, 2, (batch, count)) / LOGIT_STEP) * LOGIT_STEP
    class_scores = np.stack([background, background + difference], axis=2).astype(np.float32)
    box_deltas = rng.normal(0, 1, (batch, count, 4)).astype(np.float32)
    landmark_deltas = rng.normal(0, 3, (batch, count, 10)).astype(np.float32)
    return RawOutputs(class_scores, box_deltas, landmark_deltas)


def as_probabilities(raw: RawOutputs) -> RawOutputs:
    """The same outputs after the softmax, in float32 as a network would do it."""
    shifted = raw.class_scores - raw.class_scores.max(axis=2, keepdims=True)
    exponentials = np.exp(shifted)
    return raw._replace(class_scores=exponentials / exponentials.sum(axis=2, keepdims=True))


def spoil(rng: np.random.Generator, raw: RawOutputs, share: float) -> RawOutputs:
    """A share of all numbers replaced by NaN, infinities, huge and subnormal ones."""
    evil = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-42, -0.0, 500.0, -500.0], dtype=np.float32)
    spoiled = []
    for array in raw:
        copy = array.copy()
        mask = rng.random(copy.shape) < share
        copy[mask] = rng.choice(evil, size=int(mask.sum()))
        spoiled.append(copy)
    return RawOutputs(*spoiled)


# --- boxes for suppression: every kind takes a generator and a count and gives (count, 4) xyxy float32 ---


def _from_corner(corner: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> FloatArray:
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def sparse(rng: np.random.Generator, count: int) -> FloatArray:
    """Faces of a picture that grows with their number: a few neighbours each."""
    side = 40.0 * np.sqrt(count)
    return _from_corner(rng.uniform(0, side, (count, 2)), rng.uniform(8, 64, (count, 2)))


def dense(rng: np.random.Generator, count: int) -> FloatArray:
    """Clusters, as an anchor grid gives them around a face."""
    faces = rng.uniform(0, 640, (max(1, count // 40), 2))
    centres = faces[rng.integers(0, len(faces), count)] + rng.normal(0, 3, (count, 2))
    sizes = 30 * np.exp(rng.normal(0, 0.15, (count, 2)))
    return _from_corner(centres - sizes / 2, sizes)


def identical(rng: np.random.Generator, count: int) -> FloatArray:
    """A handful of boxes, over and over."""
    return sparse(rng, 7)[rng.integers(0, 7, count)]


def grid_ties(rng: np.random.Generator, count: int) -> FloatArray:
    """Whole-pixel squares on a grid: overlaps are small fractions, many exactly at the usual thresholds."""
    side = max(4, int(2 * np.sqrt(count)))
    corner = 2.0 * rng.integers(0, side, (count, 2))
    return _from_corner(corner, 2.0 * rng.integers(1, 4, (count, 1)) * np.ones((1, 2)))


def zero_area(rng: np.random.Generator, count: int) -> FloatArray:
    """Points, lines and boxes at the same places."""
    corner = 4.0 * rng.integers(0, 20, (count, 2))
    return _from_corner(corner, 4.0 * rng.integers(0, 3, (count, 2)))


def inverted(rng: np.random.Generator, count: int) -> FloatArray:
    """Right of left, above of below: a third of the boxes in each axis."""
    return _from_corner(rng.uniform(0, 200, (count, 2)), rng.uniform(-20, 40, (count, 2)))


def huge(rng: np.random.Generator, count: int) -> FloatArray:
    """Coordinates up to where areas overflow."""
    scale = 10.0 ** rng.uniform(6, 25, (count, 1))
    return _from_corner(rng.uniform(-1, 1, (count, 2)) * scale, rng.uniform(0, 2, (count, 2)) * scale)


def tiny(rng: np.random.Generator, count: int) -> FloatArray:
    """Fractions of a pixel, down to where areas underflow."""
    scale = 10.0 ** rng.uniform(-24, -2, (count, 1))
    return _from_corner(rng.uniform(-1, 1, (count, 2)) * scale, rng.uniform(0, 2, (count, 2)) * scale)


def elongated(rng: np.random.Generator, count: int) -> FloatArray:
    """Lines of text, not faces: sides 1:1000 both ways, crossing."""
    size = np.stack([rng.uniform(1, 4, count), rng.uniform(500, 4000, count)], axis=1)
    lying = rng.random(count) < 0.5
    size[lying] = size[lying, ::-1]
    return _from_corner(rng.uniform(0, 4000, (count, 2)), size)


def mixed_scales(rng: np.random.Generator, count: int) -> FloatArray:
    """Sides from 1 to 4,000 pixels in one picture: small boxes inside large ones, one cell size fits none."""
    size = 2.0 ** rng.uniform(0, 12, (count, 1)) * rng.uniform(0.7, 1.4, (count, 2))
    return _from_corner(rng.uniform(-100, 4000, (count, 2)), size)


def outliers(rng: np.random.Generator, count: int) -> FloatArray:
    """Two far groups and a few boxes at the end of the world."""
    boxes = sparse(rng, count)
    boxes[rng.random(count) < 0.5] += np.float32(100_000.0)
    boxes[rng.random(count) < 0.002] += np.float32(1e9)
    return boxes


def not_finite(rng: np.random.Generator, count: int) -> FloatArray:
    """Ordinary boxes, one number in ten of which is NaN or infinite."""
    boxes = dense(rng, count)
    mask = rng.random(boxes.shape) < 0.1
    boxes[mask] = rng.choice(np.array([np.nan, np.inf, -np.inf], dtype=np.float32), size=int(mask.sum()))
    return boxes


BOX_KINDS: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "sparse": sparse,
    "dense": dense,
    "identical": identical,
    "grid ties": grid_ties,
    "zero area": zero_area,
    "inverted": inverted,
    "huge": huge,
    "tiny": tiny,
    "elongated": elongated,
    "mixed scales": mixed_scales,
    "outliers": outliers,
    "not finite": not_finite,
}


def random_scores(rng: np.random.Generator, count: int) -> FloatArray:
    """Scores of which a half tie with others."""
    fine = rng.random(count)
    coarse = rng.integers(0, 16, count) / 16
    return np.where(rng.random(count) < 0.5, fine, coarse).astype(np.float32)
