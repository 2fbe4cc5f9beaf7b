"""Checkpoints: all that a run needs to go on as if it had never stopped, as safetensors and JSON.

A checkpoint is a folder. It is made under another name and then renamed, so that a process that is killed
leaves the one before and nothing in between.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from retinaface_fast.errors import DatasetError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "Checkpoint",
    "latest_checkpoint",
    "load_checkpoint",
    "memory_of",
    "rng_state",
    "save_checkpoint",
    "set_memory",
    "set_rng_state",
]

FORMAT_VERSION = 1

_STATE = "state.json"
_PREFIX = "step-"
#: Checkpoints that are kept: the last, and the one before it in case a disk loses the last.
_KEPT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a run is made of at the end of a step.

    Attributes:
        tensors: By part ("network", "average", "optimiser", "rng"), tensors by name.
        state: Everything else, as JSON takes it.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, step: int) -> Path:
    """Write a checkpoint and remove the older ones.

    Args:
        folder: The folder of the checkpoints; it is made if need be.
        checkpoint: What to keep.
        step: Steps that are done; names the checkpoint.

    Returns:
        The folder of the checkpoint.

    Raises:
        DatasetError: It cannot be written.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    part = folder / f".{target.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        part.mkdir()
        for name, tensors in checkpoint.tensors.items():
            save_file(
                {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()},
                part / f"{name}.safetensors",
            )
        record = {"format": FORMAT_VERSION, "parts": sorted(checkpoint.tensors), **checkpoint.state}
        (part / _STATE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for path in part.iterdir():
            _flush(path)
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk is to safetensors
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"cannot write the checkpoint {target}: {reason}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Folder of the checkpoint with the most steps, or None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: A file is missing or damaged, or a later release wrote it.
    """
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if state.pop("format", None) != FORMAT_VERSION:
            raise WeightsError(f"{path}: this release reads checkpoints of the format {FORMAT_VERSION}")
        tensors = {name: load_file(path / f"{name}.safetensors") for name in state.pop("parts")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a checkpoint that can be read: {error}") from error
    return Checkpoint(tensors, state)


def memory_of(optimiser: Any) -> dict[str, torch.Tensor]:
    """What an optimiser remembers, by the number of the parameter."""
    return {
        f"{index}.{name}": value
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def set_memory(optimiser: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimiser what `memory_of` took from it; the other settings stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's random numbers, on the CPU and on the device."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Bring back what `rng_state` took."""
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _checkpoints(folder: Path) -> list[Path]:
    found = {
        int(path.name.removeprefix(_PREFIX)): path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal() and (path / _STATE).is_file()
    }
    return [found[step] for step in sorted(found)]


def _remove_leftovers(folder: Path) -> None:
    for part in folder.glob(f".{_PREFIX}*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _flush(path: Path) -> None:
    # Renamed before its bytes are on the disk, a file can be empty after a loss of power. Windows flushes
    # only what is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())
