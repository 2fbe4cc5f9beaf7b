"""The loop: one process or many, on one machine or several, that can be stopped at any step and goes on.

The order of the pictures and their augmentation are functions of the seed, the epoch and the place; the
learning rate is a function of the step. What remains to be kept is in a checkpoint: weights, their average,
momentum, random state, and the best result so far. A run that goes on from one therefore ends in the same
bits as one that was never stopped, on the same machine with the same number of threads and processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import retinaface_fast
from retinaface_fast import ops
from retinaface_fast.errors import DatasetError, RetinaFaceError, WeightsError
from retinaface_fast.network.retinaface import RetinaFace
from retinaface_fast.weights import save_weights

from .checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from .dataset import TrainingDataset
from .initialisation import initial_of_run, initialise
from .interrupts import stop_on_signals
from .learner import Learner
from .loader import BatchLoader
from .logs import RunLog, picture_of_batch
from .optimisation import lr_factor
from .processes import join_processes
from .progress import Shares, TrainingProgress, TrainingResult
from .run_folder import claim_run, data_digest, lock_run, read_run, validator_digest
from .sampling import EpochSampler
from .selection import Selection
from .unfolding import restore_batch_norm

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from retinaface_fast.weights import ModelWeights

    from .batch import Batch
    from .losses import DenseTerm
    from .recipe import Recipe
    from .records import Record
    from .validation import ValidationResult, Validator

__all__ = ["Trainer"]

_LOGGER = logging.getLogger(__name__)
#: What is wrong with the data, and nothing else.
_FAULTS = logging.getLogger("retinaface_fast.training.faults")


class Trainer:
    """Trains a network by a recipe.

    Started by torchrun, each process makes one of these with the same arguments.

    In the folder of the run are `run.json`, what it is made of; `checkpoints/`, from which it goes on;
    `log/`, for TensorBoard; and `last.safetensors` and `best.safetensors`, weights for
    `FaceDetector(weights=...)`.

    Args:
        recipe: What to do.
        records: The pictures and their faces.
        output: Folder of the run.
        init: Initial weights, see `initialise`; None begins with random ones.
        backbone_pixels: What pixels the backbone in `init` was trained on, see `initialise`.
        resume: Where the folder holds a checkpoint, `init` is not looked at: it is what `run.json` says, and
            its file may be gone.
        validator: Measures average precision; None never does, and keeps no best weights.
        device: "cpu", "cuda", "cuda:N" or "mps"; None takes a CUDA device if there is one, else the
            CPU.
        workers: Processes that load pictures, for each training process; 0 loads in the loop.
        on_fault: What a picture that cannot be decoded does: "skip" takes another one and tells once, "fail"
            ends the run.
        checkpoint_seconds: A checkpoint is written at the end of each epoch, and where an epoch takes longer,
            after so many seconds.
        dense: A further term of the loss, which `recipe.loss.dense_weight` weighs, see `MultiTaskLoss`; it is
            logged as `train/dense`. What it says of the micro-batches of all processes is added up.
        arguments: What else `run.json` is to say, as JSON takes it; who goes on may say something else.
        conditions: The same, but who goes on must say it again.

    Raises:
        ValueError: An argument or a combination of them cannot be.
        DatasetError: `output` holds a run of another recipe or other data, or one that is at work, or cannot
            be written, or is not the same folder in all processes.
        WeightsError: Initial weights or the checkpoint do not fit.
        EngineError: The device is not there.
        RetinaFaceError: The program does not keep the call below `if __name__ == "__main__"`, and a process
            that it has started imports it.
        MissingDependencyError: A package of the extra `train` is not installed.
    """

    def __init__(
        self,
        recipe: Recipe,
        records: Sequence[Record],
        output: str | os.PathLike[str],
        *,
        init: str | os.PathLike[str] | None = None,
        backbone_pixels: Literal["bgr", "torchvision"] = "bgr",
        resume: bool = False,
        validator: Validator | None = None,
        device: str | None = None,
        workers: int = 2,
        on_fault: Literal["skip", "fail"] = "skip",
        checkpoint_seconds: float = 600.0,
        dense: DenseTerm | None = None,
        arguments: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        # Set while a process imports the program that started it.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RetinaFaceError(
                "a process that loads pictures imports the program that it belongs to, and is to train, too: "
                'put the call below if __name__ == "__main__"'
            )
        if recipe.loss.dense_weight > 0 and dense is None:
            raise ValueError(
                "dense: expected a function, because loss.dense_weight is "
                f"{recipe.loss.dense_weight:g}, got None"
            )
        self.recipe = recipe
        self.output = Path(output)
        self.validator = validator
        self._checkpoint_seconds = checkpoint_seconds
        self._fabric = join_processes(device, recipe.training.precision)
        self._config = recipe.network.config()
        training = recipe.training
        self._sampler = EpochSampler(
            len(records),
            batch_size=training.batch_size,
            world_size=self._fabric.world_size,
            rank=self._fabric.global_rank,
            accumulate=training.accumulate,
            seed=training.seed,
        )
        self._dataset = TrainingDataset(
            records,
            augmentation=recipe.augmentation,
            assignment=recipe.assignment,
            network=self._config,
            seed=training.seed,
            on_fault=on_fault,
        )
        self._workers = workers
        if resume and latest_checkpoint(self._checkpoints) is not None:
            initial = initial_of_run(self._config, read_run(self.output))
        else:
            initial = initialise(
                self._config,
                init,
                seed=training.seed,
                backbone_pixels=backbone_pixels,
                negatives_per_positive=recipe.loss.negatives_per_positive,
            )
        #: Where the weights came from, in words.
        self.initial = initial.description
        self._provenance = initial.metadata
        folded = initial.folded and training.batch_norm == "as-is"
        self._record = {
            "retinaface_fast": retinaface_fast.__version__,
            "recipe": recipe.model_dump(mode="json"),
            "network": self._config.to_dict(),
            "initial": dict(initial.origin),
            "initial_weights": initial.description,
            "provenance": dict(initial.metadata),
            "batch_norm": "folded" if folded else "trained",
            "pictures": len(records),
            "faces": int(sum(len(record.boxes) for record in records)),
            "data": data_digest(records),
            "validation_digest": validator_digest(validator),
            **(conditions or {}),
            "arguments": dict(arguments or {}),
        }
        self._stop = threading.Event()
        self._faults: dict[str, None] = {}
        self._shares = Shares()
        self._step = 0
        self._epochs_done = 0
        self._selection = Selection(recipe.validation)
        self._lock = lock_run(self.output) if self.is_first_process else None
        with contextlib.ExitStack() as failure:
            failure.callback(self._unlock)
            latest = self._latest_of_all()
            claim_run(
                self.output, self._record, has_checkpoint=latest is not None, write=self.is_first_process
            )
            self._fabric.barrier()
            network = initial.network
            if initial.folded and not folded:
                # What was measured is in the checkpoint, where there is one.
                network = (
                    RetinaFace(self._config)
                    if latest is not None
                    else restore_batch_norm(network, self._dataset, device=self._fabric.device)
                )
            self._learner = Learner(network, recipe, self._fabric, dense=dense)
            #: Whether the run goes on from a checkpoint that the folder held.
            self.resumed = latest is not None
            if latest is not None:
                self._restore(load_checkpoint(latest), latest)
            failure.pop_all()

    # What a caller needs to know

    @property
    def is_first_process(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return bool(self._fabric.is_global_zero)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.schedule.epochs * self._sampler.steps_per_epoch

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._step

    def stop(self) -> None:
        """Ask the run to end after the step that it is working at; a checkpoint is written. Thread-safe."""
        self._stop.set()

    # The run

    def run(
        self,
        *,
        progress: Callable[[TrainingProgress], None] | None = None,
        fault: Callable[[str], None] | None = None,
    ) -> TrainingResult:
        """Train until the last epoch, an early stop, or Ctrl-C.

        Args:
            progress: Called after each step, in the first process.
            fault: Called for each fault of the data, once for each, in every process.

        Returns:
            What it has come to.

        Raises:
            DatasetError: A picture cannot be decoded and `on_fault` is "fail", the folder cannot be written,
                or another process trains there since the first call.
            RetinaFaceError: The loss, its gradient or a weight is no longer a finite number.
        """
        tell = progress if progress is not None and self.is_first_process else None
        stopped = False
        with contextlib.ExitStack() as stack:
            if self._lock is not None:
                lock_run(self.output, self._lock)  # has it already, unless this is the second call
                stack.callback(self._unlock)
            stack.callback(self._stop.clear)
            stack.enter_context(stop_on_signals(self._stop))
            log = None
            if self.is_first_process:
                log = stack.enter_context(RunLog(self.output / "log", steps_done=self._step))
                if self._step == 0:
                    log.text("run", f"```\n{json.dumps(self._record, indent=2)}\n```", step=0)
            loader = BatchLoader(self._dataset, self._sampler, workers=self._workers)
            while self._epochs_done < self.recipe.schedule.epochs and not self._selection.ends:
                stopped = self._epoch(loader, self._epochs_done, log=log, tell=tell, fault=fault)
                if stopped:
                    self._save(log)
                    break
                self._end_epoch(self._epochs_done, log=log, tell=tell)
        last, best = self.output / "last.safetensors", self.output / "best.safetensors"
        return TrainingResult(
            progress=self._progress(max(0, -(-self._step // self._sampler.steps_per_epoch) - 1), {}),
            finished=not stopped,
            stopped=stopped,
            shares=self._shares,
            last=last if last.is_file() else None,
            best=best if best.is_file() else None,
            faults=tuple(self._faults),
        )

    def _epoch(
        self,
        loader: BatchLoader,
        epoch: int,
        *,
        log: RunLog | None,
        tell: Callable[[TrainingProgress], None] | None,
        fault: Callable[[str], None] | None,
    ) -> bool:
        """Work through what is left of an epoch; True if the run is to stop."""
        steps_per_epoch = self._sampler.steps_per_epoch
        first = self._step - epoch * steps_per_epoch
        if first == steps_per_epoch:
            return False  # stopped after its last step, and taken up again
        batches: Iterator[Batch] | None = None
        saved = started = time.perf_counter()
        for _ in range(first, steps_per_epoch):
            try:
                batches = loader.epoch(epoch, first) if batches is None else batches
                micro_batches = self._next(batches, fault)
            except RetinaFaceError as error:
                # Who stops a run may have ended its workers, too. Between two steps it can be saved; but the
                # processes of a larger one wait for this step.
                if not self._stop.is_set() or self._fabric.world_size > 1:
                    raise
                _LOGGER.warning("stopped before the step: %s", error)
                return True
            if log is not None and self._step == 0:
                anchors = ops.generate_anchors(
                    (self.recipe.augmentation.side,) * 2, config=self._config.anchors
                )
                sheet = picture_of_batch(micro_batches[0], anchors=anchors, config=self._config)
                log.picture("train/batch", sheet, step=0)
            factor = lr_factor(self.recipe.schedule, step=self._step, steps_per_epoch=steps_per_epoch)
            outcome = self._learner.step(
                micro_batches, lr_factor=factor, stop=self._stop.is_set(), shares=self._shares
            )
            terms = outcome.losses
            if not np.isfinite(terms["loss"]):
                raise RetinaFaceError(self._diverged(f"the loss is {terms['loss']}"))
            if outcome.scale is None and not np.isfinite(outcome.gradient):
                raise RetinaFaceError(self._diverged(f"the gradient is {outcome.gradient}"))
            lr = self.recipe.optimiser.lr * factor
            self._step += 1
            now = time.perf_counter()
            self._shares.total += now - started
            started = now
            ends = self._step % steps_per_epoch == 0
            if log is not None:
                log.train_step(terms, lr=lr, epoch=epoch, step=self._step, last=ends)
                if outcome.scale is not None:
                    scaled = {"train/scale": outcome.scale, "train/skipped_steps": self._learner.skipped}
                    log.scalars(scaled, step=self._step)
            if tell is not None:
                tell(self._progress(epoch, terms, lr))
            if outcome.stop:
                return True
            if now - saved > self._checkpoint_seconds and not ends:
                self._save(log)
                saved = started = time.perf_counter()
        return False

    def _next(self, batches: Iterator[Batch], fault: Callable[[str], None] | None) -> list[Batch]:
        """The micro-batches of the next step, before any is worked at: face anchors are counted over all."""
        before = time.perf_counter()
        micro_batches = [next(batches) for _ in range(self.recipe.training.accumulate)]
        self._shares.waiting += time.perf_counter() - before
        for batch in micro_batches:
            self._shares.loading += batch.load_seconds
            self._shares.assignment += batch.assign_seconds
            self._shares.pictures += len(batch.images) * self._fabric.world_size
            self._tell_faults(batch.faults, fault)
        return micro_batches

    def _tell_faults(self, texts: Sequence[str], fault: Callable[[str], None] | None) -> None:
        """Tell each fault once."""
        for text in texts:
            if text in self._faults:
                continue
            self._faults[text] = None
            _FAULTS.warning("%s", text)
            if fault is not None:
                fault(text)

    def _end_epoch(
        self, epoch: int, *, log: RunLog | None, tell: Callable[[TrainingProgress], None] | None
    ) -> None:
        """Validate where that is due, and write weights and a checkpoint."""
        due, result = self._is_due(epoch), None
        if due:
            self._save(log)  # validation takes long, and who interrupts it loses nothing
            result = self._validate(epoch)
            if tell is not None:
                tell(self._progress(epoch, {}))
        if self.is_first_process:
            self._write_weights("last", epoch, measured=due)
        self._epochs_done = epoch + 1
        self._save(log)
        if log is not None and result is not None and self.validator is not None:
            # Only now: who is killed before the checkpoint validates again, and would have it there twice.
            log.validation(result, self.validator.images, step=self._step)
            log.flush()

    # Validation

    def _is_due(self, epoch: int) -> bool:
        last = epoch + 1 == self.recipe.schedule.epochs
        return self.validator is not None and (last or (epoch + 1) % self.recipe.validation.every == 0)

    def _validate(self, epoch: int) -> ValidationResult | None:
        """Measure in the first process, tell the others, and keep the weights if they are the best."""
        outcome: dict[str, float] | None = None
        result: ValidationResult | None = None
        if self.is_first_process and self.validator is not None:
            result = self.validator(self._weights(epoch), protocol=self.recipe.validation.protocol)
            outcome = dict(result.ap)
            self._tell_faults(result.faults, None)
        outcome = self._fabric.broadcast(outcome)
        if outcome is not None and self._selection.take(outcome) and self.is_first_process:
            self._write_weights("best", epoch, measured=True)
        return result

    def _weights(self, epoch: int, *, measured: bool = False) -> ModelWeights:
        metadata = {
            **self._provenance,
            "trained_by": f"retinaface_fast {retinaface_fast.__version__}",
            "recipe": self.recipe.name,
            "initial_weights": self.initial,
            "epochs": str(epoch + 1),
            "pictures": str(self._record["pictures"]),
        }
        if measured:  # these very weights, and not those of an earlier epoch
            metadata["validation_ap"] = json.dumps(self._selection.ap)
            metadata["validation_epoch"] = str(epoch + 1)
        return self._learner.weights(metadata=metadata, source=str(self.output))

    def _write_weights(self, name: str, epoch: int, *, measured: bool) -> None:
        try:
            save_weights(self._weights(epoch, measured=measured), self.output / f"{name}.safetensors")
        except OSError as error:
            raise DatasetError(f"cannot write {self.output}: {error.strerror or error}") from None

    # Checkpoints

    def _latest_of_all(self) -> Path | None:
        """The last checkpoint, which all processes must see: those of other machines have other disks."""
        latest = latest_checkpoint(self._checkpoints)
        name = None if latest is None else latest.name
        first: str | None = self._fabric.broadcast(name)
        if name != first:
            raise DatasetError(
                f"{self._checkpoints}: the last checkpoint is {name}, and {first} in the first process: name "
                "a folder that all processes share"
            )
        return latest

    def _save(self, log: RunLog | None) -> None:
        # The others need not wait, and must not: only the first process knows when a checkpoint is due.
        if not self.is_first_process:
            return
        if log is not None:
            log.flush()  # a run that goes on from here does not log again what came before
        try:
            tensors, values = self._learner.state()
        except RetinaFaceError as error:
            raise RetinaFaceError(self._diverged(str(error))) from None
        state = {
            **values,
            "step": self._step,
            "epochs_done": self._epochs_done,
            "steps_per_epoch": self._sampler.steps_per_epoch,
            "world_size": self._fabric.world_size,
            **self._selection.state(),
            "faults": list(self._faults),
        }
        save_checkpoint(self._checkpoints, Checkpoint(tensors, state), step=self._step)

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        state = checkpoint.state
        try:
            found, wanted = state["steps_per_epoch"], self._sampler.steps_per_epoch
            if found != wanted:
                raise WeightsError(f"an epoch had {found} steps and has {wanted}")
            self._learner.load_state(checkpoint.tensors, state)
            self._step = int(state["step"])
            self._epochs_done = int(state.get("epochs_done", self._step // wanted))
            processes, now = int(state["world_size"]), self._fabric.world_size
            if processes != now and self.is_first_process:
                _LOGGER.warning(
                    "the run goes on with %d %s in place of %d: batch norm sees other batches",
                    now,
                    "process" if now == 1 else "processes",
                    processes,
                )
            self._selection.load_state(state)
            self._faults = dict.fromkeys(state["faults"])
        except (KeyError, TypeError, ValueError, WeightsError) as error:
            raise WeightsError(f"{path} does not fit this run: {error}") from error

    @property
    def _checkpoints(self) -> Path:
        return self.output / "checkpoints"

    def _diverged(self, what: str) -> str:
        latest = latest_checkpoint(self._checkpoints)
        state = "no checkpoint was written yet" if latest is None else f"the last checkpoint is {latest}"
        return (
            f"{what} at step {self._step + 1}: lower optimiser.lr, lengthen "
            f"schedule.warmup_epochs or set optimiser.clip_norm; {state}"
        )

    def _progress(self, epoch: int, terms: Mapping[str, float], lr: float = 0.0) -> TrainingProgress:
        return TrainingProgress(
            epoch=epoch,
            epochs=self.recipe.schedule.epochs,
            step=self._step,
            steps=self.steps,
            losses=terms,
            lr=lr,
            pictures_per_second=self._shares.pictures_per_second,
            ap=self._selection.ap,
            best=self._selection.best,
        )

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release(force=True)
