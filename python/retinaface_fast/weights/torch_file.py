"""State dicts that torch saved, read without running what a pickle could hold."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retinaface_fast.errors import MissingDependencyError, WeightsError

if TYPE_CHECKING:
    from retinaface_fast._typing import AnyArray

__all__ = ["read_torch"]

#: Before 2.6, `weights_only=True` could be made to run code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)

#: Under these keys a training checkpoint holds the state dict.
_WRAPPERS = ("state_dict", "model")

#: Tensors of a file may share numbers, tied weights for example; not many do.
_MOST_TIMES_THE_FILE = 4


def read_torch(data: bytes, *, source: str) -> dict[str, AnyArray]:
    """Read the tensors of a torch checkpoint.

    Args:
        data: The whole file.
        source: Path of the file, for messages.

    Returns:
        Arrays by name; floating-point ones as float32.

    Raises:
        MissingDependencyError: If torch is not installed.
        WeightsError: If the file is damaged or holds anything but tensors, or if torch is too old to read it
            safely.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", extra="torch", purpose="reading torch checkpoints") from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _SAFE_TORCH:
        raise WeightsError(
            f"{source}: torch {torch.__version__} can be made to run code by a checkpoint (CVE-2025-32434); "
            "install torch 2.6 or later, or use weights in safetensors or ONNX format"
        )
    try:
        _expect_uncompressed(data)
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        summary = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{source} is not a checkpoint that can be read safely: {summary}") from error
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{source} holds a {type(loaded).__name__} instead of a state dict")
    arrays: dict[str, AnyArray] = {}
    room = _MOST_TIMES_THE_FILE * len(data)
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{source}: {name!r} is a {type(tensor).__name__} instead of a tensor")
        if tensor.layout is not torch.strided:
            # Indices that lie outside the tensor are not noticed, and memory is written where they say.
            raise WeightsError(f"{source}: {name} is {tensor.layout}, expected a dense tensor")
        # A single number can stand for any amount of them: a stride may be 0.
        room -= tensor.numel() * tensor.element_size()
        if room < 0:
            raise WeightsError(f"{source}: {name} has more numbers than the file holds")
        try:
            dense = tensor.detach()
            arrays[name] = (dense.float() if dense.is_floating_point() else dense).contiguous().numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise WeightsError(f"{source}: {name} cannot be read: {error}") from error
    return arrays


def _expect_uncompressed(data: bytes) -> None:
    """Raise ValueError if the file is an archive that could unpack to a thousand times its size."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return  # the format of before torch 1.6
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("its archive is compressed, which torch never does")
