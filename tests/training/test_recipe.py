"""The recipes of the package, number by number as they were published, and how a recipe is read."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from retinaface_fast.evaluation import PROTOCOLS
from retinaface_fast.ops import generate_anchors
from retinaface_fast.training.recipe import Recipe, load_recipe, recipe_names

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "biubug6-mobilenet0.25",
    "biubug6-resnet50",
    "finetune",
    "paper-resnet152",
    "quick-mobilenet0.25",
    "sr",
)

BIUBUG6 = {
    "augmentation.crop_scales": (0.3, 0.45, 0.6, 0.8, 1.0),
    "augmentation.crop_range": None,
    "augmentation.crop_attempts": 250,
    "augmentation.distort": True,
    "augmentation.flip": 0.5,
    "augmentation.min_face": 0.0,
    "assignment.positive_iou": 0.35,
    "assignment.negative_iou": 0.35,
    "assignment.force": True,
    "assignment.force_min_iou": 0.2,
    "loss.box_weight": 2.0,
    "loss.class_weight": 1.0,
    "loss.landmark_weight": 1.0,
    "loss.dense_weight": 0.0,
    "loss.negatives_per_positive": 7.0,
    "loss.min_negatives": 0,
    "optimiser.lr": 1e-3,
    "optimiser.momentum": 0.9,
    "optimiser.nesterov": False,
    "optimiser.weight_decay": 5e-4,
    "optimiser.clip_norm": None,
    "optimiser.frozen": (),
    "schedule.kind": "steps",
    "schedule.gamma": 0.1,
    "schedule.warmup_epochs": 0.0,
    "training.ema_decay": None,
    "training.accumulate": 1,
}

MOBILENET = BIUBUG6 | {
    "network.name": "mobilenet0.25",
    "augmentation.side": 640,
    "schedule.epochs": 250,
    "schedule.milestones": (190, 220),
    "training.batch_size": 32,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "biubug6-mobilenet0.25": MOBILENET,
    "biubug6-resnet50": BIUBUG6
    | {
        "network.name": "resnet50",
        "augmentation.side": 840,
        "schedule.epochs": 100,
        "schedule.milestones": (70, 90),
        "training.batch_size": 24,
    },
    "paper-resnet152": {
        "network.name": "paper-resnet152",
        "network.deformable": True,
        "augmentation.side": 640,
        "augmentation.crop_scales": None,
        "augmentation.crop_range": (0.3, 1.0),
        "assignment.positive_iou": 0.5,
        "assignment.negative_iou": 0.3,
        "assignment.force": False,
        "loss.box_weight": 0.25,
        "loss.class_weight": 1.0,
        "loss.landmark_weight": 0.1,
        "loss.dense_weight": 0.0,
        "loss.negatives_per_positive": 3.0,
        "optimiser.lr": 1e-2,
        "optimiser.momentum": 0.9,
        "optimiser.weight_decay": 5e-4,
        "optimiser.offset_lr_factor": 0.1,
        "schedule.epochs": 80,
        "schedule.milestones": (55, 68),
        "schedule.gamma": 0.1,
        "schedule.warmup_epochs": 5.0,
        "schedule.warmup_factor": 0.1,
        "training.batch_size": 8 * 4,
    },
    "sr": MOBILENET | {"augmentation.crop_scales": (0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)},
}


def look_up(recipe: Recipe, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(recipe, section), name)


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_names_of_the_recipes() -> None:
    assert recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.validation.protocol in PROTOCOLS
    assert recipe.network.config().name == recipe.network.name


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_schedule_lies_beyond_its_end(name: str) -> None:
    schedule = load_recipe(name).schedule
    assert schedule.warmup_epochs < schedule.epochs
    if schedule.kind == "steps":
        assert schedule.milestones
        assert schedule.milestones[-1] < schedule.epochs


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    recipe = load_recipe(name)
    assert {key: look_up(recipe, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_anchors_of_the_paper_and_of_the_port() -> None:
    counts = {
        name: len(generate_anchors((640, 640), config=load_recipe(name).network.config().anchors))
        for name in ("biubug6-mobilenet0.25", "paper-resnet152")
    }
    assert counts == {"biubug6-mobilenet0.25": 16_800, "paper-resnet152": 102_300}


def test_context_modules_of_the_paper() -> None:
    config = load_recipe("paper-resnet152").network.config()
    assert len(config.levels) == 5
    assert config.context.deformable
    assert config.context.share_first


def test_sr_differs_from_its_base_in_the_crops_alone() -> None:
    base = load_recipe("biubug6-mobilenet0.25").model_dump()
    other = load_recipe("sr").model_dump()
    differing = [
        f"{section}.{key}"
        for section in base
        if section != "name"
        for key in base[section]
        if base[section][key] != other[section][key]
    ]
    assert differing == ["augmentation.crop_scales"]


def test_the_recipes_are_data_of_the_package() -> None:
    folder = resources.files("retinaface_fast.training") / "recipes"
    assert sorted(entry.name for entry in folder.iterdir()) == [f"{name}.toml" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "[schedule]\nepochs = 7\n"))
    assert recipe.name == "mine"
    assert recipe.schedule.epochs == 7
    assert recipe.optimiser == Recipe(name="").optimiser
    assert load_recipe(str(tmp_path / "mine.toml")) == recipe


def test_the_rate_falls_where_a_recipe_says_so_alone(tmp_path: Path) -> None:
    schedule = load_recipe(written(tmp_path, "[schedule]\nepochs = 260\n")).schedule
    assert schedule.kind == "steps"
    assert schedule.milestones == ()


def test_a_published_recipe_in_fewer_epochs() -> None:
    with pytest.raises(ValueError, match=r"got \[190, 220\]; also give .*, or schedule\.kind = .cosine"):
        load_recipe("biubug6-mobilenet0.25", {"schedule.epochs": "20"})
    steps = {"schedule.epochs": "20", "schedule.milestones": "[15, 18]"}
    assert load_recipe("biubug6-mobilenet0.25", steps).schedule.milestones == (15, 18)
    cosine = {"schedule.epochs": "20", "schedule.kind": "cosine"}
    assert load_recipe("biubug6-mobilenet0.25", cosine).schedule.kind == "cosine"


def test_what_the_network_is_not_told_it_keeps() -> None:
    plain = load_recipe("paper-resnet152", {"network.deformable": False}).network.config()
    assert plain.context.share_first
    assert not plain.context.deformable
    own = load_recipe("biubug6-mobilenet0.25", {"network.share_first": False}).network.config()
    assert not own.context.share_first


def test_overrides() -> None:
    recipe = load_recipe(
        "biubug6-mobilenet0.25",
        {
            "schedule.epochs": "3",
            "schedule.milestones": "[2]",
            "optimiser.lr": 0.5,
            "network.name": "resnet18",
            "augmentation.crop_scales": "[1.0, 2.0]",
            "training.ema_decay": "0.9",
            "augmentation.distort": "false",
            "name": "other",
        },
    )
    assert recipe.schedule.epochs == 3
    assert recipe.schedule.milestones == (2,)
    assert recipe.optimiser.lr == 0.5
    assert recipe.network.name == "resnet18"
    assert recipe.augmentation.crop_scales == (1.0, 2.0)
    assert recipe.training.ema_decay == 0.9
    assert recipe.augmentation.distort is False
    assert recipe.name == "other"
    assert recipe.optimiser.momentum == load_recipe("biubug6-mobilenet0.25").optimiser.momentum


def test_an_override_of_one_way_to_crop_takes_the_place_of_the_other() -> None:
    drawn = load_recipe("biubug6-mobilenet0.25", {"augmentation.crop_range": "[0.3, 2.0]"}).augmentation
    assert (drawn.crop_scales, drawn.crop_range) == (None, (0.3, 2.0))
    chosen = load_recipe("paper-resnet152", {"augmentation.crop_scales": [0.5, 1.0]}).augmentation
    assert (chosen.crop_scales, chosen.crop_range) == ((0.5, 1.0), None)
    both = {"augmentation.crop_range": [0.3, 2.0], "augmentation.crop_scales": [1.0]}
    for overrides in (both, dict(reversed(both.items()))):
        with pytest.raises(ValueError, match=r"expected one of crop_scales and crop_range, got both"):
            load_recipe("sr", overrides)
    said = {"augmentation.crop_range": [0.3, 2.0], "augmentation.crop_scales": None}
    assert load_recipe("sr", said).augmentation == drawn.model_copy(
        update={"crop_attempts": load_recipe("sr").augmentation.crop_attempts}
    )


def test_overrides_fill_a_section_that_the_file_lacks(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, ""), {"training.seed": 5})
    assert recipe.training.seed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[schedule]\nepoch = 3\n", r"mine\.toml: schedule\.epoch: is no key of a recipe"),
        ("[shedule]\nepochs = 3\n", r"mine\.toml: shedule: is no key of a recipe"),
        ("[schedule]\nepochs = 'many'\n", r"mine\.toml: schedule\.epochs: "),
        ("[schedule]\nepochs = 0\n", r"mine\.toml: schedule\.epochs: .*greater than or equal to 1"),
        ("[schedule]\nmilestones = [5, 3]\n", r"mine\.toml: schedule: milestones: expected ascending"),
        (
            "[schedule]\nepochs = 20\nmilestones = [10, 20]\n",
            r"schedule: milestones: expected all below epochs, 20, got \[10, 20\]; also give schedule\.miles",
        ),
        (
            "[schedule]\nepochs = 20\nwarmup_epochs = 20\n",
            r"schedule: warmup_epochs: expected less than epochs, 20, got 20\.0; also give schedule\.warm",
        ),
        (
            '[schedule]\nepochs = 20\nkind = "cosine"\nwarmup_epochs = 500\n',
            r"schedule: warmup_epochs: expected less than epochs, 20, got 500",
        ),
        ("[optimiser]\nlr = nan\n", r"mine\.toml: optimiser\.lr: "),
        ("[optimiser]\nlr = inf\n", r"mine\.toml: optimiser\.lr: "),
        (
            "[optimiser]\nnesterov = true\nmomentum = 0\n",
            r"optimiser: nesterov: expected a momentum above 0, got momentum 0\.0",
        ),
        (
            "[optimiser]\nnesterov = true\nkind = 'adamw'\n",
            r'optimiser: nesterov: expected kind "sgd", got kind "adamw"',
        ),
        ("[network]\nname = 'resnet51'\n", r"mine\.toml: network: name: .*resnet50.*got 'resnet51'"),
        (
            "[augmentation]\ncrop_range = [0.3, 1.0]\ncrop_scales = [0.3, 1.0]\n",
            r"augmentation: expected one of crop_scales and crop_range, got both",
        ),
        ("[augmentation]\ncrop_scales = []\n", r"augmentation: expected one of .*, got both or none"),
        (
            "[augmentation]\ncrop_scales = [1.0, 10.5]\n",
            r"augmentation: crop_scales: expected at most 10 times the picture's short side, got 10.5",
        ),
        (
            "[augmentation]\ncrop_range = [1.0, 1e9]\n",
            r"augmentation: crop_range: expected at most 10 times the picture's short side, got 1e\+09",
        ),
        (
            "[augmentation]\ncrop_range = [1.0, 0.3]\n",
            r"augmentation: crop_range: expected lowest and highest",
        ),
        ("augmentation = 3\n", r"mine\.toml: augmentation: "),
        (
            "[assignment]\nnegative_iou = 0.6\n",
            r"assignment: negative_iou must be at most .*, 0\.35, got 0\.6",
        ),
        (
            "[training]\nbatch_size = 10\naccumulate = 3\n",
            r"training: batch_size must be a multiple of .* 3, got 10",
        ),
        (
            '[validation]\nprotocol = "orignal"\n',
            r"validation: protocol: expected one of original, default, .*, got 'orignal'",
        ),
        ("[schedule\nepochs = 3\n", r"mine\.toml: is not TOML: .*line 1"),
        ("schedule = 3\n", r"mine\.toml: schedule: "),
    ],
)
def test_errors_name_the_file_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(written(tmp_path, text))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[schedule]\nepochs = 0\n[loss]\nbox_weight = -1\n")
    with pytest.raises(ValueError, match=r"loss\.box_weight: .*; schedule\.epochs: "):
        load_recipe(path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine\.toml: is not TOML"):
        load_recipe(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.toml: cannot be read: No such file"):
        load_recipe(tmp_path / "absent.toml")


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"source: expected one of biubug6-mobilenet0\.25, .*got 'biubug7'"):
        load_recipe("biubug7")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"schedule.epoch": 3}, r"schedule\.epoch: is no key"),
        ({"schedule.epochs": "many"}, r"schedule\.epochs: "),
        (
            {"schedule.epochs": "1\nfoo=2"},
            r"overrides: schedule\.epochs: expected one value, got '1\\nfoo=2'",
        ),
        ({"schedule.epochs": "1\n[loss]\nbox_weight=9"}, r"overrides: schedule\.epochs: expected one value"),
        ({"name.first": 3}, r"overrides: expected section\.key, .* got 'name\.first'"),
    ],
)
def test_bad_overrides(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("sr", overrides)


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("sr")
    with pytest.raises(ValueError, match="frozen"):
        recipe.schedule.epochs = 3  # type: ignore[misc]
