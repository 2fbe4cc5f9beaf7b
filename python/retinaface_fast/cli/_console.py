"""The two terminals: results go to the standard output, everything else to the standard error."""

from __future__ import annotations

import contextlib
import os
import sys

from rich.console import Console
from rich.text import Text


def stdout() -> Console:
    """Return a console on the standard output as it is now (tests and pipes replace it)."""
    return Console(file=sys.stdout, highlight=False)


def stderr() -> Console:
    """Return a console on the standard error as it is now."""
    return Console(file=sys.stderr, highlight=False)


def abandon_stdout() -> None:
    """Send what the standard output still holds nowhere, if it takes nothing more.

    Python tries again when it ends, and would report the same failure a second time.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a replaced stdout has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def printable(text: str) -> str:
    r"""Return text that any UTF-8 terminal takes: a file name may hold bytes that are none.

    Examples:
        >>> printable("caf\udce9.jpg")
        'caf\\udce9.jpg'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def line(console: Console, text: str, *, style: str = "") -> None:
    """Print one line as it is: no markup (names hold brackets) and no wrapping (names get copied)."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def error(text: str, console: Console | None = None) -> None:
    """Print an error to the standard error."""
    line(console or stderr(), f"error: {text}", style="red")
