"""The part of the Hugging Face Hub's HTTP interface that a download needs, on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


class Hub:
    """What is served.

    Attributes:
        url: for HF_ENDPOINT.
        repositories: "OWNER/NAME" -> file -> content.
        gated: repositories that need an account.
        asked: method and path of every request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path))
        found = re.fullmatch(
            r"(?:/api/models)?/([^/]+/[^/]+)(?:/(tree|resolve|revision)/([^/]+)(?:/(.*))?)?", path
        )
        files = self.repositories.get(found[1]) if found else None
        if found is None or files is None:
            return _say(request, 404, {"X-Error-Code": "RepoNotFound"})
        if found[1] in self.gated:
            return _say(request, 403, {"X-Error-Code": "GatedRepo"})
        if found[3] not in (None, "main", COMMIT):
            return _say(request, 404, {"X-Error-Code": "RevisionNotFound"})
        if found[2] == "resolve":
            if found[4] not in files:
                return _say(request, 404, {"X-Error-Code": "EntryNotFound"})
            return _say(request, 200, _headers(files[found[4]]), files[found[4]])
        tree = [
            {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
            for name, content in files.items()
        ]
        about = {"id": found[1], "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
        content = json.dumps(tree if found[2] == "tree" else about).encode()
        return _say(request, 200, {"Content-Type": "application/json"}, content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _headers(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT}


def _say(
    request: BaseHTTPRequestHandler, state: int, headers: dict[str, str], content: bytes = b""
) -> None:
    request.send_response(state)
    for name, value in (headers | {"Content-Length": str(len(content))}).items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content)


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """A server on a free port of this machine, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.answer(self)

        def do_HEAD(self) -> None:
            hub.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
