"""A file that appears at its place complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ckptconv.errors import EnvironmentMissingError, UsageError


class Draft:
    """The unfinished file, beside its place: ``file`` to write to, ``path`` to read back, `commit` to publish."""

    def __init__(self, target: Path, force: bool) -> None:
        self.target = target
        self._force = force
        self.path = target.with_name(f".ckptconv-{secrets.token_hex(6)}.partial")
        self.file: BinaryIO
        self._committed = False

    def open(self) -> None:
        self.file = open(self.path, "x+b", buffering=1 << 18)  # noqa: SIM115 (closed by `close`)

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """Bring what was written to the disk while the block runs; the block's end waits for it."""
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
        """Put the file in its place. Raises UsageError if something has appeared there meanwhile."""
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(self.path, 0o666 & ~umask)
        if self._force:
            os.replace(self.path, self.target)
        else:
            try:
                os.link(self.path, self.target)  # unlike a rename, never replaces
            except FileExistsError:
                raise exists(self.target) from None
            except OSError:  # a file system without hard links
                if self.target.exists():
                    raise exists(self.target) from None
                os.rename(self.path, self.target)
            else:
                os.unlink(self.path)
        self._committed = True
        with contextlib.suppress(OSError):  # not every file system can sync a folder
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # a full disk refuses the last flush, too
            self.file.close()
        if not self._committed:
            self.path.unlink(missing_ok=True)


def exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists", "Give --force to replace it, or another name.")


def check_target(target: Path, force: bool, sources: Iterator[Path]) -> Path:
    """Where the file will really stand. Raises UsageError if it may not be written, before any work is done."""
    real = Path(os.path.realpath(target))
    try:
        real.exists()
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}", "Choose another place.") from None
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
        raise UsageError(f"the folder {real.parent} cannot be written to", "Choose another place.")
    return real


@contextlib.contextmanager
def drafting(target: Path, force: bool) -> Iterator[Draft]:
    """A draft that is removed unless it was committed. A full disk raises EnvironmentMissingError."""
    draft = Draft(target, force)
    try:
        draft.open()
        yield draft
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EnvironmentMissingError(
                f"there is no room for {target}: {error.strerror}", "Free some space; nothing was left behind."
            ) from None
        raise UsageError(f"{target} cannot be written: {error.strerror}", "Choose another place.") from None
    finally:
        draft.close()
