"""What learns: the network, its optimiser and the average of its weights, step by step.

Losses are divided by the number of face anchors in the whole step, that of landmarks by the number of those
with a known landmark, whatever number of processes and micro-batches it is cut into, so that the gradient is
that of one large batch. Batch norm alone sees the smaller ones.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from retinaface_fast.errors import RetinaFaceError, WeightsError
from retinaface_fast.weights.model_weights import make_weights

from .checkpoint import memory_of, rng_state, set_memory, set_rng_state
from .losses import LossTerms, MultiTaskLoss
from .optimisation import WeightAverage, build_optimiser, train_mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_fabric import Fabric

    from retinaface_fast.network import NetworkOutputs, RetinaFace
    from retinaface_fast.weights import ModelWeights

    from .batch import Batch, BatchTargets
    from .losses import DenseTerm
    from .progress import Shares
    from .recipe import Recipe

__all__ = ["Learner", "StepOutcome"]

#: What `LossTerms` begins with; its last is "dense", which most runs have not.
_TERMS = ("loss", "classification", "box", "landmark")
#: Steps in a row with gradients that overflow 16 bits, after which no scale of the loss is a remedy: it has
#: come from 2^16 to 2^-84.
_MOST_SKIPPED = 100


class StepOutcome(NamedTuple):
    """What a step has come to, over all processes and micro-batches.

    Attributes:
        losses: "loss", the weighted sum, and its terms without weights.
        stop: Whether any process was asked to stop.
        gradient: Length of the gradient over all parameters, before it is clipped. Where it is no finite
            number, nothing was updated.
        scale: What the loss is multiplied by where gradients have 16 bits; None elsewhere. There, a
            gradient that is not finite is no error: the scale falls.
    """

    losses: dict[str, float]
    stop: bool
    gradient: float
    scale: float | None = None


class Learner:
    """A network in training.

    Args:
        network: Initial weights.
        recipe: Loss, optimiser, precision and average.
        fabric: The processes, launched.
        dense: A further term of the loss, see `Trainer`.
    """

    def __init__(
        self, network: RetinaFace, recipe: Recipe, fabric: Fabric, *, dense: DenseTerm | None = None
    ) -> None:
        self._recipe = recipe
        self._fabric: Any = fabric
        self._config = network.config
        self._average: WeightAverage | None = None
        if recipe.training.ema_decay is not None:
            self._average = WeightAverage(network, decay=recipe.training.ema_decay)
            self._average.module.to(fabric.device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_mode(network, recipe.optimiser.frozen)
        optimiser = build_optimiser(network, recipe.optimiser)
        self._network, self._optimiser = self._fabric.setup(network, optimiser)
        #: Steps of the whole run whose gradients overflowed 16 bits.
        self.skipped = 0
        self._skipped_in_a_row = 0
        self._loss = MultiTaskLoss(recipe.loss, dense=dense)
        self._terms = _TERMS if dense is None else (*_TERMS, "dense")
        self._mean = torch.tensor(self._config.mean_bgr, device=fabric.device).view(1, 3, 1, 1)

    def step(
        self, micro_batches: Sequence[Batch], *, lr_factor: float, stop: bool, shares: Shares
    ) -> StepOutcome:
        """Take one step of the optimiser.

        Args:
            micro_batches: What this process contributes.
            lr_factor: Factor of the learning rates.
            stop: Whether this process was asked to stop.
            shares: Where the times of forward, backward and update are added.

        Returns:
            The same in every process.
        """
        fabric, world = self._fabric, self._fabric.world_size
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] * lr_factor
        positives = sum(len(batch.targets.positives) for batch in micro_batches)
        with_landmarks = sum(int(batch.targets.landmark_mask.any(dim=1).sum()) for batch in micro_batches)
        all_positives, all_with_landmarks, stops = self._over_processes([positives, with_landmarks, stop])
        sums = [0.0] * len(self._terms)
        for index, batch in enumerate(micro_batches):
            waits = index < len(micro_batches) - 1
            with fabric.no_backward_sync(self._network, enabled=waits and world > 1):
                began = time.perf_counter()
                images, targets = self._to_device(batch)
                outputs: NetworkOutputs = self._network(images)
                terms: LossTerms = self._loss(
                    outputs,
                    targets,
                    positives=max(all_positives, 1.0),
                    landmark_faces=max(all_with_landmarks, 1.0),
                )
                forward = time.perf_counter()
                # The gradients of processes are averaged, and those of a whole batch are a sum.
                fabric.backward(terms.total * world)
                shares.forward += forward - began
                shares.backward += time.perf_counter() - forward
            values = torch.stack([term.detach() for term in terms[: len(self._terms)]]).tolist()
            sums = [one + other for one, other in zip(sums, values, strict=True)]
        began = time.perf_counter()
        gradient, scale = self._update()
        shares.update += time.perf_counter() - began
        losses = dict(zip(self._terms, self._over_processes(sums), strict=True))
        return StepOutcome(losses, stops > 0, gradient, scale)

    def _update(self) -> tuple[float, float | None]:
        """Change the weights by their gradients; the length of these, and the scale of the loss."""
        clip, scaler = self._recipe.optimiser.clip_norm, self._scaler()
        if clip is None and scaler is not None:
            gradient = self._gradient() / scaler.get_scale()
        elif clip is None:
            gradient = self._gradient()
        else:
            gradient = float(
                self._fabric.clip_gradients(
                    self._network, self._optimiser, max_norm=clip, error_if_nonfinite=False
                )
            )
        scale: float | None = None
        skipped = not math.isfinite(gradient)
        if scaler is not None:
            before = scaler.get_scale()
            self._optimiser.step()  # which does nothing, but for a lower scale, where a gradient overflows
            scale = float(scaler.get_scale())
            skipped = scale < before
        elif not skipped:
            self._optimiser.step()
        self._optimiser.zero_grad()
        if self._average is not None and not skipped:
            self._average.update(self._network.module)
        self.skipped += skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if scaler is not None and self._skipped_in_a_row >= _MOST_SKIPPED:
            raise RetinaFaceError(
                f"the gradients of {_MOST_SKIPPED} steps in a row overflow 16 bits, at a scale of {scale}: "
                'lower optimiser.lr, or set training.precision to "bf16-mixed" or "32-true"'
            )
        return gradient, scale

    def _gradient(self) -> float:
        # Without a limit it changes no bit of them.
        return float(torch.nn.utils.clip_grad_norm_(self._network.parameters(), math.inf))

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, BatchTargets]:
        device = self._fabric.device
        # Channels last is how the pixels lie, and what convolutions on a CPU are fastest with.
        images = batch.images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() - self._mean
        targets = type(batch.targets)(*(part.to(device, non_blocking=True) for part in batch.targets))
        return images, targets

    def _over_processes(self, values: Sequence[float]) -> list[float]:
        """Numbers, each added up over all processes."""
        if self._fabric.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        total = self._fabric.all_reduce(tensor.to(self._fabric.device), reduce_op="sum")
        return [float(value) for value in total.tolist()]

    def weights(self, *, metadata: Mapping[str, str], source: str) -> ModelWeights:
        """The weights as they are, or their average where one is kept, for engines and detectors.

        Args:
            metadata: What a file of them is to say.
            source: Where they come from, for messages.

        Raises:
            WeightsError: They are no longer finite.
        """
        module = self._network.module if self._average is None else self._average.module
        tensors = {
            # A copy: the next step changes these, and whoever has the weights keeps them.
            name: np.array(tensor.detach().float().cpu().numpy(), order="C")
            for name, tensor in module.state_dict().items()
            if not name.endswith(".num_batches_tracked")
        }
        return make_weights(tensors, self._config, metadata=metadata, source=source, sha256="")

    def state(self) -> tuple[dict[str, Mapping[str, torch.Tensor]], dict[str, Any]]:
        """All that a checkpoint needs: tensors by part and name, and what JSON takes.

        Raises:
            RetinaFaceError: A number of it is not finite: who goes on from it cannot learn.
        """
        tensors: dict[str, Mapping[str, torch.Tensor]] = {
            "network": self._network.module.state_dict(),
            "optimiser": memory_of(self._optimiser),
            "rng": rng_state(self._fabric.device),
        }
        values: dict[str, Any] = {"scaler": None, "average_updates": None, "skipped": self.skipped}
        if self._average is not None:
            average = self._average.state_dict()
            tensors["average"], values["average_updates"] = average["module"], average["updates"]
        scaler = self._scaler()
        if scaler is not None:
            values["scaler"] = scaler.state_dict()
        for part, named in tensors.items():
            for name, tensor in named.items():
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise RetinaFaceError(f"{part}: {name} is no longer finite")
        return tensors, values

    def load_state(
        self, tensors: Mapping[str, Mapping[str, torch.Tensor]], values: Mapping[str, Any]
    ) -> None:
        """Take up what `state` returned.

        Raises:
            WeightsError: It belongs to something else.
        """
        try:
            self._network.module.load_state_dict(tensors["network"])
            if self._average is not None:
                self._average.load_state_dict(
                    {"module": tensors["average"], "updates": values["average_updates"]}
                )
            set_memory(self._optimiser, tensors["optimiser"])
            set_rng_state(tensors["rng"], self._fabric.device)
            scaler = self._scaler()
            if scaler is not None and values["scaler"] is not None:
                scaler.load_state_dict(values["scaler"])
            self.skipped = int(values.get("skipped", 0))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"the checkpoint does not fit this run: {error}") from error

    def _scaler(self) -> Any:
        """What scales the loss where gradients have 16 bits; None elsewhere."""
        return getattr(self._fabric.strategy.precision, "scaler", None)
