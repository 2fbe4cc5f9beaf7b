"""Settings of a detector that one call may set differently."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ._tiles import SMALLEST_TILE
from ._validation import check_bool, check_fraction, check_optional_positive_int
from .tta import TTA

if TYPE_CHECKING:
    from collections.abc import Callable

#: The largest count that the core takes.
_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Options of detection that cost nothing to change; checked when they are set. See `FaceDetector`."""

    score_threshold: float = 0.5
    nms_threshold: float = 0.4
    top_k: int | None = 5000
    keep_top_k: int | None = 750
    max_side: int | None = None
    max_pixels: int | None = None
    tta: TTA | None = None
    close_ups: bool = True
    tile_side: int | None = None

    def __post_init__(self) -> None:
        for name, check in SETTINGS.items():
            object.__setattr__(self, name, check(getattr(self, name), name))

    def override(self, **options: Any) -> Settings:
        """Return these settings with those options in their place that are not None."""
        changes = {name: value for name, value in options.items() if value is not None}
        return dataclasses.replace(self, **changes) if changes else self

    def keep_all(self) -> Settings:
        """Return these settings without a limit on faces."""
        return dataclasses.replace(self, keep_top_k=None)

    def unlimited(self) -> Settings:
        """Return these settings without a limit on candidates and faces."""
        return dataclasses.replace(self, top_k=None, keep_top_k=None)


def _check_count(value: object, name: str) -> int | None:
    count = check_optional_positive_int(value, name)
    if count is not None and count > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}, got {count}")
    return count


def _check_tta(value: object, name: str) -> TTA | None:
    if value is not None and not isinstance(value, TTA):
        raise TypeError(f"{name} must be a TTA or None, got {type(value).__name__} {value!r}")
    return value


def _check_tile_side(value: object, name: str) -> int | None:
    side = check_optional_positive_int(value, name)
    if side is not None and side < SMALLEST_TILE:
        raise ValueError(f"{name} must be at least {SMALLEST_TILE}, got {side}")
    return side


#: Every setting, with what checks it.
SETTINGS: dict[str, Callable[[object, str], Any]] = {
    "score_threshold": check_fraction,
    "nms_threshold": check_fraction,
    "top_k": _check_count,
    "keep_top_k": _check_count,
    "max_side": check_optional_positive_int,
    "max_pixels": check_optional_positive_int,
    "tta": _check_tta,
    "close_ups": check_bool,
    "tile_side": _check_tile_side,
}
