"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinaface_fast._files import write_whole


def test_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "of" / "many" / "ä.txt"
    write_whole(path, "ä\nb\r\n")
    assert path.read_bytes() == b"\xc3\xa4\nb\r\n"
    write_whole(str(path), "c")
    assert path.read_bytes() == b"c"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_failure_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "before")
    usual = getattr(Path, step)

    def _full(self: Path, *arguments: object) -> None:
        if step == "write_bytes":
            usual(self, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, _full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
