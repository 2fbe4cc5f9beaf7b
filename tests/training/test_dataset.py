"""The data set: the same sample for the same key, whatever came before, and what it does about wrong data."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retinaface_fast import DatasetError, ops
from retinaface_fast.network.config import CONFIGS
from retinaface_fast.training.dataset import TrainingDataset
from retinaface_fast.training.recipe import AssignmentSection, AugmentationSection
from retinaface_fast.training.records import Record, read_records

if TYPE_CHECKING:
    from pathlib import Path

    from retinaface_fast.training.batch import Sample

NETWORK = CONFIGS["mobilenet0.25"]
PLAIN = AugmentationSection(
    side=128, crop_scales=(1.0,), distort=False, flip=0, interpolations=("nearest",), crop_attempts=1
)


def record(path: Path, line: int, boxes: Any = ((20, 30, 60, 80),), **changes: Any) -> Record:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    usual: dict[str, Any] = {
        "landmarks": np.full((len(corners), 5, 2), np.nan, np.float32),
        "ignored": np.zeros(len(corners), bool),
        "source": f"label.txt:{line}",
        "numbers": line + 1 + np.arange(len(corners)),
    }
    return Record(path, corners, **(usual | changes))


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    found = []
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        found.append(record(tmp_path / f"{number}.png", 10 * number))
    return found


def dataset(records: list[Record], **changes: Any) -> TrainingDataset:
    usual = {"augmentation": AugmentationSection(side=96), "assignment": AssignmentSection(), "seed": 5}
    return TrainingDataset(records, network=NETWORK, **(usual | changes))


def same(first: Sample, second: Sample) -> bool:
    pairs = [(first.image, second.image)] + [
        (getattr(first.targets, each.name), getattr(second.targets, each.name))
        for each in dataclasses.fields(first.targets)
    ]
    return all(np.array_equal(one, other) for one, other in pairs) and first.faults == second.faults


def test_a_sample_depends_on_its_key_alone(records: list[Record]) -> None:
    data = dataset(records)
    assert len(data) == 6
    first = data[3, 2]
    for key in ((3, 1), (0, 2), (3, 3)):
        assert not same(first, data[key])
    assert same(first, data[3, 2])
    assert same(first, dataset(records)[3, 2])
    assert same(first, pickle.loads(pickle.dumps(data))[3, 2])
    assert not same(first, dataset(records, seed=6)[3, 2])


def test_what_a_sample_is(records: list[Record]) -> None:
    data = dataset(records, augmentation=PLAIN)
    sample = data[0, 4]
    np.testing.assert_array_equal(sample.image, cv2.imread(str(records[4].image)))
    anchors = ops.generate_anchors((128, 128), config=NETWORK.anchors)
    assert sample.targets.labels.shape == (len(anchors),)
    # What the targets say, decoded by the code that reads the network, is the face.
    positives = sample.targets.positives
    assert len(positives)
    boxes = ops.decode_boxes(sample.targets.box_deltas, anchors[positives], variances=NETWORK.variances)
    np.testing.assert_allclose(boxes, np.tile(records[4].boxes, (len(positives), 1)), atol=1e-3)
    assert not sample.targets.landmark_mask.any()
    assert sample.faults == ()
    assert sample.load_seconds > 0
    assert sample.assign_seconds > 0


def test_ignored_faces_are_not_trained_on(records: list[Record]) -> None:
    two = record(records[0].image, 7, [[20, 30, 60, 80], [70, 20, 110, 60]], ignored=np.array([True, False]))
    sample = dataset([two], augmentation=PLAIN)[0, 0]
    anchors = ops.generate_anchors((128, 128), config=NETWORK.anchors)
    assert (anchors[sample.targets.positives, 0] > 60).all()
    assert (sample.targets.labels == -1).any()


def test_a_face_that_is_too_small_leaves_out_anchors(records: list[Record]) -> None:
    two = record(records[0].image, 7, [[20, 30, 60, 80], [90, 90, 95, 96]])
    anchors = ops.generate_anchors((128, 128), config=NETWORK.anchors)
    on_it = (np.abs(anchors[:, :2] - (92.5, 93)) <= 5).all(axis=1) & (anchors[:, 2] == 16)
    assert on_it.any()
    labels = {}
    for min_face in (0, 8):
        config = PLAIN.model_copy(update={"min_face": min_face})
        labels[min_face] = dataset([two], augmentation=config)[0, 0].targets.labels
    assert (labels[0][on_it] >= 0).all()
    assert (labels[8][on_it] == -1).all()
    np.testing.assert_array_equal(labels[8] == 1, (labels[0] == 1) & ~on_it)  # the other face keeps its own


def test_a_crowd_of_a_coco_file_leaves_out_the_anchors_in_it(tmp_path: Path, records: list[Record]) -> None:
    faces = [
        {"image_id": 1, "bbox": [4, 4, 80, 80], "iscrowd": 1},
        {"image_id": 1, "bbox": [96, 90, 20, 24]},
    ]
    content = {"images": [{"id": 1, "file_name": records[0].image.name}], "annotations": faces}
    (tmp_path / "faces.json").write_text(json.dumps(content))
    found = read_records(tmp_path / "faces.json", images=tmp_path).records
    targets = dataset(list(found), augmentation=PLAIN)[0, 0].targets
    anchors = ops.generate_anchors((128, 128), config=NETWORK.anchors)
    small = anchors[:, 2] <= 32
    centre_inside = ((anchors[:, :2] >= 20) & (anchors[:, :2] <= 68)).all(axis=1)
    far = (anchors[:, :2] > 84 + 16).any(axis=1)
    assert (targets.labels[small & centre_inside] == -1).all()
    assert (targets.labels[small & far] >= 0).all()
    assert (anchors[targets.positives, :2] > 84).all()


def test_orientation_is_honoured(tmp_path: Path) -> None:
    """Annotations are of the upright picture, 60 wide and 120 high here; its pixels are stored lying."""
    from PIL import Image

    lying = np.zeros((60, 120, 3), np.uint8)
    lying[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise: what is left lies at the top
    Image.fromarray(lying).save(tmp_path / "turned.png", exif=exif)
    found = record(tmp_path / "turned.png", 1, [[5, 60, 55, 118]])
    config = PLAIN.model_copy(update={"crop_scales": (2.0,), "side": 120})
    augmented, faults = dataset([found], augmentation=config).augmented((0, 0))
    assert faults == []
    white = np.nonzero((augmented.image == 255).all(axis=2))
    assert (white[0].min(), white[0].max()) == (0, 39)
    assert white[1].max() - white[1].min() == 59
    np.testing.assert_array_equal(augmented.boxes[:, 1::2], [[60, 118]])


def test_a_picture_that_cannot_be_decoded(records: list[Record]) -> None:
    content = records[2].image.read_bytes()
    for damage, words in (
        (content[:900], "truncated"),
        (b"", "empty"),
        (b"GIF no, text", "cannot|not|header"),
    ):
        records[2].image.write_bytes(damage)
        data = dataset(records)
        sample = data[0, 2]
        [fault] = sample.faults
        assert fault.startswith("label.txt:20: expected a picture, got ")
        assert fault.endswith("; another is taken in its place")
        assert str(records[2].image) in fault
        assert len(sample.targets.positives)
        assert same(sample, dataset(records)[0, 2])
        with pytest.raises(DatasetError, match=rf"^label.txt:20: expected a picture, got .*({words})"):
            dataset(records, on_fault="fail")[0, 2]
        assert dataset(records, on_fault="fail")[0, 1].faults == ()


def test_a_jpeg_that_is_cut_off(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "cut.jpg"
    cv2.imwrite(str(path), cv2.imread(str(records[0].image)))
    path.write_bytes(path.read_bytes()[:-2000])
    records.append(record(path, 99))
    assert dataset(records)[1, 6].faults[0].startswith("label.txt:99: expected a picture, got ")


def test_another_picture_is_drawn_by_the_key(records: list[Record]) -> None:
    records[2].image.unlink()
    data = dataset(records, augmentation=PLAIN)
    pictures = [cv2.imread(str(each.image)) for each in records if each.image.is_file()]
    taken = [
        next(index for index, picture in enumerate(pictures) if np.array_equal(picture, data[epoch, 2].image))
        for epoch in range(12)
    ]
    assert len(set(taken)) > 2


def test_nothing_but_damage_is_an_error(records: list[Record]) -> None:
    for each in records:
        each.image.unlink()
    with pytest.raises(DatasetError, match=r"^label.txt:\d+: .*20 pictures in a row could not be decoded"):
        dataset(records)[0, 0]


def test_a_box_outside_its_picture(records: list[Record]) -> None:
    boxes = [[20, 30, 60, 80], [128, 0, 140, 20], [100, 100, 140, 140], [-9, -9, 0, 0]]
    outside = record(records[0].image, 7, boxes)
    sample = dataset([outside], augmentation=PLAIN)[0, 0]
    assert len(dataset([outside], augmentation=PLAIN).augmented((0, 0))[0].boxes) == 2
    wanted = "expected a box inside the picture of 128x128 pixels, got"
    assert sample.faults == (
        f"label.txt:9: {wanted} 128, 0, 140, 20, wholly outside",
        f"label.txt:11: {wanted} -9, -9, 0, 0, wholly outside",
    )
    with pytest.raises(DatasetError, match=r"^label\.txt:9: expected a box inside"):
        dataset([outside], on_fault="fail")[0, 0]


def test_a_picture_without_faces(records: list[Record]) -> None:
    sample = dataset([record(records[0].image, 1, [])])[0, 0]
    assert len(sample.targets.positives) == 0
    assert (sample.targets.labels == 0).all()


def test_nothing_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    assert len(dataset([record(tmp_path / "no.jpg", 1)])) == 1


def test_what_it_does_not_take(records: list[Record]) -> None:
    with pytest.raises(ValueError, match="records must hold at least one picture, got none"):
        dataset([])
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        dataset(records, seed=-1)
    with pytest.raises(ValueError, match=r'on_fault must be "skip" or "fail", got None'):
        dataset(records, on_fault=None)
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"index must be from 0 to 5, got {index}"):
            dataset(records)[0, index]


def test_no_torch() -> None:
    code = (
        "import sys, retinaface_fast.training.dataset, retinaface_fast.training.targets\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
