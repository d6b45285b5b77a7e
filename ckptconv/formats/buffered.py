"""Reads a file forward through a buffer: small reads cost no system call, and skipped bytes are not read."""

from __future__ import annotations

from ckptconv.formats.records import Blob, Malformed
from ckptconv.sources.file import Source

_BUFFER_SIZE = 1 << 18
_MAX_LINE = 1 << 16


class BufferedReader:
    """The bytes of ``source`` from ``start`` to ``end``."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source, self.base, self.end = source, start, end
        self.buffer = b""
        self.at = 0

    def tell(self) -> int:
        return self.base + self.at

    def take(self, count: int) -> bytes:
        at = self.at
        if at + count > len(self.buffer):
            self.refill(count)
            at = 0
        self.at = at + count
        return self.buffer[at : at + count]

    def refill(self, count: int) -> None:
        start = self.tell()
        if start + count > self.end:
            raise self.source.truncated()
        self.buffer = self.source.read(start, max(count, min(_BUFFER_SIZE, self.end - start)))
        self.base, self.at = start, 0

    def skip(self, count: int) -> Blob:
        start = self.tell()
        if start + count > self.end:
            raise self.source.truncated()
        if self.at + count <= len(self.buffer):
            self.at += count
        else:
            self.buffer, self.base, self.at = b"", start + count, 0
        return Blob(start, count)

    def line(self) -> bytes:
        newline = self.buffer.find(b"\n", self.at)
        if newline < 0:
            start = self.tell()
            self.refill(min(_MAX_LINE, self.end - start))
            newline = self.buffer.find(b"\n")
            if newline < 0:
                raise Malformed("a line has no end")
        text = self.buffer[self.at : newline]
        self.at = newline + 1
        return text
