"""Several processes take the steps of one: the same pictures, and the gradient of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinaface_fast.errors import EngineError
from retinaface_fast.training import Trainer, read_records
from retinaface_fast.training.processes import join_processes
from retinaface_fast.weights import load_weights

from .tiny import AS_IS, losses_of, recipe, write_data, write_folded, write_recipe

if not torch.distributed.is_available() or sys.platform == "win32":
    pytest.skip("processes are started by torchrun with gloo", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
#: Without batch norm, and with all background: rounding may exchange two hard negatives of nearly one loss.
EXACT = AS_IS | {"loss.negatives_per_positive": 1e6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), pictures=9)


@pytest.fixture(scope="module")
def folded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folded(tmp_path_factory.mktemp("weights"), data)


def train(processes: int, folder: Path, name: str, data: Path, **plan: Any) -> dict[str, Any]:
    """Train in a folder of this name; what the first process saw."""
    plan = {
        "recipe": str(write_recipe(folder)),
        "data": str(data),
        "output": str(folder / name),
        "losses": str(folder / f"{name}.json"),
        **plan,
    }
    script = [str(Path(__file__).with_name("record_losses.py")), json.dumps(plan)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def curve(found: dict[str, Any], term: str = "loss") -> list[float]:
    return [losses[term] for losses in found["losses"]]


def test_two_processes_take_the_steps_of_one(data: Path, folded: Path, tmp_path: Path) -> None:
    def alone(name: str, lr: float) -> list[float]:
        changed = recipe(tmp_path, EXACT | {"optimiser.lr": lr})
        records = read_records(data).records
        return losses_of(Trainer(changed, records, tmp_path / name, init=folded, workers=0, device="cpu"))[1]

    one, still = alone("one", AS_IS["optimiser.lr"]), alone("still", 1e-12)
    assert len(one) == STEPS
    assert one[-1] < still[-1] - 0.5, "it learns"
    two = train(2, tmp_path, "two", data, changes=EXACT, init=str(folded))
    # Sums of float32 in another order.
    np.testing.assert_allclose(curve(two), one, rtol=1e-4)


def test_what_cannot_be_is_said_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r'training.precision must be "32-true" or "bf16-mixed" on a CPU'):
        join_processes("cpu", "16-mixed")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ValueError, match=r"training\.precision"):
        join_processes("cpu", "16-mixed")
    with pytest.raises(EngineError, match=r"device 'cuda:99' was asked for, but"):
        join_processes("cuda", "32-true")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="WORLD_SIZE must be a multiple of LOCAL_WORLD_SIZE, 2, got 3"):
        join_processes("cpu", "32-true")


@pytest.mark.slow
def test_two_processes_stop_and_go_on(data: Path, folded: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"changes": EXACT, "init": str(folded), "checkpoint_seconds": 0.0}
    one = train(1, tmp_path, "one", data, **options)
    two = train(2, tmp_path, "two", data, **options)
    for term in ("loss", "classification", "box", "landmark"):
        np.testing.assert_allclose(curve(two, term), curve(one, term), rtol=1e-4, err_msg=term)
    stopped = train(2, tmp_path, "stopped", data, **options, stop_after=3)
    assert stopped["stopped"]
    assert len(stopped["losses"]) == 4
    rest = train(2, tmp_path, "stopped", data, **options)
    assert stopped["losses"] + rest["losses"] == two["losses"]
    weights, expected = (load_weights(tmp_path / name / "last.safetensors") for name in ("stopped", "two"))
    for name, values in expected.tensors.items():
        np.testing.assert_array_equal(weights.tensors[name], values, err_msg=name)


@pytest.mark.slow
def test_with_batch_norm_they_follow_it(data: Path, tmp_path: Path) -> None:
    """Each process measures its half of a batch, so that only the course is the same."""
    changes = {"schedule.epochs": 20, "training.batch_size": 8, "training.ema_decay": 0.9}
    one, two = (curve(train(count, tmp_path, str(count), data, changes=changes)) for count in (1, 2))
    assert len(one) == len(two) == 20
    assert one[-1] < 0.6 * one[0]
    np.testing.assert_allclose(two[0], one[0], rtol=0.15)
    np.testing.assert_allclose(two[-5:], one[-5:], rtol=0.3)


@pytest.mark.slow
def test_without_landmarks_no_process_waits_for_a_gradient(tmp_path: Path, folded: Path) -> None:
    boxes = write_data(tmp_path / "boxes", pictures=8, landmarks=False)
    changes = {
        "training.batch_norm": "as-is",
        "optimiser.kind": "sgd",
        "optimiser.lr": 1e-3,
        "optimiser.frozen": ["backbone.stem"],
    }
    options: dict[str, Any] = {"changes": changes, "init": str(folded)}
    one, two = (train(count, tmp_path, str(count), boxes, **options) for count in (1, 2))
    np.testing.assert_allclose(curve(two), curve(one), rtol=1e-4)
    assert set(curve(two, "landmark")) == {0.0}
    assert len(curve(two)) == len(curve(one)) > 0


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began(data: Path, folded: Path, tmp_path: Path) -> None:
    changes = {
        "training.batch_norm": "as-is",
        "optimiser.kind": "sgd",
        "optimiser.lr": 1e-3,
        "training.accumulate": 2,
    }
    options: dict[str, Any] = {"changes": changes, "init": str(folded)}
    two = train(2, tmp_path, "two", data, **options)
    began = train(2, tmp_path, "mixed", data, **options, stop_after=4)
    rest = train(1, tmp_path, "mixed", data, **options)
    np.testing.assert_allclose(curve(began) + curve(rest), curve(two), rtol=1e-4)
