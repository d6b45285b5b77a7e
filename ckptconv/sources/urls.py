"""Parses addresses. The request, the receipt and the rule about TLS use the same `Url`.

Only what every parser reads in one way is accepted: RFC 3986 without user names, in ASCII. What libraries repair in
different ways (a backslash, a space, a character outside ASCII) is refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin

MAX_URL_LENGTH = 8192
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(.*))?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_OTHER = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/?#%\[\]-]")
_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_ENCODE = "Write such characters of a path as %XX (a space is %20), and those of a host as xn--…."


class UrlError(ValueError):
    """A text that is not an address. ``what`` completes the sentence: 'contains a space'."""

    def __init__(self, what: str, hint: str = "Check it.") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


@dataclass(frozen=True)
class Url:
    """An address in one spelling. ``host`` is in lower case, or a bucket as it is; ``port`` is None by default.

    ``path`` and ``query`` are as they are sent.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.origin}{self.path}{f'?{self.query}' if self.query else ''}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}{f':{self.port}' if self.port is not None else ''}"

    @property
    def shown(self) -> str:
        """Without the query, which may be a signature."""
        return f"{self.origin}{self.path}{'?…' if self.query else ''}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_secure(self) -> bool:
        """Whether no one can read or change what is sent: by TLS, or because it does not leave this machine."""
        return self.scheme == "https" or (self.scheme == "http" and self.is_loopback)


def parse(text: str) -> Url:
    """The address of a text. Raises UrlError."""
    _require_plain(text)
    match = _SCHEME.match(text)
    if match is None:
        raise UrlError("has no scheme", "An address begins with https://.")
    scheme = match[1].lower()
    rest, _, _ = text[match.end() :].partition("#")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise UrlError("contains a user name or password", "Put the login into ~/.netrc instead.")
    if scheme in ("http", "https"):
        host, port = _host(authority)
    elif _BUCKET.fullmatch(authority) or not authority:
        host, port = authority, None
    else:
        raise UrlError("has no valid host or bucket")
    return Url(scheme, host, port, _sent(slash + path), _sent(query))


def join(base: Url, text: str) -> Url:
    """The address of a text, relative to another address (RFC 3986, section 5). Raises UrlError."""
    _require_plain(text)
    try:
        return parse(urljoin(str(base), text))
    except UrlError:
        raise
    except ValueError:  # urljoin, of brackets
        raise UrlError("is not one") from None


def redacted(text: str) -> str:
    """What may be shown of a text that may be invalid: no user, no password, no query."""
    match = _SCHEME.match(text)
    if match is None:
        return text
    before, at, rest = text[match.end() :].rpartition("@")
    if at and match[1].lower() not in ("http", "https") and "/" in before:
        before, at, rest = "", "", text[match.end() :]  # the revision of hf://, or a character of a key
    shown, mark, _ = rest.partition("#")[0].partition("?")
    return f"{match[0]}{'…@' if at else ''}{shown}{'?…' if mark else ''}"


def _require_plain(text: str) -> None:
    if len(text) > MAX_URL_LENGTH:
        raise UrlError(f"is longer than {MAX_URL_LENGTH:,} characters")
    other = _OTHER.search(text)
    if other is not None:
        character = other[0]
        what = (
            "a backslash"
            if character == "\\"
            else "a space"
            if character == " "
            else "a control character"
            if character < " " or character == "\x7f"
            else f"the character {character!a}"
        )
        raise UrlError(f"contains {what}", _ENCODE)
    if _ESCAPE.search(text):
        raise UrlError("contains a % that does not begin %XX", "Write % itself as %25.")


def _host(authority: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(authority)
    if match is None or len(match[1]) > 253:
        raise UrlError("has no valid host", "A host is a name in ASCII, an IPv4 address, or an IPv6 address in [ ].")
    host, port = match[1].lower(), match[2]
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            raise UrlError("has no valid host", "An IPv6 address is eight groups in [ ], without a zone.") from None
    if port is None:
        return host, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UrlError("has no valid port", "A port is a number from 1 to 65535.")
    return host, int(port)


def _sent(part: str) -> str:
    """A part as it is sent: escaped as HTTP libraries would escape it."""
    part = part.replace("[", "%5B").replace("]", "%5D")
    return re.sub("%[0-9a-fA-F]{2}", lambda m: m[0].upper(), part)
