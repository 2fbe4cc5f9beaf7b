"""Training pictures by number: read, augmented, and with the targets of their anchors."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast.errors import DatasetError, ImageError
from retinaface_fast.image import read_image
from retinaface_fast.ops import generate_anchors

from ._random import SAMPLE, generator
from .augmentation import augment
from .batch import Sample
from .records import check_on_fault, keep_faces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinaface_fast._typing import BoolArray, FloatArray, UInt8Array
    from retinaface_fast.anchor_config import AnchorConfig
    from retinaface_fast.network.config import RetinaFaceConfig

    from .augmentation import Augmented
    from .recipe import AssignmentSection, AugmentationSection
    from .records import OnFault, Record

__all__ = ["TrainingDataset"]

#: Pictures that are tried one after the other until one can be decoded.
_ATTEMPTS = 20


class TrainingDataset:
    """Training pictures: a sample for each (epoch, index), always the same one.

    It can be pickled, opens nothing before it is asked for a sample, and needs no PyTorch: any loader that
    takes `__len__` and `__getitem__` will do.

    Args:
        records: The pictures, at least one.
        augmentation: How a training picture is made of one.
        assignment: Which anchors are faces.
        network: Whose anchors, variances and mean.
        seed: Of everything that is drawn, >= 0.
        on_fault: What is done where the data turns out to be wrong: "skip" takes another picture for one that
            cannot be decoded, leaves a box out that lies wholly outside its picture, and says so in
            `Sample.faults`; "fail" is a `DatasetError`.

    Raises:
        ValueError: There are no records, `seed` is negative, or `on_fault` is neither.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        augmentation: AugmentationSection,
        assignment: AssignmentSection,
        network: RetinaFaceConfig,
        seed: int,
        on_fault: OnFault = "skip",
    ) -> None:
        check_on_fault(on_fault)
        if not len(records):
            raise ValueError("records must hold at least one picture, got none")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.records = tuple(records)
        self.augmentation = augmentation
        self.assignment = assignment
        self.network = network
        self.seed = seed
        self.on_fault = on_fault

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of an epoch and an index, which depends on nothing but these and the seed.

        Raises:
            DatasetError: The data is wrong and `on_fault` is "fail", or picture after picture cannot be
                decoded.
            IndexError: There is no such index.
        """
        from .targets import make_targets

        started = time.perf_counter()
        augmented, faults = self.augmented(key)
        loaded = time.perf_counter()
        targets = make_targets(
            _anchors(self.augmentation.side, self.network.anchors),
            augmented.boxes,
            augmented.landmarks,
            ignored=augmented.ignored,
            config=self.assignment,
            variances=self.network.variances,
        )
        return Sample(
            image=augmented.image,
            targets=targets,
            load_seconds=loaded - started,
            assign_seconds=time.perf_counter() - loaded,
            faults=tuple(faults),
        )

    def augmented(self, key: tuple[int, int]) -> tuple[Augmented, list[str]]:
        """Return the training picture of a sample with its faces, and what was wrong; else as indexing."""
        epoch, index = key
        if not 0 <= index < len(self.records):
            raise IndexError(f"index must be from 0 to {len(self.records) - 1}, got {index}")
        rng = generator(self.seed, SAMPLE, epoch, index)
        faults: list[str] = []
        record, image = self._load(index, rng, faults)
        record = leave_out_what_is_outside(record, image.shape[:2], faults)
        if faults and self.on_fault == "fail":
            raise DatasetError(faults[0])
        augmented = augment(
            image,
            record.boxes,
            record.landmarks,
            config=self.augmentation,
            rng=rng,
            mean_bgr=self.network.mean_bgr,
            ignored=record.ignored,
        )
        return augmented, faults

    def _load(self, index: int, rng: np.random.Generator, faults: list[str]) -> tuple[Record, UInt8Array]:
        for _ in range(_ATTEMPTS):
            record = self.records[index]
            try:
                return record, read_image(record.image).pixels
            except ImageError as error:
                fault = f"{record.source}: expected a picture, got {error}"
            if self.on_fault == "fail":
                raise DatasetError(fault)
            faults.append(f"{fault}; another is taken in its place")
            index = int(rng.integers(len(self.records)))
        raise DatasetError(f"{faults[-1]}, but {_ATTEMPTS} pictures in a row could not be decoded")


@lru_cache(maxsize=4)
def _anchors(side: int, config: AnchorConfig) -> FloatArray:
    anchors = generate_anchors((side, side), config=config)
    anchors.flags.writeable = False
    return anchors


def leave_out_what_is_outside(record: Record, size_hw: tuple[int, int], faults: list[str]) -> Record:
    """Return the record without the boxes that lie wholly outside a picture of this size, noting them."""
    height, width = size_hw
    boxes = record.boxes
    is_inside: BoolArray = np.all(
        np.minimum(boxes[:, 2:], (width, height)) > np.maximum(boxes[:, :2], 0), axis=1
    )
    if is_inside.all():
        return record
    for row in np.flatnonzero(~is_inside).tolist():
        corners = ", ".join(f"{value:g}" for value in boxes[row].tolist())
        faults.append(
            f"{record.place(row)}: expected a box inside the picture of {width}x{height} pixels, got "
            f"{corners}, wholly outside"
        )
    return keep_faces(record, is_inside)
