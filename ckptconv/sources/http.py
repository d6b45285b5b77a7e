"""Files behind http. It knows how to ask for a part, when to ask again, and which answers are to be believed.

TLS is required, but for this machine's own loopback addresses: what is sent there passes no wire. Proxies, logins
(`~/.netrc`) and certificates (`REQUESTS_CA_BUNDLE`) are taken from where requests takes them. Ranges and conditions:
RFC 9110, sections 13 and 14. No text of another library's error is shown: it may hold a signed address.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import requests

from ckptconv._version import __version__
from ckptconv.errors import UnreadableError
from ckptconv.sources.interface import HEAD, RUN, Digest, UnreachableError, changed

_TIMEOUT = (10, 30)
_TRIES = 5
_LONGEST_WAIT = 60.0
_GAIN = 1 << 18
_BUSY = {408, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_LOGIN = "If it needs a login, put that into ~/.netrc; or download it with a browser and give the file."

sleep = time.sleep


class _Broken(Exception):
    """An answer that may be better next time: what was wrong, how long its sender asks to wait, how often to try."""

    def __init__(self, what: str, wait: float | None = None, tries: int = _TRIES) -> None:
        super().__init__(what)
        self.what, self.wait, self.tries = what, wait, tries


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_tls(shown: str, url: str) -> None:
    """Refuse an address whose answers anybody on the way could change."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise UnreadableError(
            f"{shown} is http without TLS: anybody on the way could change the file",
            "Try https://, or download it by another way and give the file.",
        )


class _Session(requests.Session):
    """Follows redirects, but never to where less is known of the sender."""

    shown = ""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target is None:
            return None
        before, after = urlsplit(resp.url), urlsplit(urljoin(resp.url, target))
        secure = after.scheme == "https" or (after.scheme == before.scheme and is_loopback(after.hostname or ""))
        if not secure:
            resp.close()
            raise UnreadableError(
                f"{self.shown} sends on from {before.scheme}:// to {after.scheme}://{after.hostname or ''}, "
                "which is not followed",
                "Download it by another way and give the file.",
            )
        return target


