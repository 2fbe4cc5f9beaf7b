"""Batches of an epoch from any of its steps on, made by worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
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
            multiprocessing_context=_context() if workers else None,
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
        with _in_words(self._workers), _shielded() if self._workers else contextlib.nullcontext():
            loaded = iter(self._loader)  # the workers begin now
        return _batches(loaded, workers=self._workers)


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
    with _in_words(workers):
        for batch in loaded:
            if isinstance(batch, RetinaFaceError):
                raise batch
            yield batch


@contextlib.contextmanager
def _in_words(workers: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        # torch finds that a worker is gone, or a connection to it breaks before. What begins with "Caught"
        # was raised in a worker and is a bug.
        if workers == 0 or str(error).startswith("Caught"):
            raise
        raise RetinaFaceError(
            f"a process that loads pictures was ended; fewer workers need less memory: {error}"
        ) from error


# Whoever stops a run sends its signal to all of its processes: a terminal for Ctrl-C, and timeout, systemd or
# SLURM. When to end is for the training process to say, which still needs pictures to finish its step.

if sys.platform == "win32":

    def _context() -> Any:
        return multiprocessing.get_context("spawn")

    def _shielded() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # there is no mask to inherit; `_calm_worker` ignores Ctrl-C

else:
    from multiprocessing import context, popen_spawn_posix, resource_tracker

    class _Popen(popen_spawn_posix.Popen):
        def terminate(self) -> None:
            # What `_shielded` keeps from a worker is what multiprocessing would end it with at exit, and then
            # wait for it.
            self.kill()

    class _Process(context.SpawnProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name is multiprocessing's
            return _Popen(process_obj)

    class _Context(context.SpawnContext):
        Process = _Process

    def _context() -> Any:
        # A forked child of a process with threads may find a lock held for ever, and the children of a fork
        # server do not notice that the training process was killed.
        return _Context()

    @contextlib.contextmanager
    def _shielded() -> Iterator[None]:
        """Processes that begin meanwhile never see Ctrl-C and SIGTERM, from their first instruction on."""
        resource_tracker.ensure_running()  # would lift the mask when it begins
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _calm_worker(_: int) -> None:
    """One thread for each worker, and no signals, even where the server that forks was begun by others."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":  # where it would also ignore that it is to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
