"""The same numbers, laid out in memory in every way that NumPy allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[Any]


def every_other(array: Array) -> Array:
    """A view with a gap after every row."""
    room = np.full((2 * array.shape[0], *array.shape[1:]), 7, dtype=array.dtype)
    room[::2] = array
    return room[::2]


def wide_rows(array: Array) -> Array:
    """A view of the left columns of something wider."""
    room = np.full((*array.shape[:-1], array.shape[-1] + 3), 7, dtype=array.dtype)
    room[..., :-3] = array
    return room[..., :-3]


def backwards(array: Array) -> Array:
    """A view with negative strides in every axis."""
    flip = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[flip])[flip]


def fortran(array: Array) -> Array:
    """First index fastest."""
    return np.asfortranarray(array)


def misaligned(array: Array) -> Array:
    """C-contiguous, but one byte past an aligned address."""
    room = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert array.size == 0 or not view.flags.aligned
    return view


def half_register(array: Array) -> Array:
    """Aligned for a float, not for a SIMD register."""
    room = np.zeros(array.size + 1, dtype=array.dtype)
    view = room[1:].reshape(array.shape)
    view[...] = array
    return view


def read_only(array: Array) -> Array:
    """Not writable, as arrays from other libraries may be."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "every other": every_other,
    "wide rows": wide_rows,
    "backwards": backwards,
    "fortran": fortran,
    "misaligned": misaligned,
    "half register": half_register,
    "read only": read_only,
}
