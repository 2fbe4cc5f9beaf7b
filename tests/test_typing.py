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
PAGES = ("README.md", "docs/index.md", "docs/coordinates.md", "docs/weights.md")

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


def _snippets(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_snippets_of_the_documentation(tmp_path: Path) -> None:
    """A page reads from top to bottom, so that a snippet may use the names of those before it."""
    assert len(_snippets("README.md")) >= 2
    sources = {}
    for number, page in enumerate(PAGES):
        body = "\n".join(_snippets(page))
        # What a page takes for given.
        given = "import numpy as np\nimport numpy.typing as npt\nframe: npt.NDArray[np.uint8]\n"
        sources[f"page_{number}"] = given + body
    done = _mypy(tmp_path, **sources)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_an_index_gives(tmp_path: Path) -> None:
    done = _mypy(tmp_path, good=INDICES.format(extra=""), bad=INDICES.format(extra="result[mask].score"))
    # The last line shows that the checker looks at the package at all and does not take everything for Any.
    assert '"Detections" has no attribute "score"' in done.stdout, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if "error:" in line] == ["bad.py"]
