"""What every reader returns: named tensors, whose bytes are read when they are needed and not before."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv.errors import UnreadableError
from ckptconv.formats.dangerous_calls import is_dangerous
from ckptconv.formats.pickled_objects import ObjectInterpreter
from ckptconv.formats.storage import Extent, Storage, StoredTensor, as_stored_tensor
from ckptconv.sections import find_sections, section_at
from ckptconv.sources.file import RemotePath, Source, Transfer
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np

CHUNK = 1 << 18  # fits a core's cache; larger writes are not faster
_MAX_EXPANDED = 64 << 20  # bytes that views may expand to, however small their storages are
_MAX_COPIES = 8  # views of one storage in one section: a module is listed under each name that it has


@dataclass(frozen=True)
class Piece:
    """One tensor to write: its name, its spec, and a function that reads its bytes, contiguous and little-endian.

    ``crc`` is their CRC-32 as the source has it, None if it has none. ``read(True)`` verifies it.
    ``location`` is a file and the offset at which it holds exactly these bytes, None if no file does.
    """

    name: str
    spec: TensorSpec
    crc: int | None
    read: Callable[[bool], Iterator[bytes]]
    location: tuple[Source, int] | None = None


WriteProgress = Callable[[str, int], None]
"""A writer calls it with a tensor's name and the number of bytes that it has just written."""


def split(data: bytes) -> Iterator[bytes]:
    """Chunks of `CHUNK` bytes; the last one is shorter."""
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


