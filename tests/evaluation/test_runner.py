"""Runs over many pictures: whole files, interruptions, broken pictures, folders of other runs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import retinaface_fast
from retinaface_fast import DatasetError, Detections, EngineError, FaceDetector, data
from retinaface_fast.evaluation import PROTOCOLS, DetectionRun, RunProgress, claim_folder, runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import UInt8Array

ORIGINAL = PROTOCOLS["original"]
NAMES = ["0--A/face", "0--A/no face", "1--B/two"]


@pytest.fixture
def images(tmp_path: Path, astronaut_bgr: UInt8Array) -> Path:
    """Pictures with one, no and two faces."""
    face = astronaut_bgr[:256, 100:356]
    for name, pixels in zip(
        NAMES, (face, np.full((64, 80, 3), 90, np.uint8), np.hstack([face] * 2)), strict=True
    ):
        path = tmp_path / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)
    return tmp_path / "images"


def files(folder: Path) -> list[str]:
    """What is in the folder, without the lock."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ".lock")


class Stand:
    """What stands in for the detector of a run: it has its settings."""

    def __init__(self) -> None:
        vars(self).update(ORIGINAL.options())


WRITTEN = sorted(["run.json", *(f"predictions/{name}.txt" for name in NAMES)])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_writes_what_the_detector_finds(workers: int, images: Path, tmp_path: Path) -> None:
    states: list[RunProgress] = []
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", workers=workers)
    summary = run(NAMES, progress=states.append)
    detector = FaceDetector(**ORIGINAL.options())
    expected = [ORIGINAL.detect(detector, images / f"{name}.jpg") for name in NAMES]
    for found, result in zip(data.read_predictions(run.predictions, NAMES), expected, strict=True):
        np.testing.assert_array_equal(found.scores.astype(np.float32), result.scores)
        np.testing.assert_allclose(found.boxes, result.boxes, atol=2e-6)
    assert files(tmp_path / "out") == WRITTEN
    assert (summary.total, summary.done, summary.kept, summary.failed) == (3, 3, 0, ())
    assert summary.faces == sum(map(len, expected)) >= 3
    assert summary.pictures_per_second == pytest.approx(3 / summary.seconds)
    assert [state.finished for state in states] == [0, 1, 2, 3]
    assert states[-1].faces == summary.faces


def test_the_record(images: Path, tmp_path: Path) -> None:
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", engine="native", device="cpu")
    run(NAMES[:1])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record == run.record
    assert len(record["weights_sha256"]) == 64
    assert record.keys() >= {"protocol", "model", "engine", "device", "version", "simd", "score_threshold"}
    assert (record["images"], len(record["code"])) == (str(images.resolve()), 16)
    assert (record["protocol"], record["engine"], record["keep_top_k"]) == ("original", "native", 750)
    assert run.workers == runner._core.available_processors()


def test_what_is_there_is_kept(images: Path, tmp_path: Path) -> None:
    def run() -> DetectionRun:
        return DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")

    run()(NAMES[:2])
    kept = tmp_path / "out" / "predictions" / f"{NAMES[0]}.txt"
    kept.write_text("mine\n0\n")
    left_by_another = kept.with_name(".face.txt.12345.part")
    left_by_another.write_text("half a fi")
    summary = run()([*NAMES, NAMES[0]])
    assert (summary.total, summary.kept, summary.done) == (3, 2, 1)
    assert kept.read_text() == "mine\n0\n"
    assert files(tmp_path / "out") == WRITTEN
    nothing = run()(NAMES)
    assert (nothing.done, nothing.pictures_per_second) == (0, 0.0)


@pytest.mark.parametrize("workers", [1, 3])
def test_broken_pictures_are_noted_and_tried_again(workers: int, images: Path, tmp_path: Path) -> None:
    (images / "1--B" / "broken.jpg").write_bytes((images / f"{NAMES[0]}.jpg").read_bytes()[:200])
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", workers=workers)
    states: list[RunProgress] = []
    summary = run(["1--B/broken", "1--B/absent", *NAMES], progress=states.append)
    reasons = dict(summary.failed)
    assert reasons.keys() == {"1--B/broken", "1--B/absent"}
    assert "no such file" in reasons["1--B/absent"].lower()
    assert (summary.done, states[-1].finished) == (3, 5)
    assert files(tmp_path / "out") == WRITTEN
    cv2.imwrite(str(images / "1--B" / "absent.jpg"), np.zeros((40, 40, 3), np.uint8))
    summary = run(["1--B/broken", "1--B/absent", *NAMES])
    assert (summary.kept, summary.done, [failure.name for failure in summary.failed]) == (
        3,
        1,
        ["1--B/broken"],
    )


