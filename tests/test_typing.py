"""What a type checker says about the programs of others: snippets of the documentation, and each index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/index.md", "docs/training.md", "docs/weights.md")

#: What a page takes for given.
GIVEN = "import numpy as np\nimport numpy.typing as npt\nframe: npt.NDArray[np.uint8]\n"

INDICES = """
from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import assert_type

from retinaface_fast import Detections, Face


def check(result: Detections, i: int, row: np.int64, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    assert_type(result[i], Face)
    assert_type(result[row], Face)
    assert_type(result[2:5], Detections)
    assert_type(result[mask], Detections)
    assert_type(result[result.scores > 0.9], Detections)
    assert_type(result[np.argsort(result.scores)], Detections)
    assert_type(result[[0, 2]], Detections)
    for face in result[result.scores > 0.9]:
        assert_type(face, Face)
    {extra}
"""


def _mypy(tmp_path: Path, **sources: str) -> subprocess.CompletedProcess[str]:
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    # From another folder and with no configuration: as the program of somebody else is checked.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    command += ["--cache-dir", ".cache", *(f"{name}.py" for name in sources)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "python")}
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=500
    )


def _module(page: str) -> str:
    return re.sub(r"\W", "_", page)


def _snippets(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says about each source; one run for all, because most of its time goes into NumPy's types."""
    sources = {
        "good": INDICES.format(extra=""),
        "bad": INDICES.format(extra="result[mask].score"),
        **{_module(page): GIVEN + "\n".join(_snippets(page)) for page in PAGES},
    }
    done = _mypy(tmp_path_factory.mktemp("typing"), **sources)
    assert done.returncode == 1, done.stdout + done.stderr  # those of "bad", and not a failure of its own
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    return {name: [line for line in lines if line.startswith(f"{name}.py:")] for name in sources}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_the_documentation(page: str, complaints: dict[str, list[str]]) -> None:
    """A page reads from top to bottom, so that a snippet may use the names of those before it."""
    assert _snippets(page)
    assert complaints[_module(page)] == []


@pytest.mark.slow
def test_what_an_index_gives(complaints: dict[str, list[str]]) -> None:
    assert complaints["good"] == []
    # That the checker looks at the package at all, and does not take everything for Any.
    [complaint] = complaints["bad"]
    assert '"Detections" has no attribute "score"' in complaint
