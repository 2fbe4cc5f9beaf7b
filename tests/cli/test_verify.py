"""`retinaface-fast verify`, with the real detector, the real embedding and real photographs."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinaface_fast.cli import main
from retinaface_fast.weights import bundled_path

if TYPE_CHECKING:
    from retinaface_fast._typing import UInt8Array

cv2 = pytest.importorskip("cv2")
pytest.importorskip("dlib")

pytestmark = [
    pytest.mark.skipif(bundled_path() is None, reason="this build has no weights in it"),
    pytest.mark.usefixtures("here"),
]


def write(name: str, pixels: UInt8Array) -> str:
    Path(name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return name


@pytest.fixture
def collins(astronaut_bgr: UInt8Array) -> str:
    return write("collins.png", astronaut_bgr)


@pytest.fixture
def mirrored(astronaut_bgr: UInt8Array) -> str:
    return write("mirrored.png", np.ascontiguousarray(astronaut_bgr[:, ::-1]))


@pytest.fixture
def hopper(grace_hopper_path: Path) -> str:
    return write("hopper.png", cv2.imread(str(grace_hopper_path)))


@pytest.fixture
def both(collins: str, hopper: str) -> str:
    """Collins on the left, and Hopper, larger, on the right."""
    left, right = cv2.imread(collins), cv2.imread(hopper)
    right = cv2.resize(right, None, fx=1.5, fy=1.5)
    canvas = np.zeros((right.shape[0], left.shape[1] + right.shape[1], 3), np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[:, left.shape[1] :] = right
    return write("both.png", canvas)


def test_the_same_person(collins: str, mirrored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", collins, mirrored]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("collins.png: the only face, 95 pixels wide\nmirrored.png: the only face, 9")
    assert re.search(r"^same person: distance 0\.[0-3]\d\d, below 0\.6$", out, re.MULTILINE)
    assert err == ""


def test_another_person(collins: str, hopper: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", collins, hopper]) == 3
    out = capsys.readouterr().out
    assert re.search(r"^another person: distance [01]\.\d+, not below 0\.6$", out, re.MULTILINE)
    assert main(["verify", collins, hopper, "--threshold", "2", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_largest_face_is_taken_unless_one_is_named(
    collins: str, hopper: str, both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", both, hopper]) == 0
    assert re.search(r"^both\.png: the largest of 2 faces, number \d, ", capsys.readouterr().out)
    assert main(["verify", both, collins]) == 3
    capsys.readouterr()
    codes = []
    for face in ("0", "1"):
        codes.append(main(["verify", collins, both, "--face-b", face]))
        assert f"both.png: face {face} of 2, " in capsys.readouterr().out
    assert sorted(codes) == [0, 3]
    assert main(["verify", collins, both, "--face-b", "2"]) == 1
    assert "both.png: there is no face 2 with a score above 0.9, the last is 1" in capsys.readouterr().err


def test_json(collins: str, mirrored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", collins, mirrored, "--json", "--threshold", "0.01"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["same_person"] is False
    assert 0.01 < record["distance"] < 0.4
    assert record["threshold"] == 0.01
    assert record["detector"] == "mobilenet0.25"
    assert [face["source"] for face in record["faces"]] == [collins, mirrored]
    assert [face["of"] for face in record["faces"]] == [1, 1]
    np.testing.assert_allclose(record["faces"][0]["box"], [178, 57, 273, 177], atol=3)


@pytest.mark.parametrize("landmarks", ["68", "5"])
def test_dlib_finds_the_faces(
    collins: str, mirrored: str, hopper: str, landmarks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--detector", "hog", "--landmarks", landmarks, "--json"]
    assert main(["verify", collins, mirrored, *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["detector"] == "dlib-hog"
    assert (record["faces"][0]["landmarks"]["nose"] is None) == (landmarks == "5")
    assert main(["verify", collins, hopper, *options]) == 3


def test_memory_for_the_cnn(
    collins: str, astronaut_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write("small.png", np.ascontiguousarray(astronaut_bgr[:200, 120:320]))
    cnn = ["verify", small, small, "--detector", "cnn", "--landmarks", "5"]
    assert main([*cnn, "--max-memory", "0.055"]) == 1
    err = capsys.readouterr().err
    assert "max_memory allows 0.1 GiB" in err
    assert "--max-memory on the command line" in err
    assert main([*cnn, "--max-memory", "0.07"]) == 0
    large = write("large.png", np.zeros((2100, 2000, 3), np.uint8))
    capsys.readouterr()
    assert main(["verify", large, large, "--detector", "cnn"]) == 1
    assert capsys.readouterr().err.count("max_memory allows 4.0 GiB") == 2


def test_what_cannot_be_said(collins: str, cat_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    cat = write("cat.png", cat_bgr)
    Path("broken.jpg").write_bytes(b"no picture")
    assert main(["verify", collins, cat]) == 1
    assert capsys.readouterr().err == "error: cat.png: no face with a score above 0.9\n"
    assert main(["verify", "broken.jpg", "missing.jpg"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.count("error: ") for line in err.splitlines()] == [1, 1]
    assert "broken.jpg" in err
    assert "missing.jpg" in err


def test_a_small_face_is_said_to_say_little(
    collins: str, astronaut_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write(
        "small.png", cv2.resize(astronaut_bgr, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    )
    main(["verify", collins, small])
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"note: the face in small\.png is 2\d pixels wide; below 32 the distance says little\n", err
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.png"],
        ["a.png", "b.png", "--threshold", "0"],
        ["a.png", "b.png", "--threshold", "nan"],
        ["a.png", "b.png", "--detector", "haar"],
        ["a.png", "b.png", "--landmarks", "none"],
        ["a.png", "b.png", "--landmarks", "5"],
        ["a.png", "b.png", "--upsample", "1"],
        ["a.png", "b.png", "--face-a", "-1"],
        ["a.png", "b.png", "--max-memory", "8"],
        ["a.png", "b.png", "--detector", "hog", "--max-memory", "0"],
        ["a.png", "b.png", "--detector", "hog", "--max-memory", "nan"],
        ["a.png", "b.png", "--score-threshold", "2"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert main(["verify", *arguments]) == 2


def test_without_dlib(
    collins: str, mirrored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert main(["verify", collins, mirrored]) == 1
    assert 'pip install "retinaface-fast[dlib]"' in capsys.readouterr().err


@pytest.mark.parametrize("is_there", [True, False])
def test_only_offered_where_dlib_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_there: bool
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: real(name, *rest) if name != "dlib" or is_there else None,
    )
    importlib.import_module("retinaface_fast.cli.app")
    monkeypatch.delitem(sys.modules, "retinaface_fast.cli.app")  # which decides it when it is imported
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "detect" in out
    for command in ("verify", "group"):
        assert (re.search(rf"\b{command}\b", out) is not None) is is_there
        assert main([command, "--help"]) == 0


def test_names_are_no_markup(astronaut_bgr: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    name = write("[red]ü $x$.png", astronaut_bgr)
    assert main(["verify", name, name]) == 0
    out = capsys.readouterr().out
    assert out.count("[red]ü $x$.png: the only face") == 2
    assert "same person: distance 0.000, below 0.6" in out
