"""Frames in and out: video files, cameras, annotated videos."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast._imports import import_cv2
from retinaface_fast.errors import ImageError

from ._outputs import WRITABLE_VIDEOS, naming, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from retinaface_fast._typing import UInt8Array


class Frames:
    """The frames of a video file or a camera.

    Args:
        origin: A path, or the number of a camera.

    Raises:
        ImageError: It cannot be opened.
    """

    def __init__(self, origin: Path | int) -> None:
        cv2 = import_cv2("reading videos")
        self._name = f"camera:{origin}" if isinstance(origin, int) else str(origin)
        self._is_camera = isinstance(origin, int)
        self._capture = cv2.VideoCapture(origin if isinstance(origin, int) else str(origin))
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(
                f"{self._name}: cannot be opened as a {'camera' if self._is_camera else 'video'}"
            )
        #: Frames per second; 25 where the file does not say.
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        #: Number of frames as the file states it, None where it does not.
        self.count = count if count > 0 and not self._is_camera else None

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()

    def read(self, *, every: int = 1) -> Iterator[tuple[int, float, UInt8Array]]:
        """Give every nth frame: its index, its time in seconds, and its pixels (H, W, 3) uint8 BGR.

        Raises:
            ImageError: There is not a single frame.
        """
        index = 0
        while self._capture.grab():
            if index % every == 0:
                done, pixels = self._capture.retrieve()
                if done:
                    yield index, index / self.rate, pixels
            index += 1
        if index == 0:
            raise ImageError(f"{self._name}: no frame can be read from it")


@contextlib.contextmanager
def frame_writer(target: Path, rate: float) -> Iterator[Callable[[UInt8Array], None]]:
    """Give a function that appends frames to a video file; the file takes its place at the end.

    What was written stays when the run is interrupted or a later frame fails: a video cut short is of use.

    Args:
        target: Its suffix says the format.
        rate: Frames per second.

    Yields:
        A function of a frame, (H, W, 3) uint8 BGR. The first one fixes the size of the video, a later one of
        another size is stretched to it. It raises ImageError if this OpenCV has no encoder for the format,
        and OutputError if the file cannot be written.
    """
    cv2 = import_cv2("writing videos")
    code = cv2.VideoWriter.fourcc(*WRITABLE_VIDEOS[target.suffix.lower()])
    writer: Any = None
    size = (0, 0)
    part = part_of(target)

    def write(pixels: UInt8Array) -> None:
        nonlocal writer, size
        if writer is None:
            size = (pixels.shape[1], pixels.shape[0])
            with naming(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                part.touch()  # OpenCV does not say why it cannot open a file
            writer = cv2.VideoWriter(str(part), code, rate, size)
            if not writer.isOpened():
                raise ImageError(f"cannot write {target}: this OpenCV has no encoder for it")
        if (pixels.shape[1], pixels.shape[0]) != size:
            pixels = cv2.resize(pixels, size).astype(np.uint8, copy=False)
        writer.write(pixels)

    try:
        yield write
    finally:
        if writer is not None and writer.isOpened():
            writer.release()
            with naming(target):
                part.replace(target)
        with contextlib.suppress(OSError):  # where there is no folder, there is no file to remove
            part.unlink()
