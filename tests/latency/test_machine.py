"""What is free on a machine whose control group is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from retinaface_fast.latency import machine

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("psutil")


def test_files_in_memory_are_free_in_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GROUP", tmp_path)
    available = machine.free_memory()
    assert available is not None
    assert available > 1_000_000
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 700000\nactive_file 100000\n")
    assert machine.free_memory() == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine.free_memory() or 0) > 1_000_000