@dataclass
class Checkpoint:
    """An opened file: the sections it holds, and a way to the bytes of each tensor.

    ``named`` lists the globals that its pickle names; ``called`` those that it would have called, except the ones that
    describe tensors. None was imported or called. ``locate`` finds a storage; ``extent`` tells which bytes that will
    read, and reads nothing.
    """

    path: Path | RemotePath
    format: str
    sources: tuple[Source, ...]
    tree: object
    locate: Callable[[str], Storage]
    nbytes_of: Callable[[str], int]
    extent: Callable[[str], Extent | None]
    named: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    called: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.sections = find_sections(self.tree, ObjectInterpreter(_spec_of))
        self._tensors: dict[str, Mapping[str, StoredTensor]] = {}
        self._verified: set[str] = set()
        for path in self.sections:
            self.tensors(path)

    @property
    def size(self) -> int:
        return sum(source.size for source in self.sources)

    @property
    def dangerous(self) -> tuple[str, ...]:
        """What unpickling the file would have run: calls that do more than make the objects that it describes."""
        return tuple(name for name in self.called if is_dangerous(name))

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """How its files were fetched, if they are remote."""
        return tuple(source.transfer for source in self.sources if source.transfer)

    def tensors(self, path: str) -> Mapping[str, StoredTensor]:
        """The tensors of the section at a dotted path."""
        if path not in self._tensors:
            section = section_at(self.sections, path)
            if section is None:
                raise KeyError(path)
            tensors = {k: t for k in section.tensors if (t := as_stored_tensor(section.node[k])) is not None}
            for name, tensor in tensors.items():
                self.require_valid(name, tensor)
            self._require_bounded(tensors.values())
            self._tensors[path] = tensors
        return self._tensors[path]

    def fetch(self, tensors: Iterable[StoredTensor]) -> None:
        """Fetch the bytes of these tensors from remote files, in few requests."""
        wanted: dict[Source, dict[tuple[int, int], None]] = {}
        for tensor in tensors:
            extent = self.extent(tensor.storage)
            if extent is not None and not extent[0].is_local:
                wanted.setdefault(extent[0], {})[extent[1:]] = None
        for source, ranges in wanted.items():
            source.prefetch(ranges)

    def checksums(self, tensors: Iterable[StoredTensor]) -> int:
        """How many storages of these tensors have a checksum, which is verified when they are read."""
        return sum(self.locate(key).crc is not None for key in {tensor.storage for tensor in tensors})

    def require_valid(self, name: str, tensor: StoredTensor) -> None:
        """Refuse a view that reaches outside its storage, or that expands to far more than the file holds."""
        itemsize = tensor.spec.dtype.itemsize
        if tensor.spec.numel and (tensor.offset + tensor.extent) * itemsize > self.nbytes_of(tensor.storage):
            raise UnreadableError(
                f"{self.path}: the tensor {name} reaches outside its storage '{tensor.storage}'",
                "The file is damaged or malicious. Download it again from its source.",
            )
        if tensor.spec.nbytes > max(_MAX_EXPANDED, 2 * self.size):
            raise UnreadableError(
                f"{self.path}: {name} expands {tensor.extent * itemsize:,} bytes into {tensor.spec.nbytes:,}",
                "The file was made to fill the memory. Download it again from its source.",
            )

    def _require_bounded(self, tensors: Collection[StoredTensor]) -> None:
        """Refuse a section whose tensors expand to far more than their storages hold."""
        held = sum(self.nbytes_of(key) for key in {tensor.storage for tensor in tensors})
        expanded = sum(tensor.spec.nbytes for tensor in tensors)
        if expanded > _MAX_COPIES * held + _MAX_EXPANDED:
            raise UnreadableError(
                f"{self.path}: its tensors expand {held:,} bytes into {expanded:,}",
                "The file was made to fill the memory. Download it again from its source.",
            )

    def checksum(self, tensor: StoredTensor) -> int | None:
        """The CRC-32 the container keeps of exactly this tensor's bytes, if it keeps one; `chunks` verifies it."""
        storage = self.locate(tensor.storage)
        whole = tensor.contiguous and tensor.offset == 0 and tensor.spec.nbytes == storage.nbytes
        return storage.crc if whole and not storage.big_endian else None

    def location(self, tensor: StoredTensor) -> tuple[Source, int] | None:
        """The file and the offset at which it holds the tensor's contiguous bytes; None if no file does."""
        storage = self.locate(tensor.storage)
        if storage.source is None or not storage.plain or not tensor.contiguous:
            return None
        return storage.source, storage.offset + tensor.offset * tensor.spec.dtype.itemsize

    def chunks(self, tensor: StoredTensor, verify: bool = True) -> Iterator[bytes]:
        """The tensor's bytes in order, little-endian, in chunks of up to `CHUNK` bytes.

        With ``verify``, the storage's checksum is compared; a difference raises UnreadableError.
        """
        storage = self.locate(tensor.storage)
        if not tensor.contiguous or not storage.plain:
            yield from split(self.array(tensor, verify).tobytes())
            return
        expected = self.checksum(tensor) if verify else None
        if verify and expected is None:
            self._verify(tensor.storage, storage)
        crc = 0
        for chunk in self._read(storage, tensor.offset * tensor.spec.dtype.itemsize, tensor.spec.nbytes):
            if expected is not None:
                crc = zlib.crc32(chunk, crc)
            yield chunk
        if expected is not None and crc != expected:
            raise self._damaged(tensor.storage)

    def _read(self, storage: Storage, start: int, length: int) -> Iterator[bytes]:
        assert storage.source is not None
        at, end = storage.offset + start, storage.offset + start + length
        while at < end:
            chunk = storage.source.read(at, min(CHUNK, end - at))
            yield chunk
            at += len(chunk)

    def _verify(self, key: str, storage: Storage) -> None:
        """Compare the checksum of a storage that is not read as a whole, once."""
        if key in self._verified or storage.crc is None:
            return
        crc = 0
        for chunk in self._read(storage, 0, storage.nbytes):
            crc = zlib.crc32(chunk, crc)
        if crc != storage.crc:
            raise self._damaged(key)
        self._verified.add(key)

    def _damaged(self, key: str) -> UnreadableError:
        for source in self.sources:
            source.evict()
        return UnreadableError(
            f"{self.path}: the checksum of storage '{key}' is wrong",
            "The file was damaged in transfer or on the disk. Download it again.",
        )

    def array(self, tensor: StoredTensor, verify: bool = True) -> np.ndarray[Any, Any]:
        """The tensor as a contiguous array; types that numpy lacks become unsigned integers of their size."""
        import numpy as np

        storage = self.locate(tensor.storage)
        if verify:
            self._verify(tensor.storage, storage)
        itemsize = tensor.spec.dtype.itemsize
        kind = tensor.spec.dtype.numpy or {1: "|u1", 2: "<u2", 4: "<u4"}[itemsize]
        if tensor.spec.numel == 0:
            return np.empty(tensor.spec.shape, kind)
        start, length = tensor.offset * itemsize, tensor.extent * itemsize
        whole = storage.decoded()
        if whole is not None:
            data = bytearray(whole[start : start + length])
        else:
            data = bytearray(length)
            assert storage.source is not None
            storage.source.read_into(memoryview(data), storage.offset + start)
        flat = np.frombuffer(data, dtype=np.dtype(kind))
        if storage.big_endian:
            # a complex number is two swapped halves; a byte has nothing to swap
            unit = itemsize // 2 if tensor.spec.dtype.kind == "complex" else itemsize
            flat = flat.view(f"<u{unit}").byteswap().view(kind) if unit > 1 else flat
        strides = tuple(s * itemsize for s in tensor.strides)
        view = np.lib.stride_tricks.as_strided(flat, tensor.spec.shape, strides, writeable=False)
        contiguous: np.ndarray[Any, Any] = view.copy(order="C")
        return contiguous

    def require_unchanged(self) -> None:
        for source in self.sources:
            source.require_unchanged()

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spec_of(value: object) -> TensorSpec | None:
    tensor = as_stored_tensor(value)
    return tensor.spec if tensor else None
