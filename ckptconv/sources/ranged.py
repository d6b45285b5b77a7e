"""A remote file that is read like a local one: fetched bytes are kept in a private file, and each is fetched once."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

from ckptconv.errors import EnvironmentMissingError, UnreadableError
from ckptconv.sources.file import RemotePath, Source, Transfer
from ckptconv.sources.interface import Fetching, RemoteFile

_AHEAD = 1 << 16
_WASTE = 1 << 19


class RangeSet:
    """Which bytes were fetched: disjoint ranges, in order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The gaps between two offsets."""
        gaps = []
        for i in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[i] >= end:
                break
            if self._starts[i] > start:
                gaps.append((start, self._starts[i]))
            start = self._ends[i]
        if start < end:
            gaps.append((start, end))
        return gaps


def merge_ranges(ranges: Iterable[tuple[int, int]], waste: int) -> list[tuple[int, int]]:
    """The ranges in order, joined over the smallest gaps, as many as take at most ``waste`` bytes in all."""
    merged = _joined(ranges)
    gaps = sorted((after[0] - before[1], before[1]) for before, after in pairwise(merged))
    total = accumulate(length for length, _ in gaps)
    return _joined([*merged, *((at, at + gap) for (gap, at), sum_ in zip(gaps, total, strict=True) if sum_ <= waste)])


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order; those that overlap or touch are one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return joined


@contextlib.contextmanager
def disk_space_for(what: str) -> Iterator[None]:
    """Raises EnvironmentMissingError for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise EnvironmentMissingError(
            f"there is no disk space for {what}", "Free some space, or name another folder."
        ) from None


class RemoteSource(Source):
    """A remote file as a Source. Its private file has no name: a crash leaves nothing of it."""

    is_local = False

    def __init__(self, path: RemotePath, remote: RemoteFile, fetching: Fetching) -> None:
        self.path = path
        self.name = path.name
        if not remote.size:
            remote.close()
            raise UnreadableError(f"{path} is empty", "Nothing was uploaded there, or it is another file.")
        self.size = remote.size
        self._remote = remote
        self._progress = fetching.progress
        self._fetched = RangeSet()
        self._lock = threading.Lock()
        self._wasted = 0
        self._file = tempfile.TemporaryFile(prefix="ckptconv-", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._fd = self._file.fileno()
        with disk_space_for("the fetched data (TMPDIR names the folder)"):
            os.ftruncate(self._fd, self.size)
            self._put(0, remote.head)
        published = str(remote.published) if remote.published else ""
        self.transfer = Transfer(str(path), self.size, remote.version, published)
        self._count()

    def read(self, offset: int, length: int) -> bytes:
        self._require(offset, length)
        return super().read(offset, length)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self._require(offset, len(buffer))
        super().read_into(buffer, offset)

    def copy_to(self, target: int, at: int, offset: int, length: int) -> bool:
        self._require(offset, length)
        return super().copy_to(target, at, offset, length)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        with self._lock:
            gaps = [gap for start, end in ranges for gap in self._fetched.missing(start, min(end, self.size))]
            parts = merge_ranges(gaps, _WASTE - self._wasted)
            self._wasted += sum(b - a for a, b in parts) - sum(b - a for a, b in merge_ranges(gaps, 0))
            total, done = sum(end - start for start, end in parts), 0
            for start, end in parts:
                for count in self._fetch(start, end):
                    done += count
                    if self._progress is not None:
                        self._progress(done, total)

    def _require(self, offset: int, length: int) -> None:
        """Fetch the missing bytes of a range; if they are few, also the bytes after them."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.truncated()
        with self._lock:
            for start, end in self._fetched.missing(offset, offset + length):
                end = min(max(end, start + _AHEAD), self.size)
                if end == self.size:  # a zip's directory is at the end, and is read backwards
                    start = max(0, min(start, end - _AHEAD))
                for gap in self._fetched.missing(start, end):
                    for _ in self._fetch(*gap):
                        pass

    def _fetch(self, start: int, end: int) -> Iterator[int]:
        with disk_space_for("the fetched data (TMPDIR names the folder)"):
            for block in self._remote.read(start, end):
                self._put(start, block)
                start += len(block)
                self._count()
                yield len(block)

    def _put(self, at: int, block: bytes) -> None:
        done = 0
        while done < len(block):
            done += os.pwrite(self._fd, memoryview(block)[done:], at + done)
        if block:
            self._fetched.add(at, at + len(block))

    def _count(self) -> None:
        assert self.transfer is not None
        self.transfer.fetched, self.transfer.requests = self._remote.received, self._remote.requests

    def truncated(self) -> UnreadableError:
        return UnreadableError(f"{self.path} is truncated ({self.size:,} bytes)", "The upload was incomplete.")

    def require_unchanged(self) -> None:
        self._remote.require_unchanged()
        self._count()

    def close(self) -> None:
        self._remote.close()
        self._file.close()
