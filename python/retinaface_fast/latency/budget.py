"""How much of a slow row is measured: all rounds, some of them, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LONG_CALL", "History", "rounds_within"]

#: A call of so many seconds needs no other one before it to wake anything.
LONG_CALL = 5.0
#: What is free and not needed by anyone else.
_SHARE_OF_MEMORY = 0.8


def rounds_within(budget: float, call_seconds: float, *, rounds: int, turn_seconds: float) -> int:
    """How many rounds of one row fit into the budget of a cell.

    Args:
        budget: Seconds for all its rounds.
        call_seconds: What a call takes.
        rounds: How many there shall be at most, >= 1.
        turn_seconds: A turn makes calls until they have taken so long together.

    Returns:
        From 1 to `rounds`.

    Examples:
        >>> rounds_within(60, 0.01, rounds=15, turn_seconds=0.25)
        15
        >>> rounds_within(60, 13, rounds=15, turn_seconds=0.25)
        4
    """
    warm_up = call_seconds if call_seconds < LONG_CALL else 0.0
    fitting = int(budget // (max(turn_seconds, call_seconds) + warm_up))
    return max(1, min(rounds, fitting))


@dataclass(slots=True)
class History:
    """What rows have needed at smaller sizes. All of them take time and memory by the pixel.

    Attributes:
        seconds: Pixels and seconds of a call, by row and number of threads.
        bytes: Pixels and growth of the memory, by row.
        loaded: Bytes that a process holds before the first call, by row.
    """

    seconds: dict[tuple[str, int], list[tuple[int, float]]] = field(default_factory=dict)
    bytes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    loaded: dict[str, int] = field(default_factory=dict)

    def took(self, row: str, threads: int, pixels: int, seconds: float) -> None:
        """Remember what a call took."""
        self.seconds.setdefault((row, threads), []).append((pixels, seconds))

    def needed(self, row: str, pixels: int, growth: int, loaded: int = 0) -> None:
        """Remember what the memory grew by, and what was held before."""
        self.bytes.setdefault(row, []).append((pixels, growth))
        self.loaded[row] = loaded

    def needs(self, row: str, pixels: int) -> float:
        """Bytes that a row will hold at a size; 0 where nothing is known."""
        return self.loaded.get(row, 0) + _scaled(self.bytes.get(row, []), pixels)

    def why_not(
        self,
        row: str,
        threads: int | None,
        pixels: int,
        *,
        budget: float,
        free: int | None,
        held: float = 0.0,
    ) -> str | None:
        """Why a row should not be tried at a size, or None.

        Args:
            row: Its name.
            threads: What it would run on; None for any number.
            pixels: Of the picture.
            budget: Seconds for a cell: a single call must not take longer.
            free: Bytes that can be had; None where nobody knows.
            held: Bytes that rows before it in the same process will hold: most keep what they have had.
        """
        known = {
            number: _scaled(sizes, pixels) for (name, number), sizes in self.seconds.items() if name == row
        }
        # More threads are no slower: what they take is the least that fewer of them take.
        if threads is None:
            seconds = min(known.values(), default=0.0)
        else:
            seconds = max((took for number, took in known.items() if number >= threads), default=0.0)
        if seconds > budget:
            return (
                f"a call would take some {seconds:,.0f} s, and the budget of a cell is {budget:,g} s "
                "(estimated from a smaller size)"
            )
        amount = self.needs(row, pixels)
        if amount and free is not None and held + amount > _SHARE_OF_MEMORY * free:
            others = f", beside {held / 1e9:,.1f} GB of those before it," if held else ""
            return (
                f"it would need some {amount / 1e9:,.1f} GB of memory{others} and {free / 1e9:,.1f} GB are "
                "free (estimated from a smaller size)"
            )
        return None


def _scaled(known: Sequence[tuple[int, float]], pixels: int) -> float:
    """What is known of the largest size, in proportion to the pixels; 0 where nothing is known."""
    if not known:
        return 0.0
    # Of several at one size the newest: the first calls of a process may have been slow for once.
    of_pixels, amount = max(reversed(known), key=lambda entry: entry[0])
    return amount * pixels / of_pixels
