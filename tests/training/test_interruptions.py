"""A run that is stopped, interrupted or killed, and goes on, ends in the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from retinaface_fast import DatasetError, RetinaFaceError, WeightsError
from retinaface_fast.training import read_records
from retinaface_fast.training.loader import BatchLoader
from retinaface_fast.training.trainer import Trainer
from retinaface_fast.training.validation import ValidationResult

from .tiny import contents, recipe, write_data, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinaface_fast.training import TrainingProgress, TrainingResult

#: Whatever has a state is in it: an average, moments, a validation, augmentation, a rate that falls.
CHANGES = {
    "training.ema_decay": 0.9,
    "augmentation.distort": True,
    "augmentation.flip": 0.5,
    "schedule.epochs": 3,
}
STEPS = 9


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What the process has drawn before is in a checkpoint, too."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), pictures=14)


def validator(weights: Any, *, protocol: str) -> ValidationResult:
    """A figure that is a function of the weights."""
    values = np.concatenate([values.ravel() for values in weights.tensors.values()])
    return ValidationResult({"ap": float(np.abs(np.sin(1e3 * values.astype(np.float64))).mean())}, ())


validator.images = ()  # type: ignore[attr-defined]


@pytest.fixture
def make(tmp_path: Path, data: Path) -> Callable[..., Trainer]:
    def made(name: str = "run", changes: dict[str, Any] | None = None, **options: Any) -> Trainer:
        usual: dict[str, Any] = {"validator": validator, "workers": 0, "device": "cpu"}
        return Trainer(
            recipe(tmp_path, CHANGES | (changes or {})),
            read_records(data).records,
            tmp_path / name,
            **(usual | options),
        )

    return made


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run comes to that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    result = Trainer(
        recipe(folder, CHANGES),
        read_records(data).records,
        folder / "run",
        validator=validator,
        workers=0,
        device="cpu",
    ).run()
    assert result.progress.step == STEPS
    return final(folder / "run")


def final(folder: Path) -> dict[str, bytes]:
    """Weights, and the tensors of the last checkpoint."""
    return {
        name: content
        for name, content in contents(folder).items()
        if "checkpoints" not in name or f"step-{STEPS:08d}" in name
    }


class At:
    """Does something after a step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step, self._action = step, action

    def __call__(self, state: TrainingProgress) -> None:
        if state.step == self._step and state.losses:
            self._action()


def logged_steps(folder: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder / "log"), size_guidance={"scalars": 0})
    log.Reload()
    return [event.step for event in log.Scalars(tag)]


# Asked to stop


@pytest.mark.parametrize("after", [1, 2, 5, 8, 9])
def test_stopped_after_a_step_and_taken_up(
    after: int, make: Callable[..., Trainer], expected: dict[str, bytes]
) -> None:
    trainer = make()
    result = trainer.run(progress=At(after, trainer.stop))
    # The step after the one in which it was asked, if there is one.
    assert result.progress.step == min(after + 1, STEPS)
    assert result.stopped == (after < STEPS)
    assert result.finished == (not result.stopped)
    going_on = make()
    assert going_on.resumed
    assert going_on.step == result.progress.step
    end = going_on.run()
    assert (end.finished, end.stopped, end.progress.step) == (True, False, STEPS)
    assert final(trainer.output) == expected
    # What was logged at the step where it stopped is still there.
    assert logged_steps(trainer.output, "validation/ap") == [3, 6, 9]
    assert logged_steps(trainer.output, "train/loss") == sorted({3, 6, 9})


def test_the_same_trainer_goes_on(make: Callable[..., Trainer], expected: dict[str, bytes]) -> None:
    trainer = make()
    assert trainer.run(progress=At(4, trainer.stop)).stopped
    assert trainer.run().finished
    assert final(trainer.output) == expected


def test_stopped_from_another_thread(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"schedule.epochs": 10_000})
    timer = threading.Timer(1.0, trainer.stop)
    timer.start()
    result = trainer.run()
    timer.join()
    assert result.stopped


