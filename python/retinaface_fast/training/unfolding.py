"""Batch norm put back into a network whose weights have it folded in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from retinaface_fast.network.folding import BATCH_NORM_EPSILON
from retinaface_fast.network.layers import ConvNorm, DeformableConvNorm
from retinaface_fast.network.retinaface import RetinaFace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .dataset import TrainingDataset

__all__ = ["restore_batch_norm", "unfold_batch_norm"]

#: Pictures on which batch norm is measured, and how many at a time.
_MEASURED, _AT_A_TIME = 256, 8


def restore_batch_norm(network: RetinaFace, dataset: TrainingDataset, *, device: torch.device) -> RetinaFace:
    """`unfold_batch_norm`, measured on pictures of the first epoch that the seed of the data set draws.

    Not on the first ones of the list: WIDER FACE is sorted by event, and so would be what is measured. They
    are the same in every process.

    Args:
        network: Folded.
        dataset: What it is going to be trained on.
        device: Where it is measured, and where the result is.
    """
    order = np.random.default_rng([dataset.seed, 0]).permutation(len(dataset))
    keys = [(0, index) for index in order[:_MEASURED].tolist()]
    mean = torch.tensor(network.config.mean_bgr).view(1, 3, 1, 1)

    def batches() -> Iterator[torch.Tensor]:
        for first in range(0, len(keys), _AT_A_TIME):
            some = keys[first : first + _AT_A_TIME]
            images = np.stack([dataset.augmented(key)[0].image for key in some])
            yield (torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean).to(device)

    return unfold_batch_norm(network.to(device), batches())


@torch.no_grad()
def unfold_batch_norm(network: RetinaFace, images: Iterable[torch.Tensor]) -> RetinaFace:
    """Make a network with batch norm that computes what a folded one does.

    Published weights have no batch norm left, and without it the learning rates of the recipes destroy them:
    60 steps of 8 pictures at 1e-3, gradients clipped to 10, took the loss on other pictures from 3.2 to 11.9,
    those at 1e-4 to 4.4; with batch norm put back it was 3.5 and 3.4.

    What batch norm had measured is lost, but can be measured again. With mean m and variance v of what a
    convolution gives on pictures, batch norm with these statistics, scale `sqrt(v + epsilon)` and shift m
    changes nothing; nor in training, on batches that have these statistics.

    Args:
        network: Folded, as `initialise` returns it; it is left as it was.
        images: Batches of what it is going to be trained on, each (B, 3, H, W) float32 as `RetinaFace` takes
            it and on its device. Some hundred pictures measure every channel well.

    Returns:
        A network with batch norm, in training mode and on the same device.

    Raises:
        ValueError: If the network is not folded, or there is no image.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ConvNorm | DeformableConvNorm)
    }
    state = network.state_dict()
    if any(f"{name}.conv.bias" not in state for name in layers):
        raise ValueError("network: expected one whose batch norm is folded in, got one that has batch norm")
    moments = {name: _Moments() for name in layers}
    handles = [module.conv.register_forward_hook(moments[name].hook()) for name, module in layers.items()]
    was_training = network.training
    network.eval()
    try:
        for batch in images:
            network(batch)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    for name in layers:
        if moments[name].count == 0:
            raise ValueError("images: expected at least one batch, got none")
        mean, variance = moments[name].result()
        bias = state.pop(f"{name}.conv.bias").double()
        for part, values in (
            ("weight", (variance + BATCH_NORM_EPSILON).sqrt()),
            ("bias", mean),
            ("running_mean", mean - bias),
            ("running_var", variance),
        ):
            state[f"{name}.norm.{part}"] = values.float()
        state[f"{name}.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    device = next(network.parameters()).device
    unfolded = RetinaFace(network.config).to(device)
    unfolded.load_state_dict(state)
    return unfolded.train()


class _Moments:
    """Mean and variance by channel, added up in float64 over batches."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = torch.zeros(())
        self._squares = torch.zeros(())

    def hook(self) -> Callable[[torch.nn.Module, object, torch.Tensor], None]:
        def add(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            values = output.double()
            self.count += values.numel() // values.shape[1]
            self._sum = self._sum.to(values) + values.sum((0, 2, 3))
            self._squares = self._squares.to(values) + values.square().sum((0, 2, 3))

        return add

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self._sum / self.count
        return mean, (self._squares / self.count - mean.square()).clamp_min(0.0)
