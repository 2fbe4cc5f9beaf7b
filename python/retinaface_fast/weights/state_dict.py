"""State dicts of other RetinaFace ports, translated to canonical names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from retinaface_fast.errors import WeightsError
from retinaface_fast.network.config import CONFIGS, BackboneKind, RetinaFaceConfig
from retinaface_fast.network.layout import layer_specs, tensor_shapes

from .model_weights import check_tensors, compare

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from retinaface_fast._typing import AnyArray

__all__ = ["KNOWN_SURPLUS", "TranslatedTensors", "is_backbone", "translate_backbone", "translate_state_dict"]

#: What the ports save beside the network: the classifier of the pre-trained backbone, which RetinaFace never
#: runs. (`*.num_batches_tracked` is dropped too: a counter, not a weight.)
KNOWN_SURPLUS = frozenset({"body.fc.weight", "body.fc.bias", "fx.fc.weight", "fx.fc.bias"})

#: The classifier of a backbone that was saved alone.
_CLASSIFIERS = frozenset({"fc.weight", "fc.bias"})

#: How the names of a backbone that was saved alone begin.
_BACKBONE_MARKS = ("conv1.", "bn1.", "layer1.", "stage1.")

#: Stages of the ports' MobileNet, which end at C3, C4 and C5, and the blocks in each.
_PORT_STAGES = ((1, range(5)), (2, range(5, 11)), (3, range(11, 13)))

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


class TranslatedTensors(NamedTuple):
    """Tensors under canonical names, the network they fit, and what the file called them."""

    tensors: dict[str, AnyArray]
    config: RetinaFaceConfig
    foreign_names: dict[str, str]


def translate_state_dict(
    tensors: Mapping[str, AnyArray], *, config: RetinaFaceConfig | None, source: str
) -> TranslatedTensors:
    """Find out whose names a state dict uses and which network it is, and rename its tensors.

    Known are the names of this package, those of biubug6/Pytorch_Retinaface (and facexlib) and those of
    yakhyo/retinaface-pytorch, each with or without the `module.` prefix of data-parallel training.

    Args:
        tensors: The state dict.
        config: The network that it must fit, or None to find it among `CONFIGS`.
        source: Path of the file, for messages.

    Returns:
        The tensors, complete and of the right shapes.

    Raises:
        WeightsError: If a tensor is missing, surplus or misshapen for the closest network and naming.
    """
    plain = _without_prefix(tensors, source)
    closest: tuple[int, TranslatedTensors, dict[str, tuple[int, ...]]] | None = None
    fits = 0
    for candidate in CONFIGS.values() if config is None else (config,):
        for names, folded in _namings(candidate):
            expected = tensor_shapes(candidate, folded=folded)
            canonical = {foreign: name for name, foreign in names.items()}
            renamed = {canonical.get(name, name): tensor for name, tensor in plain.items()}
            fitting = sum(name in renamed and renamed[name].shape == expected[name] for name in expected)
            wrong = len(expected) + len(renamed) - 2 * fitting
            if closest is None or wrong < closest[0]:
                closest = wrong, TranslatedTensors(renamed, candidate, names), expected
            fits = max(fits, fitting)
    if closest is None or fits == 0:
        names_there = ", ".join(list(tensors)[:3]) or "nothing"
        wanted = "any known RetinaFace" if config is None else repr(config.name)
        raise WeightsError(f"{source} holds no tensor of {wanted}; it begins with {names_there}")
    wrong, translated, expected = closest
    if wrong:
        complaints = "; ".join(compare(translated.tensors, expected, translated.foreign_names))
        closest_name = translated.config.name
        raise WeightsError(f"{source} does not fit the network {closest_name!r}: {complaints}")
    return translated


def is_backbone(tensors: Iterable[str]) -> bool:
    """Whether the names of a state dict are those of an ImageNet network: torchvision's ResNet or a port's.

    >>> is_backbone(["module.stage1.0.0.weight"]), is_backbone(["body.stage1.0.0.weight"])
    (True, False)
    """
    return any(name.removeprefix("module.").startswith(_BACKBONE_MARKS) for name in tensors)


def translate_backbone(
    tensors: Mapping[str, AnyArray], *, config: RetinaFaceConfig, source: str
) -> TranslatedTensors:
    """Rename the tensors of an ImageNet network to those of the backbone of a RetinaFace.

    Known are the names of torchvision's ResNets and those of the MobileNets of both ports, each with or
    without the `module.` prefix of data-parallel training. The classifier is left out.

    Args:
        tensors: The state dict, with batch norm.
        config: The network whose backbone they must fit.
        source: Path of the file, for messages.

    Returns:
        The tensors of the backbone, complete and of the right shapes, under canonical names.

    Raises:
        WeightsError: If a tensor is missing, surplus or misshapen for the closest naming, of another type
            than a floating one, or not finite.
    """
    plain = _without_prefix(tensors, source, surplus=_CLASSIFIERS)
    expected = {
        name: shape
        for name, shape in tensor_shapes(config, folded=False).items()
        if name.startswith("backbone.")
    }
    candidates = []
    for flat_blocks in (True, False):
        names: dict[str, str] = {}
        for spec in layer_specs(config):
            if spec.name.startswith("backbone."):
                names |= _layer_names(spec.name, config.backbone.kind, flat_blocks=flat_blocks)
        names = {name: foreign.partition(".")[2] for name, foreign in names.items()}
        canonical = {foreign: name for name, foreign in names.items()}
        renamed = {canonical.get(name, name): tensor for name, tensor in plain.items()}
        fitting = sum(name in renamed and renamed[name].shape == expected[name] for name in expected)
        candidates.append((fitting, TranslatedTensors(renamed, config, names)))
    translated = max(candidates, key=lambda candidate: candidate[0])[1]
    check_tensors(
        translated.tensors,
        expected,
        network=f"backbone of {config.name}",
        source=source,
        foreign_names=translated.foreign_names,
    )
    return translated


def _without_prefix(
    tensors: Mapping[str, AnyArray], source: str, *, surplus: Collection[str] = KNOWN_SURPLUS
) -> dict[str, AnyArray]:
    plain: dict[str, AnyArray] = {}
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix("module.")
        if name in surplus or name.endswith(".num_batches_tracked"):
            continue
        if name in plain:
            raise WeightsError(f"{source} holds {name} twice, with and without the prefix 'module.'")
        plain[name] = tensor
    return plain


def _namings(config: RetinaFaceConfig) -> Iterator[tuple[dict[str, str], bool]]:
    """The name in the file by canonical name, and whether batch norm is folded, for each naming."""
    for folded in (False, True):
        yield {name: name for name in tensor_shapes(config, folded=folded)}, folded
    if config.levels == (3, 4, 5) and config.context.share_first and not config.context.deformable:
        yield _port_names(config, flat_blocks=True), False
        yield _port_names(config, flat_blocks=False), False


def _port_names(config: RetinaFaceConfig, *, flat_blocks: bool) -> dict[str, str]:
    """Names of the popular PyTorch port (flat MobileNet blocks) or of yakhyo's (nested ones)."""
    names: dict[str, str] = {}
    for spec in layer_specs(config):
        if not spec.norm:
            kind, _, index = spec.name.partition(".")
            head = _PORT_HEADS[kind][0 if flat_blocks else 1].format(index)
            for part in ("weight", "bias"):
                names[f"{spec.name}.{part}"] = f"{head}.{part}"
            continue
        names |= _layer_names(spec.name, config.backbone.kind, flat_blocks=flat_blocks)
    return names


