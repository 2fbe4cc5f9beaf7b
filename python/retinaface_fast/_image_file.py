"""Encoded pictures: their bytes, their header checked before anything is decoded, their pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ._image_header import read_header, sniff_format
from ._imports import import_cv2
from .errors import ImageError

if TYPE_CHECKING:
    from ._image_header import ImageHeader
    from ._typing import UInt8Array


#: How much of a file is asked for at once.
_PART_BYTES = 2**20


@runtime_checkable
class BinaryFile(Protocol):
    """A file object opened for reading bytes."""

    def read(self, size: int = ..., /) -> bytes:
        """Read at most `size` bytes."""
        ...


def choose_reduction(header: ImageHeader, max_side: int | None) -> int:
    """Return 1, 2, 4 or 8: the largest reduction by a JPEG decoder leaving the longer side ≥ `max_side`."""
    if header.format != "JPEG" or max_side is None:
        return 1
    longer = max(header.size_hw)
    return next((factor for factor in (8, 4, 2) if longer >= factor * max_side), 1)


def decode(name: str, data: bytes, header: ImageHeader, reduction: int) -> UInt8Array:
    """Decode a picture to (H, W, 3) uint8 BGR, not turned; `reduction` is what `choose_reduction` says.

    Raises:
        ImageError: The decoder refuses; the message begins with `name`.
    """
    cv2 = import_cv2("decoding picture files")
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduction]
    # The orientation is applied here and not by OpenCV, whose versions differ in the formats they turn.
    try:
        pixels: UInt8Array | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        reason = str(getattr(error, "err", "")) or str(error)
        raise ImageError(f"{name}: OpenCV cannot decode this {header.format} file: {reason}") from error
    if pixels is None:
        raise ImageError(
            f"{name}: OpenCV {cv2.__version__} cannot decode this {header.format} file; it is damaged or of "
            "an unusual kind"
        )
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ImageError(f"{name}: decoded to shape {pixels.shape} of {pixels.dtype}, not to 8-bit colour")
    return pixels


def checked_header(name: str, data: bytes, limit: int) -> ImageHeader:
    """Read the header of a picture and refuse what should not be decoded.

    Raises:
        ImageError: Unknown format, damaged header, more than `limit` pixels, or the end is missing.
    """
    try:
        header = read_header(data)
    except ValueError as error:
        raise ImageError(f"{name}: {error}{_advice(sniff_format(data[:64]))}") from error
    check_pixels(name, header.size_hw, limit)
    if not header.complete:
        raise ImageError(f"{name}: the {header.format} file is truncated: the end of the picture is missing")
    return header


def check_pixels(name: str, size_hw: tuple[int, int], limit: int) -> None:
    """Raise `ImageError` for a picture of more than `limit` pixels."""
    height, width = size_hw
    if height * width > limit:
        raise ImageError(
            f"{name}: {width}x{height} pixels are more than the limit of {limit:,}; raise it with max_pixels "
            "or RETINAFACE_FAST_MAX_PIXELS if the picture is to be trusted"
        )


def _advice(name: str | None) -> str:
    if name in ("HEIC", "JPEG XL"):
        return ": open it with PIL and its plug-in for this format and pass the PIL image"
    return ""


def read_bytes(source: object, limit: int) -> tuple[str, bytes]:
    """Return the name and the content of an encoded picture.

    Args:
        source: Path, bytes-like object or binary file object, which is read from where it stands.
        limit: Most pixels that a picture may have; bounds how much of a file is read.

    Raises:
        ImageError: Missing, a directory, not readable, empty, not a picture, or implausibly long.
        TypeError: `source` is nothing that holds an encoded picture.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if not data:
            raise ImageError("the picture is empty: 0 bytes")
        return f"picture of {len(data):,} bytes", data
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not path:
            raise ImageError("the path of the picture is empty")
        return path, _read_path(path, limit)
    if isinstance(source, BinaryFile):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else f"<{type(source).__name__}>"
        try:
            return name, _read_file(source, name, limit)
        except OSError as error:
            raise ImageError(f"{name}: {error.strerror or error}") from error
    hint = "; cv2.imread returns None for a file that it cannot read" if source is None else ""
    raise TypeError(
        "image must be a path, bytes, a binary file object, a PIL image or a uint8 array, got "
        f"{type(source).__name__}{hint}"
    )


def _read_path(path: str, limit: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return _read_file(file, path, limit)
    except FileNotFoundError as error:
        hint = " (addresses are not fetched)" if "://" in path else ""
        raise ImageError(f"{path!r}: no such file{hint}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path!r}: is a directory") from error
    except OSError as error:
        if Path(path).is_dir():  # Windows reports this as a lack of permission
            raise ImageError(f"{path!r}: is a directory") from error
        raise ImageError(f"{path!r}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ImageError(f"{path!r}: is not a path: {error}") from error


def _read_file(file: BinaryFile, name: str, limit: int) -> bytes:
    # The first bytes decide whether the rest is read: a film, or a device without an end, is refused
    # before it fills the memory. No uncompressed picture takes more than 8 bytes for a pixel.
    head = _read_up_to(file, name, 64)
    if not head:
        raise ImageError(f"{name}: the file is empty")
    if sniff_format(head) is None:
        raise ImageError(f"{name}: not a picture in a known format")
    most = max(2**26, 8 * limit)
    rest = _read_up_to(file, name, most)
    if len(rest) >= most:
        raise ImageError(f"{name}: longer than {most:,} bytes, more than a picture of {limit:,} pixels takes")
    return head + rest


def _read_up_to(file: BinaryFile, name: str, most: int) -> bytes:
    # In parts: a buffered reader allocates all that it is asked for before it reads, and a pipe or another
    # raw file gives what it has, so that only an empty answer is the end.
    parts = []
    missing = most
    while missing > 0:
        part = file.read(min(missing, _PART_BYTES))
        if not isinstance(part, bytes):
            raise TypeError(
                f"{name}: read gave {type(part).__name__} instead of bytes; open it for reading bytes, with "
                'mode "rb"'
            )
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
