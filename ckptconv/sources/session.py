"""A requests session that does not wait for ever for a server that sends a byte now and then.

The timeouts of requests hold for each receiving call, and one byte ends such a call: a server that sends one a second
is waited for as long as it likes. Here all waiting for an answer is added up, from the end of the request on.
"""

from __future__ import annotations

import io
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

SLOWEST = 4096
"""Bytes a second: less than a modem of 1994 brought."""
PATIENCE = 60.0
"""Seconds of waiting that are granted in advance, and the most that can be saved up."""


class Pace:
    """How long a server may still let us wait: each byte that comes earns time, each moment of waiting costs it.

    ``too_slow`` and ``silent`` tell why an answer was given up: the time was used up, or nothing came for a timeout.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.left, self.too_slow, self.silent = PATIENCE, False, False

    def waited(self, seconds: float, count: int) -> None:
        self.left = min(PATIENCE, self.left - seconds + count / SLOWEST)
        self.too_slow = self.left <= 0


class _Reader(io.RawIOBase):
    """The incoming side of a connection."""

    def __init__(self, sock: Any, pace: Pace) -> None:
        self._sock, self._pace = sock, pace
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        usual, left = self._sock.gettimeout(), self._pace.left
        short = usual is None or left < usual
        if short:
            self._sock.settimeout(max(left, 0.001))
        began = time.monotonic()
        count: int | None = None
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            self._pace.silent = True
            raise
        finally:
            self._pace.waited(time.monotonic() - began, count or 0)
            if short:
                self._sock.settimeout(usual)
        if self._pace.too_slow:
            raise TimeoutError("too slow")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A connected socket whose files are read at a pace; all else is its own."""

    def __init__(self, sock: Any, pace: Pace) -> None:
        self._sock, self._pace = sock, pace

    def makefile(self, mode: str, *_: Any, **__: Any) -> Any:
        assert mode == "rb", "http.client writes by sendall"
        return io.BufferedReader(_Reader(self._sock, self._pace))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _classes(pace: Pace) -> dict[str, Any]:
    """The pools of urllib3 by their scheme, with connections that are read at a pace."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock: Any = _Socket(self.sock, pace)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock: Any = _Socket(self.sock, pace)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls: Any = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls: Any = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Adapter(HTTPAdapter):
    def __init__(self, pools: dict[str, Any]) -> None:
        self._pools = pools
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Session(requests.Session):
    """Follows no redirect: who asks reads where they lead."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 (the signature is requests')
        return None


def paced_session(pace: Pace) -> requests.Session:
    session = _Session()
    adapter = _Adapter(_classes(pace))
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session
