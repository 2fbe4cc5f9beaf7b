"""`retinaface-fast eval widerface`, on pictures composed of one portrait, and on real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retinaface_fast import data
from retinaface_fast.cli import main
from retinaface_fast.cli.eval import PROTOCOL_HELP
from retinaface_fast.evaluation import PROTOCOLS
from tests.reference import wider_ap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import UInt8Array

scipy_io = pytest.importorskip("scipy.io")

#: Where the face of the portrait is: x, y, width, height.
FACE = [78, 57, 95, 120]
PICTURES = {"0--A/one": [0], "0--A/none": [], "1--B/two": [0, 256], "1--B/three": [0, 256, 512]}


def cells(values: list[Any]) -> np.ndarray:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


@pytest.fixture
def folder(here: Path, astronaut_bgr: UInt8Array) -> Path:
    """`images` and `gt`, in the folder that is worked in. Only the first face of each picture is easy."""
    face = astronaut_bgr[:256, 100:356]
    for name, lefts in PICTURES.items():
        pixels = np.hstack([face] * len(lefts)) if lefts else np.full((60, 90, 3), 70, np.uint8)
        path = here / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    boxes = [
        np.array([[FACE[0] + left, *FACE[1:]] for left in lefts]).reshape(-1, 4)
        for lefts in PICTURES.values()
    ]
    (here / "gt").mkdir()
    for subset in data.SUBSETS:
        counted = [np.arange(1, 1 + min(len(each), 1 if subset == "easy" else 9)) for each in boxes]
        counted = [each.reshape(-1, 1) for each in counted]
        scipy_io.savemat(
            here / "gt" / f"wider_{subset}_val.mat",
            {
                "event_list": cells(["0--A", "1--B"]),
                "file_list": cells([cells(["one", "none"]), cells(["two", "three"])]),
                "face_bbx_list": cells([cells(boxes[:2]), cells(boxes[2:])]),
                "gt_list": cells([cells(counted[:2]), cells(counted[2:])]),
            },
        )
    return here


def evaluate(*options: object) -> int:
    return main(["eval", "widerface", "--gt", "gt", *map(str, options)])


def by_the_oracle(folder: Path, gt: Path, names: list[str]) -> dict[str, float]:
    """Average precision of the files in percent, read and scored by others, as reports state it."""
    rows = {}
    for name in names:
        lines = (folder / f"{name}.txt").read_text().splitlines()[2:]
        rows[name] = np.array([line.split()[:5] for line in lines], dtype=np.float64).reshape(-1, 5)
    found = wider_ap.average_precision(rows, wider_ap.read_ground_truth(gt, names))
    return {subset: round(100 * ap, 3) for subset, ap in found.items()}


def test_a_whole_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "images") == 0
    out, err = capsys.readouterr()
    result = json.loads((folder / "widerface-original" / "results.json").read_text())
    expected = by_the_oracle(folder / "widerface-original" / "predictions", folder / "gt", list(PICTURES))
    assert result["ap"] == expected
    assert min(expected.values()) > 50
    assert (result["name"], result["pictures"]) == ("original", 4)
    assert result["faces"] == {"easy": 3, "medium": 6, "hard": 6}
    record = json.loads((folder / "widerface-original" / "run.json").read_text())
    assert record.pop("images") == str((folder / "images").resolve())
    assert result["run"] == record
    for name in ("results.json", "results.md"):  # they are there to be shown
        assert str(folder) not in (folder / "widerface-original" / name).read_text()
    assert result["timing"]["pictures_per_second"] > 0
    figures = [f"{expected[subset]:.2f}" for subset in data.SUBSETS]
    assert next(line.split() for line in out.splitlines() if "original " in line) == [
        "original",
        "4",
        *figures,
    ]
    assert out.splitlines()[-1] == "original: widerface-original/results.md"
    assert "original: 4 pictures, " in err
    written = sorted(path.name for path in (folder / "widerface-original").iterdir() if path.name[0] != ".")
    curves = [f"curve-{subset}.{suffix}" for subset in sorted(data.SUBSETS) for suffix in ("png", "svg")]
    others = ["false_positives.jpg", "misses.jpg", "predictions", "results.json", "results.md", "run.json"]
    assert written == [*curves, *others]
    text = (folder / "widerface-original" / "results.md").read_text()
    assert all(figure in text for figure in figures)
    sheet = cv2.imread(str(folder / "widerface-original" / "false_positives.jpg"))
    assert sheet is not None


def test_a_second_time_nothing_is_detected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "images") == 0
    first = json.loads((folder / "widerface-original" / "results.json").read_text())
    assert evaluate("--images", "images") == 0
    assert "original: 4 pictures (4 from before)\n" in capsys.readouterr().err
    second = json.loads((folder / "widerface-original" / "results.json").read_text())
    del first["timing"]
    assert second == first


def test_several_protocols(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--protocol", "vga", "--protocol", "original", "--output", "out", "--markdown", "-"]
    assert evaluate("--images", "images", *options, "--json", "all/results.json", "--workers", "1") == 0
    out, _ = capsys.readouterr()
    results = json.loads((folder / "all" / "results.json").read_text())["results"]
    assert [result["name"] for result in results] == ["vga", "original"]
    assert results[0]["run"]["tta"]["short_sides"] == [480]
    for result in results:
        assert result == json.loads((folder / "out" / result["name"] / "results.json").read_text())
    lines = [line.split(" | ") for line in out.splitlines()]
    assert [line[0] for line in lines[2:]] == ["| vga", "| original"]
    assert len(lines) == 4
    assert (folder / "out" / "curve-hard.png").is_file()


def test_json_on_the_standard_output_is_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--images", "images", "--json", "-", "--quiet") == 0
    out, err = capsys.readouterr()
    assert [result["pictures"] for result in json.loads(out)["results"]] == [4]
    assert err == ""


def test_quiet_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "images", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert (folder / "widerface-original" / "results.json").is_file()


def test_a_part_of_the_set(folder: Path) -> None:
    (folder / "part.txt").write_text("1--B/two.jpg\n0--A/none\n")
    assert evaluate("--images", "images", "--names", "part.txt") == 0
    result = json.loads((folder / "widerface-original" / "results.json").read_text())
    assert (result["pictures"], result["run"]["names"]) == (2, "part.txt")
    predictions = folder / "widerface-original" / "predictions"
    expected = by_the_oracle(predictions, folder / "gt", ["1--B/two", "0--A/none"])
    assert result["ap"] == expected


def test_predictions_of_another_detector(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, lefts in PICTURES.items():
        path = folder / "theirs" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        faces = [f"{FACE[0] + left} {FACE[1]} {FACE[2]} {FACE[3]} 0.9" for left in lefts]
        path.write_text("\n".join([name.partition("/")[2], str(len(faces)), *faces]) + "\n")
    assert evaluate("--predictions", folder / "theirs") == 0
    result = json.loads((folder / "widerface-predictions" / "results.json").read_text())
    assert result["ap"] == {"easy": 100.0, "medium": 100.0, "hard": 100.0}
    assert (result["name"], result["run"]) == ("theirs", {"predictions": "theirs"})
    assert "theirs" in capsys.readouterr().out
    assert not (folder / "widerface-predictions" / "misses.jpg").exists()
    assert evaluate("--predictions", "theirs", "--images", "images") == 0
    assert (folder / "widerface-predictions" / "misses.jpg").is_file()
    (folder / "theirs" / "1--B" / "two.txt").write_text("two\n1\n1 2 3 4\n")
    assert evaluate("--predictions", "theirs") == 1
    assert "two.txt:3: expected 5 or more numbers" in capsys.readouterr().err


# What is wrong


def test_pictures_that_are_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images" / "1--B" / "two.jpg").unlink()
    assert evaluate("--images", "images") == 1
    err = capsys.readouterr().err
    assert (
        "images: 1 of 4 pictures are missing, such as 1--B/two.jpg: name those that are there with --names"
        in err
    )
    assert not (folder / "widerface-original").exists()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (".", "4 of 4 pictures .*: they are in images"),
        ("gt", "4 of 4 .*: name the folder in which those of the"),
    ],
)
def test_another_folder(images: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", images) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_broken_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images" / "1--B" / "two.jpg").write_bytes(b"\xff\xd8\xff")
    assert evaluate("--images", "images", "--protocol", "vga", "--protocol", "original", "--json", "-") == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"results": []}
    assert "original: 3 pictures, 1 failed, " in err
    assert err.count("two.jpg") == 2
    assert "original is not scored without 1 picture" in err
    assert not (folder / "widerface-original" / "results.json").exists()


def test_a_run_of_another_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "images", "--output", "out") == 0
    assert evaluate("--images", "images", "--output", "out", "--protocol", "vga") == 1
    assert "out was made with protocol 'original' instead of 'vga', tta None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the folder of the pictures"),
        (
            ["--images", "images", "--protocol", "papre"],
            "papre is none of original, default, short1600, vga, paper",
        ),
        (["--images", "images", "--protocol", "vga", "--protocol", "vga"], "vga is given twice"),
        (["--predictions", "images", "--protocol", "vga"], "leave --protocol out"),
        (["--images", "images", "--json", "-", "--markdown", "-"], "only one of --json and --markdown"),
        (["--images", "images", "--engine", "caffe"], "engine must be one of auto"),
        (["--images", "images", "--json", "images"], "images is a folder and not a file"),
        (["--images", "images", "--workers", "0"], "for '--workers'"),
        (["--images", "images", "--names", "strangers.txt"], "it does not know 1 of 1: '0--A/nobody'"),
    ],
)
def test_wrong_usage(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "strangers.txt").write_text("0--A/nobody\n")
    assert evaluate(*options) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (folder / "widerface-original").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names", "no.txt"], "no.txt: cannot be read"),
        (["--names", "bad.txt"], "bad.txt:1: expected the name of a picture"),
        (["--weights", "no.onnx"], "no.onnx does not exist"),
        (["--engine", "native", "--device", "cuda"], "runs on the CPU"),
        (["--json", "images/1--B/two.jpg/x"], "cannot write images/1--B/two.jpg/x"),
    ],
)
def test_what_fails(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.txt").write_text("../one\n")
    assert evaluate("--images", "images", *options) == 1
    assert message in capsys.readouterr().err


def test_without_matplotlib(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked for before anyone waits for a detection."""
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else real(name))
    assert evaluate("--images", "images") == 1
    assert 'pip install "retinaface-fast[eval]"' in capsys.readouterr().err
    assert not (folder / "widerface-original").exists()