class HttpFile:
    """A file behind an address. ``shown`` is how messages name it.

    ``state`` names what the address is pinned to, which then stands for what the server calls its state.
    """

    def __init__(
        self,
        url: str,
        shown: str,
        published: Digest | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        state: str = "",
    ) -> None:
        require_tls(shown, url)
        self._url, self._shown = url, shown
        self._session = _Session()
        self._session.shown = shown
        self._session.headers["User-Agent"] = f"ckptconv/{__version__}"
        self._session.headers.update(headers or {})
        self._session.headers["Accept-Encoding"] = "identity"
        self.published = published
        self.size: int | None = None
        self._state = ""
        self._pinned = state
        self.ranged = False
        self.requests = self.received = 0
        self._known = False
        try:
            self.head = self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> str:
        return self._pinned or self._state

    def _begin(self) -> bytes:
        """Learn about the file, and take its first bytes where parts can be had."""
        patience = _Patience(self._shown)
        while True:
            try:
                with self._asked(0, HEAD) as response:
                    return b"".join(self._body(response, 0)) if self.ranged else b""
            except _Broken as broken:
                patience.wait(broken)

    def read(self, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end``, or to the last, in runs. Goes on where a connection broke."""
        patience = _Patience(self._shown)
        if end is not None and self.size is not None:
            end = min(end, self.size)
        while end is None or start < end:
            before = start
            try:
                with self._asked(start, end) as response:
                    for run in self._body(response, start):
                        run = run if end is None else run[: end - start]
                        start += len(run)
                        patience.gained(len(run))
                        yield run
                if end is None:
                    return
                if start == before:
                    raise _Broken("its answers are empty")
            except _Broken as broken:
                if not self.ranged and not self.version and start:
                    raise UnreachableError(
                        f"{self._shown} broke off, and its server neither sends parts nor says which state it sent",
                        "Try again: it starts anew.",
                    ) from None
                patience.wait(broken)

    def _asked(self, start: int, end: int | None) -> requests.Response:
        """The answer to one request, once it is known to be of this file, in this state."""
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if self.ranged or not self._known else {}
        if self._known and headers and self._state.startswith('ETag "'):
            headers["If-Range"] = self._state.removeprefix("ETag ")
        try:
            response = self._session.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise self._failed(error) from None
        self.requests += 1
        try:
            self._judge(response, start, end)
        except BaseException:
            response.close()
            raise
        return response

    def _judge(self, response: requests.Response, start: int, end: int | None) -> None:
        status, headers, shown = response.status_code, response.headers, self._shown
        if status in _BUSY:
            raise _Broken(f"its server answers {status}", _wait(headers.get("Retry-After")))
        if status in (401, 403, 407):
            raise UnreadableError(f"{shown} is not open to you: its server answers {status}", _LOGIN)
        if status in (404, 410):
            raise UnreadableError(f"{shown} is not there: its server answers {status}", "Check the address.")
        if status == 416 and not self._known:
            raise UnreadableError(f"{shown} is empty", "Nothing was uploaded there, or it is not the file.")
        if status == 416 or (status == 200 and self._known and self.ranged):
            raise changed(shown)
        if status not in (200, 206):
            raise UnreadableError(f"{shown} cannot be fetched: its server answers {status}", "Check the address.")
        if headers.get("Content-Type", "").lower().startswith("text/html"):
            raise UnreadableError(f"{shown} is a web page, not a checkpoint", f"It may be a login page. {_LOGIN}")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnreadableError(f"{shown} comes compressed, which nobody asked for", "Download it by another way.")
        length = headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        if status == 206:
            size = self._part(headers.get("Content-Range", ""), size, start, end)
        etag, date = headers.get("ETag"), headers.get("Last-Modified")
        state = f"ETag {etag}" if etag else f"Last-Modified {date}" if date else ""
        if not self._known:
            self.size, self._state, self.ranged, self._known = size, state, status == 206, True
        elif (size, state) != (self.size, self._state):
            raise changed(shown)

    def _part(self, said: str, length: int | None, start: int, end: int | None) -> int:
        """The file's size, from the header of an answer that holds a part of it."""
        found = _RANGE.fullmatch(said)
        first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
        sound = first == start and first <= last < size and (end is None or last < end)
        if not sound or length not in (None, last + 1 - first):
            raise UnreadableError(
                f"{self._shown} cannot be fetched: its server was asked for a part and says it sends another",
                "Download it by another way and give the file.",
            )
        return size

    def _body(self, response: requests.Response, start: int) -> Iterator[bytes]:
        """The bytes of an answer from ``start`` on: one without ranges begins with the first."""
        skip = 0 if response.status_code == 206 else start
        try:
            for run in response.iter_content(RUN):
                self.received += len(run)
                if skip >= len(run):
                    skip -= len(run)
                    continue
                yield run[skip:] if skip else run
                skip = 0
        except requests.RequestException as error:
            raise self._failed(error) from None

    def _failed(self, error: requests.RequestException) -> Exception:
        """What is raised for an error of requests; the cause of a broken connection stands deep inside it."""
        if isinstance(error, requests.exceptions.SSLError):
            return UnreadableError(
                f"{self._shown}: nobody vouches for its server's certificate",
                "REQUESTS_CA_BUNDLE names the authorities that you trust beside the usual ones.",
            )
        if isinstance(error, requests.TooManyRedirects):
            return UnreadableError(f"{self._shown} is sent on in a circle", "Check the address.")
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return UnreadableError(f"{self._shown} is no address that can be asked", "Check it.")
        if isinstance(error, requests.Timeout):
            return _Broken("its server does not answer in time")
        if isinstance(error, requests.exceptions.ProxyError):
            return _Broken("the proxy does not let it through")
        if "NameResolution" in repr(error):
            return _Broken("there is no network, or no such host", tries=2)
        return _Broken("the connection breaks")

    def require_unchanged(self) -> None:
        """Ask once more: every answer so far was of one version, and the last one may have changed on its way."""
        patience = _Patience(self._shown)
        while True:
            try:
                return self._asked(0, 1).close()
            except _Broken as broken:
                patience.wait(broken)

    def close(self) -> None:
        self._session.close()


class _Patience:
    """How often a request is tried again: each time twice as late, and anew when something came meanwhile."""

    def __init__(self, shown: str) -> None:
        self._shown, self._tries, self._gain = shown, 0, 0

    def gained(self, count: int) -> None:
        self._gain += count

    def wait(self, broken: _Broken) -> None:
        if self._gain >= _GAIN:
            self._tries = 0
        self._gain = 0
        self._tries += 1
        asked = broken.wait or 0.0
        if asked > _LONGEST_WAIT:
            raise UnreachableError(
                f"{self._shown} cannot be fetched: {broken.what} and asks to wait {asked:.0f} s", "Try again then."
            )
        if self._tries >= broken.tries:
            raise UnreachableError(
                f"{self._shown} cannot be fetched: {broken.what}, {self._tries} times in a row", "Try again later."
            )
        sleep(max(asked, 0.5 * 2 ** (self._tries - 1)))


def _wait(said: str | None) -> float | None:
    """Seconds, from a header that holds them or a date."""
    if said is None:
        return None
    if said.strip().isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
