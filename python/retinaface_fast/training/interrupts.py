"""Ctrl-C and SIGTERM while a run is at work."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["stop_on_signals"]


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second one is a `KeyboardInterrupt`.

    Only the main thread can have signals; in any other, nothing changes.

    Args:
        stop: Set at the first signal. If it is set already, the first one interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What was set by other than Python code is None, and cannot be set again.
    before = {
        number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)
    }

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