def test_a_target_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "widerface-original" / "results.md").mkdir(parents=True)
    assert evaluate("--images", "images") == 1
    assert "cannot write widerface-original/results.md: " in capsys.readouterr().err


def test_help_knows_all_protocols(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    assert main(["eval", "widerface", "-h"]) == 0
    out = capsys.readouterr().out
    assert list(PROTOCOL_HELP) == list(PROTOCOLS)
    for name, text in PROTOCOL_HELP.items():
        assert f" {name} {' ' * (12 - len(name))} {text} " in out


# Interruptions


def many(folder: Path, count: int) -> None:
    """A set of many small pictures, each with two faces."""
    content = (folder / "images" / "1--B" / "two.jpg").read_bytes()
    names = [f"p{number}" for number in range(count)]
    for name in names:
        (folder / "images" / "1--B" / f"{name}.jpg").write_bytes(content)
    boxes = [np.array([[FACE[0], *FACE[1:]], [FACE[0] + 256, *FACE[1:]]])] * count
    for subset in data.SUBSETS:
        scipy_io.savemat(
            folder / "gt" / f"wider_{subset}_val.mat",
            {
                "event_list": cells(["1--B"]),
                "file_list": cells([cells(names)]),
                "face_bbx_list": cells([cells(boxes)]),
                "gt_list": cells([cells([np.array([[1], [2]])] * count)]),
            },
        )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(
    number: signal.Signals, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(folder, 80)
    command = [
        sys.executable,
        "-m",
        "retinaface_fast",
        "eval",
        "widerface",
        "--images",
        "images",
        "--gt",
        "gt",
    ]
    predictions = folder / "widerface-original" / "predictions" / "1--B"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        started = time.monotonic()
        while len(list(predictions.glob("*.txt"))) < 3 and time.monotonic() - started < 60:
            time.sleep(0.002)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    done = len(list(predictions.glob("*.txt")))
    assert 3 <= done < 80
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"interrupted: {done} of 80 pictures are done with original; the same command goes on" in err
        assert not list(predictions.glob(".*"))
    assert evaluate("--images", "images") == 0
    assert f"original: 80 pictures ({done} from before), " in capsys.readouterr().err
    result = json.loads((folder / "widerface-original" / "results.json").read_text())
    expected = by_the_oracle(predictions.parent, folder / "gt", [f"1--B/p{number}" for number in range(80)])
    assert result["ap"] == expected
    assert not list(predictions.glob(".*"))


# Real pictures


def test_photographs(wider_dir: Path, here: Path) -> None:
    names = data.read_names(wider_dir / "test_part.txt")[::40]
    (here / "names.txt").write_text("\n".join(names))
    options = ["--images", wider_dir / "images", "--gt", wider_dir / "ground_truth", "--names", "names.txt"]
    assert main(["eval", "widerface", "--protocol", "original", "--protocol", "vga", *map(str, options)]) == 0
    for protocol in ("original", "vga"):
        result = json.loads((here / f"widerface-{protocol}" / "results.json").read_text())
        predictions = here / f"widerface-{protocol}" / "predictions"
        expected = by_the_oracle(predictions, wider_dir / "ground_truth", names)
        assert result["ap"] == expected
        assert result["ap"]["easy"] > 60
