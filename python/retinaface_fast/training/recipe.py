"""A recipe: everything that decides what a training run comes to, as a file.

Recipes are TOML. Those of the package lie in `recipes/`, each number with its source beside it; one of your
own has the same sections. What is left out has the value that this file states; what is unknown is an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retinaface_fast.network.config import CONFIGS, ContextConfig, RetinaFaceConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AssignmentSection",
    "AugmentationSection",
    "LossSection",
    "NetworkSection",
    "OptimiserSection",
    "Recipe",
    "ScheduleSection",
    "TrainingSection",
    "ValidationSection",
    "load_recipe",
    "recipe_names",
]

Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Range: TypeAlias = tuple[float, float]
Interpolation: TypeAlias = Literal["nearest", "linear", "cubic", "area", "lanczos"]


#: In short sides of the picture: it fills a hundredth of such a crop, and coordinates stay far below 2^31.
_LARGEST_CROP = 10


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSection(_Section):
    """The network, by name, and what differs from it.

    Attributes:
        name: Of `retinaface_fast.network.CONFIGS`.
        share_first: As in `ContextConfig`; None leaves what the named network has.
        deformable: As in `ContextConfig`; None leaves what the named network has.
    """

    name: str = "mobilenet0.25"
    share_first: bool | None = None
    deformable: bool | None = None

    @model_validator(mode="after")
    def _known(self) -> NetworkSection:
        if self.name not in CONFIGS:
            raise ValueError(f"name: expected one of {', '.join(CONFIGS)}, got {self.name!r}")
        return self

    def config(self) -> RetinaFaceConfig:
        """The network."""
        config = CONFIGS[self.name]
        context = ContextConfig(
            share_first=config.context.share_first if self.share_first is None else self.share_first,
            deformable=config.context.deformable if self.deformable is None else self.deformable,
        )
        return dataclasses.replace(config, context=context)


class AugmentationSection(_Section):
    """From a picture to a square training picture.

    Attributes:
        side: Side of the training picture in pixels.
        crop_scales: Side of the square crop as a multiple of the picture's short side, one of these drawn
            with equal chances, at most 10. Above 1 the crop is larger than the picture and padded.
        crop_range: Lowest and highest multiple, drawn evenly, in place of `crop_scales`.
        crop_attempts: Crops that are tried until one holds a face whole and at least one face's centre. If
            none does, the whole picture is padded to a square.
        distort: Whether brightness, contrast, saturation and hue are changed.
        flip: Chance of a mirrored picture.
        interpolations: One is drawn for each resize.
        min_face: Faces whose shorter side is below this many pixels of the training picture are neither faces
            nor background, and neither are the anchors that may find them.
    """

    side: Annotated[int, Field(ge=32, le=4096)] = 640
    crop_scales: tuple[Positive, ...] | None = (0.3, 0.45, 0.6, 0.8, 1.0)
    crop_range: tuple[Positive, Positive] | None = None
    crop_attempts: Count = 250
    distort: bool = True
    flip: Fraction = 0.5
    interpolations: Annotated[tuple[Interpolation, ...], Field(min_length=1)] = (
        "linear",
        "cubic",
        "area",
        "nearest",
        "lanczos",
    )
    min_face: NotNegative = 0.0

    @model_validator(mode="before")
    @classmethod
    def _range_in_place_of_scales(cls, values: Any) -> Any:
        # TOML has no null with which a file could take back the default.
        if isinstance(values, dict) and values.get("crop_range") is not None:
            return {"crop_scales": None, **values}
        return values

    @model_validator(mode="after")
    def _one_way_to_crop(self) -> AugmentationSection:
        if (not self.crop_scales) == (self.crop_range is None):
            raise ValueError("expected one of crop_scales and crop_range, got both or none")
        if self.crop_range is not None and self.crop_range[0] > self.crop_range[1]:
            raise ValueError(f"crop_range: expected lowest and highest, got {list(self.crop_range)}")
        for name, multiples in (("crop_scales", self.crop_scales), ("crop_range", self.crop_range)):
            if multiples and max(multiples) > _LARGEST_CROP:
                raise ValueError(
                    f"{name}: expected at most {_LARGEST_CROP} times the picture's short side, "
                    f"got {max(multiples):g}"
                )
        return self


class AssignmentSection(_Section):
    """Which anchors are faces.

    Attributes:
        positive_iou: An anchor is a face if its highest IoU with one is >= this.
        negative_iou: It is background if that is < this; what lies between is left out of the class loss.
            So is background whose IoU with a face that is neither face nor background is >= this or half of
            the highest that this face has with any anchor, and what lies in its box by half.
        force: Whether each face takes its best anchor in any case ...
        force_min_iou: ... as long as their IoU is >= this.
    """

    positive_iou: Annotated[float, Field(gt=0, le=1)] = 0.35
    negative_iou: Annotated[float, Field(gt=0, le=1)] = 0.35
    force: bool = True
    force_min_iou: Fraction = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> AssignmentSection:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou must be at most positive_iou, {self.positive_iou}, got {self.negative_iou}"
            )
        return self


class LossSection(_Section):
    """The multi-task loss: class + box_weight * box + landmark_weight * landmark + dense_weight * dense.

    Attributes:
        class_weight: Of the class term.
        box_weight: Of the box term.
        landmark_weight: Of the landmark term.
        dense_weight: Of a dense regression term, which `Trainer` is given; this package has none, and the
            command trains with 0 alone.
        negatives_per_positive: Background anchors in the class term for each face anchor of the picture:
            those with the highest loss.
        min_negatives: Background anchors of a picture at the least, so that pictures without a face count.
        box_beta: Where smooth L1 of the box deltas turns from quadratic to linear.
        landmark_beta: The same for landmark deltas.
    """

    class_weight: NotNegative = 1.0
    box_weight: NotNegative = 2.0
    landmark_weight: NotNegative = 1.0
    dense_weight: NotNegative = 0.0
    negatives_per_positive: Positive = 7.0
    min_negatives: Annotated[int, Field(ge=0)] = 0
    box_beta: Positive = 1.0
    landmark_beta: Positive = 1.0


class OptimiserSection(_Section):
    """SGD, or AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101).

    Attributes:
        kind: "sgd", as in every published recipe; or "adamw", which learns from random weights in a tenth of
            the steps.
        lr: Learning rate for a whole batch, before the schedule's factor.
        momentum: Of SGD; of AdamW, beta 1 (beta 2 is 0.999).
        nesterov: Whether the momentum of SGD is Nesterov's.
        weight_decay: L2 penalty of every parameter; of AdamW, decay per step in units of the learning rate.
        offset_lr_factor: Factor of `lr` for what predicts the offsets of deformable convolutions.
        frozen: Beginnings of the names of parameters that keep their values, in whole parts:
            "backbone.blocks.1" does not mean "backbone.blocks.10".
        clip_norm: Longest gradient, over all parameters; None for no limit.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 5e-4
    offset_lr_factor: NotNegative = 1.0
    frozen: tuple[str, ...] = ()
    clip_norm: Positive | None = None

    @model_validator(mode="after")
    def _nesterov_of_something(self) -> OptimiserSection:
        if self.nesterov and self.kind != "sgd":
            raise ValueError(f'nesterov: expected kind "sgd", got kind "{self.kind}"')
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"nesterov: expected a momentum above 0, got momentum {self.momentum}")
        return self


