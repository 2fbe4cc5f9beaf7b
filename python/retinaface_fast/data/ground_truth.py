"""The official ground truth of the WIDER FACE validation set: MATLAB files, read with SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_fast.errors import DatasetError, MissingDependencyError

from ._text import MOST_PIXELS, wrong_name
from .records import ATTRIBUTES, SUBSETS, GroundTruth

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

__all__ = ["read_attributes", "read_ground_truth"]

#: How many of the names that nobody knows are listed.
_LISTED = 3


class _File:
    """One of the files: events in columns of cells, pictures in the cells of each.

    Args:
        path: Where it is.
        variables: What to read besides the names.

    Raises:
        DatasetError: It is missing, is none, or lacks a variable.
        MissingDependencyError: SciPy is not installed.
    """

    def __init__(self, path: Path, variables: Sequence[str]) -> None:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise MissingDependencyError(
                "scipy", purpose="reading the ground truth of WIDER FACE", extra="eval"
            ) from error
        self.path = path
        wanted = ("event_list", "file_list", *variables)
        try:
            self._variables = loadmat(str(path), appendmat=False, variable_names=wanted)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
        except Exception as error:  # a damaged file makes it raise anything
            raise DatasetError(f"{path}: this is no MATLAB file, or it is damaged: {error}") from error
        missing = [variable for variable in wanted if variable not in self._variables]
        if missing:
            raise DatasetError(f"{path}: expected the variable {missing[0]}, which it lacks")
        events = [_text(cell) for cell in self._cells("event_list")]
        files = [[_text(cell) for cell in _column(cells)] for cells in self._cells("file_list")]
        if None in events or any(None in names for names in files) or len(files) != len(events):
            raise DatasetError(f"{path}: expected names in event_list and file_list, got something else")
        #: The pictures, `event/name`, in the order of the file.
        self.names = [f"{event}/{name}" for event, names in zip(events, files, strict=True) for name in names]
        wrong = [name for name in self.names if wrong_name(name)]
        if wrong or len(set(self.names)) < len(self.names):
            what = f"the name {wrong[0]!r}" if wrong else "a picture twice"
            raise DatasetError(f"{path}: expected names of pictures, each once, got {what}")
        self._pictures = [len(names) for names in files]

    def _cells(self, variable: str) -> list[Any]:
        return _column(self._variables[variable])

    def arrays(self, variable: str, columns: int) -> list[npt.NDArray[np.float64]]:
        """Return the (N, columns) float64 array of each picture, in the order of `names`.

        Raises:
            DatasetError: One has another shape, or holds something else than finite numbers.
        """
        cells = [_column(event) for event in self._cells(variable)]
        if [len(pictures) for pictures in cells] != self._pictures:
            raise DatasetError(f"{self.path}: expected a cell of {variable} for each picture, got others")
        arrays = []
        for name, cell in zip(self.names, (cell for event in cells for cell in event), strict=True):
            array = np.asarray(cell)
            if array.dtype.kind not in "biuf" or (
                array.size and array.shape != (array.size // columns, columns)
            ):
                raise DatasetError(
                    f"{self.path}: expected (N, {columns}) numbers as {variable} of {name}, got "
                    f"{array.shape} {array.dtype}"
                )
            array = array.astype(np.float64).reshape(-1, columns)
            if not (np.abs(array) <= MOST_PIXELS).all():
                raise DatasetError(f"{self.path}: {variable} of {name} is not finite or out of all bounds")
            arrays.append(array)
        return arrays


def _column(cells: Any) -> list[Any]:
    """Return the cells of a MATLAB column, none of something else: whoever counts them will notice."""
    return list(cells.ravel()) if isinstance(cells, np.ndarray) and cells.dtype == object else []


def _text(cell: Any) -> str | None:
    """Return the text of a cell, None if it holds none."""
    is_text = isinstance(cell, np.ndarray) and cell.dtype.kind == "U" and cell.size == 1
    return str(cell.item()) if is_text else None


def read_ground_truth(folder: str | os.PathLike[str], names: Iterable[str] | None = None) -> GroundTruth:
    """Read `wider_easy_val.mat`, `wider_medium_val.mat` and `wider_hard_val.mat`.

    Args:
        folder: Where they are; `wider_face_val.mat` is not needed.
        names: The pictures to take, `event/name`; None takes all 3,226.

    Returns:
        Boxes of the pictures, and which of them count in each subset.

    Raises:
        DatasetError: A file is missing or damaged, or they do not have the same faces.
        ValueError: The files do not know one of `names`, or it is there twice.
        MissingDependencyError: SciPy is not installed.
    """
    files = {subset: _subset_file(folder, subset) for subset in SUBSETS}
    first = files[SUBSETS[0]]
    boxes = first.arrays("face_bbx_list", 4)
    counted = {}
    for subset, file in files.items():
        if file.names != first.names:
            raise DatasetError(f"{file.path}: expected the pictures of {first.path.name}, got others")
        counted[subset] = _counted(file, boxes)
    chosen = _choose(first.names, names)
    taken = [boxes[index] for index in chosen]
    rows = np.concatenate(taken) if taken else np.empty((0, 4))
    return GroundTruth(
        names=tuple(first.names[index] for index in chosen),
        boxes=np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1),
        offsets=np.cumsum([0, *map(len, taken)], dtype=np.int64),
        counted={
            subset: np.concatenate([masks[index] for index in chosen] or [np.empty(0, dtype=bool)])
            for subset, masks in counted.items()
        },
    )


def _subset_file(folder: str | os.PathLike[str], subset: str) -> _File:
    # The boxes are the same in all of them.
    boxes = ["face_bbx_list"] if subset == SUBSETS[0] else []
    return _File(Path(folder) / f"wider_{subset}_val.mat", ["gt_list", *boxes])


def _counted(file: _File, boxes: Sequence[npt.NDArray[np.float64]]) -> list[npt.NDArray[np.bool_]]:
    masks = []
    for name, of_picture, numbers in zip(file.names, boxes, file.arrays("gt_list", 1), strict=True):
        if ((numbers < 1) | (numbers > len(of_picture)) | (numbers != np.floor(numbers))).any():
            raise DatasetError(
                f"{file.path}: expected numbers from 1 to {len(of_picture)}, those of its boxes, as gt_list "
                f"of {name}, got {numbers.ravel().tolist()}"
            )
        mask = np.zeros(len(of_picture), dtype=bool)
        mask[numbers.ravel().astype(np.int64) - 1] = True
        masks.append(mask)
    return masks


def _choose(known: Sequence[str], names: Iterable[str] | None) -> list[int]:
    if names is None:
        return list(range(len(known)))
    wanted = list(names)
    index_of = {name: index for index, name in enumerate(known)}
    unknown = [name for name in wanted if name not in index_of]
    if unknown:
        listed = ", ".join(map(repr, unknown[:_LISTED])) + (", …" if len(unknown) > _LISTED else "")
        raise ValueError(
            f"names must be pictures of the ground truth, event/name; it does not know {len(unknown):,} of "
            f"{len(wanted):,}: {listed}"
        )
    if len(set(wanted)) < len(wanted):
        twice = next(name for index, name in enumerate(wanted) if name in wanted[:index])
        raise ValueError(f"names must hold each picture once, got {twice!r} again")
    return [index_of[name] for name in wanted]


def read_attributes(
    folder: str | os.PathLike[str], names: Iterable[str] | None = None
) -> dict[str, npt.NDArray[np.int8]]:
    """Read `wider_face_val.mat`: what was annotated of each face besides its box.

    Args:
        folder: Where it is.
        names: As for `read_ground_truth`.

    Returns:
        (G,) int8 for each of `ATTRIBUTES`, in the order of the boxes of `read_ground_truth`.

    Raises:
        DatasetError: The file is missing or damaged.
        ValueError: The file does not know one of `names`, or it is there twice.
        MissingDependencyError: SciPy is not installed.
    """
    variables = {attribute: f"{attribute}_label_list" for attribute in ATTRIBUTES}
    file = _File(Path(folder) / "wider_face_val.mat", list(variables.values()))
    chosen = _choose(file.names, names)
    attributes = {}
    for attribute, variable in variables.items():
        columns = file.arrays(variable, 1)
        values = np.concatenate([columns[index] for index in chosen] or [np.empty((0, 1))])
        if ((values < 0) | (values > 127)).any():
            raise DatasetError(f"{file.path}: expected values from 0 to 127 in {variable}, got others")
        attributes[attribute] = values.ravel().astype(np.int8)
    return attributes
