from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from retinaface_fast.anchor_config import P2_P6
from retinaface_fast.errors import MissingDependencyError
from retinaface_fast.network import (
    CONFIGS,
    ContextConfig,
    NetworkOutputs,
    RetinaFace,
    RetinaFaceConfig,
    fold_batch_norm,
)
from tests.reference import network_numpy
from tests.weights.published import random_weights

SMALL = CONFIGS["mobilenet0.25"]
VARIANTS = [
    SMALL,
    CONFIGS["mobilenet0.5"],
    CONFIGS["resnet18"],
    CONFIGS["resnet50"],
    dataclasses.replace(SMALL, name="unshared", context=ContextConfig(share_first=False)),
    dataclasses.replace(SMALL, name="five levels", anchors=P2_P6),
    dataclasses.replace(CONFIGS["resnet18"], name="five levels of a resnet", anchors=P2_P6),
]


def network_with(config: RetinaFaceConfig) -> tuple[RetinaFace, dict[str, np.ndarray]]:
    weights = random_weights(config)
    network = RetinaFace(config, folded=True).eval()
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.tensors.items()})
    return network, dict(weights.tensors)


def as_input(images: np.ndarray, config: RetinaFaceConfig) -> torch.Tensor:
    pixels = torch.from_numpy(images.astype(np.float32) - np.array(config.mean_bgr, np.float32))
    return pixels.permute(0, 3, 1, 2)


@pytest.mark.parametrize("size_hw", [(1, 1), (33, 47), (64, 96)])
@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: config.name)
def test_agrees_with_the_oracle(config: RetinaFaceConfig, size_hw: tuple[int, int]) -> None:
    network, tensors = network_with(config)
    images = np.random.default_rng(1).integers(0, 256, (2, *size_hw, 3), dtype=np.uint8)
    with torch.inference_mode():
        outputs = network(as_input(images, config))
    expected = network_numpy.forward(tensors, config, images)
    for levels, expected_levels in zip(outputs, expected, strict=True):
        spread = max(np.ptp(level) for level in expected_levels)
        assert len(levels) == len(config.levels)
        for level, expected_level in zip(levels, expected_levels, strict=True):
            assert level.shape == expected_level.shape
            np.testing.assert_allclose(level.numpy(), expected_level, rtol=0, atol=2e-5 * spread)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (17, 5), (128, 64)])
@pytest.mark.parametrize("name", ["mobilenet0.25", "paper-resnet152"])
def test_as_many_outputs_as_anchors(name: str, size_hw: tuple[int, int]) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        outputs = RetinaFace(config)(torch.zeros(2, 3, *size_hw))
    for levels, numbers in zip(outputs, (2, 4, 10), strict=True):
        assert {tuple(level.shape)[::2] for level in levels} == {(2, numbers)}
        assert sum(level.shape[1] for level in levels) == config.anchors.num_anchors(size_hw)


def test_channels_last_outputs_are_views() -> None:
    network, _ = network_with(SMALL)
    network.to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, 64, 48).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = network(images)
    for levels in outputs:
        for level in levels:
            assert level.is_contiguous()
            assert level._base is not None


def test_folding_does_not_change_the_network() -> None:
    torch.manual_seed(0)
    network = RetinaFace(SMALL)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
    network.eval()
    folded = RetinaFace(SMALL, folded=True).eval()
    arrays = {
        name: tensor.numpy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    folded.load_state_dict({name: torch.from_numpy(array) for name, array in fold_batch_norm(arrays).items()})
    images = torch.randn(1, 3, 50, 40)
    with torch.inference_mode():
        for levels, folded_levels in zip(network(images), folded(images), strict=True):
            for level, folded_level in zip(levels, folded_levels, strict=True):
                torch.testing.assert_close(level, folded_level, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: config.name)
def test_every_parameter_gets_a_gradient(config: RetinaFaceConfig) -> None:
    torch.manual_seed(0)
    network = RetinaFace(config).train()
    outputs = network(torch.randn(2, 3, 64, 64))
    assert isinstance(outputs, NetworkOutputs)
    sum(level.square().mean() for levels in outputs for level in levels).backward()
    without = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without == []


def test_gradients_are_those_of_finite_differences() -> None:
    # In-place rectifiers must not spoil what the backward pass reads.
    torch.manual_seed(0)
    network = RetinaFace(SMALL).double().eval()
    images = torch.randn(1, 3, 9, 9, dtype=torch.float64, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([level.square().sum() for levels in network(x) for level in levels]).sum()

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn_like(images)
    step = 1e-6
    with torch.no_grad():
        slope = (loss(images + step * direction) - loss(images - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_the_image_is_not_written_to() -> None:
    network, _ = network_with(SMALL)
    images = torch.randn(1, 3, 32, 32)
    before = images.clone()
    with torch.inference_mode():
        network(images)
    assert torch.equal(images, before)


def test_deformable_convolutions_need_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    config = dataclasses.replace(SMALL, context=ContextConfig(deformable=True))
    with pytest.raises(
        MissingDependencyError, match="torchvision is needed for deformable convolutions: install"
    ):
        RetinaFace(config)


class _DeformConv2d(torch.nn.Conv2d):
    """What torchvision's does while the offsets are zero and the modulation is one number."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        taps = self.kernel_size[0] * self.kernel_size[1]
        assert offset.shape == (x.shape[0], 2 * taps, *x.shape[2:])
        assert mask.shape == (x.shape[0], taps, *x.shape[2:])
        assert not offset.any()
        assert mask.unique().numel() == 1
        bias = None if self.bias is None else self.bias
        return F.conv2d(x, self.weight * mask.flatten()[0], bias, self.stride, self.padding)


def test_untrained_deformable_convolutions_are_halved_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = types.ModuleType("torchvision.ops")
    ops.DeformConv2d = _DeformConv2d  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    config = dataclasses.replace(SMALL, context=ContextConfig(deformable=True))
    torch.manual_seed(0)
    plain = RetinaFace(SMALL).eval()
    network = RetinaFace(config).eval()
    state = network.state_dict()
    halved = {
        name: 2 * tensor if f"{name.removesuffix('.conv.weight')}.offset.bias" in state else tensor
        for name, tensor in plain.state_dict().items()
    }
    missing = network.load_state_dict(halved, strict=False).missing_keys
    assert missing
    assert all(".offset." in name for name in missing)
    images = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        for levels, plain_levels in zip(network(images), plain(images), strict=True):
            for level, plain_level in zip(levels, plain_levels, strict=True):
                torch.testing.assert_close(level, plain_level)
