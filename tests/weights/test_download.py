from __future__ import annotations

import errno
import hashlib
import logging
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from retinaface_fast.errors import WeightsError
from retinaface_fast.weights.downloads import fetch
from tests.weights.local_server import BODY, SHA256, Server, send, whole

if TYPE_CHECKING:
    import http.server


def get(server: Server, path: Path, **options: Any) -> None:
    fetch(server.url, path, **{"sha256": SHA256, "timeout": 5.0, "attempts": 3, "backoff": 0.01, **options})


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_plain_download(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "weights.onnx"
    seen: list[tuple[int, int | None]] = []
    get(server, path, progress=lambda received, total: seen.append((received, total)))
    assert path.read_bytes() == BODY
    assert leftovers(path.parent) == ["weights.onnx"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert sorted(seen) == seen
    assert "Range" not in server.requests[0]


def test_a_file_already_there_is_kept(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(BODY)
    get(server, path)
    assert server.requests == []


def test_truncation_is_resumed(server: Server, tmp_path: Path) -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler, attempt: int) -> None:
        if attempt == 0:
            send(handler, BODY, upto=100_000)
        else:
            whole(handler, attempt)

    server.behave = behave
    path = tmp_path / "weights.onnx"
    get(server, path)
    assert path.read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=100000-"
    assert leftovers(tmp_path) == ["weights.onnx"]


def test_truncation_to_the_end_is_an_error_and_never_a_file(server: Server, tmp_path: Path) -> None:
    server.behave = lambda handler, _: send(handler, BODY, upto=1000)
    path = tmp_path / "weights.onnx"
    with pytest.raises(
        WeightsError, match=r"cannot download http.*: the connection ended after 1000 of 300000"
    ):
        get(server, path)
    assert len(server.requests) == 3
    assert leftovers(tmp_path) == ["weights.onnx.part"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.behave = lambda handler, attempt: send(handler, BODY, upto=5000 if attempt == 0 else None)
    path = tmp_path / "weights.onnx"
    get(server, path)
    assert path.read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=5000-"


def test_an_interrupted_process_is_resumed(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    (tmp_path / "weights.onnx.part").write_bytes(BODY[:250_000])
    get(server, path)
    assert path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == ["bytes=250000-"]


@pytest.mark.parametrize(
    "part", [b"z" * 1000, BODY + b"more", b"z" * len(BODY)], ids=["other", "long", "full"]
)
def test_a_wrong_beginning_is_thrown_away(part: bytes, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    (tmp_path / "weights.onnx.part").write_bytes(part)
    get(server, path, size=len(BODY))
    assert path.read_bytes() == BODY
    assert "Range" not in server.requests[-1]


def test_another_range_than_asked_for(server: Server, tmp_path: Path) -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler, attempt: int) -> None:
        if attempt == 0:
            send(handler, BODY[10:], status=206, Content_Range=f"bytes 10-{len(BODY) - 1}/{len(BODY)}")
        else:
            whole(handler, attempt)

    server.behave = behave
    path = tmp_path / "weights.onnx"
    (tmp_path / "weights.onnx.part").write_bytes(BODY[:1000])
    get(server, path)
    assert path.read_bytes() == BODY


def test_a_wrong_hash(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"its sha256 is {SHA256} instead of 00000"):
        get(server, tmp_path / "weights.onnx", sha256="0" * 64)
    assert len(server.requests) == 1, "the same file would come again"
    assert leftovers(tmp_path) == []


def test_a_wrong_size_is_seen_before_the_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the server offers 300000 bytes instead of 123"):
        get(server, tmp_path / "weights.onnx", size=123)
    assert leftovers(tmp_path) == []


def test_not_found_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.behave = lambda handler, _: handler.send_error(404)
    with pytest.raises(WeightsError, match=r"cannot download http://127.0.0.1.*: the server answered 404"):
        get(server, tmp_path / "weights.onnx")
    assert len(server.requests) == 1


def test_server_errors_are_tried_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler, attempt: int) -> None:
        if attempt < 2:
            handler.send_error(503)
        else:
            whole(handler, attempt)

    server.behave = behave
    with caplog.at_level(logging.WARNING, logger="retinaface_fast"):
        get(server, tmp_path / "weights.onnx")
    assert (tmp_path / "weights.onnx").read_bytes() == BODY
    assert "trying again in 0.01 s" in caplog.messages[0]
    assert "trying again in 0.02 s" in caplog.messages[1]


def test_a_stalled_connection_times_out_and_is_resumed(server: Server, tmp_path: Path) -> None:
    release = threading.Event()

    def behave(handler: http.server.BaseHTTPRequestHandler, attempt: int) -> None:
        if attempt == 0:
            send(handler, BODY, upto=70_000)
            handler.wfile.flush()
            release.wait(30)
        else:
            whole(handler, attempt)

    server.behave = behave
    started = time.monotonic()
    try:
        get(server, tmp_path / "weights.onnx", timeout=0.3)
    finally:
        release.set()
    assert time.monotonic() - started < 10
    assert (tmp_path / "weights.onnx").read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=70000-"


def test_a_connection_that_only_stalls(server: Server, tmp_path: Path) -> None:
    release = threading.Event()
    server.behave = lambda _handler, _attempt: (release.wait(30), None)[1]
    try:
        with pytest.raises(WeightsError, match=r"nothing arrived for 0.2 s"):
            get(server, tmp_path / "weights.onnx", timeout=0.2, attempts=2)
    finally:
        release.set()


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot download http://127.0.0.1:9/.*: the connection failed"):
        get(Server("http://127.0.0.1:9/weights.onnx", whole), tmp_path / "weights.onnx")


class _FullDisk:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def fileno(self) -> int:
        return int(self.file.fileno())

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = min(len(data), self.room, 1000)  # a raw file may write less than it was given
        self.room -= written
        return int(self.file.write(data[:written]))


@pytest.mark.parametrize("room", [100_000, 10**9], ids=["full", "piecemeal"])
def test_a_full_disk(room: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = real_open(self, mode, *args, **options)
        return _FullDisk(file, room) if "w" in mode and self.suffix == ".part" else file

    monkeypatch.setattr(Path, "open", opened)
    path = tmp_path / "weights.onnx"
    if room > len(BODY):
        get(server, path)
        assert path.read_bytes() == BODY
        return
    with pytest.raises(WeightsError, match=r"the disk is full.*RETINAFACE_FAST_CACHE chooses another folder"):
        get(server, path)
    assert len(server.requests) == 1
    assert not path.exists()


def test_a_folder_that_may_not_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WeightsError, match=r"weights.onnx cannot be read or written: Permission denied"):
        get(server, tmp_path / "no" / "weights.onnx")
    assert server.requests == []


def test_a_file_in_the_place_of_the_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be read or written"):
        get(server, tmp_path / "file" / "weights.onnx")


def _fetch_in_process(url: str, path: str, results: Any) -> None:
    try:
        fetch(url, Path(path), sha256=SHA256, timeout=10.0, attempts=2, backoff=0.01)
        results.put(hashlib.sha256(Path(path).read_bytes()).hexdigest())
    except BaseException as error:  # reported by the parent
        results.put(repr(error))
        raise


def test_two_processes_at_once(server: Server, tmp_path: Path) -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler, attempt: int) -> None:
        time.sleep(0.3)
        whole(handler, attempt)

    server.behave = behave
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = tmp_path / "weights.onnx"
    processes = [
        context.Process(target=_fetch_in_process, args=(server.url, str(path), results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    digests = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert digests == [SHA256] * 3
    assert len(server.requests) == 1, "the others wait for the first and find its file"
