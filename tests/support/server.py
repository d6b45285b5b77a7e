"""A real HTTP server on the loopback address, which does what servers do to downloads, and counts what it sends."""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BLOCK = 1 << 16


@dataclass
class Server:
    """What is served and how; changed by tests while it runs.

    ``answers`` are statuses with headers and a body, given to the next requests in this order before anything else.
    ``cut`` breaks the next connections off after so many bytes of the body. ``rate`` is bytes a second, of all
    connections together, ``most`` the longest part. ``after``
    is called with each request's number before it is answered, ``midway`` when half of a body is sent.
    """

    files: dict[str, Path | bytes] = field(default_factory=dict)
    ranged: bool = True
    etag: bool = True
    date: bool = True
    length: bool = True
    rate: float = 0.0
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    most: int = 1 << 40
    cut: list[int] = field(default_factory=list)
    heads: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    lie: Callable[[dict[str, str]], dict[str, str]] = dict
    after: Callable[[int], None] = lambda _: None
    midway: Callable[[], None] = lambda: None
    version: int = 1
    sent: int = 0
    free: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        return len(self.asked)


class _Counted:
    """The connection's outgoing side: headers and bodies are counted, and held up where the server is slow."""

    def __init__(self, raw: Any, server: Server) -> None:
        self._raw, self._server = raw, server

    def write(self, data: bytes) -> int:
        with self._server.lock:
            self._server.sent += len(data)
            if self._server.rate:  # one line for all: who writes waits until what was written before is through
                self._server.free = max(self._server.free, time.monotonic()) + len(data) / self._server.rate
            wait = self._server.free - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        written: int = self._raw.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Server

    def setup(self) -> None:
        super().setup()
        self.wfile = _Counted(self.wfile, self.behaviour)  # type: ignore[assignment]

    def log_message(self, *_: object) -> None:
        pass

    def _noted(self) -> dict[str, str]:
        return {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}

    def do_HEAD(self) -> None:
        with self.behaviour.lock:
            self.behaviour.seen.append(self._noted())
        status, headers = self.behaviour.heads.get(self.path, (404, {}))
        self._send(status, {"Content-Length": "0", **headers}, [], None)

    def do_GET(self) -> None:
        what = self.behaviour
        wanted = self.headers.get("Range")
        with what.lock:
            what.asked.append((self.path, wanted))
            what.seen.append(self._noted())
            number = len(what.asked)
            answer = what.answers.pop(0) if what.answers else None
            cut = what.cut.pop(0) if what.cut else None
        what.after(number)
        path = self.path.partition("?")[0]
        if answer is not None:
            self._send(answer[0], {"Content-Length": str(len(answer[2])), **answer[1]}, [answer[2]], None)
        elif path in what.redirects:
            self._send(302, {"Location": what.redirects[path], "Content-Length": "0"}, [], None)
        elif path not in what.files:
            self._send(404, {"Content-Length": "0"}, [], None)
        else:
            self._file(what.files[path], wanted, cut)

    def _file(self, file: Path | bytes, wanted: str | None, cut: int | None) -> None:
        what = self.behaviour
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        headers = {"Content-Type": "application/octet-stream", **what.headers}
        if what.etag:
            headers["ETag"] = f'"v{what.version}"'
        if what.date:
            headers["Last-Modified"] = f"Mon, 02 Jan 2023 00:00:{what.version:02} GMT"
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        expected = self.headers.get("If-Range")
        start, end, status = 0, size, 200
        if what.ranged and found and expected in (None, headers.get("ETag"), headers.get("Last-Modified")):
            start, end, status = int(found[1]), min(size, int(found[2] or size) + 1), 206
            end = min(end, start + what.most)
            if start >= size:
                self._send(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, [], None)
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if what.length:
            headers["Content-Length"] = str(end - start)
        else:
            headers["Connection"] = "close"
        self._send(status, what.lie(headers), self._blocks(file, start, end), cut)

    def _blocks(self, file: Path | bytes, start: int, end: int) -> Iterator[bytes]:
        half = (start + end) // 2
        for at in range(start, end, BLOCK):
            if at <= half < at + BLOCK:
                self.behaviour.midway()
            count = min(BLOCK, end - at)
            if isinstance(file, bytes):
                yield file[at : at + count]
            else:
                with file.open("rb") as opened:
                    opened.seek(at)
                    yield opened.read(count)

    def _send(self, status: int, headers: dict[str, str], blocks: Any, cut: int | None) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked has heard enough
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for block in blocks:
                if cut is not None and len(block) >= cut:
                    self.wfile.write(block[:cut])
                    self.close_connection = True
                    return
                cut = None if cut is None else cut - len(block)
                self.wfile.write(block)
        if headers.get("Connection") == "close":
            self.close_connection = True


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None, **how: Any) -> Iterator[Server]:
    """A server that runs while the block does."""
    what = Server(**how)
    handler = type("Handler", (_Handler,), {"behaviour": what})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    what.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield what
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def numbers(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)
