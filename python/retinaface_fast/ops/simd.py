"""The instruction set that the core uses."""

from __future__ import annotations

from retinaface_fast import _core

__all__ = ["simd_level", "simd_levels"]


def simd_level() -> str:
    """The SIMD level in use, "scalar", "avx2", "avx512" or "neon".

    It is the best one that the CPU has, unless the environment variable `RETINAFACE_FAST_SIMD` names another;
    a name that does not exist or that the CPU cannot run is an `ImportError` when the core is imported. All
    levels give the same results of these operations bit for bit; the engine `native` adds in another order on
    each, and its raw outputs differ by rounding.

    Returns:
        Name of the level.

    Example:
        >>> simd_level() in simd_levels()
        True
    """
    return _core.simd_level()


def simd_levels() -> tuple[str, ...]:
    """The SIMD levels that this build holds and this CPU can run.

    Returns:
        Names, slowest first; "scalar" is always there.

    Example:
        >>> simd_levels()[0]
        'scalar'
    """
    return tuple(_core.simd_levels())
