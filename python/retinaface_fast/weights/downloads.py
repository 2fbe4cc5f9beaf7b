"""Downloads that end with the right file or with an error, never with half a file."""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from retinaface_fast.errors import WeightsError

from .cache import CACHE_VARIABLE, OFFLINE_VARIABLE, cache_dir, is_offline
from .registry import REGISTRY, RegistryEntry

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Progress", "download", "fetch"]

logger = logging.getLogger(__name__)

#: Called with the bytes received so far, those of an earlier attempt included, and the total where known.
Progress: TypeAlias = Callable[[int, "int | None"], None]

_CHUNK = 1 << 16
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    name: str,
    *,
    progress: Progress | None = None,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: float = 1.0,
) -> Path:
    """The file of published weights, from the cache or else from its publisher.

    A file whose digest is wrong is never kept. Processes that ask for the same file at the same time wait for
    the first of them. An interrupted download goes on where it stopped, if the server can do that.

    Args:
        name: Key of `REGISTRY`.
        progress: Called as bytes arrive. By default a bar is drawn where standard error is a terminal and
            `rich` is installed, and the log has a line otherwise.
        timeout: Seconds, > 0, without a single byte, after which a connection counts as stalled.
        attempts: Connections to try, >= 1.
        backoff: Seconds before the second attempt; doubled before each further one.

    Returns:
        Path of the verified file in the cache.

    Raises:
        ValueError: If the name is unknown.
        WeightsError: If the file cannot be had, or has the wrong digest, or cannot be written.
    """
    if name not in REGISTRY:
        raise ValueError(f"name: expected one of {', '.join(REGISTRY)}, got {name!r}")
    entry = REGISTRY[name]
    path = cache_dir() / entry.filename
    with _disk(path):
        if path.is_file() and _digest(path) == entry.sha256:
            return path
    if is_offline():
        state = "is damaged" if path.is_file() else "is not there"
        raise WeightsError(
            f"the weights {name!r} are needed and {path} {state}, but {OFFLINE_VARIABLE} forbids downloads; "
            f"put {entry.url} there"
        )
    if path.is_file():
        logger.warning("%s has the wrong digest and is downloaded again", path)
    with _shown(entry, progress) as report:
        fetch(
            entry.url,
            path,
            sha256=entry.sha256,
            size=entry.size_bytes,
            progress=report,
            timeout=timeout,
            attempts=attempts,
            backoff=backoff,
        )
    return path


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str,
    size: int | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: float = 1.0,
) -> None:
    """Download a url to a path: locked, resumed, retried, verified, and moved into place in one step.

    Args:
        url: What to download.
        path: Where to put it. Missing folders are made; a file already there with the right digest is kept.
        sha256: Digest that the file must have, hexadecimal.
        size: Bytes of the file, where known.
        progress: Called as bytes arrive.
        timeout: Seconds, > 0, without a single byte, after which a connection counts as stalled.
        attempts: Connections to try, >= 1.
        backoff: Seconds before the second attempt; doubled before each further one.

    Raises:
        WeightsError: If the file cannot be had, or has the wrong digest, or cannot be written.
    """
    from filelock import FileLock

    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    try:
        with _disk(path):
            if path.is_file() and _digest(path) == sha256:
                return  # another process was faster
        transfer = _Transfer(url, path.with_name(f"{path.name}.part"), size, progress or _silent, timeout)
        _receive(transfer, sha256, attempts=attempts, backoff=backoff)
        with _disk(path):
            transfer.part.replace(path)
    finally:
        lock.release()
    logger.info("downloaded %s to %s", url, path)


def _receive(transfer: _Transfer, sha256: str, *, attempts: int, backoff: float) -> None:
    """Bring the whole file into `transfer.part`, with the right digest."""
    reason = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            pause = backoff * 2 ** (attempt - 1)
            logger.warning("%s: %s; trying again in %g s", transfer.url, reason, pause)
            time.sleep(pause)
        try:
            resumed = transfer.run()
        except _TransferError as error:
            reason = str(error)
            if not error.transient:
                break
            continue
        with _disk(transfer.part):
            digest = _digest(transfer.part)
            if digest == sha256:
                return
            transfer.part.unlink()
        reason = f"its sha256 is {digest} instead of {sha256}"
        if not resumed:
            break  # the publisher's file is another one; asking again would not change it
    raise WeightsError(f"cannot download {transfer.url}: {reason}")


class _TransferError(Exception):
    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass
class _Transfer:
    """One file on its way; what has arrived waits in `part`, also between processes."""

    url: str
    part: Path
    size: int | None
    progress: Progress
    timeout: float

    def run(self) -> bool:
        """Receive what is missing over one connection; whether that continued an earlier one.

        Raises:
            _TransferError: If the file is not complete afterwards.
            WeightsError: If it cannot be written.
        """
        with _disk(self.part):
            done = self.part.stat().st_size if self.part.is_file() else 0
        if done and done == self.size:
            return True
        headers = {"User-Agent": "retinaface-fast", "Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url, headers=headers), timeout=self.timeout
            ) as response:
                return self._save(response, done)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
                with _disk(self.part):
                    self.part.unlink()
                raise _TransferError(
                    "the server has less than was received before", transient=True
                ) from error
            raise _TransferError(
                f"the server answered {error.code} {error.reason}", transient=error.code in _RETRIED_STATUS
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            stalled = isinstance(cause, TimeoutError)
            message = (
                f"nothing arrived for {self.timeout:g} s" if stalled else f"the connection failed ({cause})"
            )
            raise _TransferError(message, transient=True) from error

    def _save(self, response: http.client.HTTPResponse, done: int) -> bool:
        resumed = False
        if done and response.status == http.HTTPStatus.PARTIAL_CONTENT:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            resumed = start is not None and int(start[1]) == done
            if not resumed:
                with _disk(self.part):
                    self.part.unlink()
                raise _TransferError("the server sent another range than was asked for", transient=True)
        done = done if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else self.size
        if self.size is not None and total != self.size:
            raise _TransferError(f"the server offers {total} bytes instead of {self.size}", transient=False)
        with _disk(self.part):
            # Unbuffered, so that closing has nothing left to write, and so nothing left to fail.
            file = self.part.open("ab" if resumed else "wb", buffering=0)
        with file:
            self.progress(done, total)
            while chunk := response.read1(_CHUNK):
                with _disk(self.part):
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
                done += len(chunk)
                self.progress(done, total)
            with _disk(self.part):
                os.fsync(file.fileno())
        if total is not None and done != total:
            # http.client ends a cut connection like a complete one.
            raise _TransferError(f"the connection ended after {done} of {total} bytes", transient=True)
        return resumed


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a file into errors that say what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        what = "the disk is full" if full else error.strerror or str(error)
        raise WeightsError(
            f"{path} cannot be read or written: {what}; the environment variable {CACHE_VARIABLE} chooses "
            "another folder"
        ) from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _silent(_received: int, _total: int | None) -> None:
    """Report nothing."""


@contextmanager
def _shown(entry: RegistryEntry, progress: Progress | None) -> Iterator[Progress]:
    """The callback that shows progress: the caller's, a bar, or a line in the log."""
    if progress is not None:
        yield progress
        return
    try:
        import rich.console
        import rich.progress
    except ImportError:
        terminal = False
    else:
        terminal = sys.stderr is not None and sys.stderr.isatty()
    if not terminal:
        logger.info("downloading %s", entry.url)
        yield _silent
        return
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(entry.filename, total=entry.size_bytes)

        def report(received: int, total: int | None) -> None:
            bar.update(task, completed=received, total=total)

        yield report
