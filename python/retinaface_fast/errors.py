"""The exceptions of the package.

A bad argument is a plain `ValueError` or `TypeError`; a class of its own exists only where a caller would
act differently: fetch other weights, skip a file, fix a dataset, choose another engine, install an extra.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "DatasetError",
    "EngineError",
    "ImageError",
    "MissingDependencyError",
    "RetinaFaceError",
    "WeightsError",
]


class RetinaFaceError(Exception):
    """Base of every exception that this package defines."""


class WeightsError(RetinaFaceError):
    """Weights cannot be found, downloaded, verified or matched with the network."""


class ImageError(RetinaFaceError):
    """A picture cannot be read: it is missing, not an image, truncated, or too large to decode safely."""


class DatasetError(RetinaFaceError):
    """An annotation or prediction file is malformed; the message names the file and the line."""


class EngineError(RetinaFaceError):
    """An engine or device that was asked for cannot be had, or the engine failed."""


class MissingDependencyError(RetinaFaceError, ImportError):
    """An optional package is needed; the message says what to install.

    Args:
        package: Name of the package that could not be imported.
        purpose: What it is needed for, as the end of the sentence "… is needed for".
        extra: Extra of this package that installs it, if one does.
        advice: What to install, in place of the extra.

    Attributes:
        package: As given.
        extra: As given; None if no extra installs the package.
    """

    def __init__(
        self, package: str, *, purpose: str, extra: str | None = None, advice: str | None = None
    ) -> None:
        install = advice or f'install it with pip install "retinaface-fast[{extra}]"'
        super().__init__(f"{package} is needed for {purpose}: {install}")
        self.package = package
        self.extra = extra
        self._purpose = purpose
        self._advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        # ImportError would call the class with the message alone; process pools hand errors on by pickling.
        return _missing_dependency, (self.package, self._purpose, self.extra, self._advice)


def _missing_dependency(
    package: str, purpose: str, extra: str | None, advice: str | None
) -> MissingDependencyError:
    return MissingDependencyError(package, purpose=purpose, extra=extra, advice=advice)
