"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file such that nobody ever sees half of it, and a failure leaves what was there.

    Until it is whole it is called `.NAME.PID.part`, which stays only where the process is killed.

    Args:
        path: The file. Its folder is made if need be.
        content: What it is to hold; text in UTF-8 and with the line ends that it has.

    Raises:
        OSError: It cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
