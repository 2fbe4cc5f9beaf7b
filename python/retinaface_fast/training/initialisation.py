"""The weights that a run begins with: random ones, those of an ImageNet backbone, those of a RetinaFace."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from retinaface_fast.errors import DatasetError, WeightsError
from retinaface_fast.network.folding import BATCH_NORM_EPSILON
from retinaface_fast.network.layers import ConvNorm, DeformableConvNorm
from retinaface_fast.network.layout import layer_specs, tensor_shapes
from retinaface_fast.network.retinaface import RetinaFace
from retinaface_fast.weights import REGISTRY, load_weights
from retinaface_fast.weights.loader import read_file
from retinaface_fast.weights.model_weights import check_tensors
from retinaface_fast.weights.state_dict import is_backbone, translate_backbone

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from retinaface_fast.network.config import RetinaFaceConfig
    from retinaface_fast.weights.loader import WeightsFile

__all__ = ["Initial", "initial_of_run", "initialise"]

#: Spread of the weights of untrained heads: small, so that the prior decides (Lin et al. 2017, RetinaNet,
#: arXiv 1708.02002, section 4.1).
_HEAD_STD = 0.01

#: What torchvision's pre-trained networks are given, R, G, B of 0 to 1.
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_STD = (0.229, 0.224, 0.225)

#: What the metadata of a file say of where it is from.
_ORIGIN = ("name", "upstream_url", "upstream_file", "upstream_sha256")


class Initial(NamedTuple):
    """What a run begins with.

    Attributes:
        network: The network, in training mode, on the CPU.
        folded: Whether it has no batch norm, because the weights came with batch norm folded in.
        description: Where the weights come from, in words.
        metadata: What their file says of where it is from, such as its licence; empty for random weights.
        origin: What makes them these weights wherever their file lies, as JSON takes it.
    """

    network: RetinaFace
    folded: bool
    description: str
    metadata: Mapping[str, str] = MappingProxyType({})
    origin: Mapping[str, Any] = MappingProxyType({})


def initialise(
    config: RetinaFaceConfig,
    source: str | os.PathLike[str] | None,
    *,
    seed: int,
    backbone_pixels: Literal["bgr", "torchvision"] = "bgr",
    negatives_per_positive: float = 7.0,
) -> Initial:
    """Make a network and give it weights.

    Random weights are drawn by He et al. 2015 (arXiv 1502.01852) from a generator of their own: the same seed
    gives the same weights, and nobody else's random numbers change. Batch norms begin as the identity.

    Args:
        config: The network.
        source: None for random weights. A name of `weights.REGISTRY` or the file of a RetinaFace, of any
            format that `load_weights` reads; batch norm that is folded in stays so. Or the file of an
            ImageNet backbone, a state dict of torchvision's ResNet or of a port's MobileNet; the rest is
            random then. Weights of plain convolutions fit deformable ones, which compute the same until they
            are trained.
        seed: Of the random weights, >= 0.
        backbone_pixels: What the backbone of an ImageNet file was trained on. "bgr": pixels as this package
            gives them, blue, green, red minus `config.mean_bgr`. "torchvision": red, green, blue of 0 to 1,
            normalised by torchvision's mean and standard deviation; the first layer is converted. A
            RetinaFace is always taken as it is.
        negatives_per_positive: Background anchors that the class loss is shown for each face, > 0; as in
            `LossSection`. Untrained class heads begin with the probability of a face that this makes.

    Returns:
        The network, whether its batch norm is folded, and a description.

    Raises:
        ValueError: If `seed`, `backbone_pixels` or `negatives_per_positive` cannot be, or the source is
            neither a known name nor looks like a path.
        WeightsError: If the file cannot be read, or its tensors do not fit the network; the message names
            them.
        MissingDependencyError: If a package that the file or the network needs is not installed.
    """
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if backbone_pixels not in ("bgr", "torchvision"):
        raise ValueError(f"backbone_pixels: expected 'bgr' or 'torchvision', got {backbone_pixels!r}")
    if not negatives_per_positive > 0:
        raise ValueError(f"negatives_per_positive: expected a number above 0, got {negatives_per_positive}")
    if source is None:
        network = _network(config, seed, folded=False, negatives=negatives_per_positive)
        return Initial(network, False, f"random, seed {seed}", origin={"kind": "random", "seed": seed})
    plain = _plain(config)
    file = _file(source)
    if file is None:
        weights = load_weights(source, config=plain)
        tensors = _tensors(weights.tensors)
        description = f"{source} (sha256 {weights.sha256[:12]})"
        metadata, sha256 = weights.metadata, weights.sha256
    elif is_backbone(file.tensors):
        translated = translate_backbone(file.tensors, config=plain, source=file.source)
        tensors = _tensors(translated.tensors)
        if backbone_pixels == "torchvision":
            _take_bgr(tensors, config)
        network = _network(config, seed, folded=False, negatives=negatives_per_positive)
        network.load_state_dict({**network.state_dict(), **tensors})
        description = f"backbone of {file.source} (sha256 {file.sha256[:12]}), the rest random, seed {seed}"
        origin = {"kind": "backbone", "sha256": file.sha256, "pixels": backbone_pixels, "seed": seed}
        return Initial(network, False, description, _provenance(file.metadata), origin)
    else:
        tensors = _retinaface_tensors(file, config, plain)
        description = f"{file.source} (sha256 {file.sha256[:12]})"
        metadata, sha256 = file.metadata, file.sha256
    folded = not any(".norm." in name for name in tensors)
    network = _network(config, seed, folded=folded, negatives=negatives_per_positive)
    _bend(tensors, config)
    # What a file need not have, and only that, stays as it is: counters, and offsets that begin at zero.
    network.load_state_dict({**network.state_dict(), **tensors})
    origin = {"kind": "retinaface", "sha256": sha256}
    return Initial(network, folded, description, _provenance(metadata), origin)


def initial_of_run(config: RetinaFaceConfig, record: Mapping[str, Any]) -> Initial:
    """What a run began with, for one that has a checkpoint: its values do not matter, its file may be gone.

    Args:
        config: The network.
        record: What `run.json` of the run says.

    Raises:
        DatasetError: The record does not say it.
    """
    try:
        folded = {"folded": True, "trained": False}[record["batch_norm"]]
        description, metadata, origin = record["initial_weights"], record["provenance"], record["initial"]
        return Initial(
            RetinaFace(config, folded=folded).train(), folded, str(description), dict(metadata), dict(origin)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"run.json does not say what the run began with: {error}") from None


def _provenance(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """What holds for weights that come from those of a file, too, and where the file is from.

    Where the file does not say where it is from, it is of a run, and what that began with is the origin.
    """
    carried = {key: metadata[key] for key in ("licence",) if key in metadata}
    # Of one origin: those of two would be a name with the digest of another file.
    prefix = "" if any(key in metadata for key in _ORIGIN) else "initial_"
    for key in _ORIGIN:
        if f"{prefix}{key}" in metadata:
            carried[f"initial_{key}"] = metadata[f"{prefix}{key}"]
    return MappingProxyType(carried)


def _file(source: str | os.PathLike[str]) -> WeightsFile | None:
    """The file, or None if it is for `load_weights` to find, or to say what is wrong with the source."""
    path = Path(source)
    named = isinstance(source, str) and (source in REGISTRY or not source)
    if named or not path.exists() or path.suffix == ".onnx":
        return None
    return read_file(path)


def _retinaface_tensors(
    file: WeightsFile, config: RetinaFaceConfig, plain: RetinaFaceConfig
) -> dict[str, torch.Tensor]:
    try:
        translated = file.translated(config)[0]
    except WeightsError:
        if plain == config or any(".offset." in name for name in file.tensors):
            raise
        translated = file.translated(plain)[0]
    folded = not any(".norm." in name for name in translated.tensors)
    check_tensors(
        translated.tensors,
        tensor_shapes(translated.config, folded=folded),
        network=config.name,
        source=file.source,
        foreign_names=translated.foreign_names,
    )
    return _tensors(translated.tensors)


def _plain(config: RetinaFaceConfig) -> RetinaFaceConfig:
    """The network with plain convolutions in place of deformable ones."""
    return dataclasses.replace(config, context=dataclasses.replace(config.context, deformable=False))


def _tensors(arrays: Mapping[str, object]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


def _network(config: RetinaFaceConfig, seed: int, *, folded: bool, negatives: float) -> RetinaFace:
    # Not torch.manual_seed, which would seed the accelerators, too, and these are not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = RetinaFace(config, folded=folded)
        if not folded:
            _draw(network, negatives)
    return network.train()


@torch.no_grad()
def _draw(network: RetinaFace, negatives: float) -> None:
    for module in network.modules():
        if not isinstance(module, ConvNorm | DeformableConvNorm):
            continue
        # Fan-in is right for depthwise convolutions, too; torch counts the fan-out of a full one.
        if module.negative_slope is None:
            nn.init.kaiming_normal_(module.conv.weight, nonlinearity="linear")
        else:
            nn.init.kaiming_normal_(module.conv.weight, a=module.negative_slope, nonlinearity="leaky_relu")
    for heads in (network.class_head, network.box_head, network.landmark_head):
        for name, parameter in heads.named_parameters():
            if name.endswith(".weight"):
                nn.init.normal_(parameter, std=_HEAD_STD)
            else:
                nn.init.zeros_(parameter)
    # One face to so many anchors of background is what a network that knows nothing should say; begun at 1/2,
    # the first steps are spent on learning the constant.
    logit = -math.log(negatives)
    for name, parameter in network.class_head.named_parameters():
        if name.endswith(".bias"):  # background, face for each anchor
            parameter[0::2] = -logit / 2
            parameter[1::2] = logit / 2


def _bend(tensors: dict[str, torch.Tensor], config: RetinaFaceConfig) -> None:
    """Fit weights of plain convolutions to deformable ones, whose modulation begins at sigmoid(0) = 1/2."""
    for spec in layer_specs(config):
        if spec.deformable and f"{spec.name}.offset.weight" not in tensors:
            tensors[f"{spec.name}.conv.weight"] *= 2.0


def _take_bgr(tensors: dict[str, torch.Tensor], config: RetinaFaceConfig) -> None:
    """Convert the first layer from torchvision's pixels to this package's.

    With a pixel value x, torchvision's input is `(x / 255 - mean) / std` and this package's `x - mean_bgr`, a
    linear function of each other. The slope goes into the weights. The constant goes into the running mean
    and is exact where the kernel lies within the picture; at the border torchvision's zeros are its own mean
    colour, which is within 1 of the default `mean_bgr`, 0.02 standard deviations.

    The slopes, about 1/57, would make the weights so small that a step of the same length changes them 57
    times as much (batch norm makes the gradient longer as the weights get shorter). Their mean is therefore
    left out of the weights and goes into the running statistics: the function is the same.
    """
    weight = tensors["backbone.stem.conv.weight"].double().flip(1)
    std = torch.tensor(_TORCHVISION_STD[::-1], dtype=torch.float64)
    mean = torch.tensor(_TORCHVISION_MEAN[::-1], dtype=torch.float64)
    ours = torch.tensor(config.mean_bgr, dtype=torch.float64)
    slope = 1.0 / (255.0 * std)
    constant = (ours / 255.0 - mean) / std
    scale = 1.0 / float(slope.mean())
    shift = torch.einsum("oihw,i->o", weight, constant)
    norm = "backbone.stem.norm"
    running_mean = tensors[f"{norm}.running_mean"].double()
    running_var = tensors[f"{norm}.running_var"].double()
    tensors["backbone.stem.conv.weight"] = (weight * (slope * scale)[None, :, None, None]).float()
    tensors[f"{norm}.running_mean"] = (scale * (running_mean - shift)).float()
    tensors[f"{norm}.running_var"] = (
        scale**2 * (running_var + BATCH_NORM_EPSILON) - BATCH_NORM_EPSILON
    ).float()
