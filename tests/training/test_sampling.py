from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from retinaface_fast import DatasetError
from retinaface_fast.network.config import CONFIGS
from retinaface_fast.training.dataset import TrainingDataset
from retinaface_fast.training.recipe import AssignmentSection, AugmentationSection
from retinaface_fast.training.records import Record
from retinaface_fast.training.sampling import EpochSampler

#: length, batch_size, world_size, accumulate
SHAPES = [
    (1, 1, 1, 1),
    (10, 4, 1, 1),
    (10, 4, 2, 1),
    (10, 4, 1, 2),
    (10, 4, 2, 2),
    (24, 24, 3, 4),
    (1000, 32, 4, 2),
    (1001, 24, 3, 2),
]


def keys_by_step(
    shape: tuple[int, int, int, int], *, epoch: int, start_step: int = 0
) -> list[list[list[tuple[int, int]]]]:
    """For each step the micro-batches of all processes."""
    length, batch_size, world_size, accumulate = shape
    by_rank = [
        list(
            EpochSampler(
                length,
                batch_size=batch_size,
                world_size=world_size,
                rank=rank,
                accumulate=accumulate,
                seed=3,
            ).batches(epoch, start_step)
        )
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in by_rank}) == 1
    steps, rest = divmod(len(by_rank[0]), accumulate)
    assert rest == 0
    return [
        [micro for batches in by_rank for micro in batches[step * accumulate : (step + 1) * accumulate]]
        for step in range(steps)
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epoch", [0, 1, 250])
def test_sharing_a_step_changes_no_step(shape: tuple[int, int, int, int], epoch: int) -> None:
    length, batch_size, world_size, accumulate = shape
    alone = [micro for (micro,) in keys_by_step((length, batch_size, 1, 1), epoch=epoch)]
    assert [len(keys) for keys in alone] == [batch_size] * (length // batch_size)
    for together, micros in zip(alone, keys_by_step(shape, epoch=epoch), strict=True):
        assert {len(micro) for micro in micros} == {batch_size // (world_size * accumulate)}
        assert sorted(itertools.chain(*micros)) == sorted(together)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_picture_at_most_once_an_epoch(shape: tuple[int, int, int, int]) -> None:
    keys = list(itertools.chain(*itertools.chain(*keys_by_step(shape, epoch=7))))
    assert {epoch for epoch, _ in keys} == {7}
    indices = Counter(index for _, index in keys)
    assert set(indices.values()) == {1}
    assert set(indices) <= set(range(shape[0]))
    assert len(indices) == shape[0] // shape[1] * shape[1]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(
            index for batch in EpochSampler(50, batch_size=5, seed=seed).batches(epoch) for _, index in batch
        )
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_every_picture_comes_first_as_often_as_any_other() -> None:
    sampler = EpochSampler(5, batch_size=1)
    first = Counter(next(sampler.batches(epoch))[0][1] for epoch in range(2000))
    # 400 each are expected; the standard deviation is 18.
    assert set(first) == set(range(5))
    assert max(abs(count - 400) for count in first.values()) < 5 * 18


@pytest.mark.parametrize("shape", SHAPES)
def test_taking_up_an_epoch(shape: tuple[int, int, int, int]) -> None:
    whole = keys_by_step(shape, epoch=4)
    for start in range(len(whole) + 1):
        assert keys_by_step(shape, epoch=4, start_step=start) == whole[start:]


def test_the_answer_depends_on_nothing_else() -> None:
    sampler = EpochSampler(20, batch_size=4)
    expected = list(sampler.batches(3))
    np.random.default_rng(0).random()
    list(sampler.batches(1))
    assert list(sampler.batches(3)) == expected
    assert sampler.steps_per_epoch == 5


def test_keys_are_plain_numbers() -> None:
    ((key, *_),) = EpochSampler(3, batch_size=3).batches(0)
    assert [type(part) for part in key] == [int, int]


@pytest.mark.parametrize(
    ("length", "options", "message"),
    [
        (
            100,
            {"batch_size": 10, "world_size": 2, "accumulate": 3},
            r"batch_size: expected a multiple of world_size \* accumulate, 2 \* 3, got 10",
        ),
        (7, {"batch_size": 8}, r"length: 7 pictures do not fill one batch of 8; choose .* at most 7"),
        (0, {"batch_size": 8}, r"length: 0 pictures"),
        (10, {"batch_size": 0}, r"batch_size: expected at least 1, got 0"),
        (10, {"batch_size": 2, "world_size": 0}, r"world_size: expected at least 1, got 0"),
        (10, {"batch_size": 2, "accumulate": 0}, r"accumulate: expected at least 1, got 0"),
        (10, {"batch_size": 2, "rank": 1}, r"rank: expected 0 to 0, for world_size 1, got 1"),
        (10, {"batch_size": 2, "rank": -1}, r"rank: .*got -1"),
        (10, {"batch_size": 2, "seed": -1}, r"seed: expected at least 0, got -1"),
    ],
)  # fmt: skip
def test_errors(length: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochSampler(length, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epoch", "start_step", "message"),
    [(-1, 0, "epoch: .*got -1"), (0, -1, "start_step: .*0 to 5, got -1"), (0, 6, "start_step: .*got 6")],
)
def test_errors_come_at_once(epoch: int, start_step: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochSampler(20, batch_size=4).batches(epoch, start_step)


def test_the_order_is_not_drawn_from_the_numbers_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    plain = np.random.default_rng

    def spied(seed: object) -> np.random.Generator:
        rng = plain(seed)
        states.append(rng.bit_generator.state["state"]["state"])
        return rng

    monkeypatch.setattr(np.random, "default_rng", spied)
    list(EpochSampler(3, batch_size=3, seed=5).batches(2))
    data = TrainingDataset(
        [
            Record(
                Path("no.jpg"),
                np.zeros((0, 4), np.float32),
                np.zeros((0, 5, 2), np.float32),
                np.zeros(0, bool),
                "a:1",
            )
        ],
        augmentation=AugmentationSection(),
        assignment=AssignmentSection(),
        network=CONFIGS["mobilenet0.25"],
        seed=5,
    )
    with pytest.raises(DatasetError):
        data[2, 0]
    assert len(states) == len(set(states)) == 2