def test_numbers_that_no_file_holds_are_the_picture_s_fault(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", workers=1)

    class Wild(Stand):
        def detect(self, _: object) -> Any:
            return Detections(np.full((1, 4), np.inf), np.ones(1), np.zeros((1, 5, 2)), (9, 9))

    monkeypatch.setattr(run, "_detector", Wild())
    assert "boxes must be from" in dict(run(NAMES[:1]).failed)[NAMES[0]]


def test_a_full_disk_ends_the_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def _full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "write_prediction", _full)
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")
    with pytest.raises(DatasetError, match=r"cannot write .*\.txt: No space left on device"):
        run(NAMES)


def test_an_output_that_is_a_file(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DatasetError, match=r"cannot write .*out: File exists"):
        DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES)


# Folders of other runs


def test_a_folder_that_was_made_in_another_way(images: Path, tmp_path: Path) -> None:
    DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES[:1])
    record = tmp_path / "out" / "run.json"
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "engine": "torch", "threads": 4}))
    with pytest.raises(
        DatasetError, match="with engine 'torch' instead of 'native', threads 4 instead of None: rem"
    ):
        DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES)
    assert files(tmp_path / "out") == ["predictions/0--A/face.txt", "run.json"]


def test_other_pictures_of_the_same_names(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES[:1])
    monkeypatch.chdir(images)
    assert DetectionRun(ORIGINAL, images=".", output=tmp_path / "out")(NAMES[:1]).kept == 1
    monkeypatch.chdir(tmp_path)  # Windows does not move the folder one is in
    images.rename(tmp_path / "others")
    with pytest.raises(DatasetError, match=r"was made with images '.*images' instead of '.*others'"):
        DetectionRun(ORIGINAL, images=tmp_path / "others", output=tmp_path / "out")(NAMES)


def test_other_code(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES[:1])
    package = tmp_path / "package"
    shutil.copytree(
        Path(retinaface_fast.__file__).parent,
        package,
        ignore=lambda _, found: {"cli", "__pycache__"} & {*found},
    )
    monkeypatch.setattr(runner.retinaface_fast, "__file__", str(package / "__init__.py"))
    with (package / "evaluation" / "report.py").open("a") as file:  # it only scores
        file.write("# changed")
    assert DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES[:1]).kept == 1
    with (package / "ops" / "nms.py").open("a") as file:
        file.write("# changed")
    with pytest.raises(DatasetError, match=r"was made with code '[0-9a-f]{16}' instead of '[0-9a-f]{16}': "):
        DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES)


def test_empty_files_and_folders_of_any_depth(images: Path, tmp_path: Path) -> None:
    deep = "2--C/of/many/face"
    (images / deep).parent.mkdir(parents=True)
    (images / f"{deep}.jpg").write_bytes((images / f"{NAMES[0]}.jpg").read_bytes())
    (images / "top.jpg").write_bytes((images / f"{NAMES[0]}.jpg").read_bytes())
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")
    assert run([deep, "top"]).done == 2
    written = run.predictions / f"{deep}.txt"
    whole = written.read_bytes()
    written.write_bytes(b"")
    for folder in (run.predictions, written.parent):
        (folder / ".face.txt.12345.part").write_text("half a fi")
    summary = run([deep, "top"])
    assert (summary.kept, summary.done, written.read_bytes()) == (1, 1, whole)
    assert files(tmp_path / "out") == [f"predictions/{deep}.txt", "predictions/top.txt", "run.json"]
    (tmp_path / "out" / "run.json").unlink()
    (run.predictions / "top.txt").unlink()
    with pytest.raises(DatasetError, match=r"out holds predictions, and no run.json"):
        run([deep])


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_record_that_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=r"run.json: expected how the files beside it were made"):
        claim_folder(path, {"engine": "native"})


def test_predictions_of_somebody_else(images: Path, tmp_path: Path) -> None:
    data.write_prediction(tmp_path / "out" / "predictions" / "e" / "x.txt", "e/x", [], [])
    with pytest.raises(DatasetError, match=r"out holds predictions, and no run.json"):
        DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES)


def test_two_at_a_time_are_one_too_many(images: Path, tmp_path: Path) -> None:
    other = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")
    refused = []

    def _meanwhile(state: RunProgress) -> None:
        if not state.finished:
            with pytest.raises(DatasetError, match="another process is writing there") as caught:
                other(NAMES)
            refused.append(caught.value)

    DetectionRun(ORIGINAL, images=images, output=tmp_path / "out")(NAMES, progress=_meanwhile)
    assert len(refused) == 1
    assert other(NAMES).kept == 3


