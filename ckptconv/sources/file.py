"""One file, read at any offset. All input of ckptconv passes through here; nothing here knows what a checkpoint is.

A remote file has a `RemotePath`, which opens a Source of another class.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from ckptconv.errors import UnreadableError


class RemotePath(Protocol):
    """Where a remote file is. As text it is its address without secrets."""

    @property
    def name(self) -> str: ...

    def open(self) -> Source: ...

    def sibling(self, name: str) -> RemotePath:
        """The path of another file in the same folder."""
        ...


@dataclass
class Transfer:
    """How a remote file was fetched, and what was verified. The counts grow while it is read.

    ``version`` is the server's name of this version, the same in all its answers: an ETag, a date, a commit; '' if it
    gives none. ``published`` is the digest that its authors published, `hash_checked` tells whether the whole file was
    compared with it. ``fetched`` counts the received bytes of the file, ``requests`` the answers.
    """

    address: str
    size: int
    version: str = ""
    published: str = ""
    hash_checked: bool = False
    whole: bool = False
    fetched: int = 0
    requests: int = 0


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnreadableError(f"{path} is a directory", "Give the checkpoint file inside it.")
    if not stat.S_ISREG(mode):
        raise UnreadableError(
            f"{path} is not a regular file", "A checkpoint is not read from start to end: save it to disk."
        )


class Source:
    """An open regular file. Raises UnreadableError if there is none, or if it ends too early."""

    is_local: ClassVar[bool] = True
    """Whether reading a few bytes costs almost nothing."""

    transfer: Transfer | None = None

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """``descriptor`` is the file's, if it is open already."""
        self.path: Path | RemotePath = path
        self.name = path.name
        try:
            if descriptor is None:
                _require_regular(
                    path, path.stat().st_mode
                )  # before it is opened: opening alone has effects on some devices
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
            self._fd = descriptor
        except FileNotFoundError:
            raise UnreadableError(f"there is no file {path}", "Check the path.") from None
        except OSError as error:
            raise UnreadableError(f"{path} cannot be opened: {error.strerror}", "Check its permissions.") from None
        except ValueError:  # a NUL, or characters that no file name can have
            raise UnreadableError(f"{path} is not the name of a file", "Check the path.") from None
        opened = os.fstat(self._fd)
        if not stat.S_ISREG(opened.st_mode):
            self.close()
        _require_regular(path, opened.st_mode)
        self.size = opened.st_size
        self._state = (opened.st_size, opened.st_mtime_ns)
        if self.size == 0:
            self.close()
            raise UnreadableError(f"{path} is empty", "The download failed, or the disk was full. Download it again.")

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.truncated()
        parts = []
        while length:
            part = self._pread(length, offset)
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer from ``offset``."""
        if offset + len(buffer) > self.size:
            raise self.truncated()
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise self._unreadable(error) from None
            if not count:
                raise self.truncated()
            done += count

    def copy_to(self, target: int, at: int, offset: int, length: int) -> bool:
        """Copy ``length`` bytes from ``offset`` to the offset ``at`` of an open file, inside the kernel.

        False if this system or these file systems cannot do that; what was written then must be written again.
        """
        if not hasattr(os, "copy_file_range"):
            return False
        while length:
            try:
                count = os.copy_file_range(self._fd, target, length, offset, at)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                    raise
                return False
            if not count:
                raise self.truncated()
            offset, at, length = offset + count, at + count, length - count
        return True

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            part = os.pread(self._fd, length, offset)
        except OSError as error:
            raise self._unreadable(error) from None
        if not part:
            raise self.truncated()
        return part

    def _unreadable(self, error: OSError) -> UnreadableError:
        return UnreadableError(f"{self.path} cannot be read: {error.strerror}", "Check the disk.")

    def truncated(self) -> UnreadableError:
        return UnreadableError(
            f"{self.path} is truncated ({self.size:,} bytes)", "The download was interrupted. Download it again."
        )

    def require_unchanged(self) -> None:
        """Raise UnreadableError if the file was written to since it was opened."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != self._state:
            raise UnreadableError(f"{self.path} changed while it was being read", "Wait until its writer is done.")

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these ranges, from a start to an end each: they will be read soon."""

    def evict(self) -> None:
        """Remove the file from the cache: its content is wrong."""

    def close(self) -> None:
        os.close(self._fd)
