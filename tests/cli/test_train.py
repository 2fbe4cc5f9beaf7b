"""`retinaface-fast train`: a run, how it goes on, what it refuses, and what it says."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("typer")
for needed in ("torch", "lightning_fabric", "pydantic", "tensorboard", "matplotlib"):
    pytest.importorskip(needed)
pytest.importorskip("cv2")

from retinaface_fast.cli import main  # noqa: E402
from retinaface_fast.cli._train_report import RECIPES  # noqa: E402
from retinaface_fast.training import recipe_names  # noqa: E402
from retinaface_fast.weights import bundled_path, load_weights  # noqa: E402
from tests.cli.training_data import (  # noqa: E402
    RECIPE,
    TINY,
    faces,
    label_lines,
    write_coco,
    write_label,
    write_wider,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(here: Path) -> Path:
    """A folder `data` of twelve pictures with landmarks, and the recipe `small.toml`, to work beside."""
    write_label(here / "data", faces(12))
    (here / "small.toml").write_text(RECIPE)
    return here / "data"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, int]:
    """A run with held out pictures and a damaged one: its folder, what it said, and its exit code."""
    root = tmp_path_factory.mktemp("finished")
    write_label(root / "data", faces(12))
    (root / "data" / "images" / "ev" / "a3.jpg").write_bytes(b"no picture")
    (root / "data" / "images" / "ev" / "a4.jpg").unlink()
    (root / "small.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("COLUMNS", "200")
        patch.setenv("NO_COLOR", "1")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            options = ["--val-share", "0.3", "--set", "validation.every=1", "-o", "run"]
            code = main(["train", *TINY, "--data", "data", *options])
    return root, out.getvalue(), err.getvalue(), code


def said(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_what_a_run_says_and_leaves(finished: tuple[Path, str, str, int]) -> None:
    root, out, err, code = finished
    assert code == 0, err
    assert "small: 2 epochs of " in err
    assert "weights: random, seed 0" in err
    assert err.count(" pictures/s, ") == 2  # a line for each epoch, where there is no terminal
    assert err.count(": AP ") == 2
    assert "warning" not in err
    assert "best validation: " in out
    assert "weights: run/best.safetensors" in out
    assert "weights: run/last.safetensors" in out
    for name in ("best", "last"):
        assert load_weights(root / "run" / f"{name}.safetensors").config.name == "mobilenet0.25"
    assert (root / "run" / "curves.png").stat().st_size > 1000
    arguments = json.loads((root / "run" / "run.json").read_text())["arguments"]
    assert arguments["data"] == str(root / "data")
    assert arguments["overrides"] == {"validation.every": "1"}


def test_faults_are_told_once_and_kept(finished: tuple[Path, str, str, int]) -> None:
    root, out, err, _ = finished
    assert err.count("expected the picture data/images/ev/a4.jpg") == 1
    # Trained on or measured on, the damaged picture is told once.
    assert err.count("a3.jpg: not a picture") == 1
    lines = (root / "run" / "faults.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2
    assert any("a3.jpg" in text for text in lines)
    assert "2 faults in the data: run/faults.txt" in out


def test_held_out_pictures_stay_where_they_are(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from retinaface_fast.cli._train import _split
    from retinaface_fast.training import read_records

    records = read_records(data).records
    rest, held = _split(records, 0.4)
    assert {record.image for record in rest} | {record.image for record in held} == {
        record.image for record in records
    }
    assert len(rest) + len(held) == len(records)
    fewer_rest, fewer_held = _split(records[:8], 0.4)
    assert {record.image for record in fewer_held} <= {record.image for record in held}
    assert {record.image for record in fewer_rest} <= {record.image for record in rest}
    assert len(_split(records[:3], 0.0001)[1]) == 1  # never none
    (here / "one.txt").write_text("ev/a1\n")
    assert main(["train", *TINY, "--data", "data", "--names", "one.txt", "--val-share", "0.5"]) == 1
    assert "1 picture with faces cannot be shared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "name", "landmarks"),
    [
        (write_label, "", 4),
        (lambda folder, drawn: write_label(folder, drawn, landmarks=False), "label.txt", 0),
        (write_wider, "", 0),
        (write_coco, "faces.json", 0),
    ],
    ids=["label", "label-boxes", "wider", "coco"],
)
def test_layouts(
    write: Any, name: str, landmarks: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "data", faces(4))
    (here / "small.toml").write_text(RECIPE)
    argument = f"data/{name}" if name else "data"
    assert main(["train", *TINY, "--data", argument, "--set", "schedule.epochs=1"]) == 0
    out, err = capsys.readouterr()
    assert f"data: 4 pictures with 4 faces, {landmarks} with landmarks" in err
    assert ("no face has landmarks" in err) == (not landmarks)
    assert "--val-share" in err  # there will be no best weights
    assert "done: 1 of 1 step" in out
    assert (here / "train-small" / "last.safetensors").is_file()
    assert not (here / "train-small" / "best.safetensors").exists()
    assert not (here / "train-small" / "faults.txt").exists()


def test_check_trains_nothing(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "--data", "data", "--check", "-o", "look"]) == 0
    out, err = capsys.readouterr()
    assert "12 pictures, 0 of them without a face to train on" in out
    assert "a batch after augmentation: look/check.png" in out
    assert "no validation" in err
    assert [path.name for path in (here / "look").iterdir()] == ["check.png"]
    (data / "images" / "ev" / "a3.jpg").write_bytes(b"no picture")
    assert main(["train", *TINY, "--data", "data", "--check", "-o", "look", "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")
    [fault] = (here / "look" / "faults.txt").read_text(encoding="utf-8").splitlines()
    assert "a3.jpg" in fault


@pytest.fixture
def searched(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Data without landmarks, and a detector that finds each face by its box; the pictures it is given."""
    if bundled_path() is None:
        pytest.skip("this build has no weights in it")
    from retinaface_fast.detections import Detections

    given: list[str] = []

    class Finds:
        def __init__(self, **options: Any) -> None:
            assert options["score_threshold"] == 0.3

        def detect(self, path: Path) -> Detections:
            given.append(path.stem)
            (x, y, w, h), points = faces(12)[int(path.stem[1:])]
            return Detections(
                boxes=np.float32([[x, y, x + w, y + h]]),
                scores=np.float32([0.9]),
                landmarks=np.float32([points]),
                image_size=(96, 128),
                timings={},
                engine="fake",
                device="cpu",
            )

    monkeypatch.setattr("retinaface_fast.detector.FaceDetector", Finds)
    (data / "label.txt").write_text("\n".join(label_lines(faces(12), landmarks=False)) + "\n")
    return given


