"""The exceptions of the package.

A bad argument is a plain `ValueError` or `TypeError`; a class of its own exists only where a caller would
act differently: fetch other weights, skip a file, fix a dataset, choose another engine, install an extra.
"""

from __future__ import annotations


class RetinaFaceError(Exception):
    """Base of every exception that this package defines."""


class WeightsError(RetinaFaceError):
    """Weights cannot be found, downloaded, verified or matched with the network."""


class ImageError(RetinaFaceError):
    """A picture cannot be read: it is missing, not an image, truncated, or too large to decode safely."""


class DatasetError(RetinaFaceError):
    """An annotation or prediction file is malformed; the message names the file and the line."""


class EngineError(RetinaFaceError):
    """An engine, device or instruction set that was asked for cannot be had, or the engine failed."""


class MissingDependencyError(RetinaFaceError, ImportError):
    """An optional package is needed; the message names the extra that installs it.

    Args:
        package: Name of the package that could not be imported.
        extra: Extra of this package that installs it.
        purpose: What it is needed for, as the end of the sentence "… is needed for".
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f'{package} is needed for {purpose}: install it with pip install "retinaface-fast[{extra}]"'
        )
        self.package = package
        self.extra = extra