def test_trained_in_another_thread(make: Callable[..., Trainer], expected: dict[str, bytes]) -> None:
    trainer = make()
    results: list[TrainingResult] = []
    thread = threading.Thread(target=lambda: results.append(trainer.run()))
    thread.start()
    thread.join()
    assert results[0].finished
    assert final(trainer.output) == expected


# Signals


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step(
    number: signal.Signals, make: Callable[..., Trainer], expected: dict[str, bytes]
) -> None:
    before = signal.getsignal(number)
    trainer = make()
    result = trainer.run(progress=At(4, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) == before
    assert (result.stopped, result.progress.step) == (True, 5)
    assert make().run().finished
    assert final(trainer.output) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
def test_the_second_signal_interrupts_at_once(
    make: Callable[..., Trainer], expected: dict[str, bytes]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    validations = 0

    def interrupted(weights: Any, *, protocol: str) -> ValidationResult:
        nonlocal validations
        validations += 1
        if validations == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return validator(weights, protocol=protocol)

    interrupted.images = ()  # type: ignore[attr-defined]
    trainer = make(validator=interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) == before
    going_on = make()
    assert going_on.step == 6, "what was learnt before the validation is not lost"
    assert going_on.run().finished
    assert final(trainer.output) == expected


# Signals to all processes

_GROUP = """
import os, signal, sys
from pathlib import Path
import torch
from retinaface_fast.training import read_records
from retinaface_fast.training import loader
from retinaface_fast.training.trainer import Trainer
from tests.training.test_interruptions import CHANGES, validator
from tests.training.tiny import recipe

class Early(loader.BatchLoader):
    def epoch(self, epoch, first):
        batches = super().epoch(epoch, first)
        if when == 0:  # the workers have begun, and have not imported anything yet
            os.killpg(0, number)
        return batches

if __name__ == "__main__":
    torch.manual_seed(0)
    folder, data, number, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.modules["retinaface_fast.training.trainer"].BatchLoader = Early
    trainer = Trainer(
        recipe(folder, CHANGES), read_records(data).records, folder / "run", validator=validator, workers=1,
        device="cpu",
    )
    def tell(state):
        if state.step == when and state.losses:
            os.killpg(0, number)
    result = trainer.run(progress=tell)
    assert result.stopped
    print(result.progress.step)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes to signal")
@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 4)])
def test_a_signal_to_all_processes(
    number: int, when: int, data: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    command = [sys.executable, "-c", _GROUP, str(tmp_path), str(data), str(int(number)), str(when)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        env=environment(),
        text=True,
        start_new_session=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout) == when + 1, "the worker had a picture for one more step"
    options: dict[str, Any] = {"validator": validator, "workers": 0, "device": "cpu"}
    going_on = Trainer(recipe(tmp_path, CHANGES), read_records(data).records, tmp_path / "run", **options)
    assert going_on.step == when + 1
    assert going_on.run().finished
    assert final(tmp_path / "run") == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")
@pytest.mark.parametrize("after", [0, 4])
def test_workers_that_die_while_it_stops(
    after: int, make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    """No picture comes any more: it stops before the step, and not with an error."""
    original = BatchLoader.epoch

    def dying(self: BatchLoader, epoch: int, first: int) -> Any:
        batches = original(self, epoch, first)
        if epoch * 3 <= after < epoch * 3 + 3:
            for _ in range(after - epoch * 3 - first):
                yield next(batches)
            os.kill(os.getpid(), signal.SIGTERM)
            raise RetinaFaceError("a process that loads pictures was ended")
        yield from batches

    with monkeypatch.context() as patch:
        patch.setattr(BatchLoader, "epoch", dying)
        result = make().run()
    assert (result.stopped, result.progress.step) == (True, after)
    going_on = make()
    assert going_on.resumed
    assert going_on.run().finished
    assert final(going_on.output) == expected


# Killed

_SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from retinaface_fast.training import read_records
from retinaface_fast.training.trainer import Trainer
from tests.training.test_interruptions import CHANGES, validator
from tests.training.tiny import recipe

if __name__ == "__main__":
    torch.manual_seed(0)
    folder, data, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    trainer = Trainer(
        recipe(folder, CHANGES), read_records(data).records, folder / "run", validator=validator, workers=0,
        device="cpu", checkpoint_seconds=0.0,
    )
    def tell(state):
        print(state.step, flush=True)
        if state.step == kill_at and state.losses:
            os.kill(os.getpid(), signal.SIGKILL)
    trainer.run(progress=tell)
"""


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_inside_an_epoch(
    make: Callable[..., Trainer], data: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), str(data), "5"]
    killed = subprocess.run(command, check=False, capture_output=True, env=environment())
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    going_on = make()
    assert going_on.step == 4
    assert going_on.run().finished
    assert final(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_again_and_again(data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """By another process, after a step that it sees and a random while: while something is written, often."""
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), str(data), "0"]
    kills = 0
    for target in (2, 3, 4, 5, 6, 8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= target:
                    threading.Event().wait(float(rng.uniform(0, 0.1)))
                    break
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 4
    subprocess.run(command, check=True, capture_output=True, env=environment())
    assert final(tmp_path / "run") == expected


# The command


def command(tmp_path: Path, *arguments: str) -> list[str]:
    program = [sys.executable, "-m", "retinaface_fast", "train"]
    return [*program, *arguments, "--device", "cpu", "--workers", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent in another way")
def test_ctrl_c_saves_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start = command(tmp_path, "-c", str(write_recipe(tmp_path)), "--data", str(data), "-o", str(run))
    start += ["--set", "schedule.epochs=30", "--set", "validation.every=30"]
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen(start, cwd=tmp_path, **options) as process:
        # The epochs are short: a checkpoint is a sign that the loop is at work.
        while process.poll() is None and not list(run.glob("checkpoints/step-*")):
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "interrupted: " in out
    assert "Traceback" not in err
    words = err.split("go on with: retinaface-fast ")[1].splitlines()[0].split()
    assert words == ["train", "--resume", str(run)]
    steps = max(int(path.name[5:]) for path in run.glob("checkpoints/step-*"))
    assert 3 <= steps < 90
    # It does go on: with fewer workers and from another folder.
    going_on = subprocess.Popen(
        [sys.executable, "-m", "retinaface_fast", *words, "--workers", "0", "--device", "cpu"], **options
    )
    with going_on:
        out, err = going_on.communicate(timeout=120)
    assert going_on.returncode == 0, err
    assert f"goes on from step {steps} of 90" in err
    assert "done: 90 of 90 steps" in out
    # And once more there is nothing left to do.
    with subprocess.Popen(
        [sys.executable, "-m", "retinaface_fast", *words, "--workers", "0", "--device", "cpu"], **options
    ) as again:
        out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "goes on from step 90 of 90" in err
    assert "nothing is left to do: 90 of 90 steps" in out


def test_a_folder_of_another_number_of_processes(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make()
    trainer.run(progress=At(4, trainer.stop))
    state = next(trainer.output.glob("checkpoints/step-00000005/state.json"))
    state.write_text(state.read_text().replace('"world_size": 1', '"world_size": 4'))
    make()
    assert "goes on with 1 process in place of 4: batch norm sees other batches" in caplog.text


def test_processes_that_do_not_share_a_folder(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second one of two machines sees it: the first one has a checkpoint."""
    monkeypatch.setattr("lightning_fabric.Fabric.broadcast", lambda *_, **__: "step-00000007")
    with pytest.raises(DatasetError, match=r"is None, and step-00000007 in the first process: name a folder"):
        make()


def test_a_checkpoint_of_another_run_does_not_fit(make: Callable[..., Trainer], tmp_path: Path) -> None:
    make("run").run()
    make("other", {"training.ema_decay": None}).run()
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "gone")
    (tmp_path / "other" / "checkpoints").rename(tmp_path / "run" / "checkpoints")
    with pytest.raises(WeightsError, match=r"step-00000009 does not fit this run: .*average"):
        make("run")
