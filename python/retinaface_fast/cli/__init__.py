"""The command line: `retinaface-fast` and `python -m retinaface_fast`."""

from __future__ import annotations

import sys
from collections.abc import Sequence  # noqa: TC003 -- documentation tools resolve it

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; None takes `sys.argv`.

    Returns:
        The exit code: 0 for success, 1 if something failed, 2 for wrong usage, 130 after Ctrl-C.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        missing = (error.name or "typer").partition(".")[0]
        print(
            f"retinaface-fast: the command line needs {missing}, which is not installed. Install it with\n\n"
            '    pip install "retinaface-fast[cli]"',
            file=sys.stderr,
        )
        return 1
    from .app import run

    return run(arguments)
