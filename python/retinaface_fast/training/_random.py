"""Random numbers of a run: one stream for each purpose, and each place in it by its number."""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["ORDER", "SAMPLE", "generator"]

#: The order of an epoch's pictures, by epoch.
ORDER: Final = 0
#: What is drawn for a sample, by epoch and index.
SAMPLE: Final = 1


def generator(seed: int, stream: int, *place: int) -> np.random.Generator:
    """A generator that depends on nothing else, and shares its numbers with no other stream or place.

    `default_rng([seed, epoch])` and `default_rng([seed, epoch, 0])` are the same generator, since NumPy fills
    what is short with zeros; spawn keys come after what is filled.

    Args:
        seed: Of the run, >= 0.
        stream: What the numbers are for.
        place: Where in the stream, each >= 0.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *place)))
