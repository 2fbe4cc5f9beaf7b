"""A server on this machine, to download from."""

from __future__ import annotations

import hashlib
import http.server
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """A local HTTP server; `behave` answers each request, and all requests are kept."""

    url: str
    behave: Callable[[http.server.BaseHTTPRequestHandler, int], None]
    requests: list[dict[str, str]] = field(default_factory=list)


def send(
    handler: http.server.BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    upto: int | None = None,
    **headers: str,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body[:upto])


def whole(handler: http.server.BaseHTTPRequestHandler, _attempt: int) -> None:
    """Answer like a server that knows ranges."""
    wanted = handler.headers.get("Range")
    if wanted is None:
        send(handler, BODY)
        return
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(BODY):
        send(handler, b"", status=416)
        return
    send(handler, BODY[start:], status=206, Content_Range=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(dict(self.headers))
            state.behave(self, len(state.requests) - 1)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    state = Server(f"http://127.0.0.1:{httpd.server_address[1]}/weights.onnx", whole)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()
