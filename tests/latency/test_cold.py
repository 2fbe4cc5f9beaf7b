"""Cold starts, good and bad."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from retinaface_fast.latency import ROWS, Row, cold
from retinaface_fast.latency.cold import cold_starts
from retinaface_fast.latency.processes import environment

if TYPE_CHECKING:
    from pathlib import Path


def started(*rows: Row, runs: int = 1, limit: float = 120.0) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    cold_starts(rows, runs, limit=limit, results=results)
    return results


def broken(**options: str) -> Row:
    return Row("broken", "broken", "anywhere:own_engine", {"device": "cpu", **options})


def test_parts_make_up_the_total() -> None:
    results = started(broken(engine="none"), ROWS["native"], ROWS["native-default"], runs=2)
    assert list(results) == ["broken", "native"]
    assert "engine must be one of auto, native" in results["broken"]["failed"]
    native = results["native"]
    assert native["runs"] == 2
    for kind in ("min", "median"):
        parts = native[kind]
        assert all(seconds >= 0 for seconds in parts.values())
        assert parts["numpy"] <= parts["import"] <= parts["total"]
    assert native["min"]["total"] <= native["median"]["total"]


def test_who_hangs_is_given_up() -> None:
    assert started(ROWS["native"], limit=0.01)["native"] == {"failed": "no answer within 0.01 s"}


@pytest.mark.parametrize("tells", [True, False])
def test_what_libraries_say_at_the_exit(tells: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"total": 3.0, "import": 1.0, "build": 1.0, "detect": 1.0, "packages": {}}
    script = tmp_path / "script.py"
    script.write_text(f"print({json.dumps(sample) if tells else ''!r})\nprint('[info] good bye')\nprint(7)\n")
    monkeypatch.setattr(cold, "_SCRIPT", script)
    result = started(ROWS["native"])["native"]
    if tells:
        assert result["median"]["total"] == 3
    else:
        assert result == {"failed": "no times in its output, which ends in: 7"}


def test_modules_are_found_from_a_folder_that_is_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["modules", str(tmp_path)]))
    expected = [str(tmp_path / "modules"), str(tmp_path)]
    assert environment()["PYTHONPATH"].split(os.pathsep) == expected
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in environment()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older ones know no PYTHONSAFEPATH")
def test_the_script_takes_only_its_own_folder_from_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dlib.py").write_text("get_frontal_face_detector = lambda: lambda image, upsample: [1, 2]")
    monkeypatch.setenv(
        "PYTHONSAFEPATH", "1"
    )  # the folder of a script is not in the path, another one is first
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = started(Row("hog", "hog", "anywhere:dlib_hog"))
    assert found == {"hog": {"failed": "ValueError: 2 faces in a black picture"}}


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from retinaface_fast.compare import dlib_models
    from retinaface_fast.errors import WeightsError

    def missing(name: str) -> None:
        raise WeightsError(f"no {name}")

    monkeypatch.setattr(dlib_models, "find_dlib_model", missing)
    assert started(ROWS["dlib-cnn"]) == {"dlib-cnn": {"failed": "no cnn"}}


def test_who_has_no_way_of_its_own_is_left_out() -> None:
    assert started(Row("other", "other", "anywhere:other")) == {}


def test_an_interruption_keeps_what_is_known() -> None:
    results: dict[str, dict[str, Any]] = {}

    def stop(row: Row, turn: int) -> None:
        if turn == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cold_starts([ROWS["native"]], 5, limit=120, results=results, on_run=stop)
    assert results["native"]["runs"] == 1
