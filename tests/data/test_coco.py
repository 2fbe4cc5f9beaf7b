"""COCO's format: boxes, and files that are something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import DatasetError, data

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = [{"id": 4, "file_name": "e/a.jpg"}, {"id": 2, "file_name": "b.png"}]


def test_boxes(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    faces = [
        {"id": 11, "image_id": 2, "bbox": [1, 2, 3.5, 4]},
        {"image_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"id": 13, "image_id": 2, "bbox": [5, 6, 7, 8], "iscrowd": 0},
    ]
    path.write_text(json.dumps({"images": IMAGES, "annotations": faces}))
    first, last = data.read_coco(path)
    assert (first.name, first.line, first.face_lines.tolist()) == ("e/a.jpg", 4, [1])  # no id: its place
    assert (last.name, last.line, last.face_lines.tolist()) == ("b.png", 2, [11, 13])
    np.testing.assert_array_equal(last.boxes, [[1, 2, 4.5, 6], [5, 6, 12, 14]])
    assert last.boxes.dtype == np.float32
    assert [each.attributes["invalid"].tolist() for each in (first, last)] == [[1], [0, 0]]


def test_faults(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    faces = [{"id": 11, "image_id": 3, "bbox": [1, 2, 3, 4]}, {"id": 12, "image_id": 2, "bbox": [1, 2, 3, 4]}]
    path.write_text(json.dumps({"images": IMAGES, "annotations": faces}))
    faults: list[str] = []
    assert [len(each.boxes) for each in data.read_coco(path, faults=faults)] == [0, 1]
    assert faults == [f"{path}:annotation 11: expected the id of a picture as image_id, got 3"]
    with pytest.raises(DatasetError, match=f"^{faults[0]}$"):
        data.read_coco(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no\.json: cannot be read: No such file"):
        data.read_coco(tmp_path / "no.json")


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text('{"images": [{"id": ' + "9" * 5000 + ', "file_name": "a"}], "annotations": []}')
    with pytest.raises(DatasetError, match=r"long\.json: expected JSON: .*digits"):
        data.read_coco(path)


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from(["id", "file_name", "image_id", "bbox", "iscrowd", "images", "annotations"]),
            inner,
        ),
    ),
    max_leaves=12,
)
_pictures = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 2), "file_name": st.sampled_from(["a", "b/c"])})
)
_faces = st.lists(st.fixed_dictionaries({"image_id": st.one_of(st.integers(0, 2), _values), "bbox": _values}))


@settings(deadline=None, max_examples=150)
@given(
    content=st.one_of(
        st.binary(max_size=40),
        _values.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries({"images": _pictures, "annotations": _faces}).map(
            lambda value: json.dumps(value).encode()
        ),
    )
)
def test_anything_is_read_or_a_dataset_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.json"
    path.write_bytes(content)
    try:
        for picture in data.read_coco(path, faults=[]):
            assert np.isfinite(picture.boxes).all()
    except DatasetError as error:
        assert str(path) in str(error)  # noqa: PT017
