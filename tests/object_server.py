"""An HTTP server of byte strings on loopback, with the faults that real ones have."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Served:
    """One object and how it is served. Faults are used up one request each, in order."""

    content: bytes
    e_tag: str | None = "by content"
    """None sends none."""
    modified: str | None = None
    sends_ranges: bool = True
    sends_length: bool = True
    faults: list[str | int] = field(default_factory=list)
    """A status; `drop`: half of the body, then the connection ends; `stall`: half of it, then
    nothing more until `ObjectServer.go_on` is set; `more`: a size larger than the object."""
    redirect: str | None = None
    media_type: str = "application/octet-stream"
    needs_query: str | None = None
    """403 without it."""
    needs_basic: str | None = None


@dataclass
class Asked:
    path: str
    """With its query."""
    headers: dict[str, str]
    """By their names in lower case."""
    start: int | None
    sent: int
    """Bytes of the body that were sent."""


class ObjectServer:
    """Objects by path; `asked` lists every request."""

    def __init__(self) -> None:
        self.objects: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.go_on = threading.Event()
        self.stalled = threading.Semaphore(0)
        """Released for each request that stalls."""
        self._lock = threading.Lock()
        self.port = 0

    def put(self, path: str, content: bytes, **how: Any) -> str:
        """Serves `content` at `path`; its address."""
        self.objects[path] = Served(content, **how)
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def bytes_sent(self, path: str | None = None) -> int:
        return sum(one.sent for one in self.asked if path is None or one.path == path)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        served = self.objects.get(unquote(path))
        asked = Asked(
            request.path, {name.lower(): text for name, text in request.headers.items()}, None, 0
        )
        with self._lock:
            self.asked.append(asked)
            fault = served.faults.pop(0) if served and served.faults else None
        if served is None:
            self._refuse(request, 404)
        elif isinstance(fault, int):
            self._refuse(request, fault)
        elif served.needs_query is not None and served.needs_query not in query:
            self._refuse(request, 403)
        elif served.needs_basic not in (None, request.headers.get("Authorization")):
            self._refuse(request, 401)
        elif served.redirect is not None:
            self._refuse(request, 302, {"Location": served.redirect})
        else:
            self._send(request, served, asked, fault)

    def _refuse(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            request.send_header(name, value)
        request.end_headers()

    def _send(
        self, request: BaseHTTPRequestHandler, served: Served, asked: Asked, fault: str | None
    ) -> None:
        content, e_tag = served.content, served.e_tag
        if e_tag == "by content":
            e_tag = f'"{sha256(content).hexdigest()}"'
        if request.headers.get("If-Match", e_tag) != e_tag:
            self._refuse(request, 412)
            return
        size = len(content) * (2 if fault == "more" else 1)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if match and served.sends_ranges:
            start = int(match[1])
            if start >= len(content):
                self._refuse(request, 416, {"Content-Range": f"bytes */{size}"})
                return
            body = content[start : int(match[2]) + 1]
            asked.start = start
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
        else:
            body = content
            request.send_response(200)
        if e_tag is not None:
            request.send_header("ETag", e_tag)
        if served.modified is not None:
            request.send_header("Last-Modified", served.modified)
        request.send_header("Content-Type", served.media_type)
        if served.sends_length:
            request.send_header("Content-Length", str(len(body)))
        else:
            request.close_connection = True
            request.send_header("Connection", "close")
        request.end_headers()
        if request.command != "HEAD":
            self._body(request, body, asked, fault)

    def _body(
        self, request: BaseHTTPRequestHandler, body: bytes, asked: Asked, fault: str | None
    ) -> None:
        half = body[: len(body) // 2] if fault in ("drop", "stall") else body
        try:
            asked.sent += len(half)  # before: who receives it may look at once
            request.wfile.write(half)
            if fault == "stall":
                request.wfile.flush()
                self.stalled.release()
                self.go_on.wait(30)
        except OSError:  # the client has gone
            request.close_connection = True
        if len(half) < len(body):
            request.close_connection = True


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    server = ObjectServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            return

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            http.shutdown()
            thread.join()