# Arguments


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "resnet"}, ValueError, "model must be one of mobilenet0.25, "),
        ({"engine": "tensorflow"}, ValueError, "engine must be one of auto, native"),
        ({"engine": "native", "device": "cuda"}, EngineError, "runs on the CPU"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"workers": 1.5}, TypeError, "workers must be an integer"),
    ],
)
def test_wrong_arguments(options: dict, kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        DetectionRun(ORIGINAL, images=tmp_path, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_name_that_leads_out_of_the_folder(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names must be event/name"):
        DetectionRun(ORIGINAL, images=images / "1--B", output=tmp_path / "out")(["../0--A/face"])
    assert not (tmp_path / "out").exists()


def test_weights_of_a_file(images: Path, tmp_path: Path) -> None:
    from retinaface_fast.weights import bundled_path, load_weights, save_weights

    if bundled_path() is None:
        pytest.skip("built without weights")
    path = tmp_path / "mine.safetensors"
    save_weights(load_weights("mobilenet0.25"), path)
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", weights=path)
    assert run.record["model"] == "mobilenet0.25"
    with pytest.raises(ValueError, match="model must be that of the weights"):
        DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", weights=path, model="resnet50")


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_other_engines(engine: str, images: Path, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    run = DetectionRun(ORIGINAL, images=images, output=tmp_path / "out", engine=engine, device="cpu")
    assert run.workers == (1 if engine == "torch" else runner._core.available_processors())
    assert (run.record["engine"], bool(run.record[engine])) == (engine, True)
    assert run(NAMES).done == 3


# Several at a time


class Slow(Stand):
    """A detector that waits for a sign."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.started: list[str] = []

    def detect(self, path: Path) -> Detections:
        self.started.append(path.stem)
        assert self.go.wait(60)
        return Detections(np.zeros((1, 4)), np.ones(1), np.zeros((1, 5, 2)), (9, 9))


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)


def test_an_interrupted_run_ends_what_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = DetectionRun(ORIGINAL, images=tmp_path, output=tmp_path / "out", workers=2)
    slow = Slow()
    monkeypatch.setattr(run, "_detector", slow)

    def _interrupt() -> None:
        until(lambda: len(slow.started) == 2)
        signal.raise_signal(signal.SIGINT)
        threading.Timer(1.5, slow.go.set).start()  # later than a main thread that cannot be waked looks

    threading.Thread(target=_interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run([f"e/{number}" for number in range(50)])
    assert sorted(slow.started) == ["0", "1"]
    assert files(tmp_path / "out") == ["predictions/e/0.txt", "predictions/e/1.txt", "run.json"]
    slow.go.set()
    assert run([f"e/{number}" for number in range(5)]).kept == 2


def test_an_error_of_the_callback_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no thread goes on behind it, nor is the folder left locked."""
    run = DetectionRun(ORIGINAL, images=tmp_path, output=tmp_path / "out", workers=2)
    slow = Slow()
    slow.go.set()
    monkeypatch.setattr(run, "_detector", slow)

    def _fails(state: RunProgress) -> None:
        if state.done == 3:
            raise RuntimeError("no more")

    names = [f"e/{number}" for number in range(400)]
    with pytest.raises(RuntimeError, match="no more") as kept:  # with its traceback, and the frames in it
        run(names, progress=_fails)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("detection-run")]
    assert run(names).done > 0
    assert kept.value.args == ("no more",)


KILLED = """
import sys, time
from retinaface_fast.evaluation import PROTOCOLS, DetectionRun
images, output, *names = sys.argv[1:]
run = DetectionRun(PROTOCOLS["original"], images=images, output=output)
run(names, progress=lambda state: print(state.done, flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_run_goes_on(images: Path, tmp_path: Path) -> None:
    names = [f"e/{number}" for number in range(60)]
    (images / "e").mkdir()
    content = (images / f"{NAMES[2]}.jpg").read_bytes()
    for name in names:
        (images / f"{name}.jpg").write_bytes(content)
    output = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(images), str(output), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 5:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    done = list((output / "predictions").glob("e/*.txt"))
    assert 5 <= len(done) < 60
    expected = [data.read_prediction(path).boxes for path in done]
    summary = DetectionRun(ORIGINAL, images=images, output=output)(names)
    assert (summary.kept, summary.done, summary.failed) == (len(done), 60 - len(done), ())
    for found in data.read_predictions(output / "predictions", names):
        np.testing.assert_array_equal(found.boxes, expected[0])
    assert not list((output / "predictions").rglob("*.part"))
