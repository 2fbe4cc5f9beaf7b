"""What training data comes to, before an hour is spent on it: its faults, and what the network will see."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retinaface_fast._image_file import checked_header, read_bytes
from retinaface_fast.errors import ImageError
from retinaface_fast.image import pixel_limit, read_image
from retinaface_fast.ops import generate_anchors

from ._check_sheet import TILES, draw_sheet
from .dataset import TrainingDataset, leave_out_what_is_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from retinaface_fast._typing import BoolArray, FloatArray, UInt8Array
    from retinaface_fast.network.config import RetinaFaceConfig

    from .augmentation import Augmented
    from .recipe import Recipe
    from .records import Record

__all__ = ["SIZES", "DataReport", "check_data", "report_lines"]

#: Upper ends of the classes of faces by height, in pixels; a face belongs to the first that it is below.
_EDGES = (8, 16, 32, 64, 128, 256)

#: The names of these classes.
SIZES = (
    f"<{_EDGES[0]}",
    *(f"{low}-{high}" for low, high in pairwise(_EDGES)),
    f">={_EDGES[-1]}",
)

#: Annotations are whole pixels: a box leaves its picture only if it does by more than this.
_TOLERANCE = 1.0
_EXAMPLES = 5


@dataclass(frozen=True, slots=True, eq=False)
class DataReport:
    """What a data set holds.

    Attributes:
        pictures: All pictures.
        without_faces: Pictures without a face that is trained on.
        unreadable: Pictures that cannot be read.
        faces: Faces that are trained on.
        ignored: Faces that are neither face nor background.
        with_landmarks: Faces that are trained on with at least one landmark.
        mirrored: Those of them whose left eye lies right of the right one. A few lie on their side or stand
            on their head; if it is most, the data means the person's left, and this package the image's.
        sizes: Faces that are trained on by height in pixels of their pictures, by `SIZES`.
        leaving: Boxes, ignored ones among them, that leave their picture by more than a pixel.
        leaving_examples: Some of them, as `file:line: x1, y1, x2, y2 in width x height`.
        faults: All that is wrong with the data, each as `file:line: what`; a fault is left out.
        augmented_pictures: Pictures that were augmented as in the first epoch.
        augmented_faces: Faces in them that are trained on.
        augmented_ignored: Faces in them that are neither face nor background.
        augmented_sizes: As `sizes`, in pixels of the training pictures.
        unmatched: Faces of `augmented_faces` without a single anchor: they teach nothing.
        anchors: Anchors of the augmented pictures that are faces.
        sheet: (H, W, 3) uint8 BGR: some of the augmented pictures, with their faces.
    """

    pictures: int
    without_faces: int
    unreadable: int
    faces: int
    ignored: int
    with_landmarks: int
    mirrored: int
    sizes: Mapping[str, int]
    leaving: int
    leaving_examples: tuple[str, ...]
    faults: tuple[str, ...]
    augmented_pictures: int
    augmented_faces: int
    augmented_ignored: int
    augmented_sizes: Mapping[str, int]
    unmatched: int
    anchors: int
    sheet: UInt8Array


def check_data(
    records: Sequence[Record],
    faults: Sequence[str],
    *,
    recipe: Recipe,
    network: RetinaFaceConfig,
    seed: int,
    decode: bool = True,
    samples: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at every picture, augment some as training will, and count.

    Args:
        records: The pictures, at least one; pass `RecordSet.records`.
        faults: What reading them found wrong, `RecordSet.faults`.
        recipe: How they are augmented, and which anchors are faces.
        network: Whose anchors; as a rule `recipe.network.config()`.
        seed: Of the choice of the pictures that are augmented and of what is drawn for each.
        decode: Whether every picture is decoded: it takes some milliseconds each. Otherwise only their
            headers are read, which finds those that are no pictures or cut off, not those damaged within.
        samples: Pictures that are augmented, at least 1; fewer if there are no more.
        progress: Called after each picture that was looked at, with the number of those and of all.

    Returns:
        The report. Pictures that cannot be read are counted, their faces too.

    Raises:
        ValueError: There are no records, or `samples` is less than 1.
        DatasetError: Picture after picture cannot be decoded.
    """
    if not len(records):
        raise ValueError("records must hold at least one picture, got none")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    found = list(faults)
    leaving: list[str] = []
    unreadable = 0
    for number, record in enumerate(records, start=1):
        try:
            size_hw = _size_hw(record, decode)
        except ImageError as error:
            unreadable += 1
            found.append(f"{record.source}: expected a picture, got {error}")
        else:
            leaving += _leaving(leave_out_what_is_outside(record, size_hw, found), size_hw)
        if progress is not None:
            progress(number, len(records))
    trained = [~record.ignored for record in records]
    faces = int(sum(np.count_nonzero(mask) for mask in trained))
    landmarks = [record.landmarks[mask] for record, mask in zip(records, trained, strict=True)]
    augmented = _augment(records, recipe, network, seed, samples)
    known = {fault.partition(": ")[0] for fault in found}
    named = {record.source for record in records}
    for fault in augmented.faults:  # where not all were decoded, there may be more
        place = fault.partition(": ")[0]
        if place not in known:
            known.add(place)
            found.append(fault)
            unreadable += place in named
    return DataReport(
        pictures=len(records),
        without_faces=sum(not mask.any() for mask in trained),
        unreadable=unreadable,
        faces=faces,
        ignored=sum(len(record.boxes) for record in records) - faces,
        with_landmarks=sum(int((~np.isnan(points)).any(axis=(1, 2)).sum()) for points in landmarks),
        mirrored=sum(int((points[:, 0, 0] > points[:, 1, 0]).sum()) for points in landmarks),
        sizes=_by_size([record.boxes[mask] for record, mask in zip(records, trained, strict=True)]),
        leaving=len(leaving),
        leaving_examples=tuple(leaving[:_EXAMPLES]),
        faults=tuple(found),
        augmented_pictures=augmented.pictures,
        augmented_faces=sum(map(len, augmented.boxes)),
        augmented_ignored=augmented.ignored,
        augmented_sizes=_by_size(augmented.boxes),
        unmatched=augmented.unmatched,
        anchors=augmented.anchors,
        sheet=augmented.sheet,
    )