class ScheduleSection(_Section):
    """The learning rate over the epochs, as a factor of `optimiser.lr`.

    Attributes:
        epochs: Passes over the data.
        kind: "steps" multiplies by `gamma` at each of `milestones`; "cosine" falls to `final_factor`.
        milestones: Epochs after which the factor falls, ascending and below `epochs`; without any it stays.
        gamma: By how much.
        final_factor: Where a cosine ends.
        warmup_epochs: The factor rises linearly from `warmup_factor` to 1 over these first epochs, fewer than
            `epochs`; may be a fraction.
        warmup_factor: Where it begins.
    """

    epochs: Count = 250
    kind: Literal["steps", "cosine"] = "steps"
    milestones: tuple[Count, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    final_factor: Fraction = 0.0
    warmup_epochs: NotNegative = 0.0
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> ScheduleSection:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: expected ascending epochs, got {list(self.milestones)}")
        return self

    @model_validator(mode="after")
    def _before_the_end(self) -> ScheduleSection:
        # Who shortens a recipe would otherwise train all of it at the highest rate, and not be told.
        if self.kind == "steps" and self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones: expected all below epochs, {self.epochs}, got {list(self.milestones)}; also "
                'give schedule.milestones, or schedule.kind = "cosine"'
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs: expected less than epochs, {self.epochs}, got {self.warmup_epochs}; also "
                "give schedule.warmup_epochs"
            )
        return self


