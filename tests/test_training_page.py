"""The page on training says what the recipes hold, whatever becomes of them."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

from retinaface_fast.training import Recipe, load_recipe, recipe_names

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def meanings(section: type) -> dict[str, str]:
    """What the docstring of a section says of each of its keys."""
    attributes = inspect.cleandoc(section.__doc__ or "").split("Attributes:\n")[1]
    found: dict[str, str] = {}
    for line in textwrap.dedent(attributes).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            name, text = match.groups()
            found[name] = text
        else:
            found[name] += " " + line.strip()
    return {key: text.replace("`", "") for key, text in found.items()}


def as_toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def reference() -> str:
    """All sections and keys with their defaults, as TOML."""
    lines = []
    for name, field in Recipe.model_fields.items():
        if name == "name":
            continue
        lines += ["", f"[{name}]"]
        says = meanings(field.annotation)
        assert list(says) == list(field.annotation.model_fields)
        for key, inner in field.annotation.model_fields.items():
            lines += textwrap.wrap(says[key], 108, initial_indent="# ", subsequent_indent="# ")
            lines.append(
                f"# {key} is not set" if inner.default is None else f"{key} = {as_toml(inner.default)}"
            )
    return "\n".join(lines[1:]) + "\n"


def test_every_key_with_its_default() -> None:
    found = re.search(r"<!-- keys -->\n\n```toml\n(.*?)```\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    assert found.group(1) == reference(), f"it should be:\n\n{reference()}"


def test_the_reference_is_a_recipe_of_defaults(tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(reference(), encoding="utf-8")
    assert load_recipe(tmp_path / "all.toml") == Recipe(name="all")


def test_every_recipe_is_in_the_table() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    recipes = [load_recipe(name) for name in recipe_names()]
    expected = [
        (
            recipe.name,
            recipe.network.name,
            str(recipe.augmentation.side),
            str(recipe.schedule.epochs),
            str(recipe.training.batch_size),
        )
        for recipe in recipes
    ]
    assert sorted(rows) == sorted(expected)


def test_the_example_of_a_recipe_is_one(tmp_path: Path) -> None:
    found = re.search(r"<!-- example -->\n\n```toml\n(.*?)```\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "mine.toml").write_text(found.group(1), encoding="utf-8")
    assert load_recipe(tmp_path / "mine.toml").name == "mine"


def test_what_is_set_can_be() -> None:
    text = PAGE.read_text(encoding="utf-8")
    spans = re.findall(r"`((?:--set [^`\s]+ ?)+)`", text)
    assert len(spans) > 1
    for span in spans:
        changes = dict(change.split("=", 1) for change in span.replace("--set", "").split())
        load_recipe("biubug6-mobilenet0.25", changes)


def test_every_option_is_one_of_the_command() -> None:
    pytest.importorskip("typer")
    from retinaface_fast.cli.train import train

    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(train).parameters}
    known |= {"--set", "--help"}
    text = PAGE.read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    others = {"--weights", "--gt", "--images", "--logdir"}
    torchrun = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"}
    assert used - known - others - torchrun == set()
