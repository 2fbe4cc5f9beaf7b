from __future__ import annotations

import itertools

from retinaface_fast.training._random import ORDER, SAMPLE, generator


def test_no_two_places_share_their_numbers() -> None:
    places = [(ORDER, epoch) for epoch in range(6)]
    places += [(SAMPLE, epoch, index) for epoch, index in itertools.product(range(6), range(6))]
    # Zeros at the end, and a seed of the size of a place, are where plain lists of numbers collide.
    found = {
        tuple(generator(seed, *place).integers(2**63, size=2).tolist())
        for seed in (0, 1, 2**32, 2**64)
        for place in places
    }
    assert len(found) == 4 * len(places)


def test_the_same_place_has_the_same_numbers() -> None:
    first, second = (generator(7, SAMPLE, 3, 2).random(5).tolist() for _ in range(2))
    assert first == second
