"""TensorBoard: curves, and pictures of what the network is told and of what it finds."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast import ops
from retinaface_fast._imports import import_cv2
from retinaface_fast.draw import draw_faces
from retinaface_fast.errors import DatasetError, MissingDependencyError
from retinaface_fast.image import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from retinaface_fast._typing import FloatArray, UInt8Array
    from retinaface_fast.detections import Detections
    from retinaface_fast.network import RetinaFaceConfig

    from .batch import Batch
    from .validation import ValidationResult

__all__ = ["RunLog", "picture_of_batch", "picture_of_found"]

#: Pictures of a sheet, and the side of each in pixels.
_MOST, _SIDE = 9, 320
#: Steps over which logged losses are averaged.
_LOG_EVERY = 10


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Writes what a run has to say to TensorBoard files; a context that closes them.

    Args:
        folder: Where the files go. Several runs, one after the other, may write there.
        steps_done: Steps that are done; what an earlier run has written beyond them is taken back.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
        DatasetError: The files cannot be written; every method may raise it, for what earlier ones wrote.
    """

    def __init__(self, folder: Path, *, steps_done: int = 0) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "tensorboard", purpose="the log of training", extra="train"
            ) from error
        self._folder = folder
        self._sums: dict[str, float] = {}
        self._summed = 0
        with self._writing():
            # It is the first step that is taken back; what belongs to the last one that is done stays.
            self._writer: Any = SummaryWriter(str(folder), purge_step=steps_done + 1)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Add figures to curves, by the tags that are their keys."""
        with self._writing():
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def train_step(
        self, losses: Mapping[str, float], *, lr: float, epoch: int, step: int, last: bool
    ) -> None:
        """Take in the losses of a step; their means are written for every tenth and the last of an epoch."""
        self._summed += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if not last and step % _LOG_EVERY:
            return
        means = {f"train/{name}": value / self._summed for name, value in self._sums.items()}
        self.scalars({**means, "train/lr": lr, "train/epoch": epoch}, step=step)
        self._sums, self._summed = {}, 0

    def validation(self, result: ValidationResult, images: Sequence[Path], *, step: int) -> None:
        """Add the figures of a validation, and what was found in the first of its pictures."""
        self.scalars({f"validation/{name}": ap for name, ap in result.ap.items()}, step=step)
        shown = [
            (read_image(path).to_color("bgr"), faces)
            for path, faces in zip(images[:_MOST], result.found[:_MOST], strict=True)
            if faces is not None
        ]
        if shown:
            pictures, found = zip(*shown, strict=True)
            self.picture("validation/found", picture_of_found(pictures, found), step=step)

    def picture(self, tag: str, image: UInt8Array, *, step: int) -> None:
        """Add a BGR picture, (H, W, 3) uint8."""
        with self._writing():
            self._writer.add_image(tag, np.ascontiguousarray(image[:, :, ::-1]), step, dataformats="HWC")

    def text(self, tag: str, text: str, *, step: int) -> None:
        """Add text, as Markdown."""
        with self._writing():
            self._writer.add_text(tag, text, step)

    def flush(self) -> None:
        """Bring what was added to the disk."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Bring what was added to the disk, and close the file."""
        with self._writing():
            self._writer.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whatever ended the run is more than a log that cannot be closed.
        with contextlib.suppress(DatasetError) if error is not None else contextlib.nullcontext():
            self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatasetError(f"cannot write {self._folder}: {error.strerror or error}") from None


def picture_of_batch(batch: Batch, *, anchors: FloatArray, config: RetinaFaceConfig) -> UInt8Array:
    """Draw what the network is told: the first pictures of a batch with the faces that its anchors stand for.

    Args:
        batch: The batch.
        anchors: (A, 4) float32 cxcywh pixels, of a training picture.
        config: The network; its variances undo the encoding.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    targets = batch.targets
    num_anchors = targets.labels.shape[1]
    positives = targets.positives.numpy()
    of_picture, which = np.divmod(positives, num_anchors)
    boxes = ops.decode_boxes(targets.box_deltas.numpy(), anchors[which], variances=config.variances)
    points = ops.decode_landmarks(targets.landmark_deltas.numpy(), anchors[which], variances=config.variances)
    points = points.reshape(-1, 5, 2)
    points[~targets.landmark_mask.numpy()] = np.nan
    pictures = []
    for index, image in enumerate(batch.images.numpy()[:_MOST]):
        mine = of_picture == index
        # Several anchors stand for one face.
        _, firsts = np.unique(boxes[mine].round(), axis=0, return_index=True)
        pictures.append(draw_faces(image, boxes[mine][firsts], landmarks=points[mine][firsts]))
    return _sheet(pictures)


def picture_of_found(images: Sequence[UInt8Array], found: Sequence[Detections]) -> UInt8Array:
    """Draw what the network finds: pictures with the faces that have a score > 0.3.

    Args:
        images: Each (H, W, 3) uint8 BGR.
        found: The faces of each.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    return _sheet(
        [faces[faces.scores > 0.3].draw(image) for image, faces in zip(images, found, strict=True)][:_MOST]
    )


def _sheet(pictures: Sequence[UInt8Array]) -> UInt8Array:
    cv2 = import_cv2("drawing pictures for the log")
    columns = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = max(1, math.ceil(len(pictures) / columns))
    sheet = np.full((rows * _SIDE, columns * _SIDE, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        scale = _SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        y, x = index // columns * _SIDE, index % columns * _SIDE
        sheet[y : y + size[1], x : x + size[0]] = small
    return sheet
