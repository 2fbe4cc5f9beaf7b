"""`retinaface-fast detect`, with a detector that finds known faces."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import TTA
from retinaface_fast.cli import main
from retinaface_fast.errors import WeightsError

from .conftest import FakeDetector, picture, video

cv2 = pytest.importorskip("cv2")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("fake", "here")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------ what is printed


def test_a_table_on_stdout_and_the_summary_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    assert main(["detect", "a.jpg"]) == 0
    out, err = capsys.readouterr()
    assert "a.jpg: 2 faces in 64x48 pixels\n" in out
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["0"])
    assert row == ["0", "0.900", "10", "8", "28", "30", "14,14", "24,14", "19,20", "15,25", "23,25"]
    assert err.startswith("1 picture, 2 faces, in ")


def test_no_face_is_no_failure(fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]) -> None:
    fake.faces = 0
    picture("a.jpg")
    assert main(["detect", "a.jpg", "--crops", "crops", "--output", "b.jpg"]) == 0
    out, err = capsys.readouterr()
    assert out == "a.jpg: 0 faces in 64x48 pixels\n"
    assert "1 picture, 0 faces" in err
    assert not Path("crops").exists()
    assert Path("b.jpg").is_file()


def test_no_tables_for_many_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(11):
        picture(f"many/{index}.jpg")
    assert main(["detect", "many"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("11 pictures, 22 faces, in ")


def test_a_crowd_is_cut_off(fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]) -> None:
    fake.faces = 25
    picture("a.jpg")
    assert main(["detect", "a.jpg"]) == 0
    out = capsys.readouterr().out
    assert "25 faces" in out
    assert out.endswith("and 5 more\n")
    assert sum(line.split()[:1] == ["19"] for line in out.splitlines()) == 1
    assert not any(line.split()[:1] == ["20"] for line in out.splitlines())


def test_quiet_prints_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    assert main(["detect", "a.jpg", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["detect", "a.jpg", "no.jpg", "--quiet"]) == 1
    assert capsys.readouterr() == ("", "error: no.jpg: no such file or folder\n")


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    picture("[bold]a[/bold].jpg")
    Path("[red]b.jpg").write_bytes(b"no picture")
    assert main(["detect", "[bold]a[/bold].jpg", "[red]b.jpg"]) == 1
    out, err = capsys.readouterr()
    assert "[bold]a[/bold].jpg: 2 faces" in out
    assert "[red]b.jpg" in err


# ------------------------------------------------------------------------------------------ JSON and CSV


def test_json_lines_on_stdout_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    picture("ü und leer.png")
    assert main(["detect", "a.jpg", "ü und leer.png", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    records = lines(out)
    assert [record["source"] for record in records] == ["a.jpg", "ü und leer.png"]
    assert records[0]["image_size"] == [48, 64]
    face = records[0]["faces"][0]
    assert face["box"] == [10.0, 8.0, 28.0, 30.0]
    assert face["score"] == pytest.approx(0.9)
    assert face["landmarks"]["nose"] == [19.0, 20.0]
    assert "frame" not in records[0]
    assert err.startswith("2 pictures, 4 faces")


def test_json_to_a_file_leaves_stdout_to_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    assert main(["detect", "a.jpg", "--json", "out/faces.jsonl"]) == 0
    assert "2 faces" in capsys.readouterr().out
    assert len(lines(Path("out/faces.jsonl").read_text("utf-8"))) == 1


def test_csv_has_a_row_for_each_face(capsys: pytest.CaptureFixture[str]) -> None:
    picture('a, "b".jpg' if sys.platform != "win32" else "a, b.jpg")
    source = next(Path().glob("a*")).name
    assert main(["detect", source, "--csv", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["face"] for row in rows] == ["0", "1"]
    assert rows[1]["source"] == source
    assert rows[1]["frame"] == ""
    assert [float(rows[1][key]) for key in ("x1", "y1", "x2", "y2")] == [30, 8, 48, 30]
    assert float(rows[1]["nose_x"]) == 39
    assert float(rows[1]["score"]) == pytest.approx(0.6)


def test_unknown_landmarks(fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]) -> None:
    fake.unknown = (2, 4)
    picture("a.jpg")
    assert main(["detect", "a.jpg", "--csv", "faces.csv", "--json", "faces.jsonl"]) == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["0"])
    assert row[-5:] == ["14,14", "24,14", "-", "15,25", "-"]
    with Path("faces.csv").open(newline="") as file:
        face = next(csv.DictReader(file))
    names = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    cells = [(face[f"{name}_x"], face[f"{name}_y"]) for name in names]
    assert cells == [("14.000", "14.000"), ("24.000", "14.000"), ("", ""), ("15.000", "25.000"), ("", "")]
    points = lines(Path("faces.jsonl").read_text("utf-8"))[0]["faces"][0]["landmarks"]
    assert (points["nose"], points["right_mouth"], points["left_mouth"]) == (None, None, [15.0, 25.0])


def test_csv_and_json_together(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    assert main(["detect", "a.jpg", "--csv", "faces.csv", "--json", "-"]) == 0
    assert len(lines(capsys.readouterr().out)) == 1
    assert len(Path("faces.csv").read_text("utf-8").splitlines()) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_a_name_that_is_no_text(capsysbinary: pytest.CaptureFixture[bytes], here: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    picture(name)
    assert main(["detect", name, "--json", "-"]) == 0
    (line,) = capsysbinary.readouterr().out.splitlines()
    assert json.loads(line)["source"] == name
    assert main(["detect", name, "--csv", "-"]) == 0
    assert b"caf\xe9.jpg,,0," in capsysbinary.readouterr().out
    assert main(["detect", name]) == 0
    assert b"caf\\udce9.jpg: 2 faces" in capsysbinary.readouterr().out


@pytest.mark.parametrize("arguments", [["missing.jpg"], ["*.png"], ["empty"]])
def test_without_an_input_there_is_no_empty_file(arguments: list[str]) -> None:
    Path("empty").mkdir()
    assert main(["detect", *arguments, "--csv", "faces.csv", "--json", "faces.jsonl"]) == 1
    assert not Path("faces.csv").exists()
    (record,) = lines(Path("faces.jsonl").read_text("utf-8"))
    assert record["source"] == arguments[0]


def test_no_empty_file_where_the_other_cannot_be_written() -> None:
    picture("a.jpg")
    Path("file").touch()
    assert main(["detect", "a.jpg", "--json", "faces.jsonl", "--csv", "file/faces.csv"]) == 1
    assert not Path("faces.jsonl").exists()


# ------------------------------------------------------------------------------------------ broken files


def test_goes_on_past_broken_files(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    picture("c.jpg")
    whole = Path("a.jpg").read_bytes()
    Path("b.jpg").write_bytes(whole[: len(whole) // 2])
    Path("d.jpg").write_bytes(b"")
    assert main(["detect", "a.jpg", "b.jpg", "d.jpg", "missing.jpg", "c.jpg", "--json", "-"]) == 1
    out, err = capsys.readouterr()
    records = lines(out)
    assert {r["source"] for r in records if "error" in r} == {"b.jpg", "d.jpg", "missing.jpg"}
    assert {r["source"] for r in records if "faces" in r} == {"a.jpg", "c.jpg"}
    for name in ("b.jpg", "d.jpg", "missing.jpg"):
        assert sum(line.startswith("error: ") and name in line for line in err.splitlines()) == 1
    assert err.splitlines()[-1].startswith("2 pictures, 4 faces, 3 failed, in ")


def test_goes_on_past_a_failure_of_opencv(
    fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_once(call: int) -> None:
        if call == 1:
            raise cv2.error("(-4:Insufficient memory) Failed to allocate")

    fake.on_detect = staticmethod(fail_once)
    for name in ("a.png", "b.png"):
        picture(name)
    assert main(["detect", "a.png", "b.png"]) == 1
    assert fake.calls == 2
    assert "a.png: (-4:Insufficient memory)" in capsys.readouterr().err


def test_fail_fast_stops(fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    Path("b.jpg").write_bytes(b"no picture")
    picture("c.jpg")
    assert main(["detect", "a.jpg", "b.jpg", "c.jpg", "--fail-fast"]) == 1
    assert fake.calls == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("1 picture, 2 faces, 1 failed")


def test_ctrl_c_keeps_what_was_done(fake: type[FakeDetector], capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        picture(f"{name}.jpg")

    def interrupt(call: int) -> None:
        if call == 2:
            raise KeyboardInterrupt

    fake.on_detect = staticmethod(interrupt)
    assert main(["detect", "a.jpg", "b.jpg", "c.jpg", "--json", "-", "--output", "out"]) == 130
    out, err = capsys.readouterr()
    assert [record["source"] for record in lines(out)] == ["a.jpg"]
    assert err.startswith("interrupted: 1 of 3 pictures, 2 faces, in ")
    assert [path.name for path in Path("out").iterdir()] == ["a.jpg"]


def test_a_reader_that_goes_away_is_no_broken_picture(
    fake: type[FakeDetector], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    for name in "ab":
        picture(f"{name}.jpg")
    monkeypatch.setattr("typer.get_binary_stream", lambda _: Closed())
    assert main(["detect", "a.jpg", "b.jpg", "--json", "-"]) == 1
    assert fake.calls == 1
    assert "error" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ videos, cameras


def test_a_video_has_frames(capsys: pytest.CaptureFixture[str]) -> None:
    video("v.avi", frames=6)
    assert main(["detect", "v.avi", "--json", "-", "--output", "out.avi"]) == 0
    out, err = capsys.readouterr()
    records = lines(out)
    assert [(r["source"], r["frame"], r["seconds"]) for r in records[:2]] == [
        ("v.avi", 0, 0.0),
        ("v.avi", 1, 0.1),
    ]
    assert len(records) == 6
    assert err.startswith("6 frames, 12 faces")
    capture = cv2.VideoCapture("out.avi")
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    done, frame = capture.read()
    assert done
    assert np.count_nonzero(frame > 60) > 50  # the first frame was black, but for what was drawn on it


def test_every_nth_frame_and_no_more_than_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    video("v.avi", frames=7)
    assert main(["detect", "v.avi", "--every", "3", "--json", "-"]) == 0
    assert [r["frame"] for r in lines(capsys.readouterr().out)] == [0, 3, 6]
    assert main(["detect", "v.avi", "--every", "2", "--max-frames", "2"]) == 0
    assert capsys.readouterr().out == "v.avi: 4 faces in 2 frames\n"


def test_crops_of_a_video_name_the_frame() -> None:
    video("v.avi", frames=2)
    assert main(["detect", "v.avi", "--crops", "crops"]) == 0
    assert sorted(p.name for p in Path("crops").iterdir()) == [
        "v-000000-0.png",
        "v-000000-1.png",
        "v-000001-0.png",
        "v-000001-1.png",
    ]


def test_a_broken_video_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    Path("v.mp4").write_bytes(b"no video")
    picture("a.jpg")
    assert main(["detect", "v.mp4", "a.jpg", "--output", "out"]) == 1
    assert [path.name for path in Path("out").iterdir()] == ["a.jpg"]
    err = capfd.readouterr().err
    assert "error: v.mp4: cannot be opened as a video" in err
    assert "1 picture, 2 faces, 1 failed" in err


def test_an_interrupted_video_keeps_its_frames(fake: type[FakeDetector]) -> None:
    video("v.avi", frames=6)

    def interrupt(call: int) -> None:
        if call == 4:
            raise KeyboardInterrupt

    fake.on_detect = staticmethod(interrupt)
    assert main(["detect", "v.avi", "--output", "out.avi"]) == 130
    assert int(cv2.VideoCapture("out.avi").get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["out.avi", "v.avi"]


class Camera:
    """Stands in for cv2.VideoCapture."""

    opened: bool = True
    frames: int = 5

    def __init__(self, origin: object) -> None:
        assert origin == 1
        self._left = self.frames

    def isOpened(self) -> bool:  # noqa: N802 -- OpenCV's name
        return self.opened

    def get(self, _: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Camera]]:
    class Fresh(Camera):
        pass

    monkeypatch.setattr(cv2, "VideoCapture", Fresh)
    return Fresh


@pytest.mark.usefixtures("camera")
def test_a_camera(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "--camera", "1", "--json", "-", "--max-frames", "3"]) == 0
    out, err = capsys.readouterr()
    assert [(r["source"], r["frame"]) for r in lines(out)] == [
        ("camera:1", 0),
        ("camera:1", 1),
        ("camera:1", 2),
    ]
    assert err.startswith("3 frames, 6 faces")


@pytest.mark.usefixtures("camera")
def test_a_camera_to_a_video() -> None:
    assert main(["detect", "--camera", "1", "--output", "c.avi"]) == 0
    assert main(["detect", "--camera", "1", "--output", "folder"]) == 0
    assert Path("c.avi").stat().st_size > 0
    assert [path.name for path in Path("folder").iterdir()] == ["camera-1.mp4"]


def test_no_camera(camera: type[Camera], capsys: pytest.CaptureFixture[str]) -> None:
    camera.opened = False
    assert main(["detect", "--camera", "1"]) == 1
    error, summary = capsys.readouterr().err.splitlines()
    assert error == "error: camera:1: cannot be opened as a camera"
    assert summary.startswith("0 pictures, 0 faces, 1 failed, in ")
    assert summary.endswith(" s")


# ------------------------------------------------------------------------------------------ options and usage


def test_options_reach_the_detector(fake: type[FakeDetector]) -> None:
    picture("a.jpg")
    arguments = [
        "detect",
        "a.jpg",
        "-t",
        "0.7",
        "--nms-threshold",
        "0.3",
        "--top-k",
        "10",
        "--keep-top-k",
        "5",
    ]
    arguments += [
        "--max-pixels",
        "1000000",
        "--max-side",
        "640",
        "--model",
        "resnet18",
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--threads",
        "3",
        "--tta",
        "--no-close-ups",
        "--tile-side",
        "2048",
    ]
    assert main(arguments) == 0
    assert fake.made_with["tta"] == TTA()
    assert fake.made_with["close_ups"] is False
    assert fake.made_with["tile_side"] == 2048
    assert fake.made_with["score_threshold"] == 0.7
    assert fake.made_with["nms_threshold"] == 0.3
    assert fake.made_with["top_k"] == 10
    assert fake.made_with["keep_top_k"] == 5
    assert fake.made_with["max_side"] == 640
    assert fake.made_with["max_pixels"] == 1_000_000
    assert fake.made_with["model"] == "resnet18"
    assert fake.made_with["engine"] == "torch"
    assert fake.made_with["device"] == "cpu"
    assert fake.made_with["threads"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one picture"),
        (["a.jpg", "--json", "-", "--csv", "-"], "only one of"),
        (["a.jpg", "--no-such-option"], "No such option"),
        (["a.jpg", "--every", "0"], "--every"),
        (["a.jpg", "--score-threshold", "high"], "--score-threshold"),
        (["a.jpg", "--camera", "-1"], "--camera"),
        (["a.jpg", "--max-pixels", "0"], "--max-pixels"),
        (["a.jpg", "--threads", "0"], "--threads"),
        (["a.jpg", "--threads", "1025"], "--threads"),
        (["a.jpg", "--crops", "crops", "--crop-size", "100"], "multiple of 112 or of 128"),
        (["a.jpg", "--crops", "crops", "--crop-size", "112000000"], "--crop-size"),
        (["a.jpg", "--crops", "a.jpg"], "a.jpg is a file and not a folder"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.jpg")
    assert main(["detect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1e6"])
def test_a_wrong_limit_in_the_environment_is_one_usage_error(
    value: str, fake: type[FakeDetector], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETINAFACE_FAST_MAX_PIXELS", value)
    for name in "ab":
        picture(f"{name}.jpg")
    assert main(["detect", "a.jpg", "b.jpg"]) == 2
    assert capsys.readouterr().err.count("RETINAFACE_FAST_MAX_PIXELS") == 1
    assert not fake.made_with


@pytest.mark.parametrize("more", [["-o", "b.jpg"], ["--crops", "crops"]])
def test_the_limit_holds_where_the_command_reads_the_file(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg", width=64, height=48)
    assert main(["detect", "a.jpg", "--max-pixels", "3071", *more]) == 1
    assert "64x48 pixels are more than the limit of 3,071" in capsys.readouterr().err
    assert main(["detect", "a.jpg", "--max-pixels", "3072", *more]) == 0


def test_a_bad_value_is_wrong_usage_and_a_failure_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg")

    def refuse(**_: object) -> None:
        raise ValueError("score_threshold: expected within [0, 1], got nan")

    monkeypatch.setattr("retinaface_fast.detector.FaceDetector", refuse)
    assert main(["detect", "a.jpg", "-t", "nan"]) == 2
    assert "expected within [0, 1], got nan" in capsys.readouterr().err

    def fail(**_: object) -> None:
        raise WeightsError("cannot download resnet50: no network")

    monkeypatch.setattr("retinaface_fast.detector.FaceDetector", fail)
    assert main(["detect", "a.jpg"]) == 1
    assert capsys.readouterr().err == "error: cannot download resnet50: no network\n"
