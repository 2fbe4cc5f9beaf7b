"""Turns, and who was at work in them."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retinaface_fast.latency import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_everyone_has_a_turn_in_every_round_and_another_begins() -> None:
    order: list[str] = []
    contestants = {name: (lambda name=name: order.append(name)) for name in "abc"}
    found = turns.take_turns(contestants, rounds=4, turn_seconds=0.0)
    assert [name for name, _ in itertools.groupby(order)][::3] == ["a", "b", "c", "a"]
    assert order == list("aabbccbbccaaccaabbaabbcc")  # the first of each pair is not timed
    assert [len(times.turns) for times in found.values()] == [4, 4, 4]


def test_who_has_few_rounds_has_them_evenly_and_who_raises_has_no_more() -> None:
    played: dict[str, list[int]] = {"few": [], "all": [], "broken": []}

    def breaks() -> None:
        played["broken"].append(0)
        if len(played["broken"]) > 3:
            raise OSError("no more")

    contestants = {
        "few": turns.Contestant(lambda: played["few"].append(0), rounds=2, warm_up=False),
        "all": turns.Contestant(lambda: played["all"].append(0) or 7.0, part=lambda result: result),
        "broken": breaks,
    }
    told: list[tuple[str, int, object]] = []
    found = turns.take_turns(contestants, rounds=6, turn_seconds=0.0, watch=lambda *event: told.append(event))
    assert [turn.round for turn in found["few"].turns] == [2, 5]
    assert len(played["few"]) == 2
    assert len(played["all"]) == 12
    assert found["all"].summary()["part"] == 7.0
    assert "part" not in found["few"].summary()
    assert len(found["broken"].turns) == 1
    assert found["broken"].failed == "OSError: no more"
    assert [event for event in told if event[0] == "broken"][-1] == ("broken", 1, "OSError: no more")


def test_quartiles_lie_between_the_values() -> None:
    assert turns.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert turns.quartiles([1.0, 2.0]) == (1.25, 1.5, 1.75)
    assert turns.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)


def test_more_threads_than_agreed_are_noticed() -> None:
    hashed = bytes(2_000_000)

    def work() -> None:
        import hashlib  # releases the GIL

        for _ in range(8):
            hashlib.sha256(hashed).digest()

    def timed(call: Callable[[], object], seconds: float) -> turns.Turn:
        return turns.one_turn(turns.Contestant(call, warm_up=False), 0, seconds)

    alone = timed(work, 0.0)
    if not alone.workers:
        pytest.skip("this system does not tell what threads do")
    assert alone.workers == 1
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [work() for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        both = timed(work, 0.2)
    finally:
        stop.set()
        busy.join()
    assert both.workers == 2
    assert "2 threads were at work instead of 1" in str(turns.suspicion(turns.Turns([both]).summary(), 1))
    idle = timed(lambda: time.sleep(0.02), 0.0)
    assert "of 1 were busy" in str(turns.suspicion(turns.Turns([idle]).summary(), 1))


def test_a_thread_that_ends_while_threads_are_listed_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = turns._cpu_of_threads()
    if not before:
        pytest.skip("this system does not tell what threads do")
    listed = Path.iterdir

    def with_one_that_has_ended(directory: Path) -> Iterator[Path]:
        yield directory / "0"
        yield from listed(directory)

    monkeypatch.setattr(Path, "iterdir", with_one_that_has_ended)
    assert set(before) <= set(turns._cpu_of_threads())


def test_ratios_are_taken_round_by_round() -> None:
    ratio = turns.ratio({"rounds": [2.0, 9.0, 3.0]}, {"rounds": [1.0, 3.0, 2.0]})
    assert ratio == {"median": 2.0, "min": 1.5, "max": 3.0}
    ours = {"rounds": [1.0, 3.0, 2.0], "at": [0, 1, 2]}
    assert turns.ratio({"rounds": [8.0], "at": [2]}, ours) == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert turns.ratio({"rounds": [8.0], "at": [3]}, ours) is None


def test_a_pinned_process_sees_its_processors() -> None:
    allowed = turns.processors()
    if not allowed:
        pytest.skip("this system cannot pin processes")
    with turns.pinned(1):
        assert turns.processors() == allowed[:1]
    assert turns.processors() == allowed
