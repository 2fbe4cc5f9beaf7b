"""What a run is made of, in a file of its folder: who goes on must mean the same run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._files import write_whole
from retinaface_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from filelock import BaseFileLock

    from .records import Record
    from .validation import Validator

__all__ = ["check_run", "claim_run", "data_digest", "lock_run", "read_run", "validator_digest"]

#: What may differ: another release, from where the program was called, and the words for where the weights
#: came from; `initial` says which ones they are.
_MAY_DIFFER = ("arguments", "initial_weights", "provenance", "retinaface_fast")


def lock_run(folder: Path, lock: BaseFileLock | None = None) -> BaseFileLock:
    """Keep other processes from training in a folder; it is made if need be.

    Args:
        folder: The folder.
        lock: What an earlier call returned, to acquire it again; None makes one.

    Returns:
        The lock, acquired. Whoever drops it or ends, however that may be, gives the folder back.

    Raises:
        DatasetError: Another process has it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lock is None:
            # One thread may make a trainer and another one run it.
            lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise DatasetError(f"{folder}: another process is training there; wait for it, or end it") from None
    except OSError as error:
        raise DatasetError(f"cannot write {folder}: {error.strerror or error}") from None
    return lock


def claim_run(folder: Path, record: Mapping[str, Any], *, has_checkpoint: bool, write: bool) -> None:
    """Say in a folder what its run is made of, or find that it is the same.

    Args:
        folder: The folder; it is made if need be.
        record: What the run is made of, as JSON takes it.
        has_checkpoint: Whether the folder holds a checkpoint.
        write: Whether this process is the one that writes.

    Raises:
        DatasetError: The folder holds another run, or cannot be read or written.
    """
    path = folder / "run.json"
    wanted = json.loads(json.dumps(record))
    if not path.is_file():
        if has_checkpoint:
            raise DatasetError(f"{folder} holds checkpoints and no {path.name}: name another folder")
        if write:
            _write(path, wanted)
        return
    found = read_run(folder)
    _refuse(folder, _different(found, wanted))
    if write and found.get("arguments") != wanted.get("arguments"):
        # The data may have moved: who goes on next must find it where it is now.
        _write(path, {**found, "arguments": wanted.get("arguments")})


def check_run(folder: Path, part: Mapping[str, Any]) -> None:
    """Find that a folder holds no run, or one of which this much is true, before work that takes long.

    Raises:
        DatasetError: It holds another run, or cannot be read.
    """
    if (folder / "run.json").is_file():
        found, wanted = read_run(folder), json.loads(json.dumps(part))
        _refuse(folder, _different({key: found.get(key) for key in wanted}, wanted))


def read_run(folder: Path) -> dict[str, Any]:
    """What a folder says that its run is made of.

    Raises:
        DatasetError: It holds no run, or what it says cannot be read.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{folder}: there is no run to go on with: {path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise DatasetError(f"{path}: cannot be read: expected an object, got {type(record).__name__}")
    return record


def data_digest(records: Sequence[Record]) -> str:
    """A short digest of names and boxes: whether two runs train on the same data."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.image.name}\0{len(record.boxes)}\0".encode())
        digest.update(np.ascontiguousarray(record.boxes).tobytes())
        digest.update(np.ascontiguousarray(record.landmarks).tobytes())
        digest.update(np.ascontiguousarray(record.ignored).tobytes())
    return digest.hexdigest()[:16]


def validator_digest(validator: Validator | None) -> str | None:
    """A short digest of what is measured on, None for nothing: whether two figures can be compared."""
    if validator is None:
        return None
    digest = hashlib.sha256()
    # Whatever a validator of another kind lacks cannot differ.
    for image in getattr(validator, "images", ()):
        digest.update(f"{image.name}\0".encode())
    arrays = [*getattr(validator, "boxes", ()), *getattr(validator, "ignored", ())]
    truth = getattr(validator, "truth", None)
    if truth is not None:
        digest.update("\0".join([*truth.names, *truth.counted]).encode())
        arrays += [truth.boxes, truth.offsets, *truth.counted.values()]
    for array in arrays:
        digest.update(f"{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, record: Mapping[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from None


def _refuse(folder: Path, different: Sequence[str]) -> None:
    if different:
        raise DatasetError(
            f"{folder} holds a run with other {', '.join(different)}: name another folder, or the same "
            "recipe and data to go on with it"
        )


def _different(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys, with their sections, that two records have different values for; versions may differ."""
    keys = []
    for key in sorted({*found, *wanted}):
        if not prefix and key in _MAY_DIFFER:
            continue
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            keys += _different(one, other, f"{prefix}{key}.")
        elif one != other:
            keys.append(f"{prefix}{key}")
    return keys
