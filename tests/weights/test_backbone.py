"""State dicts of ImageNet networks, under the names of torchvision's ResNet and of the ports' MobileNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS, RetinaFace, tensor_shapes
from retinaface_fast.weights.state_dict import is_backbone, translate_backbone
from tests.reference.network_ports import random_port

Arrays = dict[str, np.ndarray]

PORTS = {
    "mobilenet0.25": ("mobilenet", 8, True),
    "mobilenet0.5": ("mobilenet", 16, False),
    "resnet18": ("resnet", 18, True),
    "resnet50": ("resnet", 50, True),  # bottlenecks
}


def body_of(name: str) -> torch.nn.Module:
    kind, size, flat = PORTS[name]
    port = random_port(kind, size, 64, flat=flat, classifier=True)
    return port.body if flat else port.fx


def arrays_of(body: torch.nn.Module) -> Arrays:
    return {name: tensor.numpy() for name, tensor in body.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("mobilenet0.25", "module."),
        ("mobilenet0.25", ""),
        ("mobilenet0.5", ""),
        ("resnet18", ""),
        ("resnet50", "module."),
    ],
)
def test_features_are_those_of_the_file(name: str, prefix: str) -> None:
    body = body_of(name)
    file = {f"{prefix}{key}": array for key, array in arrays_of(body).items()}
    assert is_backbone(file)
    assert {f"{prefix}fc.weight", f"{prefix}fc.bias"} <= set(file)
    translated = translate_backbone(file, config=CONFIGS[name], source="imagenet.pth")
    network = RetinaFace(CONFIGS[name]).eval()
    given = {key: torch.tensor(array) for key, array in translated.tensors.items()}
    assert set(given) == {
        key for key in tensor_shapes(CONFIGS[name], folded=False) if key.startswith("backbone.")
    }
    network.load_state_dict({**network.state_dict(), **given})
    images = 50 * torch.randn(1, 3, 65, 42, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found, expected = network.backbone(images), body(images)
    for level, features in zip((3, 4, 5), expected, strict=True):
        torch.testing.assert_close(found[level], features, rtol=0, atol=1e-4 * float(features.std()))


def test_what_is_no_backbone() -> None:
    for flat in (True, False):
        assert not is_backbone(random_port("mobilenet", 8, 64, flat=flat).state_dict())
        assert not is_backbone(random_port("resnet", 18, 128, flat=flat).state_dict())
    for name in ("mobilenet0.25", "resnet18"):
        assert not is_backbone(tensor_shapes(CONFIGS[name], folded=False))
        assert not is_backbone(tensor_shapes(CONFIGS[name], folded=True))
    assert not is_backbone([])


@pytest.fixture(scope="module")
def resnet() -> Arrays:
    return arrays_of(body_of("resnet18"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"layer2.0.downsample.1.bias": None},
            r"'backbone of resnet18': missing: .*\(layer2.0.downsample.1.bias in the file\)$",
        ),
        ({"layer5.weight": np.zeros(3, np.float32)}, r"surplus: layer5.weight$"),
        (
            {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)},
            r"misshapen: backbone.stem.conv.weight \(conv1.weight in .*\) is \(64, 3, 3, 3\) instead of",
        ),
        ({"bn1.bias": np.full(64, np.nan, np.float32)}, r"backbone.stem.norm.bias \(bn1.bias .* holds NaN"),
        ({"bn1.bias": np.zeros(64, np.int64)}, r"backbone.stem.norm.bias \(bn1.bias .* is int64"),
        ({"bn1.running_var": np.full(64, -1, np.float32)}, r"bn1.running_var .* negative variances"),
        ({"module.bn1.bias": np.zeros(64, np.float32)}, r"holds bn1.bias twice"),
    ],
)
def test_errors(change: dict[str, np.ndarray | None], message: str, resnet: Arrays) -> None:
    file = {key: array for key, array in {**resnet, **change}.items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        translate_backbone(file, config=CONFIGS["resnet18"], source="imagenet.pth")


def test_another_depth(resnet: Arrays) -> None:
    message = (
        r"'backbone of resnet34': missing: backbone.stages.0.2.convs.0.conv.weight \(layer1.2.conv1.weight"
    )
    with pytest.raises(WeightsError, match=message):
        translate_backbone(resnet, config=CONFIGS["resnet34"], source="imagenet.pth")


def test_another_kind(resnet: Arrays) -> None:
    with pytest.raises(
        WeightsError, match=r"'backbone of mobilenet0.25': missing: .*; surplus: conv1.weight"
    ):
        translate_backbone(resnet, config=CONFIGS["mobilenet0.25"], source="imagenet.pth")
