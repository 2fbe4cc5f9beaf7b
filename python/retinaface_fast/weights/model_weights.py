"""Weights in memory, and the strict comparison with what the network needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.errors import WeightsError
from retinaface_fast.network.config import RetinaFaceConfig
from retinaface_fast.network.folding import fold_batch_norm
from retinaface_fast.network.layout import tensor_shapes

if TYPE_CHECKING:
    from retinaface_fast._typing import AnyArray, FloatArray

__all__ = ["ModelWeights"]

_NAMED_AT_MOST = 5


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """Everything an engine needs: folded tensors, the network they belong to, where they come from.

    What exists fits: tensors are checked when the object is made, and cannot change afterwards. Arrays that
    could be written to are copied.

    Attributes:
        tensors: float32, read-only and finite, by canonical name; batch norm is folded in. Exactly the names
            and shapes of `tensor_shapes(config, folded=True)`.
        config: The network.
        metadata: What the file says about itself: licence, provenance, conventions. Read-only.
        source: Path of the file.
        sha256: Digest of the file, hexadecimal.

    Raises:
        WeightsError: If a tensor is missing, surplus, misshapen, not float32 or not finite.
        TypeError: If `tensors` is no mapping or `config` no `RetinaFaceConfig`.
    """

    tensors: Mapping[str, FloatArray]
    config: RetinaFaceConfig
    metadata: Mapping[str, str]
    source: str
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.config, RetinaFaceConfig):
            raise TypeError(f"config must be a RetinaFaceConfig, got {type(self.config).__name__}")
        if not isinstance(self.tensors, Mapping):
            raise TypeError(
                f"tensors must be a mapping of names to arrays, got {type(self.tensors).__name__}"
            )
        label = self.source or "tensors"
        given: Mapping[Any, Any] = self.tensors  # an annotation keeps nobody from anything
        for name, array in given.items():
            if not isinstance(name, str):
                raise WeightsError(f"{label}: names must be text, got {name!r}")
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise WeightsError(f"{label}: {name} is {kind}, expected a float32 array")
        complaints = compare(self.tensors, tensor_shapes(self.config, folded=True), {})
        if complaints:
            raise WeightsError(
                f"{label} does not fit the network {self.config.name!r}: {'; '.join(complaints)}"
            )
        for name, array in self.tensors.items():
            if not np.isfinite(array).all():
                raise WeightsError(f"{label}: {name} holds NaN or infinite values")
        frozen = {name: _read_only(array) for name, array in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(frozen))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __repr__(self) -> str:
        return (
            f"ModelWeights({self.config.name!r}, {len(self.tensors)} tensors, "
            f"source={self.source!r}, sha256={self.sha256[:12]!r}…)"
        )


def make_weights(
    tensors: Mapping[str, AnyArray],
    config: RetinaFaceConfig,
    *,
    metadata: Mapping[str, str],
    source: str,
    sha256: str,
    foreign_names: Mapping[str, str] | None = None,
) -> ModelWeights:
    """Check tensors against a config, fold batch norm and freeze the result.

    Args:
        tensors: By canonical name, folded or not.
        config: The network.
        metadata: What the file says about itself.
        source: Path of the file, for messages.
        sha256: Digest of the file.
        foreign_names: What the file calls the tensors, by canonical name, for messages.

    Raises:
        WeightsError: If a tensor is missing, surplus, misshapen, not of a floating type or not finite.
    """
    folded = not any(".norm." in name for name in tensors)
    check_tensors(
        tensors,
        tensor_shapes(config, folded=folded),
        network=config.name,
        source=source,
        foreign_names=foreign_names or {},
    )
    frozen = {}
    for name, array in sorted(fold_batch_norm(tensors).items()):
        if array is not tensors.get(name) and not np.isfinite(array).all():
            raise WeightsError(f"{source}: {name} is not finite once batch norm is folded in")
        view = array.view()
        view.flags.writeable = False
        frozen[name] = view
    return assemble(frozen, config, metadata, source, sha256)


def check_tensors(
    tensors: Mapping[str, AnyArray],
    expected: Mapping[str, tuple[int, ...]],
    *,
    network: str,
    source: str,
    foreign_names: Mapping[str, str],
) -> None:
    """Check names, shapes, types and values of tensors.

    Args:
        tensors: By canonical name, folded or not.
        expected: Shape by canonical name.
        network: Name of the network, for messages.
        source: Path of the file, for messages.
        foreign_names: What the file calls the tensors, by canonical name, for messages.

    Raises:
        WeightsError: If a tensor is missing, surplus, misshapen, not of a floating type or not finite.
    """
    complaints = compare(tensors, expected, foreign_names)
    if complaints:
        raise WeightsError(f"{source} does not fit the network {network!r}: {'; '.join(complaints)}")
    for name, tensor in tensors.items():
        label = label_of(name, foreign_names)
        if not np.issubdtype(tensor.dtype, np.floating):
            raise WeightsError(f"{source}: {label} is {tensor.dtype}, expected a floating type")
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{source}: {label} holds NaN or infinite values")
        if name.endswith(".norm.running_var") and (tensor < 0).any():
            raise WeightsError(f"{source}: {label} holds negative variances")


def assemble(
    tensors: Mapping[str, FloatArray],
    config: RetinaFaceConfig,
    metadata: Mapping[str, str],
    source: str,
    sha256: str,
) -> ModelWeights:
    """Make the object of read-only tensors that were checked just now, and look at nothing again.

    A second look and a copy of the 100 MB of a ResNet take longer than reading them.
    """
    weights = object.__new__(ModelWeights)
    values = (MappingProxyType(dict(tensors)), config, MappingProxyType(dict(metadata)), source, sha256)
    for field, value in zip(fields(ModelWeights), values, strict=True):
        object.__setattr__(weights, field.name, value)
    return weights


def _read_only(array: FloatArray) -> FloatArray:
    """The array itself where nobody can write to its memory, else a copy where nobody can."""
    owner: object = array
    writeable = False
    while isinstance(owner, np.ndarray):
        writeable |= owner.flags.writeable
        owner = owner.base
    if writeable or not array.flags.c_contiguous:
        array = array.copy()
        array.flags.writeable = False
    return array


def compare(
    tensors: Mapping[str, AnyArray],
    expected: Mapping[str, tuple[int, ...]],
    foreign_names: Mapping[str, str],
) -> list[str]:
    """What is wrong with the names and shapes of tensors, one phrase per kind; empty if nothing is."""
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in expected]
    misshapen = [
        f"{label_of(name, foreign_names)} is {tensors[name].shape} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    complaints = []
    for kind, labels in (
        ("missing", [label_of(name, foreign_names) for name in missing]),
        ("surplus", [label_of(name, foreign_names) for name in surplus]),
        ("misshapen", misshapen),
    ):
        if labels:
            more = f" and {len(labels) - _NAMED_AT_MOST} more" if len(labels) > _NAMED_AT_MOST else ""
            complaints.append(f"{kind}: {', '.join(labels[:_NAMED_AT_MOST])}{more}")
    return complaints


def label_of(name: str, foreign_names: Mapping[str, str]) -> str:
    """A tensor's canonical name and, where it differs, what the file calls it."""
    foreign = foreign_names.get(name, name)
    return name if foreign == name else f"{name} ({foreign} in the file)"
