"""A folder to which no one else can write, and its content, opened without following a link.

Everything is opened relative to an open folder, so that no name is looked up twice. A plain file here has exactly one
name and belongs to the user: another name could be that of a file that must not be written to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ckptconv.arguments import argument
from ckptconv.errors import EnvironmentMissingError, shell_word

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MAX_DEPTH = 20  # nested folders that are removed; an entry of the cache has none
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EISDIR}


@contextlib.contextmanager
def opened(path: Path, create: bool = False) -> Iterator[SafeFolder | None]:
    """The folder at a path, None if there is none. Raises EnvironmentMissingError if others could write to it."""
    try:
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, _FOLDER)
    except FileNotFoundError:
        yield None
        return
    except ValueError:
        raise EnvironmentMissingError(f"the folder {path} cannot be used: it is not a path", "Name another.") from None
    try:
        _require_own(path, os.fstat(descriptor))
        yield SafeFolder(descriptor)
    finally:
        os.close(descriptor)


def _require_own(path: Path, info: os.stat_result) -> None:
    if info.st_uid != os.geteuid():
        raise EnvironmentMissingError(
            f"the folder {path} belongs to another user, who could change its content",
            f"Name a folder of your own: {argument('cache_dir')}.",
        )
    if info.st_mode & _OTHERS:
        raise EnvironmentMissingError(
            f"the folder {path} is writable by others, who could change its content",
            f"Remove that permission: chmod go-w {shell_word(str(path))}",
        )


class SafeFolder:
    """An open folder."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    def names(self) -> list[str]:
        return os.listdir(self._fd)

    @contextlib.contextmanager
    def folder(self, name: str, create: bool = False) -> Iterator[SafeFolder | None]:
        """The folder of a name; None if others can write to it or it is not a folder. ``create`` replaces it then."""
        descriptor = self._folder(name)
        if descriptor is None and create:
            self.remove(name)
            with contextlib.suppress(FileExistsError):  # another process was as quick
                os.mkdir(name, 0o700, dir_fd=self._fd)
            descriptor = self._folder(name)
            if descriptor is None:
                raise PermissionError(errno.EPERM, f"{name} in it cannot be removed")
        try:
            yield None if descriptor is None else SafeFolder(descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _folder(self, name: str) -> int | None:
        descriptor = _try_open(name, _FOLDER | os.O_NOFOLLOW, self._fd)
        if descriptor is not None:
            info = os.fstat(descriptor)
            if info.st_uid != os.geteuid() or info.st_mode & _OTHERS:
                os.close(descriptor)
                return None
        return descriptor

    def open(self, name: str, flags: int) -> int | None:
        """A descriptor of a plain file; None if there is none of that name."""
        descriptor = _try_open(name, flags | _FILE, self._fd)
        if descriptor is not None:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_nlink != 1:
                os.close(descriptor)
                return None
        return descriptor

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """A plain file to read and write, created if there is none; anything else of its name is removed.

        Raises FileNotFoundError if this folder was removed in the meantime.
        """
        descriptor = self.open(name, os.O_RDWR | os.O_CREAT)
        if descriptor is None:
            self.remove(name)
            descriptor = self.open(name, os.O_RDWR | os.O_CREAT)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, f"{name} in it cannot be made")
        with open(descriptor, "r+b") as file:
            yield file

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a small plain file; None if there is none."""
        descriptor = self.open(name, os.O_RDONLY)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as file:
            content = file.read(max_bytes + 1)
        return content if len(content) <= max_bytes else None

    def size(self, name: str) -> int | None:
        """Bytes of a plain file; None if there is none."""
        descriptor = self.open(name, os.O_RDONLY)
        if descriptor is None:
            return None
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def holds(self, name: str, what: SafeFolder | BinaryIO) -> bool:
        """Whether the name still belongs to what was opened by it."""
        descriptor = what._fd if isinstance(what, SafeFolder) else what.fileno()
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(name, dir_fd=self._fd))
        except FileNotFoundError:
            return False

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder; what had the new name is removed."""
        try:
            os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            self.remove(new)
            os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with all that is in it."""
        assert "/" not in name
        assert name not in ("", ".", "..")
        with contextlib.suppress(OSError):
            _remove(name, self._fd, _MAX_DEPTH)


def _remove(name: str, folder: int, depth: int) -> None:
    if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        for inside in os.listdir(descriptor) if depth else ():
            _remove(inside, descriptor, depth - 1)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=folder)


def _try_open(name: str, flags: int, folder: int) -> int | None:
    try:
        return os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None
