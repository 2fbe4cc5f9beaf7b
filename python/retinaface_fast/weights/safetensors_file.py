"""Safetensors files: reading with the library, writing byte for byte the same every time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retinaface_fast._typing import AnyArray, FloatArray

__all__ = ["read_safetensors", "write_safetensors"]


def read_safetensors(data: bytes, *, source: str) -> tuple[dict[str, AnyArray], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        data: The whole file.
        source: Path of the file, for messages.

    Returns:
        Arrays by name, and the metadata.

    Raises:
        WeightsError: If the file is truncated or is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, AnyArray] = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{source} is not a readable safetensors file: {error}") from error
    # The library has validated the header; it offers the metadata of files only, not of bytes.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, dict(header.get("__metadata__", {}))


def write_safetensors(tensors: Mapping[str, FloatArray], metadata: Mapping[str, str]) -> bytes:
    """Encode float32 tensors and metadata as a safetensors file.

    The library writes metadata in a random order; a build that is to be reproducible cannot have that, so
    keys and tensors are sorted here.

    Args:
        tensors: float32 arrays by name.
        metadata: Text by name.

    Returns:
        The file.

    Example:
        >>> data = write_safetensors({"a": np.zeros(2, np.float32)}, {"b": "c"})
        >>> read_safetensors(data, source="example")[1]
        {'b': 'c'}
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    blobs = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        blob = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    encoded = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    encoded += b" " * (-len(encoded) % 8)  # keeps the data aligned to 8 bytes, as the format advises
    return b"".join((len(encoded).to_bytes(8, "little"), encoded, *blobs))
