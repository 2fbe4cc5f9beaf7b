"""The loop: one process or many, on one machine or several, that can be stopped at any step and goes on.

The order of the pictures and their augmentation are functions of the seed, the epoch and the place; the
learning rate is a function of the step. What remains to be kept is in a checkpoint: weights, their average,
momentum, random state, and the best result so far. A run that goes on from one therefore ends in the same
bits as one that was never stopped, on the same machine with the same number of threads and processes.

Losses are divided by the number of faces in the whole step, whatever number of processes and micro-batches it
is cut into, so that the gradient is that of one large batch. Batch norm alone sees the smaller ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

import retinaface_fast
from retinaface_fast import ops
from retinaface_fast.errors import DatasetError, RetinaFaceError, WeightsError
from retinaface_fast.image import read_image
from retinaface_fast.weights import save_weights
from retinaface_fast.weights.model_weights import make_weights

from .checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    memory_of,
    rng_state,
    save_checkpoint,
    set_memory,
    set_rng_state,
)
from .dataset import TrainingDataset
from .initialisation import initialise
from .loader import BatchLoader
from .logs import RunLog, picture_of_batch, picture_of_found
from .losses import LossTerms, MultiTaskLoss
from .optimisation import WeightAverage, build_optimiser, lr_factor, train_mode
from .processes import join_processes
from .progress import Shares, TrainingProgress, TrainingResult
from .run_folder import claim_run, data_digest
from .sampling import EpochSampler

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from retinaface_fast.network import NetworkOutputs
    from retinaface_fast.weights import ModelWeights

    from .batch import Batch, BatchTargets
    from .recipe import Recipe
    from .records import Record
    from .validation import ValidationResult, Validator

__all__ = ["Trainer"]

_LOGGER = logging.getLogger(__name__)

#: Steps over which logged losses are averaged.
_LOG_EVERY = 10
#: Pictures of the validation that are drawn into the log.
_DRAWN = 9


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
        validator: Measures average precision; None never does, and keeps no best weights.
        device: "cpu", "cuda", "cuda:N" or "mps"; None takes a CUDA device if there is one, else the
            CPU.
        workers: Processes that load pictures, for each training process; 0 loads in the loop.
        on_fault: What a picture that cannot be decoded does: "skip" takes another one and tells once, "fail"
            ends the run.
        checkpoint_seconds: A checkpoint is written at the end of each epoch, and where an epoch takes longer,
            after so many seconds.
        arguments: What else `run.json` is to say, as JSON takes it; who goes on may say something else.

    Raises:
        ValueError: An argument or a combination of them cannot be.
        DatasetError: `output` holds a run of another recipe or other data.
        WeightsError: Initial weights or the checkpoint do not fit.
        EngineError: The device is not there.
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
        validator: Validator | None = None,
        device: str | None = None,
        workers: int = 2,
        on_fault: Literal["skip", "fail"] = "skip",
        checkpoint_seconds: float = 600.0,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
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
        initial = initialise(self._config, init, seed=training.seed, backbone_pixels=backbone_pixels)
        #: Where the weights came from, in words.
        self.initial = initial.description
        self._record = {
            "retinaface_fast": retinaface_fast.__version__,
            "recipe": recipe.model_dump(mode="json"),
            "network": self._config.to_dict(),
            "initial": initial.description,
            "batch_norm": "folded" if initial.folded else "trained",
            "pictures": len(records),
            "faces": int(sum(len(record.boxes) for record in records)),
            "data_digest": data_digest(records),
            "arguments": dict(arguments or {}),
        }
        self._average = (
            None if training.ema_decay is None else WeightAverage(initial.network, decay=training.ema_decay)
        )
        if self._average is not None:
            self._average.module.to(self._fabric.device)
        network = initial.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_mode(network, recipe.optimiser.frozen)
        optimiser = build_optimiser(network, recipe.optimiser)
        self._network, self._optimiser = self._fabric.setup(network, optimiser)
        self._loss = MultiTaskLoss(recipe.loss)
        self._mean = torch.tensor(self._config.mean_bgr, device=self._fabric.device).view(1, 3, 1, 1)
        self._stop = threading.Event()
        self._faults: dict[str, None] = {}
        self._shares = Shares()
        self._step = 0
        self._best: float | None = None
        self._best_epoch = -1
        self._ap: dict[str, float] | None = None
        self._without_best = 0
        self._validated_step = -1
        self._resumed = self._go_on()

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

    @property
    def resumed(self) -> bool:
        """Whether the run goes on from a checkpoint that the folder held."""
        return self._resumed

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
            DatasetError: A picture cannot be decoded and `on_fault` is "fail", or the folder be written.
            RetinaFaceError: The loss is no longer a finite number.
        """
        tell = progress if progress is not None and self.is_first_process else None
        log = RunLog(self.output / "log", first_step=self._step) if self.is_first_process else None
        stopped = finished = False
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._interruptible())
            if log is not None:
                stack.callback(log.close)
                if self._step == 0:
                    log.text("run", f"```\n{json.dumps(self._record, indent=2)}\n```", step=0)
            loader = BatchLoader(self._dataset, self._sampler, workers=self._workers)
            first_epoch, first = divmod(self._step, self._sampler.steps_per_epoch)
            if self._ends_early():
                first_epoch = self.recipe.schedule.epochs  # nothing is left to do
            for epoch in range(first_epoch, self.recipe.schedule.epochs):
                stopped = self._epoch(loader, epoch, first, log=log, tell=tell, fault=fault)
                first = 0
                if stopped:
                    break
                if self._is_due(epoch):
                    self._validate(epoch, log)
                    if tell is not None:
                        tell(self._progress(epoch, {}))
                if self.is_first_process:
                    self._write_weights("last", epoch)
                self._save()
                if self._ends_early():
                    break
            finished = not stopped
            if stopped:
                self._save()
        last, best = self.output / "last.safetensors", self.output / "best.safetensors"
        return TrainingResult(
            progress=self._progress(max(0, -(-self._step // self._sampler.steps_per_epoch) - 1), {}),
            finished=finished,
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
        first: int,
        *,
        log: RunLog | None,
        tell: Callable[[TrainingProgress], None] | None,
        fault: Callable[[str], None] | None,
    ) -> bool:
        """Work through an epoch from its step `first`; True if the run is to stop."""
        batches = loader.epoch(epoch, first)
        sums: dict[str, float] = {}
        summed = 0
        saved = started = time.perf_counter()
        for _ in range(first, self._sampler.steps_per_epoch):
            micro_batches = self._next(batches, fault)
            if log is not None and self._step == 0:
                anchors = ops.generate_anchors(
                    (self.recipe.augmentation.side,) * 2, config=self._config.anchors
                )
                sheet = picture_of_batch(micro_batches[0], anchors=anchors, config=self._config)
                log.picture("train/batch", sheet, step=0)
            lr = self._set_lr()
            terms, stop = self._train_step(micro_batches)
            self._step += 1
            now = time.perf_counter()
            self._shares.total += now - started
            started = now
            summed += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            ends = self._step % self._sampler.steps_per_epoch == 0
            if log is not None and (ends or self._step % _LOG_EVERY == 0):
                means = {f"train/{name}": value / summed for name, value in sums.items()}
                log.scalars({**means, "train/lr": lr, "train/epoch": epoch}, step=self._step)
                sums, summed = {}, 0
            if tell is not None:
                tell(self._progress(epoch, terms, lr))
            if stop:
                return True
            if now - saved > self._checkpoint_seconds and not ends:
                self._save()
                saved = started = time.perf_counter()
        return False

    def _next(self, batches: Iterator[Batch], fault: Callable[[str], None] | None) -> list[Batch]:
        """The micro-batches of the next step, before any of them is worked at: faces are counted over all."""
        before = time.perf_counter()
        micro_batches = [next(batches) for _ in range(self.recipe.training.accumulate)]
        self._shares.waiting += time.perf_counter() - before
        for batch in micro_batches:
            self._shares.loading += batch.load_seconds
            self._shares.assignment += batch.assign_seconds
            self._shares.pictures += len(batch.images) * self._fabric.world_size
            for text in batch.faults:
                if text not in self._faults:
                    self._faults[text] = None
                    _LOGGER.warning("%s", text)
                    if fault is not None:
                        fault(text)
        return micro_batches

    def _train_step(self, micro_batches: Sequence[Batch]) -> tuple[dict[str, float], bool]:
        """One step of the optimiser; the loss terms of the whole batch, and whether the run is to stop."""
        fabric, world = self._fabric, self._fabric.world_size
        positives = sum(len(batch.targets.positives) for batch in micro_batches)
        with_landmarks = sum(int(batch.targets.landmark_mask.any(dim=1).sum()) for batch in micro_batches)
        counts = self._over_processes([positives, with_landmarks, self._stop.is_set()])
        positives_of_all, landmarks_of_all = max(counts[0], 1.0), max(counts[1], 1.0)
        sums = torch.zeros(4, dtype=torch.float64, device=fabric.device)
        for index, batch in enumerate(micro_batches):
            waits = index < len(micro_batches) - 1
            with fabric.no_backward_sync(self._network, enabled=waits and world > 1):
                began = time.perf_counter()
                images, targets = self._to_device(batch)
                outputs: NetworkOutputs = self._network(images)
                terms: LossTerms = self._loss(
                    outputs, targets, positives=positives_of_all, landmark_faces=landmarks_of_all
                )
                forward = time.perf_counter()
                # The gradients of processes are averaged, and those of a whole batch are a sum.
                fabric.backward(terms.total * world)
                self._shares.forward += forward - began
                self._shares.backward += time.perf_counter() - forward
            sums += torch.stack([term.detach() for term in terms[:4]])
        began = time.perf_counter()
        clip = self.recipe.optimiser.clip_norm
        if clip is not None:
            fabric.clip_gradients(self._network, self._optimiser, max_norm=clip, error_if_nonfinite=False)
        self._optimiser.step()
        self._optimiser.zero_grad()
        if self._average is not None:
            self._average.update(self._network.module)
        self._shares.update += time.perf_counter() - began
        names = ("loss", "classification", "box", "landmark")
        values = dict(zip(names, self._over_processes(sums.tolist()), strict=True))
        if not np.isfinite(values["loss"]):
            raise RetinaFaceError(
                f"the loss is {values['loss']} at step {self._step + 1}: lower optimiser.lr, lengthen "
                f"schedule.warmup_epochs or set optimiser.clip_norm; {self._way_back()}"
            )
        return values, counts[2] > 0

    def _over_processes(self, values: Sequence[float]) -> list[float]:
        """Numbers, each added up over all processes."""
        if self._fabric.world_size == 1:
            return [float(value) for value in values]
        # Of 64 bits, except where a device has none.
        tensor = torch.tensor(values, dtype=torch.float64, device=self._fabric.device)
        total: Any = self._fabric.all_reduce(tensor, reduce_op="sum")
        return [float(value) for value in total.tolist()]

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, BatchTargets]:
        device = self._fabric.device
        # Channels last is how the pixels lie, and what convolutions on a CPU are fastest with.
        images = batch.images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() - self._mean
        targets = type(batch.targets)(*(part.to(device, non_blocking=True) for part in batch.targets))
        return images, targets

    def _set_lr(self) -> float:
        factor = lr_factor(
            self.recipe.schedule, step=self._step, steps_per_epoch=self._sampler.steps_per_epoch
        )
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return self.recipe.optimiser.lr * factor

    # Validation

    def _is_due(self, epoch: int) -> bool:
        last = epoch + 1 == self.recipe.schedule.epochs
        return self.validator is not None and (last or (epoch + 1) % self.recipe.validation.every == 0)

    def _ends_early(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self._without_best >= patience

    def _validate(self, epoch: int, log: RunLog | None) -> None:
        """Measure in the first process, tell the others, and keep the weights if they are the best."""
        outcome: dict[str, float] | None = None
        if self.is_first_process and self.validator is not None:
            result = self.validator(self.weights(epoch), protocol=self.recipe.validation.protocol)
            outcome = dict(result.ap)
            for text in result.faults:
                if text not in self._faults:
                    self._faults[text] = None
                    _LOGGER.warning("%s", text)
            if log is not None:
                log.scalars({f"validation/{name}": ap for name, ap in outcome.items()}, step=self._step)
                self._draw(result, log)
        outcome = self._fabric.broadcast(outcome)
        if outcome is None:
            return
        self._ap = outcome
        metric = self.recipe.validation.metric
        value = outcome[metric] if metric in outcome else float(np.mean(list(outcome.values())))
        if self._best is None or value > self._best:
            self._best, self._best_epoch, self._without_best = value, epoch, 0
            if self.is_first_process:
                self._write_weights("best", epoch)
        else:
            self._without_best += 1

    def _draw(self, result: ValidationResult, log: RunLog) -> None:
        if self.validator is None:
            return
        shown = [
            (read_image(path).to_color("bgr"), faces)
            for path, faces in zip(self.validator.images[:_DRAWN], result.found[:_DRAWN], strict=True)
            if faces is not None
        ]
        if shown:
            images, found = zip(*shown, strict=True)
            log.picture("validation/found", picture_of_found(images, found), step=self._step)

    def weights(self, epoch: int) -> ModelWeights:
        """The weights as they are, or their average where one is kept, for engines and detectors."""
        module = self._network.module if self._average is None else self._average.module
        tensors = {
            name: tensor.detach().float().cpu().numpy()
            for name, tensor in module.state_dict().items()
            if not name.endswith(".num_batches_tracked")
        }
        metadata = {
            "trained_by": f"retinaface_fast {retinaface_fast.__version__}",
            "recipe": self.recipe.name,
            "initial_weights": self.initial,
            "epochs": str(epoch + 1),
            "pictures": str(self._record["pictures"]),
        }
        if self._ap is not None:
            metadata["validation_ap"] = json.dumps(self._ap)
        return make_weights(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()},
            self._config,
            metadata=metadata,
            source=str(self.output),
            sha256="",
        )

    def _write_weights(self, name: str, epoch: int) -> None:
        try:
            save_weights(self.weights(epoch), self.output / f"{name}.safetensors")
        except OSError as error:
            raise DatasetError(f"cannot write {self.output}: {error.strerror or error}") from None

    # Checkpoints

    def _save(self) -> None:
        if self.is_first_process:
            tensors = {
                "network": self._network.module.state_dict(),
                "optimiser": memory_of(self._optimiser),
                "rng": rng_state(self._fabric.device),
            }
            average = {} if self._average is None else self._average.state_dict()
            if average:
                tensors["average"] = average["module"]
            scaler = getattr(self._fabric._precision, "scaler", None)
            state = {
                "step": self._step,
                "steps_per_epoch": self._sampler.steps_per_epoch,
                "seed": self.recipe.training.seed,
                "world_size": self._fabric.world_size,
                "best": self._best,
                "best_epoch": self._best_epoch,
                "ap": self._ap,
                "without_best": self._without_best,
                "average_updates": average.get("updates"),
                "scaler": None if scaler is None else scaler.state_dict(),
                "faults": list(self._faults),
            }
            save_checkpoint(self._checkpoints, Checkpoint(tensors, state), step=self._step)
        self._fabric.barrier()

    def _go_on(self) -> bool:
        """Take up the run that the folder holds, or claim the folder for this one; True if it goes on."""
        latest = latest_checkpoint(self._checkpoints)
        claim_run(self.output, self._record, has_checkpoint=latest is not None, write=self.is_first_process)
        self._fabric.barrier()
        if latest is None:
            return False
        self._restore(load_checkpoint(latest), latest)
        return True

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        state, tensors = checkpoint.state, checkpoint.tensors
        try:
            if state["steps_per_epoch"] != self._sampler.steps_per_epoch:
                raise WeightsError(
                    f"{path}: an epoch had {state['steps_per_epoch']} steps and has "
                    f"{self._sampler.steps_per_epoch}"
                )
            self._network.module.load_state_dict(tensors["network"])
            if self._average is not None:
                self._average.load_state_dict(
                    {"module": tensors["average"], "updates": state["average_updates"]}
                )
            set_memory(self._optimiser, tensors["optimiser"])
            set_rng_state(tensors["rng"], self._fabric.device)
            self._step = int(state["step"])
            self._best, self._best_epoch = state["best"], int(state["best_epoch"])
            self._ap, self._without_best = state["ap"], int(state["without_best"])
            self._faults = dict.fromkeys(state["faults"])
            scaler = getattr(self._fabric._precision, "scaler", None)
            if scaler is not None and state["scaler"] is not None:
                scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} does not fit this run: {error}") from error

    @property
    def _checkpoints(self) -> Path:
        return self.output / "checkpoints"

    def _way_back(self) -> str:
        latest = latest_checkpoint(self._checkpoints)
        return "no checkpoint was written yet" if latest is None else f"the last checkpoint is {latest}"

    # Around the loop

    def _progress(self, epoch: int, terms: Mapping[str, float], lr: float = 0.0) -> TrainingProgress:
        return TrainingProgress(
            epoch=epoch,
            epochs=self.recipe.schedule.epochs,
            step=self._step,
            steps=self.steps,
            losses=terms,
            lr=lr,
            pictures_per_second=self._shares.pictures_per_second,
            ap=self._ap,
            best=self._best,
        )

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turn the first Ctrl-C (and SIGTERM) into a stop after the step; the second one interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: object) -> None:
            if self._stop.is_set():
                signal.signal(number, before[number])
                raise KeyboardInterrupt
            self._stop.set()

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
