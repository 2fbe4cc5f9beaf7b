"""Where dlib's model files are: in the package `face-recognition-models`, or at a path.

Nothing is downloaded. That package cannot be imported without the long gone `pkg_resources`, so its files are
found through its installation record.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_fast.errors import MissingDependencyError, WeightsError

if TYPE_CHECKING:
    import os

__all__ = ["DLIB_MODELS", "DlibModel", "find_dlib_model", "import_dlib"]

_DISTRIBUTION = "face-recognition-models"


@dataclass(frozen=True, slots=True)
class DlibModel:
    """One of dlib's model files.

    Attributes:
        file: Its name.
        purpose: What it does, as the end of the sentence "… is needed for".
        licence: What its authors allow.
    """

    file: str
    purpose: str
    licence: str


#: The model files by name.
DLIB_MODELS = {
    "cnn": DlibModel("mmod_human_face_detector.dat", "dlib's CNN face detector", "CC0 1.0 (public domain)"),
    "landmarks-5": DlibModel(
        "shape_predictor_5_face_landmarks.dat", "dlib's five landmarks", "CC0 1.0 (public domain)"
    ),
    "landmarks-68": DlibModel(
        "shape_predictor_68_face_landmarks.dat",
        "dlib's 68 landmarks",
        "trained on iBUG 300-W, whose licence excludes commercial use",
    ),
    "embedding": DlibModel(
        "dlib_face_recognition_resnet_model_v1.dat",
        "dlib's face embedding of 128 numbers",
        "CC0 1.0 (public domain)",
    ),
}


def import_dlib(purpose: str) -> Any:
    """Import dlib, or say what to install.

    Args:
        purpose: What it is needed for, as the end of the sentence "dlib is needed for …".

    Raises:
        MissingDependencyError: It cannot be imported.
    """
    try:
        import dlib
    except ImportError as error:
        raise MissingDependencyError(
            "dlib",
            purpose=purpose,
            advice='install it with pip install "retinaface-fast[dlib]"; dlib-bin has no wheels for Python '
            "before 3.11, where pip install dlib compiles it",
        ) from error
    return dlib


def find_dlib_model(name: str, path: str | os.PathLike[str] | None = None) -> Path:
    """Find a model file of dlib.

    Args:
        name: A key of `DLIB_MODELS`.
        path: The file itself; None looks into the installed package `face-recognition-models`.

    Returns:
        Path of a file that exists.

    Raises:
        ValueError: There is no model of that name.
        WeightsError: There is no file at `path`, or the installed package lacks it.
        MissingDependencyError: No path was given, and the package is not installed.
    """
    if name not in DLIB_MODELS:
        raise ValueError(f"name must be one of {', '.join(DLIB_MODELS)}, got {name!r}")
    model = DLIB_MODELS[name]
    if path is not None:
        given = Path(path)
        if not given.is_file():
            raise WeightsError(f"{given}: no such file ({model.file} is needed for {model.purpose})")
        return given
    found = _installed_files().get(model.file)
    if found is None or not found.is_file():
        raise WeightsError(f"the installed {_DISTRIBUTION} has no {model.file}, for {model.purpose}")
    return found


@lru_cache(maxsize=1)
def _installed_files() -> dict[str, Path]:
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            _DISTRIBUTION, purpose="the model files of dlib, where no path is given", extra="dlib"
        ) from error
    return {
        file.name: Path(str(distribution.locate_file(file)))
        for file in distribution.files or ()
        if file.suffix == ".dat"
    }
