from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from retinaface_fast.anchor_config import P2_P6, AnchorConfig
from retinaface_fast.network import (
    CONFIGS,
    BackboneConfig,
    ContextConfig,
    RetinaFace,
    RetinaFaceConfig,
    layer_specs,
    tensor_shapes,
)

EVERY_CONFIG = [*CONFIGS.values()]
UNSHARED = dataclasses.replace(CONFIGS["mobilenet0.25"], context=ContextConfig(share_first=False))


def test_the_named_networks() -> None:
    assert list(CONFIGS) == [
        "mobilenet0.25",
        "mobilenet0.5",
        "mobilenet1.0",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet152",
        "paper-resnet152",
    ]
    assert all(name == config.name for name, config in CONFIGS.items())


@pytest.mark.parametrize(
    ("name", "levels", "out", "slope"),
    [
        ("mobilenet0.25", (32, 64, 128, 256), 64, 0.1),
        ("mobilenet0.5", (64, 128, 256, 512), 128, 0.0),
        ("mobilenet1.0", (128, 256, 512, 1024), 128, 0.0),
        ("resnet18", (64, 128, 256, 512), 128, 0.0),
        ("resnet34", (64, 128, 256, 512), 128, 0.0),
        ("resnet50", (256, 512, 1024, 2048), 256, 0.0),
        ("resnet152", (256, 512, 1024, 2048), 256, 0.0),
    ],
)
def test_channels_and_slopes(name: str, levels: tuple[int, ...], out: int, slope: float) -> None:
    config = CONFIGS[name]
    assert tuple(config.backbone.level_channels.values()) == levels
    assert config.out_channels == out
    assert config.neck_negative_slope == slope
    assert config.backbone.negative_slope == (0.1 if name.startswith("mobilenet") else 0.0)
    assert config.levels == (3, 4, 5)


def test_the_paper_has_five_levels_and_three_anchors() -> None:
    config = CONFIGS["paper-resnet152"]
    assert config.anchors == P2_P6
    assert config.levels == (2, 3, 4, 5, 6)
    assert [spec.out_channels for spec in layer_specs(config) if spec.name.startswith("box_head")] == [12] * 5


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("config", [*EVERY_CONFIG, UNSHARED], ids=lambda config: config.name)
def test_the_layers_as_data_are_those_of_the_module(config: RetinaFaceConfig, folded: bool) -> None:
    with torch.device("meta"):
        network = RetinaFace(config, folded=folded)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert shapes == tensor_shapes(config, folded=folded)


def test_parameter_counts_of_known_backbones() -> None:
    # torchvision's counts (11,689,512 for ResNet-18) less the classifier (513,000)
    for name, count in (("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)):
        shapes = tensor_shapes(CONFIGS[name], folded=False)
        found = sum(
            math.prod(shape)
            for tensor, shape in shapes.items()
            if tensor.startswith("backbone") and "running" not in tensor
        )
        assert found == count


@pytest.mark.parametrize("config", [*EVERY_CONFIG, UNSHARED], ids=lambda config: config.name)
def test_to_dict_and_back(config: RetinaFaceConfig) -> None:
    assert RetinaFaceConfig.from_dict(config.to_dict()) == config


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIGS["resnet50"].out_channels = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_channels": 62}, "out_channels"),
        ({"out_channels": 0}, "out_channels"),
        ({"anchors": AnchorConfig((8, 32), ((16.0,), (32.0,)))}, "anchors"),
        ({"anchors": AnchorConfig((2, 4), ((16.0,), (32.0,)))}, "anchors"),
        ({"anchors": AnchorConfig((8, 16), ((16.0,), (32.0,)))}, "anchors"),
        ({"variances": (0.1, 0.0)}, "variances"),
        ({"mean_bgr": (1.0, math.nan, 2.0)}, "mean_bgr"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIGS["mobilenet0.25"], **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "vgg"}, "kind"),
        ({"kind": "resnet", "depth": 20}, "depth"),
        ({"kind": "resnet", "depth": 18, "width": 0.5}, "width"),
        ({"kind": "mobilenet", "depth": 18}, "depth"),
        ({"kind": "mobilenet", "width": 0.0}, "width"),
        ({"kind": "mobilenet", "width": math.nan}, "width"),
        ({"kind": "mobilenet", "negative_slope": -0.1}, "negative_slope"),
    ],
)
def test_impossible_backbones_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**arguments)  # type: ignore[arg-type]


def test_a_damaged_description_is_refused() -> None:
    good = CONFIGS["mobilenet0.25"].to_dict()
    for bad in (
        {},
        {**good, "more": 1},
        {**good, "backbone": {"kind": "mobilenet"}},
        {**good, "anchors": None},
        {**good, "mean_bgr": [1, 2]},
        {**good, "variances": 3},
        {**good, "out_channels": "many"},
    ):
        with pytest.raises(ValueError, match=r"config|backbone|anchors|unpack|invalid literal"):
            RetinaFaceConfig.from_dict(bad)
