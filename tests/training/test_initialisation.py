from __future__ import annotations

import dataclasses
import math
import sys
import types
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import nn

from retinaface_fast.errors import WeightsError
from retinaface_fast.network import CONFIGS, RetinaFace
from retinaface_fast.training.initialisation import initialise
from retinaface_fast.weights import bundled_path, load_weights, save_weights
from retinaface_fast.weights.model_weights import make_weights
from tests.reference.network_ports import random_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retinaface_fast.network import RetinaFaceConfig

SMALL = CONFIGS["mobilenet0.25"]
RESNET = CONFIGS["resnet18"]


def saved(folder: Path, tensors: Mapping[str, torch.Tensor], name: str = "weights.pth") -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save(dict(tensors), path)
    return path


def images(side: int = 65) -> torch.Tensor:
    return 50 * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(3))


def assert_same_outputs(found: nn.Module, expected: nn.Module) -> None:
    with torch.inference_mode():
        for some, others in zip(found.eval()(images()), expected.eval()(images()), strict=True):
            for values, expected_values in zip(some, others, strict=True):
                tolerance = 1e-4 * float(expected_values.std())
                torch.testing.assert_close(values, expected_values, rtol=0, atol=tolerance)


def test_the_seed_decides() -> None:
    first, again, other = (initialise(SMALL, None, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    drawn = [name for name in first if name.endswith("weight") and ".norm." not in name]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_nobody_elses_random_numbers_change() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    initialise(SMALL, None, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # type: ignore[index]  # noqa: NPY002


def test_random_weights_have_the_spread_of_he() -> None:
    """He et al. 2015, arXiv 1502.01852, equation 15: variance 2 / ((1 + slope^2) * fan-in)."""
    state = initialise(SMALL, None, seed=0).network.state_dict()
    slope = 2.0 / (1.0 + 0.1**2)
    for name, variance in {
        "backbone.stem.conv.weight": slope / (3 * 9),
        "backbone.blocks.11.depthwise.conv.weight": slope / 9,
        "backbone.blocks.12.pointwise.conv.weight": slope / 256,
        "fpn.merge.0.conv.weight": slope / (64 * 9),
        "context.1.conv5x5_1.conv.weight": slope / (64 * 9),
        "context.1.conv3x3.conv.weight": 1 / (64 * 9),
        "box_head.0.weight": 0.01**2,
    }.items():
        weight = state[name].double()
        # The standard deviation of n normal numbers has a relative error of 1 / sqrt(2 n).
        error = 4 / math.sqrt(2 * weight.numel())
        assert float(weight.std()) == pytest.approx(math.sqrt(variance), rel=error), name
        assert abs(float(weight.mean())) < 4 * math.sqrt(variance / weight.numel()), name


def test_batch_norms_begin_as_the_identity() -> None:
    state = initialise(SMALL, None, seed=0).network.state_dict()
    beginning = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    norms = [name for name in state if ".norm." in name]
    assert norms
    assert all(bool((state[name] == beginning[name.rpartition(".")[2]]).all()) for name in norms)


@pytest.mark.parametrize("name", ["mobilenet0.25", "resnet18"])
def test_faces_begin_rare(name: str) -> None:
    network = initialise(CONFIGS[name], None, seed=0).network
    with torch.no_grad():
        outputs = network(images(160))
    scores = torch.cat(outputs.class_logits, dim=1).softmax(dim=-1)[..., 1]
    assert float(scores.median()) == pytest.approx(1 / 8, abs=0.02)
    for biases in (head.bias for head in network.class_head):
        assert biases.view(-1, 2).softmax(dim=-1)[:, 1].tolist() == pytest.approx([1 / 8] * 2)
    for head in (*network.box_head, *network.landmark_head):
        assert not head.bias.any()
    assert torch.cat(outputs.box_deltas, dim=1).abs().max() < 1


@pytest.mark.parametrize("negatives", [1.0, 3.0, 30.0])
def test_faces_begin_as_rare_as_the_class_loss_sees_them(negatives: float) -> None:
    heads = initialise(SMALL, None, seed=0, negatives_per_positive=negatives).network.class_head
    for head in heads:
        faces = head.bias.detach().view(-1, 2).softmax(dim=-1)[:, 1]
        assert faces.tolist() == pytest.approx([1 / (1 + negatives)] * 2, rel=1e-6)


def test_random_weights_are_trained_with_batch_norm() -> None:
    initial = initialise(SMALL, None, seed=3)
    assert not initial.folded
    assert initial.network.training
    assert all(parameter.requires_grad for parameter in initial.network.parameters())
    assert initial.description == "random, seed 3"


def test_published_weights_are_folded() -> None:
    if bundled_path() is None:
        pytest.skip("this build carries no weights")
    initial = initialise(SMALL, "mobilenet0.25", seed=0)
    weights = load_weights("mobilenet0.25")
    assert initial.folded
    assert initial.network.training
    state = initial.network.state_dict()
    assert set(state) == set(weights.tensors)
    assert all(np.array_equal(state[name].numpy(), array) for name, array in weights.tensors.items())
    assert initial.description == f"mobilenet0.25 (sha256 {weights.sha256[:12]})"
    assert initial.metadata["licence"] == weights.metadata["licence"] != ""
    assert initial.metadata["initial_upstream_sha256"] == weights.metadata["upstream_sha256"]


def test_weights_are_a_copy() -> None:
    if bundled_path() is None:
        pytest.skip("this build carries no weights")
    first = initialise(SMALL, "mobilenet0.25", seed=0).network
    with torch.no_grad():
        first.backbone.stem.conv.weight.zero_()
    assert initialise(SMALL, "mobilenet0.25", seed=0).network.backbone.stem.conv.weight.any()


@pytest.mark.parametrize("flat", [True, False], ids=["biubug6", "yakhyo"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_checkpoint_of_a_port_keeps_its_batch_norm(name: str, flat: bool, tmp_path: Path) -> None:
    port = random_port("mobilenet", 8, 64, flat=flat)
    path = saved(tmp_path, port.state_dict(), name)
    initial = initialise(SMALL, path, seed=0, backbone_pixels="torchvision")
    assert not initial.folded
    with torch.inference_mode():
        outputs = initial.network.eval()(images())
        boxes, scores, landmarks = port(images())
    found = torch.cat(outputs.class_logits, dim=1).softmax(dim=-1)
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-4)
    for deltas, expected in ((outputs.box_deltas, boxes), (outputs.landmark_deltas, landmarks)):
        atol = 1e-4 * float(expected.std())
        torch.testing.assert_close(torch.cat(deltas, dim=1), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_of_ours_keeps_its_batch_norm(name: str, tmp_path: Path) -> None:
    network = initialise(SMALL, None, seed=1).network
    network(images())
    path = saved(tmp_path, network.state_dict(), name)
    initial = initialise(SMALL, str(path), seed=2)
    assert not initial.folded
    state = network.state_dict()
    for key, tensor in initial.network.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, state[key])


def test_a_folded_file_of_ours(tmp_path: Path) -> None:
    network = initialise(SMALL, None, seed=1).network
    network(images())
    path = tmp_path / "folded.safetensors"
    save_weights(load_weights(saved(tmp_path, network.state_dict())), path)
    initial = initialise(SMALL, path, seed=2)
    assert initial.folded
    assert_same_outputs(initial.network, network)


def test_the_origin_of_weights_goes_on(tmp_path: Path) -> None:
    network = initialise(SMALL, None, seed=1).network
    tensors = load_weights(saved(tmp_path, network.state_dict())).tensors
    origin = {
        "licence": "MIT",
        "initial_name": "first",
        "initial_upstream_url": "https://example.org/first",
        "initial_upstream_sha256": "1" * 64,
    }
    # As a run leaves it: what it began with in words is its own.
    run = {**origin, "trained_by": "retinaface_fast", "initial_weights": "first (sha256 1)", "epochs": "3"}

    def metadata_of(said: Mapping[str, str]) -> dict[str, str]:
        weights = make_weights(tensors, SMALL, metadata=said, source="", sha256="")
        save_weights(weights, tmp_path / "of.safetensors")
        return dict(initialise(SMALL, tmp_path / "of.safetensors", seed=2).metadata)

    assert metadata_of(run) == origin
    assert metadata_of(metadata_of(run)) == origin
    # What has been published under a name of its own is the origin of what comes from it.
    published = run | {"name": "second", "upstream_url": "https://example.org/second"}
    assert metadata_of(published) == {
        "licence": "MIT",
        "initial_name": "second",
        "initial_upstream_url": "https://example.org/second",
    }


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SMALL, "imagenet.pth"),
        (SMALL, "imagenet.safetensors"),
        (SMALL, "imagenet.tar"),
        (RESNET, "imagenet.pth"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_imagenet_backbone(config: RetinaFaceConfig, name: str, tmp_path: Path) -> None:
    size = 8 if config is SMALL else 18
    body = random_port(config.backbone.kind, size, 64, flat=True, classifier=True).body
    path = saved(tmp_path, body.state_dict(), name)
    initial = initialise(config, path, seed=4)
    assert not initial.folded
    assert initial.description.startswith(f"backbone of {path} (sha256 ")
    random = initialise(config, None, seed=4).network.state_dict()
    for key, tensor in initial.network.state_dict().items():
        if not key.startswith("backbone."):
            assert torch.equal(tensor, random[key])
    with torch.inference_mode():
        found = initial.network.eval().backbone(images())
        expected = body(images())
    for level, features in zip((3, 4, 5), expected, strict=True):
        torch.testing.assert_close(found[level], features, rtol=0, atol=1e-4 * float(features.std()))


#: torchvision's documentation: "normalized using mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, ...]".
def torchvision_pixels(rgb: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    return (rgb.double() / 255 - mean) / std


def our_pixels(rgb: torch.Tensor, config: RetinaFaceConfig) -> torch.Tensor:
    return rgb.double().flip(0) - torch.tensor(config.mean_bgr, dtype=torch.float64).view(3, 1, 1)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """(3, 64, 96) red, green, blue of 0 to 255, all of one picture of bright noise."""
    return torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(6))


def test_pixels_of_torchvision(picture: torch.Tensor, tmp_path: Path) -> None:
    body = random_port("resnet", 18, 128, flat=True, classifier=True).body.double()
    path = saved(tmp_path, {key: tensor.float() for key, tensor in body.state_dict().items()})
    network = initialise(RESNET, path, seed=0, backbone_pixels="torchvision").network.eval().double()
    with torch.inference_mode():
        expected = F.relu(body.bn1(body.conv1(torchvision_pixels(picture)[None])))
        found = network.backbone.stem(our_pixels(picture, RESNET)[None])
    # Output i sees inputs 2 i - 3 to 2 i + 3.
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)
    difference = float((found - expected).abs().max())
    assert 1e-4 < difference < 0.1 * float(expected.std())


def test_pixels_of_torchvision_at_the_border_with_its_own_mean(picture: torch.Tensor, tmp_path: Path) -> None:
    config = dataclasses.replace(RESNET, mean_bgr=(255 * 0.406, 255 * 0.456, 255 * 0.485))
    body = random_port("resnet", 18, 128, flat=True, classifier=True).body.double()
    path = saved(tmp_path, {key: tensor.float() for key, tensor in body.state_dict().items()})
    network = initialise(config, path, seed=0, backbone_pixels="torchvision").network.eval().double()
    with torch.inference_mode():
        expected = body(torchvision_pixels(picture)[None])
        found = network.backbone(our_pixels(picture, config)[None])
    for level, features in zip((3, 4, 5), expected, strict=True):
        torch.testing.assert_close(found[level], features, rtol=0, atol=1e-4 * float(features.std()))


def test_converted_weights_keep_their_length(tmp_path: Path) -> None:
    body = random_port("resnet", 18, 128, flat=True).body
    path = saved(tmp_path, body.state_dict())
    converted = initialise(RESNET, path, seed=0, backbone_pixels="torchvision").network
    length = converted.backbone.stem.conv.weight.detach().norm()
    torch.testing.assert_close(length, body.conv1.weight.detach().norm(), rtol=0.02, atol=0)


class DeformableStandIn(nn.Conv2d):
    """`torchvision.ops.DeformConv2d` where no offset is asked for: a convolution of modulated taps."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        assert not offset.any()
        batch, channels, height, width = x.shape
        taps = F.unfold(x, self.kernel_size, padding=self.padding)  # type: ignore[arg-type]
        taps = taps.view(batch, channels, -1, height * width) * mask.view(batch, 1, -1, height * width)
        flat = self.weight.flatten(1) @ taps.flatten(1, 2)
        out = flat.view(batch, -1, height, width)
        return out if self.bias is None else out + self.bias.view(1, -1, 1, 1)


@pytest.fixture
def _deformable(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        ops = types.ModuleType("torchvision.ops")
        ops.DeformConv2d = DeformableStandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.ops", ops)


DEFORMABLE = dataclasses.replace(SMALL, context=dataclasses.replace(SMALL.context, deformable=True))


@pytest.mark.usefixtures("_deformable")
@pytest.mark.parametrize("kind", ["state dict", "folded file"])
def test_plain_weights_in_deformable_convolutions(kind: str, tmp_path: Path) -> None:
    plain = initialise(SMALL, None, seed=1).network
    plain(images())
    path = saved(tmp_path, plain.state_dict())
    if kind == "folded file":
        save_weights(load_weights(path), tmp_path / "folded.safetensors")
        path = tmp_path / "folded.safetensors"
    bent = initialise(DEFORMABLE, path, seed=2)
    assert bent.folded == (kind == "folded file")
    offsets = [tensor for name, tensor in bent.network.state_dict().items() if ".offset." in name]
    assert len(offsets) == 2 * (2 + 3 * 5)
    assert not any(tensor.any() for tensor in offsets)
    assert_same_outputs(bent.network, plain)


@pytest.mark.usefixtures("_deformable")
def test_deformable_weights_stay_as_they_are(tmp_path: Path) -> None:
    network = initialise(DEFORMABLE, None, seed=1).network
    again = initialise(DEFORMABLE, saved(tmp_path, network.state_dict()), seed=2).network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())


@pytest.mark.usefixtures("_deformable")
def test_a_missing_tensor_of_a_deformable_network(tmp_path: Path) -> None:
    state = initialise(DEFORMABLE, None, seed=1).network.state_dict()
    del state["fpn.merge.0.offset.bias"]
    with pytest.raises(WeightsError, match=r"missing: fpn\.merge\.0\.offset\.bias$"):
        initialise(DEFORMABLE, saved(tmp_path, state), seed=0)


@pytest.mark.usefixtures("_deformable")
def test_the_backbone_of_a_deformable_network(tmp_path: Path) -> None:
    body = random_port("mobilenet", 8, 64, flat=True).body
    network = initialise(DEFORMABLE, saved(tmp_path, body.state_dict()), seed=2).network.state_dict()
    random = initialise(DEFORMABLE, None, seed=2).network.state_dict()
    assert torch.equal(network["context.0.conv3x3.conv.weight"], random["context.0.conv3x3.conv.weight"])
    assert torch.equal(network["backbone.stem.conv.weight"], body.state_dict()["stage1.0.0.weight"])


def test_another_network(tmp_path: Path) -> None:
    path = saved(tmp_path, initialise(SMALL, None, seed=0).network.state_dict())
    with pytest.raises(WeightsError, match=r"does not fit the network 'resnet18': missing: backbone\.stem"):
        initialise(RESNET, path, seed=0)


def test_another_network_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "folded.safetensors"
    source = saved(tmp_path, initialise(SMALL, None, seed=0).network.state_dict())
    save_weights(load_weights(source), path)
    own = dataclasses.replace(SMALL, context=dataclasses.replace(SMALL.context, share_first=False))
    message = r"holds the network 'mobilenet0\.25', not 'mobilenet0\.25': they differ in context"
    with pytest.raises(WeightsError, match=message):
        initialise(own, path, seed=0)


def test_a_missing_tensor(tmp_path: Path) -> None:
    state = initialise(SMALL, None, seed=0).network.state_dict()
    del state["context.1.conv7x7_3.norm.bias"]
    with pytest.raises(WeightsError, match=r"missing: context\.1\.conv7x7_3\.norm\.bias$"):
        initialise(SMALL, saved(tmp_path, state), seed=0)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    state = initialise(SMALL, None, seed=0).network.state_dict()
    state["fpn.lateral.0.norm.bias"][3] = math.nan
    with pytest.raises(WeightsError, match=r"fpn\.lateral\.0\.norm\.bias holds NaN"):
        initialise(SMALL, saved(tmp_path, state), seed=0)


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth does not exist"):
        initialise(SMALL, tmp_path / "absent.pth", seed=0)
    with pytest.raises(WeightsError, match=r"is a folder"):
        initialise(SMALL, tmp_path, seed=0)
    with pytest.raises(ValueError, match=r"source: expected one of mobilenet0\.25, .*got 'mobilenet'"):
        initialise(SMALL, "mobilenet", seed=0)
    with pytest.raises(ValueError, match=r"source must be a name or the path of a file, got an empty one"):
        initialise(SMALL, "", seed=0)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"seed: expected at least 0, got -1"):
        initialise(SMALL, None, seed=-1)
    with pytest.raises(ValueError, match=r"backbone_pixels: expected 'bgr' or 'torchvision', got 'rgb'"):
        initialise(SMALL, None, seed=0, backbone_pixels="rgb")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"negatives_per_positive: expected a number above 0, got 0"):
        initialise(SMALL, None, seed=0, negatives_per_positive=0)


def test_a_network_of_ours_is_returned() -> None:
    assert isinstance(initialise(SMALL, None, seed=0).network, RetinaFace)
