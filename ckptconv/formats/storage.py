"""Where a tensor's elements are: a storage, which is a run of bytes, and a view of it."""

from __future__ import annotations

from dataclasses import dataclass

from ckptconv.errors import UnreadableError
from ckptconv.sources.file import Source
from ckptconv.spec import TensorSpec

Extent = tuple[Source, int, int]
"""A file, and the start and end of the bytes that are needed to read a storage."""


@dataclass(frozen=True)
class Storage:
    """The bytes that tensors are views of: in a file at ``offset``, or in memory if ``inline`` is given.

    ``crc`` is the checksum that the container keeps, None without one. ``big_endian`` elements are swapped.
    ``text`` is not 0 if the file has the bytes as text (Latin-1 as UTF-8): then it counts the bytes of that text.
    """

    nbytes: int
    source: Source | None = None
    offset: int = 0
    crc: int | None = None
    inline: bytes | None = None
    big_endian: bool = False
    text: int = 0

    @property
    def plain(self) -> bool:
        """Whether a file holds the elements as they are."""
        return self.source is not None and not self.text and not self.big_endian

    def decoded(self) -> bytes | None:
        """All bytes, if they are in memory or are text; None if parts of them can be read from the file."""
        if self.source is None or not self.text:
            return self.inline
        try:
            data = self.source.read(self.offset, self.text).decode("utf-8").encode("latin-1")
        except UnicodeError:
            data = b""
        if len(data) != self.nbytes:
            raise UnreadableError(
                f"{self.source.path}: the text near byte {self.offset:,} is not an array's {self.nbytes:,} bytes",
                "The file is damaged or malicious. Download it again from its source.",
            )
        return data


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: offset and strides in elements."""

    spec: TensorSpec
    storage: str
    offset: int
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """Whether the elements are in order and without gaps (axes of length 1 may have any stride)."""
        wanted = self.spec.strides
        return self.spec.numel == 0 or all(
            n == 1 or have == want for n, have, want in zip(self.spec.shape, self.strides, wanted, strict=True)
        )

    @property
    def extent(self) -> int:
        """Elements from the first to the last one that the view touches."""
        if self.spec.numel == 0:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.spec.shape, self.strides, strict=True))


def as_stored_tensor(value: object) -> StoredTensor | None:
    """The stored tensor that a leaf of the tree is or has, if any."""
    if isinstance(value, StoredTensor):
        return value
    stored = getattr(value, "stored", None)
    return stored if isinstance(stored, StoredTensor) else None
