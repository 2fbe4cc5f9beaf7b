"""Rows that stand for the contestants of `fakes`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retinaface_fast.latency import Row

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake_row(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Row]:
    """A row by the name of a function of `fakes`, which other processes find as well."""
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *([known] if known else [])]))

    def make(name: str, **options: object) -> Row:
        return Row(name, name.replace("_", " "), f"tests.latency.fakes:{name}", **options)  # type: ignore[arg-type]

    return make
