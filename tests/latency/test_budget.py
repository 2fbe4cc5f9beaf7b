"""Who is slow has fewer rounds, and who is too slow or too large is left out."""

from __future__ import annotations

import pytest

from retinaface_fast.latency.budget import LONG_CALL, History, rounds_within

VGA, HD, UHD = 640 * 480, 1920 * 1080, 4096 * 2160


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (0.001, 15),  # a turn is at least a quarter of a second
        (1.0, 15),  # 2 s a round with the call that wakes
        (2.5, 12),
        (4.9, 6),
        (LONG_CALL, 12),  # from here on nobody is woken
        (13.0, 4),
        (59.0, 1),
        (61.0, 1),  # one that has been called already is measured once
    ],
)
def test_rounds_within_a_budget(call: float, expected: int) -> None:
    assert rounds_within(60, call, rounds=15, turn_seconds=0.25) == expected


def test_nothing_is_said_of_who_is_not_known() -> None:
    assert History().why_not("anyone", 1, UHD, budget=1, free=1) is None


def test_time_is_estimated_by_the_pixel_from_the_largest_known_size() -> None:
    history = History()
    history.took("cnn", 1, VGA, 1.0)  # a first one that misleads
    history.took("cnn", 1, HD, 10.0)
    assert history.why_not("cnn", 1, UHD, budget=60, free=None) is None
    assert "some 43 s" in str(history.why_not("cnn", 1, UHD, budget=30, free=None))
    assert history.why_not("hog", 1, UHD, budget=30, free=None) is None


def test_the_newest_time_of_a_size_counts() -> None:
    history = History()
    history.took("row", 1, VGA, 20.0)
    history.took("row", 1, VGA, 0.1)
    assert history.why_not("row", 1, HD, budget=60, free=None) is None


def test_more_threads_say_what_fewer_need_at_least() -> None:
    history = History()
    history.took("row", 8, VGA, 10.0)
    assert history.why_not("row", 1, VGA, budget=9, free=None) is not None
    assert history.why_not("row", 8, VGA, budget=9, free=None) is not None
    assert history.why_not("row", 16, VGA, budget=9, free=None) is None
    history.took("row", 16, VGA, 5.0)
    assert history.why_not("row", None, VGA, budget=9, free=None) is None
    assert history.why_not("row", 1, VGA, budget=9, free=None) is not None


def test_memory_is_estimated_by_the_pixel() -> None:
    history = History()
    history.needed("cnn", HD, 2_000_000_000)
    assert history.why_not("cnn", 1, UHD, budget=1, free=None) is None
    assert history.why_not("cnn", 1, UHD, budget=1, free=16_000_000_000) is None
    assert "some 8.5 GB" in str(history.why_not("cnn", 1, UHD, budget=1, free=10_000_000_000))


def test_what_others_in_the_process_hold_is_not_free() -> None:
    history = History()
    history.needed("cnn", VGA, 400_000_000, loaded=100_000_000)
    assert history.needs("cnn", VGA) == 500_000_000
    assert history.needs("anyone", VGA) == 0
    assert history.why_not("cnn", 1, VGA, budget=1, free=700_000_000) is None
    why = history.why_not("cnn", 1, VGA, budget=1, free=700_000_000, held=300_000_000)
    assert "some 0.5 GB of memory, beside 0.3 GB of those before it, and 0.7 GB are free" in str(why)
    assert history.why_not("anyone", 1, VGA, budget=1, free=1, held=1) is None
