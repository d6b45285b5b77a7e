"""A requests session that gives up on a server that sends a byte now and then.

A timeout of requests holds for one receiving call, and one byte ends such a call: a server that sends a byte per second
is waited for without end. Here the waiting times of one response are added up.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter

TIMEOUT = (10, 30)
"""Seconds to connect, and for one receiving call."""
MIN_SPEED = 4000
"""Bytes per second: less than a modem of 1994."""
MAX_WAIT = 60.0
"""Seconds of waiting that a response has at the start, and at most. Received bytes earn new ones."""


class SlowServerError(Exception):
    """A response was slower than `MIN_SPEED` for too long."""


class _TimedReader(io.RawIOBase):
    """The incoming side of a connection, for one response."""

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw, self._sock, self._seconds = raw, sock, MAX_WAIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        timeout, received, start = self._sock.gettimeout(), 0, time.monotonic()
        self._sock.settimeout(min(timeout or MAX_WAIT, self._seconds))
        try:
            received = self._raw.readinto(buffer) or 0
        finally:
            self._sock.settimeout(timeout)
            self._seconds = min(MAX_WAIT, self._seconds - (time.monotonic() - start) + received / MIN_SPEED)
            if self._seconds <= 0:
                raise SlowServerError
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The connections to a host, direct ones and those through a proxy, whose responses are timed."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if pool.ConnectionCls.response_class is not _Response:
            pool.ConnectionCls = type("Connection", (pool.ConnectionCls,), {"response_class": _Response})
        return pool


class Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect: the caller reads where they lead."""
