"""`retinaface-fast group`, with the real detector, the real embedding and real photographs."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast.cli import main
from retinaface_fast.weights import bundled_path

from .conftest import picture, video

if TYPE_CHECKING:
    from retinaface_fast._typing import UInt8Array

cv2 = pytest.importorskip("cv2")
pytest.importorskip("dlib")
pytest.importorskip("scipy")

pytestmark = [
    pytest.mark.skipif(bundled_path() is None, reason="this build has no weights in it"),
    pytest.mark.usefixtures("here"),
]


def write(name: str, pixels: UInt8Array) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return name


@pytest.fixture
def collins(astronaut_bgr: UInt8Array) -> UInt8Array:
    return astronaut_bgr[:256, 64:384]


@pytest.fixture
def hopper(grace_hopper_path: Path) -> UInt8Array:
    return cv2.imread(str(grace_hopper_path))[:400]


def mirrored(pixels: UInt8Array) -> UInt8Array:
    return np.ascontiguousarray(pixels[:, ::-1])


def side_by_side(*pictures: UInt8Array) -> UInt8Array:
    height = max(pixels.shape[0] for pixels in pictures)
    return np.hstack(
        [cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 0, cv2.BORDER_REPLICATE) for p in pictures]
    )


def groups(folder: str = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "groups.json").read_text("utf-8"))


def files(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def persons_of(record: dict[str, Any]) -> dict[str, list[int]]:
    return {p["source"]: [face["person"] for face in p["faces"]] for p in record["pictures"]}


def test_persons_over_several_pictures(
    collins: UInt8Array, hopper: UInt8Array, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in/a.png", collins)
    write("in/b.png", hopper)
    write("in/c.png", side_by_side(mirrored(collins), hopper))
    write("in/d.png", (collins * 0.7).astype(np.uint8))
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in Path("in").iterdir()}
    assert main(["group", "in", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert out == "person 1: 3 faces\nperson 2: 2 faces\n"
    assert err.startswith("4 pictures, 5 faces, 2 persons, in out, in ")
    record = groups()
    found = persons_of(record)
    assert {Path(name).name: sorted(found[name]) for name in found} == {
        "a.png": [1],
        "b.png": [2],
        "c.png": [1, 2],
        "d.png": [1],
    }
    assert record["persons"] == [
        {"person": 1, "faces": 3, "folder": "person-001"},
        {"person": 2, "faces": 2, "folder": "person-002"},
    ]
    faces = {Path(p["source"]).name: p["faces"] for p in record["pictures"]}
    left = next(face for face in faces["c.png"] if face["person"] == 1)
    assert left["box"][0] < 320
    assert files() == sorted(
        [
            "groups.csv",
            "groups.json",
            "person-001/0001-a-0.jpg",
            f"person-001/{left['crop']}",
            "person-001/0004-d-0.jpg",
            "person-002/0002-b-0.jpg",
            next(f"person-002/{face['crop']}" for face in faces["c.png"] if face["person"] == 2),
            "persons-1.jpg",
            *(f"pictures/000{number}-{name}.jpg" for number, name in enumerate("abcd", start=1)),
        ]
    )
    assert cv2.imread("out/person-001/0001-a-0.jpg").shape == (150, 150, 3)
    drawn = cv2.imread("out/pictures/0001-a.jpg")
    assert drawn.shape == collins.shape
    assert np.abs(drawn.astype(int) - collins).max() > 60
    rows = list(csv.DictReader(Path("out/groups.csv").read_text("utf-8").splitlines()))
    assert [int(row["person"]) for row in rows] == [p for persons in found.values() for p in persons]
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in Path("in").iterdir()} == before


def test_two_faces_of_one_picture_are_two_persons_except_in_collages(collins: UInt8Array) -> None:
    write("twice.png", side_by_side(collins, mirrored(collins)))
    assert main(["group", "twice.png", "--out", "apart", "--quiet"]) == 0
    assert sorted(persons_of(groups("apart"))["twice.png"]) == [1, 2]
    assert not list(Path("apart").glob("person-*"))
    assert [face["crop"] for face in groups("apart")["pictures"][0]["faces"]] == [None, None]
    assert main(["group", "twice.png", "--out", "together", "--collages", "--quiet"]) == 0
    assert persons_of(groups("together"))["twice.png"] == [1, 1]
    assert len(list(Path("together/person-001").iterdir())) == 2


def test_min_size_and_min_face(
    collins: UInt8Array, hopper: UInt8Array, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.png", collins)
    write("b.png", side_by_side(hopper, cv2.resize(collins, None, fx=0.25, fy=0.25)))
    assert main(["group", "a.png", "b.png", "--out", "out", "--min-size", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "person 1: 1 face\nperson 2: 1 face\n"
    assert "1 face too small (below 32 pixels)" in err
    assert [p["too_small"] for p in groups()["pictures"]] == [0, 1]
    assert "person-002/0002-b-0.jpg" in files()
    assert main(["group", "a.png", "b.png", "--out", "none", "--min-face", "5000"]) == 0
    assert groups("none")["persons"] == []
    assert "2 pictures, 0 faces, 0 persons, 3 faces too small" in capsys.readouterr().err


def test_goes_on_past_broken_files(collins: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    write("in/a.png", collins)
    whole = Path("in/a.png").read_bytes()
    Path("in/b.png").write_bytes(whole[: len(whole) // 2])
    Path("in/c.png").write_bytes(b"")
    write("in/d.png", mirrored(collins))
    assert main(["group", "in", "missing.jpg", "--out", "out"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("2 pictures, 2 faces, 1 person, 3 failed, in out")
    failed = groups()["failed"]
    assert {Path(entry["source"]).name for entry in failed} == {"b.png", "c.png", "missing.jpg"}
    for entry in failed:
        assert sum(line.startswith("error: ") and entry["source"] in line for line in err.splitlines()) == 1


def test_nothing_to_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["group", "missing.jpg", "--out", "out"]) == 1
    assert not Path("out").exists()
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("0 pictures, 0 faces, 0 persons, 1 failed, in ")
    )
    picture("gray.png")
    assert main(["group", "gray.png", "--out", "out", "--quiet"]) == 0
    assert files() == ["groups.csv", "groups.json", "pictures/0001-gray.jpg"]


def test_videos_are_not_grouped(collins: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").mkdir()
    video("in/film.avi")
    write("in/a.png", collins)
    assert main(["group", "in", "--out", "out", "--quiet"]) == 0
    assert main(["group", "in/film.avi", "--out", "other"]) == 1
    assert "film.avi: a video; group takes pictures" in capsys.readouterr().err


def test_names_that_are_alike_or_long_or_strange(collins: UInt8Array) -> None:
    small = cv2.resize(collins, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    names = ["in/x/a.png", "in/y/a.png", "in/y/A.png", "in/ü" + "n" * 240 + ".png", "in/-rf $(x) [b]#.png"]
    if sys.platform == "linux":
        names.append(b"in/caf\xe9.png".decode("utf-8", "surrogateescape"))
    for name in names:
        write(name, small)
    assert main(["group", "in", "--recursive", "--out", "out", "--quiet"]) == 0
    record = groups()
    assert len(record["pictures"]) == len(names)
    assert set(persons_of(record)) == {str(Path(name)) for name in names}
    crops = [path.name for path in Path("out/person-001").iterdir()]
    assert len({name.casefold() for name in crops}) == len(names)
    assert len(list(Path("out/pictures").iterdir())) == len(names)


def test_json_elsewhere(collins: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.png", collins)
    assert main(["group", "a.png", "--out", "out", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == groups()
    assert main(["group", "a.png", "--out", "out2", "--json", "deep/er.json", "--quiet"]) == 0
    assert json.loads(Path("deep/er.json").read_text()) == groups("out2")


def test_hog_with_five_points(collins: UInt8Array) -> None:
    write("a.png", collins)
    write("b.png", mirrored(collins))
    arguments = ["group", "a.png", "b.png", "--out", "out", "--detector", "hog", "--landmarks", "5", "-q"]
    assert main(arguments) == 0
    record = groups()
    assert record["detector"] == "dlib-hog"
    assert persons_of(record) == {"a.png": [1], "b.png": [1]}
    assert record["pictures"][0]["faces"][0]["landmarks"]["nose"] is None


def test_memory_for_the_cnn(collins: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.png", collins)
    arguments = ["group", "a.png", "--out", "out", "--detector", "cnn", "--max-memory", "0.01"]
    assert main(arguments) == 1
    assert "--max-memory on the command line" in capsys.readouterr().err


def test_it_does_not_write_where_something_is(collins: UInt8Array) -> None:
    write("in/a.png", collins)
    digest = hashlib.sha256(Path("in/a.png").read_bytes()).digest()
    Path("file").touch()
    for arguments in (
        ["group", "in", "--out", "in"],
        ["group", "in", "--out", "file"],
        ["group", "in", "--out", "out", "--json", "in/a.png"],
        ["group", "in", "--out", "out", "--json", "in"],
        ["group", "in", "--out", "out", "--json", "out/persons-1.jpg"],
        ["group", "in", "--out", "out", "--json", "x/../out/deep/er.json"],
        ["group", "in", "--out", "out", "--json", "out"],
        ["group", "in", "--out", "new/out", "--json", "new"],
    ):
        assert main(arguments) == 2
    assert hashlib.sha256(Path("in/a.png").read_bytes()).digest() == digest
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["group", "a.png"],
        ["group", "--out", "out"],
        ["group", "a.png", "--out", "out", "--threshold", "0"],
        ["group", "a.png", "--out", "out", "--threshold", "inf"],
        ["group", "a.png", "--out", "out", "--threshold", "1e308"],
        ["group", "a.png", "--out", "out", "--min-size", "0"],
        ["group", "a.png", "--out", "out", "--min-face", "0"],
        ["group", "a.png", "--out", "out", "--upsample", "1"],
        ["group", "a.png", "--out", "out", "--detector", "hog", "--upsample", "3"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_interrupted(
    collins: UInt8Array, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    write("a.png", collins)
    monkeypatch.setattr("retinaface_fast.detector.FaceDetector.detect", press)
    assert main(["group", "a.png", "--out", "out"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    assert not Path("out").exists()


@pytest.mark.parametrize("is_there", [True, False], ids=["empty folder", "new folder"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_folder_that_cannot_be_finished_is_left_as_it_was(
    collins: UInt8Array,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    is_there: bool,
) -> None:
    def fail(*_: object) -> None:
        assert Path("deep/out/pictures/0002-b.jpg").is_file(), "nearly all is written"
        raise error

    write("a.png", collins)
    write("b.png", mirrored(collins))
    if is_there:
        Path("deep/out").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("retinaface_fast.cli._group.GroupRun._csv", fail)
        code = main(["group", "a.png", "b.png", "--out", "deep/out", "--quiet"])
    message = capsys.readouterr().err
    if isinstance(error, OSError):
        assert (code, message) == (1, "error: cannot write deep/out: No space left on device\n")
    else:
        assert (code, message) == (130, "error: interrupted\n")
    assert [path.as_posix() for path in Path().rglob("*") if path.suffix != ".png"] == (
        ["deep", "deep/out"] if is_there else []
    )
    assert main(["group", "a.png", "b.png", "--out", "deep/out", "--quiet"]) == 0


def test_files_are_whole_or_not_there(collins: UInt8Array, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        if "0002-b-0" in path.name or "mine" in path.name:
            real(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(path, data)

    write("a.png", collins)
    write("b.png", mirrored(collins))
    Path("mine.json").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", half)
    assert main(["group", "a.png", "b.png", "--out", "out", "--json", "mine.json", "--quiet"]) == 1
    assert [path.name for path in Path("out/person-001").iterdir()] == ["0001-a-0.jpg"]
    assert [entry["source"] for entry in groups()["failed"]] == ["b.png"]
    assert Path("mine.json").read_text() == "old"
    assert not [path for path in Path().rglob("*") if "part" in path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not protected this way")
def test_an_output_that_cannot_be_written(collins: UInt8Array, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.png", collins)
    Path("blocked").touch()
    assert main(["group", "a.png", "--out", "blocked/out"]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_too_many_faces(
    collins: UInt8Array, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retinaface_fast.compare.grouping._MOST_FACES", 0)
    write("a.png", collins)
    assert main(["group", "a.png", "--out", "out"]) == 1
    assert (
        "error: the faces cannot be grouped: embeddings must be at most 0, got 1" in capsys.readouterr().err
    )


def test_without_dlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.png")
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert main(["group", "a.png", "--out", "out"]) == 1
    assert 'pip install "retinaface-fast[dlib]"' in capsys.readouterr().err
