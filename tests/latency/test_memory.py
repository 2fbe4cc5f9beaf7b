"""Peak memory over the loaded state."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from retinaface_fast.latency import memory

pytest.importorskip("psutil")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget an earlier peak")
def test_growth_is_what_the_calls_need_at_a_time_and_not_what_came_before() -> None:
    np.ones(30_000_000).sum()  # 240 MB, which are given back
    found = memory.peak_of(lambda: [np.ones(10_000_000).sum() for _ in range(3)])
    assert 70e6 < found["growth"] < 130e6
    assert found["peak"] == found["loaded"] + found["growth"]


def test_an_earlier_peak_that_is_not_forgotten_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_peak", lambda: 10**15)
    found = memory.peak_of(lambda: None)
    assert found["growth"] is None
    assert "1,000,000,000 MB" in found["why_not"]
    # A peak that the calls have raised is known all the same.
    monkeypatch.setattr(memory, "_reset_peak", lambda: 1)
    assert memory.peak_of(lambda: None)["growth"] >= 0


def test_systems_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("that is how it is there anyway")
    known = memory._resident(), memory._peak()
    monkeypatch.setattr(memory, "_status", lambda name: None)
    assert memory._resident() == pytest.approx(known[0], rel=0.2)
    assert memory._peak() >= known[0] / 2