class TrainingSection(_Section):
    """The loop.

    Attributes:
        batch_size: Pictures of a step, over all processes and all micro-batches.
        accumulate: Micro-batches of a step: less memory, the same gradient (batch norm sees less).
        precision: "32-true", "bf16-mixed" or "16-mixed".
        ema_decay: Decay of the moving average of the weights, per step; None keeps none. Validation, and what
            is written for use, take the average where there is one.
        batch_norm: What becomes of initial weights with their batch norm folded in, as all published ones
            have. "restored" gives it back, measured on training pictures; "as-is" trains without it, which
            takes a hundredth of the learning rate.
        seed: Of the initial weights, the order of the pictures and their augmentation.
    """

    batch_size: Count = 32
    accumulate: Count = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_norm: Literal["restored", "as-is"] = "restored"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _divides(self) -> TrainingSection:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must be a multiple of accumulate, {self.accumulate}, got {self.batch_size}"
            )
        return self


class ValidationSection(_Section):
    """Average precision on pictures that are not trained on.

    Attributes:
        every: Epochs from one validation to the next; the last epoch is always validated.
        protocol: Of `retinaface_fast.evaluation.PROTOCOLS`.
        metric: What decides which weights are best and when to stop: "easy", "medium", "hard" or "mean" of
            the three where there is WIDER FACE ground truth; there is one figure where there is none.
        patience: Validations without a new best after which the run ends; None never ends it early.
    """

    every: Count = 5
    protocol: str = "original"
    metric: Literal["easy", "medium", "hard", "mean"] = "mean"
    patience: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> ValidationSection:
        from retinaface_fast.evaluation import PROTOCOLS

        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        return self


class Recipe(_Section):
    """A whole recipe, section by section.

    Example:
        >>> recipe = load_recipe("biubug6-mobilenet0.25")
        >>> recipe.schedule.epochs, recipe.schedule.milestones, recipe.training.batch_size
        (250, (190, 220), 32)
    """

    name: str
    network: NetworkSection = NetworkSection()
    augmentation: AugmentationSection = AugmentationSection()
    assignment: AssignmentSection = AssignmentSection()
    loss: LossSection = LossSection()
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection = TrainingSection()
    validation: ValidationSection = ValidationSection()


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes of the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def load_recipe(source: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        source: A name of `recipe_names`, or the path of a TOML file.
        overrides: Values that replace those of the file, by `section.key`, such as
            `{"schedule.epochs": 3}`. Text is read as TOML where it can be, so that `"3"` is a number. One of
            `crop_scales` and `crop_range` takes the place of the other.

    Returns:
        The recipe.

    Raises:
        ValueError: The name is unknown, the file cannot be read, or a value cannot be; the message names the
            file and the key.
    """
    path = Path(source)
    if isinstance(source, str) and source in recipe_names():
        path = _folder() / f"{source}.toml"
    elif path.suffix != ".toml":
        raise ValueError(
            f"source: expected one of {', '.join(recipe_names())} or the path of a .toml file, got {source!r}"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not TOML: {error}") from None
    values.setdefault("name", path.stem)
    overrides = overrides or {}
    ways = {"crop_scales", "crop_range"}
    given = {way for way in ways if overrides.get(f"augmentation.{way}") is not None}
    section = values.get("augmentation")
    if len(given) == 1 and isinstance(section, dict):
        for other in ways - given:
            section.pop(other, None)
    for key, value in overrides.items():
        _override(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {_in_words(error)}") from None


def _folder() -> Path:
    return Path(__file__).with_name("recipes")


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    if isinstance(value, str):
        with contextlib.suppress(tomllib.TOMLDecodeError):  # plain text, such as the name of a network
            parsed = tomllib.loads(f"value = {value}")
            if len(parsed) > 1:
                raise ValueError(f"overrides: {key}: expected one value, got {value!r}")
            value = parsed["value"]
    place = values if not section else values.setdefault(section, {})
    if not isinstance(place, dict):
        raise ValueError(f"overrides: expected section.key, such as schedule.epochs, got {key!r}")
    place[name] = value


def _in_words(error: ValidationError) -> str:
    phrases = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            what = "is no key of a recipe"
        phrases.append(f"{where}: {what}" if where else what)
    return "; ".join(phrases)
