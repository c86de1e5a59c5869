"""A real HTTP server in a thread, as reliable as a test wants it."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """What is served, how, and what was asked for.

    Attributes:
        files: path -> content.
        headers: path -> headers of its answers, besides Content-Length.
        redirects: path -> where to.
        states: the next answers' HTTP states, instead of what was asked for.
        cuts: after how many bytes of content the next connections end; None for not at all.
        reset: whether a connection ends with an error (RST) or as if all were said (FIN).
        ranges: whether Range is understood.
        length: whether Content-Length is told.
        asked: path and Range header of every request.
        sent: bytes of content sent, in all.
        hold: answers wait for it; it is set from the beginning.
        arrived: is set by a request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = defaultdict(dict)
        self.redirects: dict[str, str] = {}
        self.states: list[int] = []
        self.cuts: list[int | None] = []
        self.reset = False
        self.ranges = True
        self.length = True
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.asked.append((path, request.headers.get("Range")))
        self.arrived.set()
        assert self.hold.wait(120)
        if self.states:
            return _say(request, self.states.pop(0))
        if path in self.redirects:
            return _say(request, 302, {"Location": self.redirects[path]})
        if path not in self.files:
            return _say(request, 404)
        content, headers = self.files[path], dict(self.headers[path])
        version = headers.get("ETag") or headers.get("Last-Modified")
        status, start = 200, 0
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if found and self.ranges and request.headers.get("If-Range", version) == version:
            status, start = 206, int(found[1])
            if start >= len(content):
                return _say(request, 416, {"Content-Range": f"bytes */{len(content)}"})
            last = min(int(found[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content = content[: last + 1]
        if self.length:
            headers["Content-Length"] = str(len(content) - start)
        cut = self.cuts.pop(0) if self.cuts else None
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        body = content[start:] if cut is None else content[start : start + cut]
        self.sent += len(body)  # before the client can have it all
        request.wfile.write(body)
        if cut is not None and self.reset:
            request.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            request.connection.close()


def _say(
    request: BaseHTTPRequestHandler, state: int, headers: dict[str, str] | None = None
) -> None:
    request.send_response(state)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()


@contextmanager
def serving(tunnel: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """A server on a free port of this machine, until the block ends.

    With ``tunnel`` it is also a proxy for HTTPS that answers itself, whoever is asked for.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            assert tunnel is not None
            _say(self, 200)
            with tunnel.wrap_socket(self.connection, server_side=True) as inner:
                Handler(inner, self.client_address, self.server)
            self.close_connection = True

        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = FileServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            served.hold.set()
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
