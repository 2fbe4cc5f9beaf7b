"""What `retinaface-fast detect` writes and refuses to write, with a detector that finds known faces."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinaface_fast.cli import main
from retinaface_fast.cli._outputs import try_folder

from .conftest import FakeDetector, picture, video

cv2 = pytest.importorskip("cv2")


pytestmark = pytest.mark.usefixtures("fake", "here")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_annotated_picture() -> None:
    source = picture("a.png")
    before = digest(source)
    assert main(["detect", "a.png", "--output", "deep/faces.png"]) == 0
    annotated = cv2.imread("deep/faces.png")
    assert annotated.shape == (48, 64, 3)
    assert np.count_nonzero(annotated != 128) > 50
    assert (annotated[-1] == 128).all()
    assert digest(source) == before
    assert [path.name for path in Path("deep").iterdir()] == ["faces.png"]


def test_a_folder_keeps_its_structure_and_a_second_run_does_not_read_the_first_ones_results() -> None:
    picture("in/a.jpg")
    picture("in/sub/ü b.png")
    for _ in range(2):
        assert main(["detect", "in", "-r", "-o", "in/out", "--json", "faces.jsonl"]) == 0
        written = sorted(path.relative_to("in/out").as_posix() for path in Path("in/out").rglob("*.*"))
        assert written == ["a.jpg", "sub/ü b.png"]
        assert len(lines(Path("faces.jsonl").read_text("utf-8"))) == 2


def test_crops_are_aligned_faces_of_the_asked_size() -> None:
    picture("in/a.jpg")
    picture("in/sub/b.jpg")
    assert main(["detect", "in", "-r", "--crops", "crops", "--crop-size", "128"]) == 0
    found = sorted(path.relative_to("crops").as_posix() for path in Path("crops").rglob("*.png"))
    assert found == ["a-0.png", "a-1.png", "sub/b-0.png", "sub/b-1.png"]
    assert cv2.imread("crops/a-0.png").shape == (128, 128, 3)


def test_pictures_of_one_name_keep_their_crops_apart() -> None:
    picture("x/a.jpg")
    picture("y/a.jpg")
    assert main(["detect", "x/a.jpg", "y/a.jpg", "--crops", "crops"]) == 0
    assert len(list(Path("crops").iterdir())) == 4


def test_crops_do_not_overwrite_an_input(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.png")
    source = picture("a-0.png")
    before = digest(source)
    assert main(["detect", "a.png", "a-0.png", "--crops", "."]) != 0
    assert digest(source) == before
    assert "overwrite the input" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--json", "--csv"])
def test_an_input_is_never_overwritten(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture("a.jpg")
    before = digest(source)
    assert main(["detect", "a.jpg", option, "a.jpg"]) == 2
    assert digest(source) == before
    assert "overwrite the input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "-o", "b.xyz"], "b.xyz: a picture can be written as .bmp"),
        (["a.jpg", "-o", "b.gif"], "b.gif: a picture can be written as .bmp"),
        (["a.jpg", "-o", "b.mp4"], "b.mp4: a picture can be written as .bmp"),
        (["v.avi", "-o", "b.jpg"], "b.jpg: a video can be written as .avi"),
        (["--camera", "1", "-o", "b.gif"], "b.gif: a video can be written as .avi"),
        (["in", "-o", "x.jpg"], "x.jpg looks like a file"),
        (["a.jpg", "v.avi", "-o", "x.gif"], "x.gif looks like a file"),
        (["a.jpg", "--camera", "1", "-o", "x.mp4"], "x.mp4 looks like a file"),
    ],
)
def test_an_output_whose_suffix_does_not_fit(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg")
    picture("in/a.jpg")
    video("v.avi")
    assert main(["detect", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["a.jpg", "in", "v.avi"]


@pytest.mark.parametrize("output", ["b.xyz/", "b.gif/", "b.jpg/", "there.d", "plain"])
def test_a_folder_may_have_a_suffix(output: str) -> None:
    picture("a.jpg")
    Path("there.d").mkdir()
    assert main(["detect", "a.jpg", "-o", output]) == 0
    assert [path.name for path in Path(output).iterdir()] == ["a.jpg"]


def test_a_target_that_cannot_be_written_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    picture("in/a.jpg")
    picture("in/b.jpg")
    Path("out/a.jpg").mkdir(parents=True)
    assert main(["detect", "in", "-o", "out"]) == 1
    assert Path("out/b.jpg").is_file()
    (line, _) = capsys.readouterr().err.replace("\\", "/").splitlines()
    assert line.startswith("error: cannot write out/a.jpg: ")
    assert ".part" not in line


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write"
)
@pytest.mark.parametrize(("source", "target"), [("a.jpg", "out/b.jpg"), ("v.avi", "out/b.avi")])
def test_a_folder_that_is_closed_is_told_by_the_name_of_the_target(
    source: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg")
    video("v.avi")
    Path("out").mkdir(mode=0o500)
    assert main(["detect", source, "-o", target]) == 1
    assert capsys.readouterr().err.splitlines()[0] == f"error: cannot write {target}: Permission denied"


@pytest.mark.parametrize(("source", "target"), [("a.jpg", "file/b.jpg"), ("v.avi", "file/b.avi")])
def test_a_file_where_the_folder_should_be(
    source: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg")
    video("v.avi")
    Path("file").touch()
    assert main(["detect", source, "-o", target]) == 1
    line = capsys.readouterr().err.splitlines()[0].replace("\\", "/")
    assert line.startswith(f"error: cannot write {target}: ")
    assert ".part" not in line


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_results_that_cannot_be_opened_are_one_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    Path("file").touch()
    assert main(["detect", "a.jpg", option, "file/faces"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write file/faces: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_full_disk_is_one_error(
    option: str, fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        picture(f"{name}.jpg")
    assert main(["detect", "a.jpg", "b.jpg", option, "/dev/full"]) == 1
    assert capsys.readouterr().err == "error: cannot write /dev/full: No space left on device\n"
    assert fake.calls <= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--csv", "-"], []])
def test_a_full_disk_behind_the_standard_output_is_one_error(arguments: list[str]) -> None:
    picture("a.jpg")
    code = (
        "import sys, retinaface_fast.detector as d; from tests.cli.conftest import FakeDetector\n"
        "d.FaceDetector = FakeDetector\n"
        "from retinaface_fast.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    root = str(Path(__file__).parents[2])
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "detect", "a.jpg", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": root},
        )
    assert done.stderr == "error: cannot write the standard output: No space left on device\n"
    assert done.returncode == 1


def test_without_opencv_it_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video("v.avi")
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["detect", "v.avi"]) == 1
    assert "opencv-python-headless" in capsys.readouterr().err


def test_trying_a_folder_leaves_nothing_behind() -> None:
    Path("there").mkdir()
    try_folder(Path("there"))
    try_folder(Path("there/not/yet"))
    try_folder(Path("new/folder"))
    assert sorted(Path().rglob("*")) == [Path("there")]
