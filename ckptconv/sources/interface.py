"""What the sources share: the options of a fetch, and what a remote file can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptconv import fields
from ckptconv.errors import UnreadableError

BLOCK = 1 << 16
FIRST_BYTES = 1 << 16
"""How many bytes the first request asks for: enough to tell a file's format."""
MAX_NAME_BYTES = 200
"""Bytes of a name in the cache; file systems allow 255."""


@dataclass(frozen=True)
class Fetching:
    """How remote files are fetched.

    ``whole`` fetches a whole file into the cache, and compares it with the published digest if there is one.
    ``cache_dir`` is the cache's folder, None for the platform's own. ``progress`` is called with the received bytes and
    all bytes.
    """

    whole: bool = False
    cache_dir: Path | str | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        fields.boolean("whole", self.whole)
        if not isinstance(self.cache_dir, Path | str | None):
            raise fields.invalid("cache_dir", "a path", self.cache_dir)
        if self.progress is not None and not callable(self.progress):
            raise fields.invalid("progress", "a function", self.progress)


@dataclass(frozen=True)
class Digest:
    """A published digest: an algorithm's name in hashlib, and the first hexadecimal digits or all."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digits}"


class RemoteFile(Protocol):
    """An open remote file. Its methods raise UnreadableError, with the address but without secrets.

    ``size`` is None if only the end tells it. ``version`` is the server's name of this version, '' if it gives none; no
    read mixes two versions. ``ranged`` tells whether the server sends parts. ``head`` are the first bytes, if the first
    answer has them. ``requests`` counts answers, ``received`` the file's bytes.
    """

    size: int | None
    ranged: bool
    published: Digest | None
    head: bytes
    requests: int
    received: int

    @property
    def version(self) -> str: ...

    def read(self, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end``, or to the last, in blocks."""
        ...

    def require_unchanged(self) -> None: ...

    def close(self) -> None: ...


class UnreachableError(UnreadableError):
    """The server did not answer, or was busy: a cached copy may be used instead."""


def changed_while_read(label: str) -> UnreadableError:
    return UnreadableError(f"{label} changed while it was being read", "Wait until its writer is done, then try again.")
