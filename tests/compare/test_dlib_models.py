"""Where dlib's model files are looked for, and what is said where they are not."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from retinaface_fast.compare import DLIB_MODELS, DlibDetector, dlib_models, find_dlib_model
from retinaface_fast.errors import MissingDependencyError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def _fresh() -> Iterator[None]:
    dlib_models._installed_files.cache_clear()
    yield
    dlib_models._installed_files.cache_clear()


@pytest.mark.usefixtures("dlib_files")
@pytest.mark.parametrize("name", list(DLIB_MODELS))
def test_installed_files_are_found(name: str) -> None:
    path = find_dlib_model(name)
    assert path.is_file()
    assert path.name == DLIB_MODELS[name].file
    assert path.stat().st_size > 500_000


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.dat"
    with pytest.raises(
        WeightsError, match=r"other.dat: no such file \(mmod_human_face_detector.dat is needed"
    ):
        find_dlib_model("cnn", path)
    with pytest.raises(WeightsError, match="no such file"):
        find_dlib_model("cnn", tmp_path)
    path.write_bytes(b"")
    assert find_dlib_model("cnn", str(path)) == path


def test_an_unknown_model_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"name must be one of cnn, landmarks-5, .*, got 'foo'"):
        find_dlib_model("foo")


def test_licences_say_what_may_not_be_sold() -> None:
    assert "excludes commercial use" in DLIB_MODELS["landmarks-68"].licence
    assert all("CC0" in DLIB_MODELS[name].licence for name in ("cnn", "landmarks-5", "embedding"))


@pytest.mark.usefixtures("_fresh")
def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def _absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", _absent)
    with pytest.raises(MissingDependencyError, match=r"face-recognition-models.*retinaface-fast\[dlib\]"):
        find_dlib_model("cnn")


@pytest.mark.usefixtures("_fresh")
def test_a_package_without_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda _: type("Empty", (), {"files": None}))
    with pytest.raises(WeightsError, match="the installed face-recognition-models has no mmod_human"):
        find_dlib_model("cnn")


@pytest.mark.parametrize("kind", ["hog", "cnn"])
def test_missing_dlib_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from retinaface_fast.compare import _dlib_parts

    _dlib_parts._pickled_frontal_detector.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingDependencyError, match=r"dlib is needed for .*retinaface-fast\[dlib\]"):
        DlibDetector(kind)


@pytest.mark.parametrize(
    "code",
    [
        "import retinaface_fast.compare",
        "from retinaface_fast.compare import DlibDetector, find_dlib_model, DLIB_MODELS",
    ],
)
def test_importing_loads_neither_dlib_nor_opencv(code: str) -> None:
    code += "; import sys; print({'dlib', 'cv2', 'torch', 'jinja2', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_unknown_name_is_an_attribute_error() -> None:
    from retinaface_fast import compare

    with pytest.raises(AttributeError, match="has no attribute 'DlibDetektor'"):
        _ = compare.DlibDetektor
    assert "DlibDetector" in dir(compare)
