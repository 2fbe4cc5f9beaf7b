"""The page on training says what the recipes hold, whatever becomes of them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
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


def program(folder: Path, changed: str = "", to: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program of the page as a file, with workers and with less to do."""
    for needed in ("torch", "lightning_fabric", "tensorboard"):
        pytest.importorskip(needed)
    cv2 = pytest.importorskip("cv2")
    found = re.search(r"<!-- python -->\n\n```python\n(.*?)```\n", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    text = found.group(1)
    less = (
        '"schedule.epochs": 1, "schedule.warmup_epochs": 0, "training.batch_size": 4, '
        '"augmentation.side": 64, "validation.every": 1'
    )
    for one, other in (('"schedule.epochs": 20', less), (changed, to)):
        assert one in text
        text = text.replace(one, other) if one else text
    (folder / "program.py").write_text(text, encoding="utf-8")
    (folder / "wider" / "images").mkdir(parents=True)
    lines = []
    for number in range(5):
        picture = np.full((80, 80, 3), 90, np.uint8)
        cv2.circle(picture, (40, 40), 20, (150, 180, 230), -1)
        assert cv2.imwrite(str(folder / "wider" / "images" / f"{number}.jpg"), picture)
        lines.append(f"# {number}.jpg\n20 20 40 40\n")
    (folder / "wider" / "label.txt").write_text("".join(lines), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_program_trains(tmp_path: Path) -> None:
    done = program(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best.safetensors" in done.stdout


@pytest.mark.slow
def test_without_its_last_lines_it_says_what_is_wrong(tmp_path: Path) -> None:
    failed = program(tmp_path, 'if __name__ == "__main__":\n    main()', "main()")
    assert failed.returncode != 0
    assert 'put the call below if __name__ == "__main__"' in failed.stderr


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
