"""Small text files that a user names: read whole, if that is what they are."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def is_file(path: Path | str) -> bool:
    """Whether there is a regular file; not for what cannot be the name of one, either."""
    return os.path.isfile(path)  # noqa: PTH113 (that of pathlib raises where a name is too long)


def read_small(path: Path, most: int) -> bytes:
    """All of a regular file of at most ``most`` bytes. Raises OSError, whose ``strerror`` says why it is none."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # of a NUL, or of letters that no name of a file can have
        raise OSError(errno.EINVAL, "it is not the name of a file") from None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
    return content
