"""Checkpoints: the same bits come back, and a failure leaves the one before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from retinaface_fast import DatasetError, WeightsError
from retinaface_fast.training import checkpoint as module
from retinaface_fast.training.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    memory_of,
    rng_state,
    save_checkpoint,
    set_memory,
    set_rng_state,
)

if TYPE_CHECKING:
    from pathlib import Path


def example(seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 4, 3, 3, generator=generator)
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    return Checkpoint(
        {
            "network": {
                "a.weight": weight.to(memory_format=torch.channels_last),
                "a.half": weight.to(torch.bfloat16),
                "a.count": torch.tensor(7),
                "special": special,
            },
            "optimiser": {"0.momentum": weight.transpose(0, 1)},
        },
        {"step": 3, "best": 0.1 + 0.2, "faults": ["a", "ß"], "ap": None},
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.state == expected.state
    assert {part: set(tensors) for part, tensors in found.tensors.items()} == {
        part: set(tensors) for part, tensors in expected.tensors.items()
    }
    for part, tensors in expected.tensors.items():
        for name, tensor in tensors.items():
            other = found.tensors[part][name]
            assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
            assert bits(other) == bits(tensor), f"{part} {name}"


def test_the_same_bits_come_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", example(), step=3)
    assert latest_checkpoint(tmp_path / "c") == path
    assert_same(load_checkpoint(path), example())


def test_two_are_kept_and_the_last_is_the_one_with_most_steps(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (8, 9, 10, 99_999_999, 100_000_000):
        save_checkpoint(tmp_path, example(step), step=step)
    assert len(list(tmp_path.iterdir())) == 2
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert_same(load_checkpoint(latest), example(100_000_000))


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, example(1), step=5)
    path = save_checkpoint(tmp_path, example(2), step=5)
    assert_same(load_checkpoint(path), example(2))
    assert list(tmp_path.iterdir()) == [path]


_KILLED = """
import os, pathlib, signal, sys
import torch
from retinaface_fast.training import checkpoint as module
original, calls = module.{function}, []
def killed(*arguments, **options):
    calls.append(arguments)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
module.{function} = killed
tensors = {{"a": torch.ones(1000)}}
state = module.Checkpoint({{"network": tensors, "optimiser": tensors}}, {{}})
module.save_checkpoint(pathlib.Path(sys.argv[1]), state, step=4)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("function", "call"), [("save_file", 2), ("_flush", 3)])
def test_killed_in_the_middle(tmp_path: Path, function: str, call: int) -> None:
    before = save_checkpoint(tmp_path, example(), step=3)
    script = _KILLED.format(function=function, call=call)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    leftover = [path for path in tmp_path.iterdir() if path != before]
    assert len(leftover) == 1, "it was killed too early or too late"
    assert latest_checkpoint(tmp_path) == before
    assert_same(load_checkpoint(before), example())
    after = save_checkpoint(tmp_path, example(1), step=4)
    assert sorted(tmp_path.iterdir()) == [before, after], "what was left over is removed"


_KILLED_AT_RENAME = """
import os, pathlib, signal, sys
import torch
from retinaface_fast.training import checkpoint as module
original = pathlib.Path.replace
calls = []
def killed(*arguments):
    calls.append(arguments)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
pathlib.Path.replace = killed
state = module.Checkpoint({{"a": {{"b": torch.ones(3)}}}}, {{}})
module.save_checkpoint(pathlib.Path(sys.argv[1]), state, step=3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("next_step", [3, 4])
def test_killed_while_the_same_step_is_replaced(tmp_path: Path, call: int, next_step: int) -> None:
    """The only checkpoint there is: before or between the two renames, it is not lost."""
    save_checkpoint(tmp_path, example(), step=3)
    script = _KILLED_AT_RENAME.format(call=call)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert (tmp_path / "step-00000003").exists() == (call == 1)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert_same(load_checkpoint(latest), example())
    save_checkpoint(tmp_path, example(1), step=next_step)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"step-00000003", f"step-{next_step:08d}"}
    )
    assert_same(load_checkpoint(tmp_path / "step-00000003"), example(int(next_step == 3)))


def test_a_damaged_one_names_the_one_before(tmp_path: Path) -> None:
    before, last = (save_checkpoint(tmp_path, example(), step=step) for step in (3, 4))
    for path in (before, last):
        (path / "network.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"04 is not .*; remove it to go on from .*step-00000003$"):
        load_checkpoint(last)
    with pytest.raises(WeightsError, match=r"step-00000003 is not") as raised:
        load_checkpoint(before)
    assert "remove" not in str(raised.value)


def test_memory_lies_as_the_parameters_do() -> None:
    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    layer, optimiser = made()
    images = torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last)
    layer(images).sum().backward()
    optimiser.step()
    memory = {name: tensor.contiguous() for name, tensor in memory_of(optimiser).items()}
    other, taken_up = made()
    set_memory(taken_up, memory)
    for parameter in other.parameters():
        for name in ("exp_avg", "exp_avg_sq"):
            assert taken_up.state[parameter][name].stride() == parameter.stride(), name
    for name, tensor in memory_of(taken_up).items():
        assert torch.equal(tensor, memory[name]), name


def test_a_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = save_checkpoint(tmp_path, example(), step=3)
    large = Checkpoint({"network": {"a": torch.zeros(1 << 18)}}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(DatasetError, match=r"cannot write the checkpoint .*step-00000004: .*[Ff]ile too"):
            save_checkpoint(tmp_path, large, step=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [before]
    assert_same(load_checkpoint(before), example())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"cannot write the checkpoint .*file"):
        save_checkpoint(tmp_path / "file", example(), step=1)


def test_what_cannot_be_read_names_the_path(tmp_path: Path) -> None:
    good = save_checkpoint(tmp_path, example(), step=3)

    def broken(name: str, content: bytes | None) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        return copy

    whole = (good / "network.safetensors").read_bytes()
    state = json.loads((good / "state.json").read_text())
    cases: list[tuple[str, bytes | None]] = [
        ("network.safetensors", None),
        ("network.safetensors", whole[:-1]),
        ("network.safetensors", b""),
        ("network.safetensors", b"\xff" * 100),
        ("state.json", None),
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b"\xff"),
        ("state.json", json.dumps({**state, "parts": 3}).encode()),
        ("state.json", json.dumps({key: state[key] for key in state if key != "parts"}).encode()),
    ]
    for name, content in cases:
        with pytest.raises(WeightsError, match="copy is not a checkpoint that can be read"):
            load_checkpoint(broken(name, content))
    newer = json.dumps({**state, "format": module.FORMAT_VERSION + 1}).encode()
    with pytest.raises(WeightsError, match=r"copy: this release reads checkpoints of the format 1"):
        load_checkpoint(broken("state.json", newer))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_memory_and_random_state(kind: str) -> None:
    def made() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.fill_(0.1)
        sgd = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        return layer, sgd if kind == "sgd" else torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        layer(torch.rand(4, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    layer, optimiser = made()
    torch.manual_seed(1)
    step(layer, optimiser)
    other, taken_up = made()
    other.load_state_dict(layer.state_dict())
    memory = {name: tensor.clone() for name, tensor in memory_of(optimiser).items()}
    random = rng_state(torch.device("cpu"))
    set_memory(taken_up, memory)
    step(layer, optimiser)
    set_rng_state(random, torch.device("cpu"))
    step(other, taken_up)
    np.testing.assert_array_equal(other.weight.detach().numpy(), layer.weight.detach().numpy())
