"""What a response says of a file: how long it is, in which version, and which part of it follows. Sends nothing.

Ranges and conditions: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import requests

from ckptconv.errors import UnreadableError
from ckptconv.sources.interface import changed_while_read
from ckptconv.sources.retries import POLICY, FailedAttemptError

ANOTHER_WAY = "Download it another way, and give the file's path."
_LOGIN = "If it needs a login, add it to ~/.netrc. Or download it with a browser, and give the file's path."
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_MAX_HEADER_VALUE = 512  # characters of an ETag or a date


@dataclass(frozen=True)
class FileState:
    """``size`` is None where only the end tells it, ``version`` '' where no header names one ('ETag "v1"')."""

    size: int | None
    version: str
    ranged: bool


def file_state(
    response: requests.Response, label: str, start: int, end: int | None, known: FileState | None
) -> FileState:
    """The file's state, which must be the known one. ``start`` and ``end`` are the range that was asked for."""
    status, headers = response.status_code, response.headers
    if POLICY.is_retry("GET", status):
        raise FailedAttemptError(f"the server answers HTTP {status}", retry_after=headers.get("Retry-After"))
    if status in (401, 403, 407):
        raise UnreadableError(f"{label} cannot be fetched: access denied (HTTP {status})", _LOGIN)
    if status in (404, 410):
        raise UnreadableError(f"{label} does not exist (HTTP {status})", "Check the address.")
    if status == 416 and known is None:
        raise UnreadableError(f"{label} is empty", "Nothing was uploaded there, or it is another file.")
    if status == 416 or (status == 200 and known is not None and known.ranged):
        raise changed_while_read(label)
    if status not in (200, 206):
        raise UnreadableError(f"{label} cannot be fetched (HTTP {status})", "Check the address.")
    if headers.get("Content-Type", "").lower().startswith("text/html"):
        raise UnreadableError(f"{label} is a web page, not a checkpoint", f"It may be a login page. {_LOGIN}")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnreadableError(f"{label} cannot be fetched: the server sends it compressed", ANOTHER_WAY)
    length = headers.get("Content-Length", "")
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    if status == 206:
        size = _size_of_range(headers.get("Content-Range", ""), size, label, start, end)
    state = FileState(size, _version(response), status == 206)
    if known is not None and (state.size, state.version) != (known.size, known.version):
        raise changed_while_read(label)
    return known or state


def _size_of_range(header: str, length: int | None, label: str, start: int, end: int | None) -> int:
    """The whole file's size, from the Content-Range of a part of it."""
    match = _RANGE.fullmatch(header)
    first, last, size = map(int, match.groups()) if match else (-1, -1, -1)
    valid = first == start and first <= last < size and (end is None or last < end)
    if not valid or length not in (None, last + 1 - first):
        raise UnreadableError(f"{label} cannot be fetched: the server sends another range than requested", ANOTHER_WAY)
    return size


def _version(response: requests.Response) -> str:
    """The header that names this version of the file, with a value that can be sent back and shown; else ''."""
    for header in ("ETag", "Last-Modified"):
        value = response.headers.get(header, "")
        if value and len(value) <= _MAX_HEADER_VALUE and value.isascii() and value.isprintable():
            return f"{header} {value}"
    return ""
