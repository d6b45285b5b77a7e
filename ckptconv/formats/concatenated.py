"""Byte ranges of open files as one file, and the checksum of concatenated bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from ckptconv.errors import UnreadableError
from ckptconv.sources.file import Source

ByteRange = tuple[Source, int, int]
"""A file, an offset in it, and a count of bytes."""

_POLYNOMIAL = 0xEDB88320  # CRC-32, bits reversed: the highest bit is the coefficient of 1
_ONE, _X = 1 << 31, 1 << 30


class ConcatenatedSource(Source):
    """Byte ranges one after another. Whoever opened the files closes them and watches them for changes."""

    def __init__(self, byte_ranges: Sequence[ByteRange]) -> None:
        self._byte_ranges = tuple(byte_ranges)
        self.path, self.name = byte_ranges[0][0].path, byte_ranges[0][0].name
        self.size = sum(length for _, _, length in byte_ranges)

    def _within(self, offset: int, length: int) -> Iterator[tuple[Source, int, int, int]]:
        """The parts of a range: file, offset there, length, and offset in the result."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.truncated()
        start = 0
        for source, at, size in self._byte_ranges:
            first, last = max(offset, start), min(offset + length, start + size)
            if first < last:
                yield source, at + first - start, last - first, first - offset
            start += size

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(source.read(at, count) for source, at, count, _ in self._within(offset, length))

    def read_into(self, buffer: memoryview, offset: int) -> None:
        for source, at, count, to in self._within(offset, len(buffer)):
            source.read_into(buffer[to : to + count], at)

    def copy_to(self, target: int, at: int, offset: int, length: int) -> bool:
        parts = self._within(offset, length)
        return all(source.copy_to(target, at + to, start, count) for source, start, count, to in parts)

    def truncated(self) -> UnreadableError:
        return UnreadableError(
            f"{self.path}: a part of {self.size:,} bytes is truncated",
            "The file is damaged. Download it again from its source.",
        )

    def require_unchanged(self) -> None:
        """Its files are checked where they were opened."""

    def close(self) -> None:
        """Its files are closed where they were opened."""


def concatenated_crc(first: int, second: int, length: int) -> int:
    """The CRC-32 of two concatenated parts, from that of each; the second part has ``length`` bytes."""
    return _product(first, _shift(length)) ^ second


@lru_cache(256)  # parts of one tensor have the same length
def _shift(length: int) -> int:
    """The factor of a checksum that ``length`` bytes follow."""
    power, factor, bits = _X, _ONE, 8 * length
    while bits:
        if bits & 1:
            factor = _product(factor, power)
        power = _product(power, power)
        bits >>= 1
    return factor


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the one of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
