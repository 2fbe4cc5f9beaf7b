"""Checkpoints: all that a run needs to go on as if it had never stopped, as safetensors and JSON.

A checkpoint is a folder. It is made under another name and then renamed, so that a process that is killed
leaves the one before and nothing in between. One of the same step is set aside first, for a folder cannot be
renamed over another, and counts for as long as nothing has taken its place.
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
#: What a checkpoint is called while one of the same step takes its place: ".step-00000005.replaced.part".
_REPLACED = ".replaced.part"
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
        _tidy(folder)
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
        _flush_folder(part)
        if target.exists():
            target.replace(folder / f".{target.name}{_REPLACED}")
        part.replace(target)
        _flush_folder(folder)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk is to safetensors
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"cannot write the checkpoint {target}: {reason}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in (*_checkpoints(folder)[:-_KEPT], folder / f".{target.name}{_REPLACED}"):
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Folder of the checkpoint with the most steps, or None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: A file is missing or damaged, or a later release wrote it. Where there is an earlier
            checkpoint, the message names it; to lose the steps between the two is for the user to decide.
    """
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if state.pop("format", None) != FORMAT_VERSION:
            raise WeightsError(f"{path}: this release reads checkpoints of the format {FORMAT_VERSION}")
        tensors = {name: load_file(path / f"{name}.safetensors") for name in state.pop("parts")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        earlier = [other for other in _checkpoints(path.parent) if _name_of(other) < _name_of(path)]
        advice = f"; remove it to go on from {earlier[-1]}" if earlier else ""
        raise WeightsError(f"{path} is not a checkpoint that can be read: {error}{advice}") from error
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
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        value = tensor
        if tensor.shape == parameter.shape:
            # In the order of the parameter in memory, which safetensors does not keep: sums over the two
            # together are fast only then.
            value = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = value
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
    set_aside = folder.glob(f".{_PREFIX}*{_REPLACED}")
    found = {
        int(_name_of(path).removeprefix(_PREFIX)): path
        for path in (*set_aside, *folder.glob(f"{_PREFIX}*"))  # the later one of a step replaces the other
        if _name_of(path).removeprefix(_PREFIX).isdecimal() and (path / _STATE).is_file()
    }
    return [found[step] for step in sorted(found)]


def _name_of(path: Path) -> str:
    return path.name.removeprefix(".").removesuffix(_REPLACED)


def _tidy(folder: Path) -> None:
    """Put right what was left when a process was killed."""
    for path in folder.glob(f".{_PREFIX}*{_REPLACED}"):
        if not (folder / _name_of(path)).exists():
            path.replace(folder / _name_of(path))
    for part in folder.glob(f".{_PREFIX}*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:  # some file systems of networks cannot
        pass
    finally:
        os.close(number)


def _flush(path: Path) -> None:
    # Renamed before its bytes are on the disk, a file can be empty after a loss of power. Windows flushes
    # only what is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())
