"""The official ground truth: the real one against an oracle, and files that are damaged."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import DatasetError, MissingDependencyError, data
from tests.reference import wider_ap

if TYPE_CHECKING:
    from pathlib import Path

scipy_io = pytest.importorskip("scipy.io")


def cells(values: list[Any]) -> np.ndarray:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def variables(counted: list[list[int]], **changes: Any) -> dict[str, Any]:
    """Two events with three pictures of 2, 1 and 0 faces."""
    boxes = [np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[9, 9, 0, 0]]), np.empty((0, 4))]
    numbers = [np.array(each, dtype=np.uint8).reshape(-1, 1) for each in counted]
    found = {
        "event_list": cells(["0--A", "1--B"]),
        "file_list": cells([cells(["x", "y"]), cells(["z"])]),
        "face_bbx_list": cells([cells(boxes[:2]), cells(boxes[2:])]),
        "gt_list": cells([cells(numbers[:2]), cells(numbers[2:])]),
    }
    for attribute in data.ATTRIBUTES:
        found[f"{attribute}_label_list"] = cells(
            [cells([np.array([[0], [2]]), np.array([[1]])]), cells([np.empty((0, 0))])]
        )
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}


COUNTED = {"easy": [[1], [], []], "medium": [[1, 2], [], []], "hard": [[2, 1], [1], []]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subset, counted in COUNTED.items():
        scipy_io.savemat(tmp_path / f"wider_{subset}_val.mat", variables(counted))
    scipy_io.savemat(tmp_path / "wider_face_val.mat", variables(COUNTED["hard"], gt_list=None))
    return tmp_path


def test_small_files(folder: Path) -> None:
    truth = data.read_ground_truth(folder)
    assert truth.names == ("0--A/x", "0--A/y", "1--B/z")
    np.testing.assert_array_equal(truth.boxes, [[1, 2, 4, 6], [5, 6, 12, 14], [9, 9, 9, 9]])
    assert truth.offsets.tolist() == [0, 2, 3, 3]
    assert {subset: mask.tolist() for subset, mask in truth.counted.items()} == {
        "easy": [True, False, False],
        "medium": [True, True, False],
        "hard": [True, True, True],
    }
    assert (truth.boxes.dtype, truth.offsets.dtype) == (np.float64, np.int64)
    attributes = data.read_attributes(folder, ["1--B/z", "0--A/x"])
    assert list(attributes) == list(data.ATTRIBUTES)
    assert [values.tolist() for values in attributes.values()] == [[0, 2]] * len(data.ATTRIBUTES)


def test_names_that_are_chosen(folder: Path) -> None:
    truth = data.read_ground_truth(folder, iter(["1--B/z", "0--A/y"]))
    assert truth.names == ("1--B/z", "0--A/y")
    assert truth.offsets.tolist() == [0, 0, 1]
    assert truth.counted["hard"].tolist() == [True]
    nothing = data.read_ground_truth(folder, [])
    assert (len(nothing), nothing.boxes.shape, nothing.offsets.tolist()) == (0, (0, 4), [0])
    assert nothing.counted["easy"].shape == (0,)


def test_names_that_nobody_knows(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"it does not know 5 of 6: 'a/0', 'a/1', 'a/2', …$"):
        data.read_ground_truth(folder, ["0--A/x", *(f"a/{number}" for number in range(5))])
    with pytest.raises(ValueError, match="names must hold each picture once, got '0--A/x' again"):
        data.read_ground_truth(folder, ["0--A/x", "0--A/y", "0--A/x"])


def test_the_real_files_against_the_oracle(wider_dir: Path) -> None:
    folder = wider_dir / "ground_truth"
    expected = wider_ap.read_ground_truth(folder)
    truth = data.read_ground_truth(folder)
    assert list(truth.names) == list(expected)
    assert (len(truth), len(truth.boxes)) == (3226, 39708)
    for index, picture in enumerate(expected.values()):
        part = slice(truth.offsets[index], truth.offsets[index + 1])
        np.testing.assert_array_equal(truth.boxes[part, :2], picture.boxes[:, :2])
        np.testing.assert_array_equal(truth.boxes[part, 2:] - truth.boxes[part, :2], picture.boxes[:, 2:])
        for subset in data.SUBSETS:
            np.testing.assert_array_equal(truth.counted[subset][part], picture.counted[subset])
    # As the authors of other evaluations count them.
    assert [int(truth.counted[subset].sum()) for subset in data.SUBSETS] == [7211, 13319, 31958]
    names = data.read_names(wider_dir / "images.txt")
    part = data.read_ground_truth(folder, names)
    faces = sum(len(expected[name].boxes) for name in names)
    assert (list(part.names), len(part.boxes)) == (names, faces)


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no/wider_easy_val.mat: cannot be read: No such file"):
        data.read_ground_truth(tmp_path / "no")
    (folder / "wider_hard_val.mat").unlink()
    with pytest.raises(DatasetError, match=r"wider_hard_val.mat: cannot be read"):
        data.read_ground_truth(folder)


NUMBERS = [np.array([[1]]), np.array([[1]])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gt_list": None}, "expected the variable gt_list, which it lacks"),
        ({"event_list": cells(["0--A"])}, "expected names in event_list and file_list, got something else"),
        ({"event_list": cells(["0--A", 7])}, "expected names in event_list and file_list"),
        ({"event_list": 7}, "expected names in event_list and file_list"),
        (
            {"event_list": cells(["0--A", ".."])},
            r"expected names of pictures, .* got the name '\.\./z'",
        ),
        ({"file_list": cells([cells(["x", "x"]), cells(["z"])])}, "each once, got a picture twice"),
        ({"gt_list": cells([cells(NUMBERS)])}, "expected a cell of gt_list for each picture, got others"),
        ({"gt_list": cells([cells(NUMBERS), cells(NUMBERS)])}, "expected a cell of gt_list for each picture"),
        ({"gt_list": 7}, "expected a cell of gt_list for each picture"),
        (
            {"gt_list": cells([cells([np.array([[1, 2]]), NUMBERS[1]]), cells([np.empty((0, 0))])])},
            r"expected \(N, 1\) numbers as gt_list of 0--A/x, got \(1, 2\) int64",
        ),
        (
            {"gt_list": cells([cells(["a", NUMBERS[1]]), cells([np.empty((0, 0))])])},
            r"expected \(N, 1\) numbers as gt_list of 0--A/x, got \(1,\) <U1",
        ),
        (
            {"gt_list": cells([cells([np.array([[3]]), NUMBERS[1]]), cells([np.empty((0, 0))])])},
            r"expected numbers from 1 to 2, those of its boxes, as gt_list of 0--A/x, got \[3.0\]",
        ),
        (
            {"gt_list": cells([cells([np.array([[0.5]]), NUMBERS[1]]), cells([np.empty((0, 0))])])},
            "expected numbers from 1 to 2",
        ),
        (
            {"face_bbx_list": cells([cells([np.full((2, 4), np.nan)] * 2), cells([np.empty((0, 4))])])},
            "face_bbx_list of 0--A/x is not finite or out of all bounds",
        ),
    ],
)
def test_files_that_say_something_else(changes: dict, message: str, folder: Path) -> None:
    scipy_io.savemat(folder / "wider_easy_val.mat", variables(COUNTED["easy"], **changes))
    with pytest.raises(DatasetError, match=f"wider_easy_val.mat: .*{message}"):
        data.read_ground_truth(folder)


def test_subsets_of_other_pictures(folder: Path) -> None:
    other = variables(COUNTED["hard"], event_list=cells(["0--A", "2--C"]))
    scipy_io.savemat(folder / "wider_hard_val.mat", other)
    with pytest.raises(DatasetError, match=r"wider_hard_val.mat: expected the pictures of wider_easy_val"):
        data.read_ground_truth(folder)


def test_an_attribute_out_of_bounds(folder: Path) -> None:
    wrong = cells([cells([np.array([[0], [200]]), np.array([[1]])]), cells([np.empty((0, 0))])])
    scipy_io.savemat(folder / "wider_face_val.mat", variables(COUNTED["hard"], blur_label_list=wrong))
    with pytest.raises(DatasetError, match="expected values from 0 to 127 in blur_label_list"):
        data.read_attributes(folder)


@pytest.mark.filterwarnings("ignore")  # what SciPy says of a damaged file is its own business
@settings(deadline=None, max_examples=150)
@given(where=st.integers(0, 10**6), text=st.one_of(st.none(), st.binary(max_size=300)))
def test_a_damaged_file_is_a_dataset_error(
    where: int, text: bytes | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Cut off, or nothing of the kind. Where bytes within a file are changed, SciPy itself may crash.
    folder = tmp_path_factory.getbasetemp() / "damaged"
    path = folder / "wider_easy_val.mat"
    if not folder.exists():
        folder.mkdir()
        for subset, counted in COUNTED.items():
            scipy_io.savemat(folder / f"wider_{subset}_val.mat", variables(counted))
        shutil.copy(path, folder / "whole.mat")
    content = (folder / "whole.mat").read_bytes()
    where %= len(content)
    path.write_bytes(content[:where] if text is None else text)
    try:
        data.read_ground_truth(folder)
    except DatasetError as error:
        assert str(path) in str(error) or "wider_medium_val.mat" in str(error)  # noqa: PT017


def test_without_scipy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependencyError, match=r'WIDER FACE: .*pip install "retinaface-fast\[eval\]"'):
        data.read_ground_truth(folder)
