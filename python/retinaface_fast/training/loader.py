"""Batches of an epoch from any of its steps on, made by worker processes."""

from __future__ import annotations

import multiprocessing
import signal
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader

from retinaface_fast.errors import RetinaFaceError

from .targets import collate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .batch import Batch, Sample
    from .dataset import TrainingDataset
    from .sampling import EpochSampler

__all__ = ["BatchLoader"]


class BatchLoader:
    """Makes the micro-batches of one process.

    The workers live as long as the loader. What they make does not depend on how many there are.

    Args:
        dataset: What makes the pictures.
        sampler: Which of them belong to each micro-batch.
        workers: Processes that make them; 0 makes them in this one.
    """

    def __init__(self, dataset: TrainingDataset, sampler: EpochSampler, *, workers: int) -> None:
        self._keys = _Keys(sampler)
        self._workers = workers
        self._loader: Any = DataLoader(
            cast("Any", _Careful(dataset)),  # anything with __getitem__ will do; keys need not be numbers
            batch_sampler=self._keys,
            collate_fn=_collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=_start_method() if workers else None,
            worker_init_fn=_calm_worker if workers else None,
            generator=torch.Generator().manual_seed(0),  # leaves the random state of the run alone
        )

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """The micro-batches of an epoch, from its step `first` on.

        Raises:
            RetinaFaceError: Whatever making a picture raises, as it is, when its batch is asked for; or a
                worker was killed.
        """
        self._keys.epoch, self._keys.first = epoch, first
        return _batches(iter(self._loader), workers=self._workers)  # the workers begin now


class _Keys:
    """What the loader asks for the keys of each micro-batch."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._sampler.batches(self.epoch, start_step=self.first)


class _Careful:
    """The data set with errors as results: torch puts the traceback of a worker into the message."""

    def __init__(self, dataset: TrainingDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample | RetinaFaceError:
        try:
            return self._dataset[key]
        except RetinaFaceError as error:
            return error


def _collate(samples: Sequence[Sample | RetinaFaceError]) -> Batch | RetinaFaceError:
    made = []
    for sample in samples:
        if isinstance(sample, RetinaFaceError):
            return sample
        made.append(sample)
    return collate(made)


def _batches(loaded: Iterator[Batch | RetinaFaceError], *, workers: int) -> Iterator[Batch]:
    try:
        for batch in loaded:
            if isinstance(batch, RetinaFaceError):
                raise batch
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        # torch finds that a worker is gone, or a connection to it breaks before. What begins with "Caught"
        # was raised in a worker and is a bug.
        if workers == 0 or str(error).startswith("Caught"):
            raise
        raise RetinaFaceError(
            f"a process that loads pictures was ended; fewer workers need less memory: {error}"
        ) from error


def _start_method() -> str:
    # A forked child of a process with threads may find a lock held for ever.
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _calm_worker(_: int) -> None:
    """One thread for each worker, and Ctrl-C is the business of the training process."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
