"""What the sources share: what is asked for, and what a file far away must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptconv import fields
from ckptconv.errors import UnreadableError

BLOCK = 1 << 16
FIRST_BYTES = 1 << 16
"""Bytes that come with the first answer: enough to tell what a file is."""
MAX_NAME_BYTES = 200
"""Bytes of a name in the cache; file systems take 255."""


@dataclass(frozen=True)
class Fetching:
    """How files that lie elsewhere are fetched.

    ``whole`` fetches all of a file into the cache and compares it with the digest that its authors published, if
    they did. ``cache_dir`` is the cache's folder, None the platform's usual place. ``progress`` is called with bytes
    done and bytes in all.
    """

    whole: bool = False
    cache_dir: Path | str | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        fields.flag("whole", self.whole)
        if not isinstance(self.cache_dir, Path | str | None):
            raise fields.refused("cache_dir", "a path", self.cache_dir)
        if self.progress is not None and not callable(self.progress):
            raise fields.refused("progress", "a function", self.progress)


@dataclass(frozen=True)
class Digest:
    """What a file's authors published: an algorithm's name in hashlib, and the first hexadecimal digits or all."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digits}"


class RemoteFile(Protocol):
    """A file that lies elsewhere. Methods raise UnreadableError, with the address but nothing secret in it.

    ``size`` is None where it is known only at the end. ``version`` is what its keeper calls this state of it, ''
    without a word for it; no read mixes two versions. ``ranged`` tells whether parts can be had. ``head`` are the
    first bytes, if they came with the first answer. ``requests`` counts answers, ``received`` the file's bytes.
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
        """The bytes from ``start`` to ``end``, or to the last, in runs."""
        ...

    def require_unchanged(self) -> None: ...

    def close(self) -> None: ...


class UnreachableError(UnreadableError):
    """Nobody answered, or only to say that it does not go now: a copy from before may do."""


def changed_while_read(shown: str) -> UnreadableError:
    return UnreadableError(f"{shown} changed while it was being read", "Wait until its writer is done, then try again.")