def _size_hw(record: Record, decode: bool) -> tuple[int, int]:
    if decode:
        height, width = read_image(record.image).pixels.shape[:2]
        return height, width
    limit = pixel_limit(None)
    name, data = read_bytes(record.image, limit)
    header = checked_header(name, data, limit)
    height, width = header.size_hw
    return (width, height) if header.orientation > 4 else (height, width)


def _leaving(record: Record, size_hw: tuple[int, int]) -> list[str]:
    height, width = size_hw
    boxes = record.boxes
    leaves = (boxes[:, :2] < -_TOLERANCE).any(axis=1)
    leaves |= (boxes[:, 2:] > np.add((width, height), _TOLERANCE)).any(axis=1)
    return [
        f"{record.place(row)}: {', '.join(f'{value:g}' for value in boxes[row].tolist())} in {width}x{height}"
        for row in np.flatnonzero(leaves).tolist()
    ]


def _by_size(boxes: Sequence[FloatArray]) -> dict[str, int]:
    heights = np.concatenate([each[:, 3] - each[:, 1] for each in boxes] or [np.zeros(0)])
    counts = Counter(np.searchsorted(_EDGES, heights, side="right").tolist())
    return {name: counts[index] for index, name in enumerate(SIZES)}


@dataclass(frozen=True, slots=True, eq=False)
class _AugmentedPictures:
    pictures: int
    boxes: list[FloatArray]
    ignored: int
    unmatched: int
    anchors: int
    sheet: UInt8Array
    faults: list[str]


def _augment(
    records: Sequence[Record], recipe: Recipe, network: RetinaFaceConfig, seed: int, samples: int
) -> _AugmentedPictures:
    from .assignment import assign_anchors

    dataset = TrainingDataset(
        records,
        augmentation=recipe.augmentation,
        assignment=recipe.assignment,
        network=network,
        seed=seed,
    )
    chosen = np.random.default_rng(seed).permutation(len(records))[:samples]
    side = recipe.augmentation.side
    anchors = generate_anchors((side, side), config=network.anchors)
    boxes: list[FloatArray] = []
    faults: list[str] = []
    shown: list[tuple[Augmented, int]] = []
    ignored = unmatched = positives = 0
    for index in chosen.tolist():
        augmented, noted = dataset.augmented((0, index))
        faults += noted
        of_face = assign_anchors(
            anchors, augmented.boxes, config=recipe.assignment, ignored=augmented.ignored
        )
        trained: BoolArray = ~augmented.ignored
        boxes.append(augmented.boxes[trained])
        ignored += len(trained) - len(boxes[-1])
        unmatched += int(np.count_nonzero(trained) - len(np.unique(of_face[of_face >= 0])))
        count = int(np.count_nonzero(of_face >= 0))
        positives += count
        if len(shown) < TILES:
            shown.append((augmented, count))
    return _AugmentedPictures(len(chosen), boxes, ignored, unmatched, positives, draw_sheet(shown), faults)


def report_lines(report: DataReport) -> list[str]:
    """Put a report into words, a line for each thing."""
    lines = [
        f"{report.pictures:,} pictures, {report.without_faces:,} of them without a face to train on",
        f"{report.faces:,} faces and {report.ignored:,} ignored; {report.with_landmarks:,} with landmarks",
        f"{report.mirrored:,} of these have their left eye right of the right one",
        f"height in the pictures:  {_in_words(report.sizes)}",
        f"{report.leaving:,} boxes leave their picture and are clipped",
        *(f"  {example}" for example in report.leaving_examples),
        f"{report.augmented_pictures:,} pictures augmented",
        f"{report.augmented_faces:,} faces in them and {report.augmented_ignored:,} ignored",
        f"height after that:       {_in_words(report.augmented_sizes)}",
        f"{_share(report.unmatched, report.augmented_faces)} of them ({report.unmatched:,}) have no anchor",
        f"{report.anchors / report.augmented_pictures:.1f} anchors of a picture are faces",
        f"{len(report.faults):,} faults, {report.unreadable:,} of them pictures that cannot be read",
        *(f"  {fault}" for fault in report.faults[:_EXAMPLES]),
    ]
    if len(report.faults) > _EXAMPLES:
        lines.append(f"  … and {len(report.faults) - _EXAMPLES:,} more")
    return lines


def _in_words(sizes: Mapping[str, int]) -> str:
    total = sum(sizes.values())
    return ", ".join(f"{name} px {count:,} ({_share(count, total)})" for name, count in sizes.items())


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(1, total):.1f} %"