def test_landmarks_and_weights_of_a_model(
    data: Path, here: Path, searched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--landmarks-from", "mobilenet0.25", "--init", "mobilenet0.25", "--set", "schedule.epochs=1"]
    arguments = ["train", *TINY, "--data", "data", "-o", "run", *arguments]
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert "12 pictures with 12 faces, 12 with landmarks" in err
    assert "no face has landmarks" not in err
    assert "weights: mobilenet0.25 (sha256 " in err
    assert len(searched) == 12
    sha256 = load_weights("mobilenet0.25").sha256
    assert json.loads((here / "run" / "run.json").read_text())["landmarks_from"] == sha256
    # The weights are not asked for again, nor are the pictures.
    assert main(["train", "--resume", "run", "--workers", "0", "--device", "cpu"]) == 0
    assert len(searched) == 12
    # Another run in this folder is refused before anything is searched.
    (here / "run" / "landmarks.npz").unlink()
    assert main([*arguments, "--set", "optimiser.lr=1"]) == 1
    assert "run holds a run with other recipe.optimiser.lr" in capsys.readouterr().err
    assert main(["train", *TINY, "--data", "data", "-o", "run", "--set", "schedule.epochs=1"]) == 1
    assert "landmarks_from" in capsys.readouterr().err
    assert len(searched) == 12


def test_landmarks_of_other_data_are_refused(
    data: Path, here: Path, searched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *TINY, "--data", "data", "-o", "run", "--landmarks-from", "mobilenet0.25"]
    arguments += ["--set", "schedule.epochs=1"]
    assert main(arguments) == 0
    (here / "run" / "run.json").unlink()
    shutil.rmtree(here / "run" / "checkpoints")
    lines = (data / "label.txt").read_text().splitlines()
    x, *rest = lines[1].split()
    (data / "label.txt").write_text("\n".join([lines[0], " ".join([str(int(x) + 1), *rest]), *lines[2:]]))
    capsys.readouterr()
    assert main(arguments) == 1
    assert "landmarks.npz: expected landmarks of these data" in capsys.readouterr().err
    assert len(searched) == 12


def test_the_other_processes_search_nothing(
    data: Path, here: Path, searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinaface_fast.cli._train_landmarks import KeptLandmarks
    from retinaface_fast.training import load_recipe, read_records

    records = read_records(data).records
    first, other = (
        KeptLandmarks(here / "run", "mobilenet0.25", load_recipe("finetune"), resumed=False) for _ in range(2)
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.extend(other.fill(records, device="cpu", progress=lambda *_: None))
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert not searched
    monkeypatch.setenv("RANK", "0")
    filled = first.fill(records, device="cpu", progress=lambda *_: None)
    waiting.join(30)
    assert len(searched) == len(found) == 12
    for one, another in zip(filled, found, strict=True):
        np.testing.assert_array_equal(one.landmarks, another.landmarks)
        assert not np.isnan(one.landmarks).any()


def test_interrupted_and_resumed_from_elsewhere(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinaface_fast.training.learner import Learner

    step, once = Learner.step, [signal.SIGINT]

    def interrupted(self: Learner, *arguments: Any, **options: Any) -> Any:
        if once:
            signal.raise_signal(once.pop())
        return step(self, *arguments, **options)

    arguments = ["train", *TINY, "--data", "data", "--images", "data/images", "-o", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        assert main(arguments) == 130
    out, err = capsys.readouterr()
    assert "go on with: retinaface-fast train --resume run" in err
    assert "interrupted: " in out
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["train", "--resume", "../run", "--workers", "0", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "goes on from step " in err
    assert "done: 6 of 6 steps" in out
    assert (here / "run" / "last.safetensors").is_file()


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command such that it is interrupted in its third step of six; a checkpoint is there then."""
    from retinaface_fast.training.learner import Learner

    step = Learner.step

    def call(arguments: list[str]) -> int:
        done = []

        def interrupted(self: Learner, *given: Any, **options: Any) -> Any:
            done.append(1)
            if len(done) == 3:
                signal.raise_signal(signal.SIGINT)
            return step(self, *given, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "step", interrupted)
            return main(arguments)

    return call


@pytest.mark.parametrize("batch_norm", ["restored", "as-is"])
def test_what_a_run_began_with_may_be_gone(
    batch_norm: str,
    data: Path,
    interrupt: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if bundled_path() is None:
        pytest.skip("this build has no weights in it")
    here = data.parent
    (here / "models").mkdir()
    shutil.copy(bundled_path(), here / "models" / "first.safetensors")
    arguments = ["train", *TINY, "--data", "data", "--init", "models/first.safetensors"]
    arguments += ["--set", f"training.batch_norm={batch_norm}", "--set", "optimiser.lr=1e-6"]
    assert main([*arguments, "-o", "whole"]) == 0
    assert interrupt([*arguments, "-o", "run"]) == 130
    shutil.copytree(here / "run", here / "again")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["train", "--resume", "../run", "--workers", "0", "--device", "cpu"]) == 0
    assert "weights: goes on from step " in capsys.readouterr().err
    (here / "models" / "first.safetensors").unlink()
    (here / "small.toml").unlink()
    assert main(["train", "--resume", "../again", "--workers", "0", "--device", "cpu"]) == 0
    whole = load_weights(here / "whole" / "last.safetensors")
    assert "initial_upstream_sha256" in whole.metadata
    for name in ("run", "again"):
        found = load_weights(here / name / "last.safetensors")
        assert dict(found.metadata) == dict(whole.metadata)
        for key, tensor in whole.tensors.items():
            np.testing.assert_array_equal(found.tensors[key], tensor)


def test_other_initial_weights_are_another_run(
    data: Path, here: Path, interrupt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if bundled_path() is None:
        pytest.skip("this build has no weights in it")
    shutil.copy(bundled_path(), here / "first.safetensors")
    arguments = ["train", *TINY, "--data", "data", "-o", "run"]
    assert interrupt([*arguments, "--init", "first.safetensors"]) == 130
    assert main(arguments) == 1
    assert "run holds a run with other initial.kind" in capsys.readouterr().err
    # The same weights by another name.
    assert main([*arguments, "--init", "mobilenet0.25"]) == 0


def test_another_validation_set_is_another_run(
    finished: tuple[Path, str, str, int], data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *TINY, "--data", "data", "-o", "run", "--set", "schedule.epochs=1"]
    write_label(here / "val", faces(3))
    write_label(here / "other", faces(2))
    assert main([*arguments, "--val", "val"]) == 0
    for given in (["--val", "other"], []):
        capsys.readouterr()
        assert main([*arguments, *given]) == 1
        assert "run holds a run with other validation_digest: " in capsys.readouterr().err
    assert main([*arguments, "--val", "val"]) == 0


def test_the_data_may_move_and_is_found_where_it_is(
    data: Path, here: Path, interrupt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *TINY, "-o", "run", "--data"]
    assert interrupt([*arguments, "data"]) == 130
    before = json.loads((here / "run" / "run.json").read_text())
    data.rename(here / "moved")
    assert interrupt([*arguments, "moved"]) in (0, 130)
    after = json.loads((here / "run" / "run.json").read_text())
    assert after.pop("arguments")["data"] == str(here / "moved")
    assert before.pop("arguments")["data"] == str(here / "data")
    assert after == before
    assert main(["train", "--resume", "run", "--workers", "0", "--device", "cpu"]) == 0


def test_warnings_are_no_faults_of_the_data(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from retinaface_fast.training.learner import Learner

    step = Learner.step

    def warned(self: Learner, *given: Any, **options: Any) -> Any:
        logging.getLogger("retinaface_fast.training.trainer").warning("the moon is full")
        return step(self, *given, **options)

    monkeypatch.setattr(Learner, "step", warned)
    (data / "images" / "ev" / "a3.jpg").write_bytes(b"no picture")
    assert main(["train", *TINY, "--data", "data", "-o", "run", "--set", "schedule.epochs=1"]) == 0
    out, err = capsys.readouterr()
    assert "warning: the moon is full" in err
    assert "left out: the moon" not in err
    assert "1 fault in the data" in out
    [fault] = (here / "run" / "faults.txt").read_text().splitlines()
    assert "a3.jpg" in fault


@pytest.mark.parametrize(
    ("processes", "wanted"),
    [
        ({}, "retinaface-fast train --resume 'my run'"),
        (
            {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"},
            "torchrun --nproc-per-node 2 -m retinaface_fast train --resume 'my run'",
        ),
        (
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"},
            "torchrun --nnodes 2 --rdzv-… --nproc-per-node 2 -m retinaface_fast train --resume 'my run'",
        ),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="its shell quotes otherwise")
def test_how_to_go_on_after_the_second_interruption(
    processes: dict[str, str],
    wanted: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retinaface_fast.cli import _train

    def run(plan: Any, **_: Any) -> int:
        plan.output.mkdir(exist_ok=True)
        (plan.output / "run.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(_train, "run", run)
    for name, value in processes.items():
        monkeypatch.setenv(name, value)
    arguments = ["train", *TINY, "--data", "data", "-o", "my run"]
    assert main(arguments) == 130
    assert capsys.readouterr().err == f"go on with: {wanted}\n"
    monkeypatch.setenv("RANK", "1")
    assert main(arguments) == 130
    assert capsys.readouterr().err == ""


def test_a_run_that_is_done_has_nothing_left(
    finished: tuple[Path, str, str, int], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished[0]
    shutil.copytree(root / "run", here / "run")
    faults = (here / "run" / "faults.txt").read_text()
    assert main(["train", "--resume", "run", "--workers", "0"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    # The data is named by its whole path now; no fault is there twice all the same.
    after = (here / "run" / "faults.txt").read_text()
    assert sorted(map(tail, after.splitlines())) == sorted(map(tail, faults.splitlines()))


def tail(fault: str) -> str:
    return fault[fault.rindex("ev/") :]


def test_faults_are_kept_when_the_run_fails(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "ev" / "a4.jpg").unlink()
    arguments = ["--set", "optimiser.lr=1e30", "--set", "schedule.epochs=9", "-o", "run"]
    assert main(["train", *TINY, "--data", "data", *arguments]) == 1
    err = capsys.readouterr().err
    assert "error: the loss is " in err
    assert "a4.jpg" in (here / "run" / "faults.txt").read_text()


def test_many_faults_are_not_all_printed(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (data / "label.txt").read_text() + "".join(f"# ev/gone{n}.jpg\n1 2 30 40\n" for n in range(40))
    (data / "label.txt").write_text(lines)
    assert main(["train", *TINY, "--data", "data", "--set", "schedule.epochs=1", "-o", "run"]) == 0
    err = capsys.readouterr().err
    assert err.count("left out: ") == 10
    assert err.count("faults.txt in the end") == 1
    assert len((here / "run" / "faults.txt").read_text().splitlines()) == 40


def test_quiet_says_nothing(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "--data", "data", "--set", "schedule.epochs=1", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_only_the_first_process_prints(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "images" / "ev" / "a4.jpg").unlink()
    monkeypatch.setenv("RANK", "1")  # alone all the same: WORLD_SIZE is not set
    main(["train", *TINY, "--data", "data", "--set", "schedule.epochs=1", "-o", "run"])
    err = capsys.readouterr().err
    assert "left out" not in err
    assert "small: " not in err
    assert "warning" not in err
    assert not (here / "run" / "faults.txt").exists()


def test_recipes_fit_into_80_columns(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == list(recipe_names())
    assert sorted(RECIPES) == list(recipe_names())


def test_help_fits_into_80_columns(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for option in ("--landmarks-from", "--backbone-pixels", "SECTION.KEY=VALUE", "--val-share"):
        assert option in out  # none is cut off


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data: name the pictures and faces"),
        (["--data", "data", "-c", "nosuch"], "expected one of biubug6-mobilenet0.25"),
        (["--data", "data", "-c", "no.toml"], "no.toml: cannot be read"),
        (["--data", "data", "--set", "lr"], "expected SECTION.KEY=VALUE, got lr"),
        (["--data", "data", "--set", "optimiser.lrr=1"], "optimiser.lrr: is no key of a recipe"),
        (["--data", "data", "--set", "training.batch_size=64"], "--set training.batch_size=12 or less"),
        (["--data", "data", "--set", "validation.protocol=x"], "expected one of original"),
        (["--data", "data", "--device", "tpu"], "--device: expected 'cpu'"),
        (["--data", "data", "--init", "nosuch"], "--init: expected one of mobilenet0.25"),
        (["--data", "data", "--landmarks-from", "nosuch"], "--landmarks-from: expected one of"),
        (["--data", "data", "--on-fault", "weep"], "expected skip or fail, got weep"),
        (["--data", "data", "--backbone-pixels", "rgb", "--init", "x"], "expected bgr or torchvision"),
        (["--data", "data", "--backbone-pixels", "bgr"], "belongs to --init"),
        (["--data", "data", "--val-share", "0.6"], "expected 0 to 0.5, got 0.6"),
        (["--data", "data", "--val", "data", "--val-share", "0.1"], "only one of --val and --val-share"),
        (["--data", "data", "--val-names", "small.toml"], "belongs to --val or --val-gt"),
        (["--data", "data", "--val-gt", "data"], "--val-images: name the folder"),
        (["--resume", "run", "--set", "schedule.epochs=9", "-o", "x"], "leave --set, --output out"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.iterdir())
    given = [] if "-c" in arguments or "--resume" in arguments else TINY
    assert main(["train", *given, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in said(err)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing"], "missing: expected training data"),
        (["--data", "empty"], "empty: there is no face to train on"),
        (["--data", "data", "--val", "empty"], "empty: there is no face to measure on"),
        (["--data", "data", "--names", "small.toml"], "which does not know"),
        (["--data", "data", "--init", "no.safetensors"], "no.safetensors does not exist"),
        (["--data", "data", "-o", "small.toml"], "cannot write small.toml: "),
        (["--data", "data", "-o", "small.toml", "--check"], "cannot write small.toml/check.png"),
        (["--resume", "data"], "there is no run to go on with: run.json is missing"),
        (["--resume", "strange"], "strange/run.json: does not say how the run was started"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], message: str, data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_label(here / "empty", [])
    (here / "empty" / "images" / "ev" / "a.jpg").write_bytes((data / "images/ev/a1.jpg").read_bytes())
    (here / "empty" / "label.txt").write_text("# ev/a.jpg\n")
    (here / "strange").mkdir()
    (here / "strange" / "run.json").write_text('{"arguments": {}}')
    given = [] if "--resume" in arguments else TINY
    assert main(["train", *given, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_another_run_is_in_the_folder(
    finished: tuple[Path, str, str, int], data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished[0] / "run", here / "run")
    before = (here / "run" / "faults.txt").read_text()
    assert main(["train", *TINY, "--data", "data", "-o", "run"]) == 1
    assert "run holds a run with other " in capsys.readouterr().err
    assert (here / "run" / "faults.txt").read_text() == before


def test_a_package_that_is_missing(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "lightning_fabric" else find(name, *rest),
    )
    for arguments in (["--recipes"], ["--data", "data"], ["--data", "data", "--check"]):
        assert main(["train", *arguments]) == 1
        err = capsys.readouterr().err
        assert "lightning-fabric" in err
        assert "retinaface-fast[train]" in err
