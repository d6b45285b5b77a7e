"""Files behind http: asks for parts of them, follows redirects, and continues where a connection broke.

TLS is required, except for this machine's own loopback addresses: no wire carries what is sent there. Proxies, logins
(`~/.netrc`) and certificates (`REQUESTS_CA_BUNDLE`) are taken from where requests takes them. No text of another
library's error is shown: it may hold a signed address.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import TypeVar

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, ReadTimeoutError

from ckptconv._version import __version__
from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.sources import session
from ckptconv.sources.http_response import ANOTHER_WAY, FileState, file_state
from ckptconv.sources.interface import BLOCK, FIRST_BYTES, Digest, UnreachableError
from ckptconv.sources.retries import FailedAttemptError, Retries
from ckptconv.sources.urls import Url, UrlError, join, parse

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 20
_T = TypeVar("_T")


class HttpFile:
    """A file behind an address, which messages call ``label``.

    ``headers`` are for the address's own server, and for no other that it redirects to. ``pinned`` is the version that
    the address is bound to (a commit); it is shown instead of the server's own.
    """

    def __init__(
        self,
        url: str,
        label: str,
        published: Digest | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        pinned: str = "",
    ) -> None:
        self._url, self._label, self._headers = _secure(url, label), label, dict(headers or {})
        self._session = session.Session()
        self._session.headers["User-Agent"] = f"ckptconv/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"
        self.published, self._pinned = published, pinned
        self._state: FileState | None = None
        self.size: int | None = None
        self.ranged = False
        self.requests = self.received = 0
        try:
            self.head = self._retried(self._first_bytes)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> str:
        return self._pinned or (self._state.version if self._state else "")

    def _first_bytes(self) -> bytes:
        with self._request(0, FIRST_BYTES) as response:
            return b"".join(self._content(response, 0)) if self.ranged else b""

    def read(self, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end``, or to the last, in blocks."""
        retries = Retries(self._label)
        if end is not None and self.size is not None:
            end = min(end, self.size)
        while end is None or start < end:
            before = start
            try:
                with self._request(start, end) as response:
                    for block in self._content(response, start):
                        block = block if end is None else block[: end - start]
                        start += len(block)
                        retries.received += len(block)
                        yield block
                if end is None:
                    return
                if start == before:
                    raise FailedAttemptError("the server sends nothing")
            except FailedAttemptError as failure:
                if not self.ranged and not self.version and start:
                    raise UnreachableError(
                        f"{self._label} cannot be fetched: the connection broke, and its server supports neither "
                        "ranges nor versions",
                        "Try again: it starts from the beginning.",
                    ) from None
                retries.wait(failure)

    def _request(self, start: int, end: int | None) -> requests.Response:
        """The answer to one request, once it is known to be of this file, in this version."""
        known, headers = self._state, {}
        if known is None or known.ranged:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if known is not None and known.version.startswith('ETag "'):
                headers["If-Range"] = known.version.removeprefix("ETag ")
        response = self._send(headers)
        self.requests += 1
        try:
            self._state = file_state(response, self._label, start, end, known)
        except BaseException:
            response.close()
            raise
        self.size, self.ranged = self._state.size, self._state.ranged
        return response

    def _send(self, headers: Mapping[str, str]) -> requests.Response:
        """The answer to a request, after redirects. Each address is parsed by `urls`, and by nothing else."""
        url = self._url
        for _ in range(_MAX_REDIRECTS):
            own = self._headers if url.origin == self._url.origin else {}
            with self._translated_errors():
                prepared = self._session.prepare_request(requests.Request("GET", str(url), headers={**own, **headers}))
                prepared.url = str(url)  # as it was parsed: requests has repaired it
                settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
                response = self._session.send(prepared, timeout=session.TIMEOUT, allow_redirects=False, **settings)
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            url = self._redirected(url, response.headers["Location"])
        raise UnreadableError(
            f"{self._label} cannot be fetched: more than {_MAX_REDIRECTS} redirects", "Check the address."
        )

    def _redirected(self, url: Url, location: str) -> Url:
        """Where a redirect leads; it may not lead to a less secure address."""
        start = f"{self._label} redirects from {url.scheme}://"
        try:
            target = join(url, location)
        except UrlError as error:
            raise UnreadableError(
                f"{start} to an address that {error.what}, which is not followed", ANOTHER_WAY
            ) from None
        if not target.is_secure or (target.scheme, url.scheme) == ("http", "https"):
            where = f"{target.scheme}://{target.host}"
            raise UnreadableError(f"{start} to {where}, which is not followed", ANOTHER_WAY)
        return target

    def _content(self, response: requests.Response, start: int) -> Iterator[bytes]:
        """The bytes of an answer from ``start`` on: an answer without ranges begins with the first byte."""
        skip = 0 if response.status_code == 206 else start
        blocks = response.iter_content(BLOCK)
        while True:
            with self._translated_errors():
                block = next(blocks, None)
            if block is None:
                return
            self.received += len(block)
            if skip < len(block):
                yield block[skip:] if skip else block
            skip = max(0, skip - len(block))

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Errors of requests and of the libraries below it become ours."""
        try:
            yield
        except session.SlowServerError:
            raise UnreachableError(
                f"{self._label} cannot be fetched: the server sends less than {session.MIN_SPEED / 1000:g} kB per "
                "second",
                f"Try again later. {ANOTHER_WAY}",
            ) from None
        except requests.RequestException as error:
            raise self._translated(error) from None
        except OSError as error:
            if "certificate" not in str(error):
                raise FailedAttemptError("the connection broke") from None
            raise EnvironmentMissingError(
                "the certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names cannot be read",
                "Name a file with certificates, or unset the variable.",
            ) from None
        except (HTTPError, HTTPException, ValueError, OverflowError):  # of invalid headers
            raise FailedAttemptError("the server's answer is not valid HTTP", lasting=True) from None

    def _translated(self, error: requests.RequestException) -> Exception:
        cause = error.args[0] if error.args else None
        cause = getattr(cause, "reason", cause)  # of urllib3's MaxRetryError
        if isinstance(error, requests.exceptions.SSLError):
            return UnreadableError(
                f"{self._label} cannot be fetched: TLS certificate verification failed",
                "To trust the server's certificate authority, name its file in REQUESTS_CA_BUNDLE.",
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return UnreadableError(f"{self._label} is not a valid address", "Check it.")
        if isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError):
            seconds = session.TIMEOUT[0 if isinstance(error, requests.ConnectTimeout) else 1]
            hint = f"Each attempt waited {seconds:g} s. Try again later."
            return FailedAttemptError("the server does not answer in time", hint)
        if isinstance(error, requests.exceptions.ProxyError):
            return FailedAttemptError("the proxy refuses the connection")
        if isinstance(cause, NameResolutionError):
            return FailedAttemptError("the host is unknown, or there is no network", lasting=True)
        return FailedAttemptError("the connection broke")

    def require_unchanged(self) -> None:
        """Ask once more: the file may have changed during the last answer."""
        self._retried(lambda: self._request(0, 1).close())

    def _retried(self, attempt: Callable[[], _T]) -> _T:
        retries = Retries(self._label)
        while True:
            try:
                return attempt()
            except FailedAttemptError as failure:
                retries.wait(failure)

    def close(self) -> None:
        self._session.close()


def _secure(text: str, label: str) -> Url:
    """The address of a text. Refuses one whose answers anybody on the way could change."""
    try:
        url = parse(text)
    except UrlError as error:
        raise UnreadableError(f"{label} is at an address that {error.what}", error.hint) from None
    if url.scheme not in ("http", "https"):
        raise UnreadableError(f"{label} is not behind https://", ANOTHER_WAY)
    if not url.is_secure:
        raise UnreadableError(
            f"{label} is http without TLS: anybody on the way could change the file", f"Try https://. {ANOTHER_WAY}"
        )
    return url
