"""A file that appears under its name complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ckptconv.arguments import argument
from ckptconv.errors import EnvironmentMissingError, UsageError

_UNFINISHED = re.compile(r"\.ckptconv-[0-9a-f]{12}\.partial")
_DESCRIPTORS = "/proc/self/fd"
_linkat = os.link
_TIME_TO_LOCK = 2.0  # seconds


class AtomicFile:
    """The unfinished file: ``file`` to write to, ``path`` to read back, `commit` to publish.

    If the system supports it, the file has no name until it is complete, and a crash leaves nothing (`open(2)`,
    O_TMPFILE). Otherwise it has a temporary name in the same folder, and is locked: an unlocked one belongs to a killed
    process, and the next process removes it.
    """

    def __init__(self, target: Path, force: bool) -> None:
        self.target = target
        self._force = force
        self._named = target.with_name(f".ckptconv-{secrets.token_hex(6)}.partial")
        self.path = self._named
        self.file: BinaryIO
        self._committed = self._has_name = False

    def open(self) -> None:
        _remove_stale(self.target.parent)
        descriptor = _nameless(self.target.parent)
        if descriptor is not None:
            self.path = Path(_DESCRIPTORS, str(descriptor))
        else:
            descriptor = os.open(self._named, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._has_name = True
        self.file = open(descriptor, "w+b", buffering=1 << 18)  # noqa: SIM115 (closed by `close`)
        with contextlib.suppress(OSError):  # not every file system has locks, and there nothing is removed
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """Sync the file to the disk while the block runs; the end of the block waits for it."""
        self.file.flush()
        failed: list[OSError] = []

        def sync() -> None:
            try:
                os.fsync(self.file.fileno())
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=sync, daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def commit(self) -> None:
        """Give the file its name. Raises UsageError if another file has that name now."""
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(self.file.fileno(), 0o666 & ~umask)
        if self._has_name or not self._publish_nameless():
            self._publish_named()
        self._committed = True
        with contextlib.suppress(OSError):  # not every file system can sync a folder
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _publish_named(self) -> None:
        if self._force:
            os.replace(self._named, self.target)
            return
        try:
            os.link(self._named, self.target)  # unlike a rename, never replaces
        except FileExistsError:
            raise exists(self.target) from None
        except OSError:  # a file system without hard links
            if self.target.exists():
                raise exists(self.target) from None
            os.rename(self._named, self.target)
        else:
            os.unlink(self._named)

    def _publish_nameless(self) -> bool:
        """Link the file to its name. False if it has only a temporary name so far, and is to replace another file.

        A link never replaces a file; a rename does.
        """
        try:
            self._link(self.target)
        except FileExistsError:
            if not self._force:
                raise exists(self.target) from None
        except OSError:  # a file system without hard links
            self._has_name = True
            self._copy()
            return False
        else:
            return True
        self._has_name = True
        self._link(self._named)
        return False

    def _link(self, name: Path) -> None:
        folder = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:  # with a folder's descriptor Python calls linkat(2), and the link of /proc is followed
            _linkat(self.path, name, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def _copy(self) -> None:
        with open(self.path, "rb") as source, open(self._named, "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))
            copy.flush()
            os.fsync(copy.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # a full disk refuses the last flush, too
            self.file.close()
        if self._has_name and not self._committed:
            self._named.unlink(missing_ok=True)


def _nameless(folder: Path) -> int | None:
    """A new file without a name in a folder; None if the system or the file system does not support it."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(_DESCRIPTORS):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EPERM):
            return None
        raise


def _remove_stale(folder: Path) -> None:
    """Remove unfinished files of this user that no process has locked."""
    for name in os.listdir(folder):
        if not _UNFINISHED.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                info = os.fstat(descriptor)
                if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and _is_old(info):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(folder / name)
            finally:
                os.close(descriptor)


def _is_old(info: os.stat_result) -> bool:
    """Whether its process has had time to lock it, which it does right after creating it."""
    return time.time() - info.st_ctime > _TIME_TO_LOCK


def exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists", f"Give {argument('force', True)} to replace it, or another name.", "force")


def check_destination(target: Path, force: bool, sources: Iterable[Path]) -> Path:
    """The real path of the file to write. Raises UsageError, before any work is done, if it may not be written."""
    try:
        real = Path(os.path.realpath(target))
        real.exists()
    except ValueError:  # a NUL, or characters that no file name can have
        raise UsageError(f"{target} is not the name of a file", "Choose another path.") from None
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}", "Choose another path.") from None
    if real.is_dir():
        raise UsageError(f"{target} is a directory", "Give the name of the file to write.")
    if not real.parent.is_dir():
        raise UsageError(f"there is no folder {real.parent}", "Make it first, or check the path.")
    if real.exists():
        for source in sources:
            if source.exists() and os.path.samefile(real, source):
                raise UsageError(
                    f"{target} is the input itself", "ckptconv never writes over its input: give another name."
                )
        if not real.is_file():
            raise UsageError(f"{target} is not a regular file", "Give the name of the file to write.")
        if not force:
            raise exists(target)
    if not os.access(real.parent, os.W_OK):
        raise UsageError(f"the folder {real.parent} cannot be written to", "Choose another path.")
    return real


@contextlib.contextmanager
def write_atomically(target: Path, force: bool) -> Iterator[AtomicFile]:
    """An `AtomicFile` that is removed unless it was committed. A full disk raises EnvironmentMissingError."""
    unfinished = AtomicFile(target, force)
    try:
        unfinished.open()
        yield unfinished
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EnvironmentMissingError(
                f"there is no disk space for {target}: {error.strerror}", "Free some space. No file was left."
            ) from None
        raise UsageError(f"{target} cannot be written: {error.strerror}", "Choose another path.") from None
    finally:
        unfinished.close()
