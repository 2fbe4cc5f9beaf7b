"""Arrays that say they lie on a CUDA device, and readers of such: two protocols, each from its specification.

In the build of the kernels for the CPU, memory of NumPy counts as a device's, so that all of it can be tried
without a device.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from tests.ops.agreement import Grid

MODULE = "retinaface_fast._cuda"
VARIABLE = "RETINAFACE_FAST_CUDA_ON_CPU"
#: Why a test cannot run.
NOT_HERE = (
    f"{VARIABLE} does not say where the CUDA kernels for the CPU are: dev.py cuda builds and tests them"
)


@lru_cache(maxsize=1)
def cuda_on_cpu() -> ModuleType | None:
    """The extension whose kernels run on the CPU; None unless the environment says where it is."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    spec = importlib.util.spec_from_file_location(MODULE, Path(path).resolve(strict=True))
    if spec is None or spec.loader is None:
        raise ImportError(f"{VARIABLE}: expected an extension module, got {path}")
    before = sys.modules.get(MODULE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Some ways of loading an extension enter it; whoever wants it there says so.
    sys.modules.pop(MODULE, None)
    if before is not None:
        sys.modules[MODULE] = before
    if not module.on_cpu:
        raise ImportError(f"{VARIABLE}: expected the build for the CPU, got {path}")
    return module


class WithInterface:
    """Memory of NumPy by `__cuda_array_interface__`, entries changed or, if given as `...`, left out."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self.array = array
        self.changes = changes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, not self.array.flags.writeable),
            "strides": None if self.array.flags.c_contiguous else self.array.strides,
            "version": 3,
            **self.changes,
        }
        return {key: value for key, value in interface.items() if value is not ...}


# --- DLPack


class Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer.restype = ctypes.c_void_p
_name = ctypes.pythonapi.PyCapsule_GetName
_name.argtypes = (ctypes.py_object,)
_name.restype = ctypes.c_char_p

CPU, CUDA = 1, 2


def tensor_of(capsule: Any) -> Tensor:
    """The tensor in a capsule that nobody has taken over; it can be written to."""
    return Tensor.from_address(_pointer(capsule, b"dltensor"))


def name_of(capsule: Any) -> str:
    name = _name(capsule)
    return name.decode()


class WithDlpack:
    """Memory of NumPy by DLPack, as that of a device. Fields of the tensor may be changed."""

    def __init__(self, array: Any, *, device: Any = (CUDA, 0), **fields: Any) -> None:
        self.array = array
        self.device = device
        self.fields = fields
        self.streams: list[Any] = []
        self.capsules: list[Any] = []

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        tensor = tensor_of(capsule)
        tensor.device = Device(*self.fields.get("device", self.device))
        for field, value in self.fields.items():
            if field != "device":
                setattr(tensor, field, value)
        self.capsules.append(capsule)
        return capsule


class _OnHost:
    """A capsule of device memory as one of host memory, which NumPy takes."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule
        tensor_of(capsule).device = Device(CPU, 0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU, 0)

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule


def through_dlpack(capsule: Any) -> Any:
    """A view of what a capsule of the build for the CPU holds, which takes the capsule over."""
    return np.from_dlpack(_OnHost(capsule))


def through_interface(array: Any) -> Any:
    """A view of what a device array of the build for the CPU holds; it keeps nothing alive."""
    interface = array.__cuda_array_interface__
    assert interface["version"] == 3
    assert interface["strides"] is None
    address, read_only = interface["data"]
    assert not read_only
    dtype = np.dtype(interface["typestr"])
    size = int(np.prod(interface["shape"])) * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(interface["shape"])


# --- where the kernels run


class Place:
    """How arrays get to where the kernels run, and how they come back."""

    def __init__(self, to_device: Callable[[Any], Any], to_host: Callable[[Any], Any]) -> None:
        self.to_device = to_device
        self.to_host = to_host


def several(convert: Callable[[Any], Any], arrays: Iterable[Any]) -> list[Any]:
    return [convert(array) for array in arrays]


def split(convert: Callable[[Any], Any], array: Any, size_hw: tuple[int, int], grid: Grid) -> list[Any]:
    """An output as one device array for each level."""
    return [convert(np.ascontiguousarray(part)) for part in grid.split(array, size_hw)]