def _layer_names(layer: str, kind: BackboneKind, *, flat_blocks: bool) -> dict[str, str]:
    conv, norm = _port_modules(layer, kind, flat_blocks=flat_blocks)
    names = {f"{layer}.conv.weight": f"{conv}.weight"}
    for part in _NORM_PARTS:
        names[f"{layer}.norm.{part}"] = f"{norm}.{part}"
    return names


_PORT_HEADS = {
    "class_head": ("ClassHead.{}.conv1x1", "class_head.class_head.{}"),
    "box_head": ("BboxHead.{}.conv1x1", "bbox_head.bbox_head.{}"),
    "landmark_head": ("LandmarkHead.{}.conv1x1", "landmark_head.landmark_head.{}"),
}

# The port's own spelling: one lower-case x among the capitals.
_PORT_CONTEXT = {
    "conv3x3": "conv3X3",
    "conv5x5_1": "conv5X5_1",
    "conv5x5_2": "conv5X5_2",
    "conv7x7_2": "conv7X7_2",
    "conv7x7_3": "conv7x7_3",
}


def _port_modules(layer: str, kind: BackboneKind, *, flat_blocks: bool) -> tuple[str, str]:
    """What a port calls the convolution and the batch norm of a layer."""
    body = "body" if flat_blocks else "fx"
    match layer.split("."):
        case ["fpn", "lateral", index]:
            module = f"fpn.output{int(index) + 1}"
        case ["fpn", "merge", index]:
            module = f"fpn.merge{int(index) + 1}"
        case ["context", index, conv]:
            module = f"ssh{int(index) + 1}.{_PORT_CONTEXT[conv]}"
        case ["backbone", "blocks", index, part]:
            stage, blocks = next(item for item in _PORT_STAGES if int(index) in item[1])
            place = int(index) - blocks.start + (1 if stage == 1 else 0)
            module = f"{body}.stage{stage}.{place}"
            second = part == "pointwise"
            if flat_blocks:
                return f"{module}.{3 * second}", f"{module}.{3 * second + 1}"
            module = f"{module}.{int(second)}"
        case ["backbone", "stages", stage_index, block, "convs", conv_index]:
            module = f"{body}.layer{int(stage_index) + 1}.{block}"
            return f"{module}.conv{int(conv_index) + 1}", f"{module}.bn{int(conv_index) + 1}"
        case ["backbone", "stages", stage_index, block, "shortcut"]:
            module = f"{body}.layer{int(stage_index) + 1}.{block}.downsample"
        case _:  # the stem
            if kind == "resnet":
                return f"{body}.conv1", f"{body}.bn1"
            module = f"{body}.stage1.0"
    return f"{module}.0", f"{module}.1"
