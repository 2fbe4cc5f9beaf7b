"""`retinaface-fast compare`, with dlib itself on a portrait, and with its detectors made up."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("dlib")
pytest.importorskip("jinja2")

from retinaface_fast.cli import _compare, _group, main
from retinaface_fast.cli._compare import _spread
from retinaface_fast.compare import DLIB_MODELS
from retinaface_fast.compare.pairing import DEFAULT_MIN_IOU
from retinaface_fast.errors import ImageError
from retinaface_fast.weights.loader import bundled_path
from tests.cli.conftest import picture
from tests.cli.test_eval import cells
from tests.compare.made_up import Finder

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinaface_fast import Detections
    from tests.conftest import UInt8Array


def compare(*arguments: object, kind: str | None = "hog") -> int:
    return main(["compare", *map(str, arguments), *(() if kind is None else ("--kind", kind))])


def read_summary(folder: str = "out") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((Path(folder) / "comparison.json").read_text())
    return summary


class MadeUpDlib:
    """Stands for `DlibDetector`: finds one face, and does on the way what `before` says."""

    before: Callable[[UInt8Array], None] | None = None
    made_with: list[dict[str, Any]]

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind, self.options, self.device = kind, options, "cpu"
        self.made_with.append({"kind": kind, **options})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(name) from None

    def replace(self, **changes: Any) -> MadeUpDlib:
        return type(self)(self.kind, **{**self.options, **changes})

    def detect(self, image: UInt8Array, /) -> Detections:
        return Finder([[10, 8, 28, 30]], before=type(self).before).detect(image)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpDlib]:
    """What is built in place of `DlibDetector`."""

    class Fresh(MadeUpDlib):
        before = None
        made_with: list[dict[str, Any]] = []  # noqa: RUF012 -- a class for one test

    monkeypatch.setattr("retinaface_fast.compare.dlib_detector.DlibDetector", Fresh)
    return Fresh


def test_a_portrait_with_hog(here: Path, astronaut_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(astronaut_path, "--out", "out") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(Path("out/report.html"))
    assert "1 picture, in" in captured.err
    summary = read_summary()
    assert [each["name"] for each in summary["detectors"]] == ["retinaface", "dlib-hog"]
    assert [each["faces"] for each in summary["detectors"]] == [1, 1]
    assert all(each["median_seconds"] > 0 for each in summary["detectors"])
    pairs = summary["pairs"]["dlib-hog"]
    assert [pairs[key] for key in ("matched", "only_first", "only_second")] == [1, 0, 0]
    assert 0.5 < pairs["median_iou"] < 1
    assert all(0 < each["median_distance"] < 0.1 for each in pairs["landmarks"].values())
    assert summary["min_iou"] == DEFAULT_MIN_IOU
    assert summary["detectors"][1]["settings"]["landmarks"] == "68"
    sheet = cv2.imread("out/pictures/astronaut.png.jpg")
    assert sheet.shape[1] == 2 * 512 + 8
    page = (here / "out" / "report.html").read_text(encoding="utf-8")
    assert "RetinaFace and dlib HOG on 1 picture" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert str(here) not in page
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "comparison.json",
        "pictures",
        "report.html",
    ]


def test_a_small_portrait_with_both(here: Path, astronaut_bgr: UInt8Array) -> None:
    cv2.imwrite("small.png", astronaut_bgr[20:220, 130:320])
    assert compare("small.png", "--out", "out", "--landmarks", "5", "--quiet", kind=None) == 0
    summary = read_summary()
    assert [each["label"] for each in summary["detectors"]] == ["RetinaFace", "dlib HOG", "dlib CNN"]
    assert [each["faces"] for each in summary["detectors"]] == [1, 1, 1]
    assert summary["pairs"]["dlib-cnn"]["matched"] == 1
    assert summary["pairs"]["dlib-cnn"]["landmarks"]["left_eye"]["pairs"] == 1
    assert summary["pairs"]["dlib-cnn"]["landmarks"]["left_mouth"]["pairs"] == 0


def test_average_precision(here: Path, astronaut_bgr: UInt8Array) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    face = astronaut_bgr[:256, 100:356]
    for name, pixels in (("one", face), ("two", np.hstack([face, face]))):
        (here / "images" / "0--A").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"images/0--A/{name}.jpg", pixels)
    boxes = [np.array([[78 + left, 57, 95, 120] for left in lefts]) for lefts in ([0], [0, 256])]
    (here / "gt").mkdir()
    for subset in ("easy", "medium", "hard"):
        counted = [np.arange(1, 1 + len(each)).reshape(-1, 1) for each in boxes]
        scipy_io.savemat(
            f"gt/wider_{subset}_val.mat",
            {
                "event_list": cells(["0--A"]),
                "file_list": cells([cells(["one", "two"])]),
                "face_bbx_list": cells([cells(boxes)]),
                "gt_list": cells([cells(counted)]),
            },
        )
    (here / "names.txt").write_text("0--A/two\n0--A/one\n")
    options = ("--gt", "gt", "--out", "out", "--dlib-threshold", "0.3", "--quiet")
    assert compare("images", "-r", *options) == 0
    by_folder = read_summary()
    assert compare("--images", "images", "--names", "names.txt", *options) == 0
    summary = read_summary()
    assert [each["name"] for each in summary["pictures"]] == ["0--A/two", "0--A/one"]
    assert sorted(each["name"] for each in by_folder["pictures"]) == ["0--A/one", "0--A/two"]
    for each in (summary, by_folder):
        truth = each["ground_truth"]
        assert (truth["pictures"], truth["protocol"]) == (2, "original")
        assert truth["faces"] == {"easy": 3, "medium": 3, "hard": 3}
        assert truth["ap"]["retinaface"] == {"easy": 1.0, "medium": 1.0, "hard": 1.0}
        assert 0 < truth["ap"]["dlib-hog"]["hard"] <= 1
    assert (here / "out" / "pictures" / "0--A" / "one.jpg.jpg").is_file()
    assert "Average precision" in (here / "out" / "report.html").read_text(encoding="utf-8")

    picture("images/0--A/three.jpg")
    assert compare("images", "-r", *options) == 2, "the ground truth does not know it"


def test_average_precision_is_of_low_scores_too(made_up: type[MadeUpDlib], here: Path) -> None:
    from retinaface_fast.cli._compare_plan import contestants

    options = {"upsample": 0, "landmarks": "68", "score_threshold": 0.5}
    found = contestants({"score_threshold": 0.6}, ["hog", "cnn"], options, scored=True)
    assert [each["kind"] for each in made_up.made_with] == ["hog", "hog", "cnn", "cnn"]
    assert found[0].detector.score_threshold == 0.6
    assert found[0].scorer.detector.score_threshold == 0.02
    assert found[1].detector.score_threshold == 0.5
    assert (found[1].scorer.score_threshold, found[1].scorer.landmarks) == (-2.0, "none")
    assert (found[2].scorer.score_threshold, found[2].scorer.landmarks) == (0.0, "none")
    assert [each.settings["scored_above"] for each in found] == [0.02, -2.0, 0.0]
    found = contestants({}, ["cnn"], {**options, "score_threshold": 0.0}, scored=True)
    assert found[1].scorer is None, "the CNN takes seconds: once is enough where it gives all it has"
    for contestant in contestants({}, ["hog", "cnn"], options, scored=False):
        assert contestant.scorer is None
        json.dumps(dict(contestant.settings))


def test_the_report_says_which_weights_and_licences(made_up: type[MadeUpDlib], here: Path) -> None:
    picture("a.png")
    own = here / "mine.safetensors"
    own.write_bytes((bundled_path() or Path()).read_bytes())
    assert compare("a.png", "--out", "out", "--weights", own, "--quiet") == 0
    ours, theirs = (each["settings"] for each in read_summary()["detectors"])
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert (ours["weights"], ours["weights_sha256"]) == ("mine.safetensors", digest)
    assert theirs["landmarks"] == "68"
    assert theirs["landmarks_licence"] == DLIB_MODELS["landmarks-68"].licence
    page = (here / "out" / "report.html").read_text(encoding="utf-8")
    assert digest in page
    assert "iBUG 300-W" in page
    assert str(here) not in page
    assert compare("a.png", "--out", "out", "--landmarks", "none", "--quiet") == 0
    ours, theirs = (each["settings"] for each in read_summary()["detectors"])
    assert "weights" not in ours
    assert "landmarks_licence" not in theirs
    assert compare("a.png", "--out", "out", "--weights", here / "absent.onnx") == 1


def test_help_names_the_licence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    assert "iBUG 300-W, whose licence excludes commercial use" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )


def test_past_broken_files(made_up: type[MadeUpDlib], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture("photos/b.png")
    (here / "photos" / "a.jpg").write_bytes(b"no picture")
    picture("photos/c.png", width=90)

    def refuse(image: UInt8Array) -> None:
        if image.shape[1] == 90:
            raise ImageError("needs too much memory")

    made_up.before = refuse
    assert compare("photos", "absent.jpg", "--out", "out") == 1
    err = capsys.readouterr().err
    assert "absent.jpg: no such file or folder" in err
    assert "a.jpg" in err
    assert "c.png: dlib HOG: needs too much memory" in err
    assert "3 pictures, 3 failed" in err
    summary = read_summary()
    assert [(each["name"], "error" in each) for each in summary["pictures"]] == [
        ("a.jpg", True),
        ("b.png", False),
        ("c.png", False),
    ]
    assert summary["pictures"][2]["searches"]["dlib-hog"] == {"error": "needs too much memory"}
    assert sorted(path.name for path in (here / "out" / "pictures").iterdir()) == ["b.png.jpg", "c.png.jpg"]


def test_the_limit_of_memory_can_be_moved(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.png", width=200, height=150)
    options = ("a.png", "--out", "out", "--landmarks", "none")
    assert compare(*options, "--max-memory", "0.0001") == 1
    captured = capsys.readouterr()
    assert "raise max_memory (--max-memory on the command line)" in captured.err
    assert [each["pictures"] for each in read_summary()["detectors"]] == [1, 0]
    row = next(line for line in captured.out.splitlines() if "dlib HOG" in line)
    assert set(row.split()) == {"dlib", "HOG", "-"}, "no picture was searched, which is not to find no face"
    assert compare(*options, "--max-memory", "0.1") == 0
    assert main(["compare", "--help"]) == 0
    assert "--max-memory" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ValueError("no room"), MemoryError(), cv2.error("no room")])
def test_past_a_failing_drawing(
    made_up: type[MadeUpDlib],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    for index in range(3):
        picture(f"photos/{index}.png", width=64 + index)
    real = _compare.side_by_side

    def fail(pixels: UInt8Array, *rest: Any) -> UInt8Array:
        if pixels.shape[1] == 65:
            raise error
        return real(pixels, *rest)

    monkeypatch.setattr(_compare, "side_by_side", fail)
    assert compare("photos", "--out", "out") == 1
    assert "1.png: cannot be drawn: " in capsys.readouterr().err
    assert [len(each["searches"]) for each in read_summary()["pictures"]] == [2, 2, 2]
    assert sorted(path.name for path in (here / "out" / "pictures").iterdir()) == ["0.png.jpg", "2.png.jpg"]
    assert (here / "out" / "report.html").is_file()


def test_sheets_are_whole_or_not_there(
    made_up: type[MadeUpDlib], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png")
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.suffix == ".jpg":
            real(self, data[:100])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert compare("a.png", "--out", "out") == 1
    assert list((here / "out" / "pictures").iterdir()) == []
    assert read_summary()["num_pictures"] == 1


def test_interrupted_while_the_report_is_made(
    made_up: type[MadeUpDlib], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png")
    monkeypatch.setattr(_compare, "render_report", lambda *_: signal.raise_signal(signal.SIGINT))
    assert compare("a.png", "--out", "out") == 130
    assert read_summary()["num_pictures"] == 1
    assert not (here / "out" / "report.html").exists()


def test_interrupted(made_up: type[MadeUpDlib], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(4):
        picture(f"photos/{index}.png", width=64 + index)

    def press(image: UInt8Array) -> None:
        if image.shape[1] == 66:
            signal.raise_signal(signal.SIGINT)

    made_up.before = press
    assert compare("photos", "--out", "out") == 130
    assert "interrupted: 2 of 4 pictures" in capsys.readouterr().err
    assert read_summary()["num_pictures"] == 2
    assert "on 2 pictures" in (here / "out" / "report.html").read_text(encoding="utf-8")


def test_interrupted_before_anything_was_done(made_up: type[MadeUpDlib], here: Path) -> None:
    made_up.before = lambda image: signal.raise_signal(signal.SIGINT)
    picture("a.png")
    assert compare("a.png", "--out", "out") == 130
    assert not (here / "out").exists()


def test_some_are_shown_and_all_counted(made_up: type[MadeUpDlib], here: Path) -> None:
    for index in range(5):
        picture(f"photos/{index}.png")
    assert compare("photos", "--out", "out", "--show", 2, "--quiet") == 0
    page = (here / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2
    assert "2 pictures of 5 are shown" in page
    assert read_summary()["num_pictures"] == 5
    assert len(list((here / "out" / "pictures").iterdir())) == 5
    # What the run itself has written is not read again.
    assert compare(".", "-r", "--out", "out", "--quiet") == 0
    assert read_summary()["num_pictures"] == 5


def test_spread() -> None:
    for number in range(1, 40):
        for most in range(1, 40):
            indices = _spread(number, most)
            assert len(indices) == min(number, most)
            assert indices == sorted(set(indices))
            assert indices[0] == 0
            assert indices[-1] == number - 1 or most == 1


def test_names_of_pictures(made_up: type[MadeUpDlib], here: Path) -> None:
    hostile = "<script>alert(1)</script>"
    name = "<b>&amp;.png" if sys.platform == "win32" else hostile.replace("/", "") + ".png"
    if sys.platform != "win32":
        picture(name)
    picture("one/same.png")
    picture("two/same.png")
    assert (
        compare(*(() if sys.platform == "win32" else (name,)), "one/same.png", "two/same.png", "--out", "out")
        == 0
    )
    names = [each["name"] for each in read_summary()["pictures"]]
    assert names[-2:] == [str(Path("one/same.png")), str(Path("two/same.png"))]
    assert "<script" not in (here / "out" / "report.html").read_text(encoding="utf-8")
    assert {"same.png.jpg", "same.png-2.jpg"} <= {path.name for path in (here / "out/pictures").iterdir()}


def test_every_picture_has_a_name_of_its_own(made_up: type[MadeUpDlib], here: Path) -> None:
    widths = {"x/a.png": 80, "y/a.png": 90, "o/x/a.png": 100}
    for path, width in widths.items():
        picture(path, width=width)
    assert compare("x/a.png", "y/a.png", "o", "-r", "--out", "out", "--quiet") == 0
    found = {each["name"]: each["image_size"][1] for each in read_summary()["pictures"]}
    assert found == {str(Path(path)): width for path, width in widths.items()}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--out", "out"),
        ("a.png",),
        ("a.png", "--out", "a.png"),
        ("a.png", "--out", "out", "--min-iou", "0"),
        ("a.png", "--out", "out", "--min-iou", "1.5"),
        ("a.png", "--out", "out", "--kind", "mmod"),
        ("a.png", "--out", "out", "--upsample", "3"),
        ("a.png", "--out", "out", "--landmarks", "4"),
        ("a.png", "--out", "out", "--dlib-threshold", "nan"),
        ("a.png", "--out", "out", "--max-memory", "nan"),
        ("a.png", "--out", "out", "--max-memory", "0"),
        ("a.png", "--out", "out", "--score-threshold", "2"),
        ("a.png", "--out", "out", "--model", "nobody"),
        ("a.png", "--out", "out", "--images", "."),
        ("a.png", "--out", "out", "--names", "names.txt"),
    ],
)
def test_wrong_usage(here: Path, arguments: tuple[str, ...]) -> None:
    picture("a.png")
    before = (here / "a.png").read_bytes()
    assert main(["compare", *arguments]) == 2
    assert not (here / "out").exists()
    assert (here / "a.png").read_bytes() == before


def test_no_input_is_written_over(made_up: type[MadeUpDlib], here: Path) -> None:
    picture("a.png")
    assert compare("a.png", "--out", "out", "--quiet") == 0
    sheet, page = here / "out" / "pictures" / "a.png.jpg", here / "out" / "report.html"
    sheet.unlink()
    sheet.hardlink_to(here / "a.png")
    before = (here / "a.png").read_bytes()
    assert compare("a.png", "--out", "out") == 2
    assert (here / "a.png").read_bytes() == before
    sheet.unlink()
    page.unlink()
    page.hardlink_to(here / "a.png")
    assert compare("out/report.html", "--out", "out") == 2
    assert (here / "a.png").read_bytes() == before


def test_a_second_run_replaces_the_first(made_up: type[MadeUpDlib], here: Path) -> None:
    for name in ("a", "b", "c"):
        picture(f"{name}.png")
    for _ in range(2):
        assert compare(".", "-r", "--out", ".", "--quiet") == 0
        names = [each["name"] for each in read_summary(".")["pictures"]]
        assert names == ["a.png", "b.png", "c.png"], "its own sheets are no pictures to compare on"
    sheets = here / "pictures"
    assert [each["sheet"] for each in read_summary(".")["pictures"]] == [
        f"pictures/{name}.png.jpg" for name in ("a", "b", "c")
    ]
    (sheets / "mine.jpg").write_bytes(b"of somebody")
    (here / "b.png").unlink()
    assert compare(".", "--out", ".", "--quiet") == 0
    assert sorted(path.name for path in sheets.iterdir()) == ["a.png.jpg", "c.png.jpg", "mine.jpg"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.html", "<p>of somebody</p>"),
        ("comparison.json", "{}"),
        ("comparison.json", "[1, 2"),
        ("comparison.json", "\\udcff"),
        ("pictures/holiday.jpg", "of somebody"),
        ("pictures", "a file"),
    ],
)
def test_what_is_of_somebody_else_stays(
    made_up: type[MadeUpDlib], here: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    picture("a.png")
    path = here / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert compare("a.png", "--out", "out") == 2
    assert "not of an earlier comparison" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert path.read_text() == content
    assert [each.name for each in (here / "out").iterdir()] == [name.partition("/")[0]]


@pytest.mark.parametrize(
    "sheet", ["../mine.jpg", "mine.jpg", "/{}/mine.jpg", "pictures/../mine.jpg", 7, "\0"]
)
def test_a_made_up_list_of_sheets_deletes_nothing(
    made_up: type[MadeUpDlib], here: Path, sheet: object
) -> None:
    picture("a.png")
    assert compare("a.png", "--out", "out", "--quiet") == 0
    summary = read_summary()
    summary["pictures"] += [
        {"name": "x", "sheet": sheet.format(here) if isinstance(sheet, str) else sheet},
        "nothing",
    ]
    (here / "out" / "comparison.json").write_text(json.dumps(summary))
    for folder in (here, here / "out"):
        (folder / "mine.jpg").write_bytes(b"of somebody")
    assert compare("a.png", "--out", "out", "--quiet") == 0
    assert (here / "mine.jpg").is_file()
    assert (here / "out" / "mine.jpg").is_file()


def test_a_sheet_that_is_an_input_is_not_deleted(made_up: type[MadeUpDlib], here: Path) -> None:
    picture("a.png")
    assert compare("a.png", "--out", "out", "--quiet") == 0
    assert compare("out/pictures/a.png.jpg", "--out", "out", "--quiet") == 0
    assert sorted(path.name for path in (here / "out" / "pictures").iterdir()) == [
        "a.png.jpg",
        "a.png.jpg.jpg",
    ]


def test_a_video_is_no_picture(
    made_up: type[MadeUpDlib], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("photos/a.png")
    (here / "photos" / "b.mp4").write_bytes(b"")
    assert compare("photos", "--out", "out", "--quiet") == 0
    assert compare("photos/b.mp4", "photos/a.png", "--out", "out", "--quiet") == 1
    assert "b.mp4: a video" in capsys.readouterr().err
    assert read_summary()["num_pictures"] == 1


@pytest.mark.parametrize("package", ["dlib", "jinja2"])
def test_without_the_extra(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    picture("a.png")
    monkeypatch.setitem(sys.modules, package, None)
    assert compare("a.png", "--out", "out") == 1
    err = capsys.readouterr().err
    assert package in err
    assert "retinaface-fast[dlib]" in err
    assert not (here / "out").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_it_is_offered_where_dlib_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_there: bool
) -> None:
    from retinaface_fast.cli import _dlib

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: real(name, *rest) if name != "dlib" or is_there else None,
    )
    assert _dlib.dlib_installed() is is_there
    monkeypatch.delitem(sys.modules, "retinaface_fast.cli.app")
    assert main(["--help"]) == 0
    assert ("compare" in capsys.readouterr().out) is is_there
    assert main(["compare", "--help"]) == 0
    assert "--dlib-threshold" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_searched(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("a.jpg")
    Path("file").touch()
    monkeypatch.setattr(_compare, "compare_picture", lambda *_, **__: pytest.fail("it was searched"))
    monkeypatch.setattr(_group.GroupRun, "_look_at", lambda *_: pytest.fail("it was searched"))
    assert compare("a.jpg", "--out", "file/sub") == 1
    assert main(["group", "a.jpg", "--out", "file/sub"]) == 1
    lines = capsys.readouterr().err.replace("\\", "/").splitlines()
    assert [line.startswith("error: cannot write file/sub: ") for line in lines] == [True, True], lines


def test_a_run_that_was_killed_can_be_done_again(
    made_up: type[MadeUpDlib], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        picture(name)

    def _killed(_: object) -> None:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr(_compare.Run, "_write", _killed)
        with pytest.raises(SystemError):
            compare("a.png", "b.png", "--out", "out")
    assert read_summary()["unfinished"] is True
    assert (here / "out/pictures/a.png.jpg").is_file()
    assert compare("b.png", "--out", "out") == 0
    assert "unfinished" not in read_summary()
    assert [path.name for path in (here / "out/pictures").iterdir()] == ["b.png.jpg"]


def test_a_run_of_nothing_leaves_nothing(
    made_up: type[MadeUpDlib], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png")

    def _interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_compare.Run, "_search_all", _interrupted)
    assert compare("a.png", "--out", "out") == 130
    assert not (here / "out").exists()


def test_a_picture_that_is_not_of_an_earlier_run_is_not_written_over(
    made_up: type[MadeUpDlib], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        picture(name)
    assert compare("a.png", "--out", "out") == 0
    (here / "out/pictures/b.png.jpg").write_text("mine")
    assert compare("b.png", "--out", "out") == 2
    assert "is not of an earlier comparison" in " ".join(capsys.readouterr().err.split())
    assert (here / "out/pictures/b.png.jpg").read_text() == "mine"
