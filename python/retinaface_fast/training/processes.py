"""The processes of a training run: this one alone, or those that torchrun has started."""

from __future__ import annotations

import atexit
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch

from retinaface_fast.engines.torch_device import find_device
from retinaface_fast.errors import MissingDependencyError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["join_processes"]

#: A process waits for the others at most so long: one of them validates in the meantime.
_PATIENCE = timedelta(hours=6)


def join_processes(device: str | None, precision: Literal["32-true", "bf16-mixed", "16-mixed"]) -> Fabric:
    """Make this process one of those that train together.

    Args:
        device: "cpu", "cuda", "cuda:N" or "mps"; None takes a CUDA device if there is one, else the
            CPU.
            Several processes on one machine take one CUDA device each, in order.
        precision: As in `TrainingSection`.

    Returns:
        A launched `lightning_fabric.Fabric`.

    Raises:
        ValueError: The device is of another kind, or is one that several processes cannot have; the
            precision is not one of the device; or the machines have different numbers of processes.
        EngineError: The device is not there.
        MissingDependencyError: lightning-fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingDependencyError("lightning-fabric", purpose="training", extra="train") from error
    # What precision a run has is in its recipe; nobody needs to be told again.
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local < 1 or world % local:
        raise ValueError(f"WORLD_SIZE must be a multiple of LOCAL_WORLD_SIZE, {local}, got {world}")
    if world == 1:
        found = find_device(device)
        _check_precision(precision, found.type)
        devices: Any = 1 if found.type == "cpu" else [found.index or 0]
        fabric = Fabric(accelerator=found.type, devices=devices, precision=precision)
    else:
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in ("cpu", "cuda"):
            raise ValueError(f'device must be "cpu" or "cuda" with several processes, got {device!r}')
        # Each has its own, and says itself which one is not there.
        find_device(kind if kind == "cpu" else f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        _check_precision(precision, kind)
        fabric = Fabric(
            accelerator=kind,
            devices=local,
            num_nodes=world // local,
            strategy=DDPStrategy(timeout=_PATIENCE),
            precision=precision,
        )
    fabric.launch()
    if world > 1:
        # A process that ends while its threads still talk to the others may be aborted.
        atexit.register(_leave)
    return fabric


def _check_precision(precision: str, kind: str) -> None:
    if precision == "16-mixed" and kind == "cpu":  # Fabric would take bf16-mixed, and warn
        raise ValueError('training.precision must be "32-true" or "bf16-mixed" on a CPU, got "16-mixed"')


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
