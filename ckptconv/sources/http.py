"""Files behind http. It knows how to ask for a part, when to ask again, and which answers are to be believed.

TLS is required, but for this machine's own loopback addresses: what is sent there passes no wire. Proxies, logins
(`~/.netrc`) and certificates (`REQUESTS_CA_BUNDLE`) are taken from where requests takes them. Ranges and conditions:
RFC 9110, sections 13 and 14. No text of another library's error is shown: it may hold a signed address.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPException

import requests
from urllib3.exceptions import HTTPError

from ckptconv._version import __version__
from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.sources import session
from ckptconv.sources.interface import HEAD, RUN, Digest, UnreachableError, changed_while_read
from ckptconv.sources.urls import Url, UrlError, join, parse

_TIMEOUT = (10, 30)
_TRIES = 5
_MAX_WAIT = 60.0
_GAIN = 1 << 18
_BUSY = {408, 429, 500, 502, 503, 504}
_SENT_ON = {301, 302, 303, 307, 308}
_HOPS = 20
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_MAX_HEADER_VALUE = 512  # letters of an ETag or a date
_LOGIN = "If it needs a login, put that into ~/.netrc; or download it with a browser and give the file."

sleep = time.sleep


class _Broken(Exception):
    """An answer that may be better next time: what was wrong, how long its sender asks to wait, how often to try."""

    def __init__(
        self, what: str, wait: float | None = None, tries: int = _TRIES, hint: str = "Try again later."
    ) -> None:
        super().__init__(what)
        self.what, self.wait, self.tries, self.hint = what, wait, tries, hint


def _required(shown: str, text: str) -> Url:
    """The address of a text. Refuses one whose answers anybody on the way could change."""
    try:
        url = parse(text)
    except UrlError as error:
        raise UnreadableError(f"{shown} is at an address that {error.what}", error.hint) from None
    if url.scheme not in ("http", "https"):
        raise UnreadableError(f"{shown} is not behind https://", "Download it by another way and give the file.")
    if not url.is_secure:
        raise UnreadableError(
            f"{shown} is http without TLS: anybody on the way could change the file",
            "Try https://, or download it by another way and give the file.",
        )
    return url


class HttpFile:
    """A file behind an address. ``shown`` is how messages name it.

    ``headers`` are for the address's own server, and no other that it sends on to. ``state`` names what the address is
    pinned to, which then stands for what the server calls its state.
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
        self._url, self._shown, self._headers = _required(shown, url), shown, dict(headers or {})
        self._pace = session.Pace()
        self._session = session.paced_session(self._pace)
        self._session.headers["User-Agent"] = f"ckptconv/{__version__}"
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
        response = self._answer(headers)
        self.requests += 1
        try:
            self._judge(response, start, end)
        except BaseException:
            response.close()
            raise
        return response

    def _answer(self, headers: Mapping[str, str]) -> requests.Response:
        """The answer to a request, wherever the address sends on to. Each address is parsed by `urls`, and no other."""
        url = self._url
        for _ in range(_HOPS):
            own = self._headers if url.origin == self._url.origin else {}
            with self._failing():
                prepared = self._session.prepare_request(requests.Request("GET", str(url), headers={**own, **headers}))
                prepared.url = str(url)  # as it was parsed: requests has repaired it
                settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
                self._pace.begin()
                response = self._session.send(prepared, timeout=_TIMEOUT, allow_redirects=False, **settings)
            if response.status_code not in _SENT_ON or "Location" not in response.headers:
                return response
            response.close()
            url = self._next(url, response.headers["Location"])
        raise UnreadableError(f"{self._shown} is sent on in a circle", "Check the address.")

    def _next(self, url: Url, location: str) -> Url:
        """Where a redirect leads: never to where less is known of the sender."""
        start, hint = f"{self._shown} sends on from {url.scheme}://", "Download it by another way and give the file."
        try:
            target = join(url, location)
        except UrlError as error:
            raise UnreadableError(f"{start} to an address that {error.what}, which is not followed", hint) from None
        if not target.is_secure or (target.scheme, url.scheme) == ("http", "https"):
            where = f"{target.scheme}://{target.host}"
            raise UnreadableError(f"{start} to {where}, which is not followed", hint)
        return target

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What requests and the libraries below it raise is said in our words."""
        try:
            yield
        except requests.RequestException as error:
            raise self._failed(error) from None
        except OSError as error:
            raise self._failed_locally(error) from None
        except (HTTPError, HTTPException, ValueError, OverflowError):  # of headers that make no sense
            raise _Broken("its answer is no valid HTTP", tries=2) from None

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
            raise changed_while_read(shown)
        if status not in (200, 206):
            raise UnreadableError(f"{shown} cannot be fetched: its server answers {status}", "Check the address.")
        if headers.get("Content-Type", "").lower().startswith("text/html"):
            raise UnreadableError(f"{shown} is a web page, not a checkpoint", f"It may be a login page. {_LOGIN}")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnreadableError(f"{shown} comes compressed, which nobody asked for", "Download it by another way.")
        size = _number(headers.get("Content-Length", ""))
        if status == 206:
            size = self._part(headers.get("Content-Range", ""), size, start, end)
        etag, date = _word(headers.get("ETag")), _word(headers.get("Last-Modified"))
        state = f"ETag {etag}" if etag else f"Last-Modified {date}" if date else ""
        if not self._known:
            self.size, self._state, self.ranged, self._known = size, state, status == 206, True
        elif (size, state) != (self.size, self._state):
            raise changed_while_read(shown)

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
        runs = response.iter_content(RUN)
        while True:
            with self._failing():
                run = next(runs, None)
            if run is None:
                return
            self.received += len(run)
            if skip >= len(run):
                skip -= len(run)
                continue
            yield run[skip:] if skip else run
            skip = 0

    def _failed(self, error: requests.RequestException) -> Exception:
        """What is raised for an error of requests; the cause of a broken connection stands deep inside it."""
        if isinstance(error, requests.exceptions.SSLError):
            return UnreadableError(
                f"{self._shown}: nobody vouches for its server's certificate",
                "REQUESTS_CA_BUNDLE names the authorities that you trust beside the usual ones.",
            )
        if self._pace.too_slow:
            return _Broken(
                f"its server sends less than {session.SLOWEST / 1024:g} KiB a second",
                tries=2,
                hint="Try again later, or download it by another way and give the file.",
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return UnreadableError(f"{self._shown} is no address that can be asked", "Check it.")
        if self._pace.silent or isinstance(error, requests.Timeout):
            given = _TIMEOUT[0] if isinstance(error, requests.ConnectTimeout) else _TIMEOUT[1]
            return _Broken("its server does not answer in time", hint=f"It had {given:g} s each time. Try again later.")
        if isinstance(error, requests.exceptions.ProxyError):
            return _Broken("the proxy does not let it through")
        if "NameResolution" in repr(error):
            return _Broken("there is no network, or no such host", tries=2)
        return _Broken("the connection breaks")

    def _failed_locally(self, error: OSError) -> Exception:
        """What is raised for an error of this machine: requests raises such a one for certificates it does not find."""
        if "certificate" in str(error):
            return EnvironmentMissingError(
                "the certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names cannot be read",
                "Name a file with certificates, or unset the variable.",
            )
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
        if asked > _MAX_WAIT:
            raise UnreachableError(
                f"{self._shown} cannot be fetched: {broken.what} and asks to wait {asked:.0f} s", "Try again then."
            )
        if self._tries >= broken.tries:
            raise UnreachableError(
                f"{self._shown} cannot be fetched: {broken.what}, {self._tries} times in a row", broken.hint
            )
        sleep(max(asked, 0.5 * 2 ** (self._tries - 1)))


def _number(said: str) -> int | None:
    """A count of bytes, from a header; None for what is no file's."""
    return int(said) if re.fullmatch("[0-9]{1,18}", said) else None


def _word(said: str | None) -> str | None:
    """A server's word for a state, if it can be sent back and shown."""
    return said if said and len(said) <= _MAX_HEADER_VALUE and said.isascii() and said.isprintable() else None


def _wait(said: str | None) -> float | None:
    """Seconds, from a header that holds them or a date."""
    if said is None:
        return None
    if re.fullmatch("[0-9]{1,18}", said.strip()):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
