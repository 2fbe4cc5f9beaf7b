from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS, RetinaFace
from retinaface_fast.weights import ModelWeights, load_weights
from tests.reference.network_ports import random_port

if TYPE_CHECKING:
    from pathlib import Path

PORTS = {
    "mobilenet0.25": ("mobilenet", 8, 64),
    "mobilenet0.5": ("mobilenet", 16, 128),
    "mobilenet1.0": ("mobilenet", 32, 128),
    "resnet18": ("resnet", 18, 128),
    "resnet34": ("resnet", 34, 128),
    "resnet50": ("resnet", 50, 256),
    "resnet152": ("resnet", 152, 256),
}


def network_of(weights: ModelWeights) -> RetinaFace:
    network = RetinaFace(weights.config, folded=True).eval()
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.tensors.items()})
    return network


def assert_computes_like(weights: ModelWeights, port: torch.nn.Module) -> None:
    images = 50 * torch.randn(1, 3, 65, 42, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        outputs = network_of(weights)(images)
        expected = port(images)
    found = (
        torch.cat(outputs.box_deltas, dim=1),
        torch.cat(outputs.class_logits, dim=1).softmax(dim=-1),
        torch.cat(outputs.landmark_deltas, dim=1),
    )
    for values, expected_values in zip(found, expected, strict=True):
        tolerance = 1e-4 * float(expected_values.max() - expected_values.min())
        torch.testing.assert_close(values, expected_values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("flat", [True, False], ids=["biubug6", "yakhyo"])
@pytest.mark.parametrize("name", PORTS)
def test_checkpoints_of_the_ports(name: str, flat: bool, tmp_path: Path) -> None:
    port = random_port(*PORTS[name], flat=flat)
    path = tmp_path / "checkpoint.pth"
    torch.save(port.state_dict(), path)
    weights = load_weights(path)
    assert weights.config == CONFIGS[name]
    assert_computes_like(weights, port)


@pytest.fixture(scope="module")
def port() -> torch.nn.Module:
    return random_port("mobilenet", 8, 64, flat=True, classifier=True)


@pytest.fixture(scope="module")
def state(port: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(port.state_dict())


def saved(tmp_path: Path, content: object, name: str = "checkpoint.pth") -> Path:
    path = tmp_path / name
    torch.save(content, path)
    return path


def test_prefix_and_unused_classifier(
    port: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    assert {"body.fc.weight", "body.stage1.0.1.num_batches_tracked"} <= set(state)
    path = saved(tmp_path, {f"module.{name}": tensor for name, tensor in state.items()})
    assert_computes_like(load_weights(path), port)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_training_checkpoints(
    key: str, port: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = saved(tmp_path, {"epoch": 3, key: state, "optimizer": {"lr": 0.1}})
    assert_computes_like(load_weights(path), port)


def test_without_batch_counters(
    port: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert_computes_like(load_weights(saved(tmp_path, kept)), port)


def test_half_precision_is_widened(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    weights = load_weights(saved(tmp_path, half))
    assert {array.dtype for array in weights.tensors.values()} == {np.dtype(np.float32)}


def test_the_same_state_dict_as_safetensors(
    port: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "checkpoint.safetensors"
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in state.items()}, path)
    assert_computes_like(load_weights(path), port)


def test_own_names_unfolded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = RetinaFace(CONFIGS["resnet18"]).eval()
    weights = load_weights(saved(tmp_path, network.state_dict()))
    assert weights.config == CONFIGS["resnet18"]
    images = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        torch.testing.assert_close(
            network_of(weights)(images).box_deltas, network(images).box_deltas, rtol=1e-3, atol=1e-4
        )


def test_a_missing_tensor_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    less = {name: tensor for name, tensor in state.items() if name != "ssh2.conv7x7_3.0.weight"}
    with pytest.raises(
        WeightsError,
        match=r"'mobilenet0.25': missing: context.1.conv7x7_3.conv.weight \(ssh2.conv7x7_3.0.weight in the f",
    ):
        load_weights(saved(tmp_path, less))


def test_a_surplus_tensor_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"surplus: ssh4.extra.weight"):
        load_weights(saved(tmp_path, {**state, "ssh4.extra.weight": torch.zeros(3)}))


def test_a_misshapen_tensor_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bad = {**state, "ClassHead.0.conv1x1.weight": torch.zeros(6, 64, 1, 1)}
    message = r"class_head.0.weight \(ClassHead.0.conv1x1.weight in the file\) is \(6, 64, 1, 1\) instead of"
    with pytest.raises(WeightsError, match=message):
        load_weights(saved(tmp_path, bad))


def test_a_name_twice_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    twice = {**state, "module.fpn.output1.0.weight": state["fpn.output1.0.weight"]}
    with pytest.raises(WeightsError, match=r"fpn.output1.0.weight twice"):
        load_weights(saved(tmp_path, twice))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bad = {**state, "fpn.merge1.0.weight": state["fpn.merge1.0.weight"].clone()}
    bad["fpn.merge1.0.weight"][0, 0, 0, 0] = value
    with pytest.raises(
        WeightsError, match=r"fpn.merge.0.conv.weight \(fpn.merge1.0.weight .* NaN or infinite"
    ):
        load_weights(saved(tmp_path, bad))


def test_negative_variances(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bad = {**state, "fpn.merge1.1.running_var": -torch.ones(64)}
    with pytest.raises(WeightsError, match=r"fpn.merge.0.norm.running_var .* negative"):
        load_weights(saved(tmp_path, bad))


def test_integers_are_not_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bad = {**state, "fpn.merge1.1.bias": torch.zeros(64, dtype=torch.int32)}
    with pytest.raises(WeightsError, match=r"fpn.merge.0.norm.bias .* is int32"):
        load_weights(saved(tmp_path, bad))


def test_another_network_than_asked_for(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit the network 'resnet50': missing: backbone.stem"):
        load_weights(saved(tmp_path, state), config=CONFIGS["resnet50"])


def test_tensors_of_something_else(tmp_path: Path) -> None:
    path = saved(tmp_path, {"encoder.weight": torch.zeros(3)})
    with pytest.raises(
        WeightsError, match=r"no tensor of any known RetinaFace; it begins with encoder.weight"
    ):
        load_weights(path)
