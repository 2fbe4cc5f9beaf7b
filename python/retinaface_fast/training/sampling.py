"""The order in which pictures are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._random import ORDER, generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinaface_fast._typing import IntArray

__all__ = ["EpochSampler"]


class EpochSampler:
    """Which pictures each micro-batch of each process holds.

    The order of an epoch is a pure function of the seed and the epoch, and a step takes the same pictures of
    it however many processes and micro-batches share the work. So a run can be taken up at any step, and two
    runs with different numbers of processes train on the same batches. The pictures at the end of an epoch
    that do not fill a step are left out; which ones those are changes from epoch to epoch.

    Args:
        length: Number of pictures.
        batch_size: Pictures of a step, over all processes and micro-batches.
        world_size: Number of processes.
        rank: Which of them this is, from 0.
        accumulate: Micro-batches of a step in each process.
        seed: Of the order.

    Raises:
        ValueError: If `batch_size` cannot be divided among the processes and micro-batches, there are fewer
            pictures than one step takes, or another argument is out of range.

    Example:
        >>> sampler = EpochSampler(5, batch_size=2)
        >>> sampler.steps_per_epoch
        2
        >>> [len(keys) for keys in sampler.batches(epoch=3)]
        [2, 2]
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("world_size", world_size),
            ("accumulate", accumulate),
        ):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 to {world_size - 1}, for world_size {world_size}, got {rank}")
        if seed < 0:
            raise ValueError(f"seed: expected at least 0, got {seed}")
        parts = world_size * accumulate
        if batch_size % parts:
            raise ValueError(
                f"batch_size: expected a multiple of world_size * accumulate, {world_size} * {accumulate}, "
                f"got {batch_size}"
            )
        if length < batch_size:
            raise ValueError(
                f"length: {length} pictures do not fill one batch of {batch_size}; "
                f"choose a batch_size of at most {length} or train on more pictures"
            )
        self._length = length
        self._batch_size = batch_size
        self._parts = parts
        self._world_size = world_size
        self._rank = rank
        self._seed = seed
        self._steps = length // batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch takes."""
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, int]]]:
        """The micro-batches of this process in one epoch.

        Args:
            epoch: Which epoch, from 0.
            start_step: The first step, 0 to `steps_per_epoch`, which leaves nothing.

        Returns:
            The micro-batches, `accumulate` of them for each step, each a list of (epoch, index of a picture),
            the keys of `TrainingDataset`.

        Raises:
            ValueError: If an argument is out of range.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        if not 0 <= start_step <= self._steps:
            raise ValueError(f"start_step: expected 0 to {self._steps}, got {start_step}")
        return self._batches(epoch, start_step)

    def _batches(self, epoch: int, start_step: int) -> Iterator[list[tuple[int, int]]]:
        order: IntArray = generator(self._seed, ORDER, epoch).permutation(self._length)
        for step in range(start_step, self._steps):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            for part in batch.reshape(self._parts, -1)[self._rank :: self._world_size]:
                yield [(epoch, index) for index in part.tolist()]
