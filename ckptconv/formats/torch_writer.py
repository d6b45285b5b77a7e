"""Writes the zip format of torch.save, byte for byte the same for the same input.

The pickle has no opcode and names nothing that torch 1.13 does not take under `weights_only=True` (its
`torch/_weights_only_unpickler.py`): OrderedDict, `_rebuild_tensor_v2` and storage classes; for types that only newer
torch has, `_rebuild_tensor_v3`. Records are stored, aligned to 64 bytes as torch does for mmap.
Sources: `torch/serialization.py`, `caffe2/serialize/inline_container.cc`; opcodes: `Lib/pickletools.py`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO

from ckptconv.errors import UsageError
from ckptconv.formats.copy import copy_piece
from ckptconv.formats.interface import Piece, WriteProgress
from ckptconv.spec import TensorSpec

_ROOT = "archive/"
_ALIGN = 64
_DATE = 33  # 1 January 1980, the first day a zip knows
_WIDE = 0xFFFFFFFF


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")  # as pickle does
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _plain(value: object) -> bytes:
    """A value of plain types as pickle opcodes; no floats: torch 1.13's unpickler does not know their opcode."""
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return b"](" + b"".join(map(_plain, value)) + b"e"
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_plain(k) + _plain(v) for k, v in value.items()) + b"u"
    raise UsageError(f"a value of type {type(value).__name__} is not plain data")


def _lengths(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def _tensor(key: str, spec: TensorSpec) -> bytes:
    """A call of torch's rebuild function: storage, offset, shape, strides, requires_grad, hooks[, dtype]."""
    typed = spec.dtype.storage
    storage = f"ctorch\n{typed}\n" if typed else "ctorch.storage\nUntypedStorage\n"
    persistent = (
        b"(" + _text("storage") + storage.encode() + _text(key) + _text("cpu")
        + _integer(spec.numel if typed else spec.nbytes) + b"tQ"
    )  # fmt: skip
    view = b"K\x00" + _lengths(spec.shape) + _lengths(spec.strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    if typed:
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + view + b"tR"
    return b"ctorch._utils\n_rebuild_tensor_v3\n(" + persistent + view + f"ctorch\n{spec.dtype}\n".encode() + b"tR"


def pickled(specs: Sequence[tuple[str, TensorSpec]], meta: Mapping[str, object], section: str) -> bytes:
    """The pickle of ``{section: {name: tensor}, "meta": meta}``; the i-th tensor's storage has the key "i"."""
    tensors = b"".join(_text(name) + _tensor(str(i), spec) for i, (name, spec) in enumerate(specs))
    return b"\x80\x02}(" + _text(section) + b"}(" + tensors + b"u" + _text("meta") + _plain(meta) + b"u."


class _Zip:
    """A zip archive of stored records, written front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._entries: list[bytes] = []
        self._patches: list[tuple[int, int]] = []

    def add(self, name: str, data: bytes) -> None:
        """One record with bytes in memory."""
        self._add(name, len(data), zlib.crc32(data), lambda: self._file.write(data))

    def add_piece(self, name: str, piece: Piece, seen: WriteProgress) -> None:
        """One record of a tensor's bytes; `finish` fills in a checksum that the source does not have."""
        self._add(name, piece.spec.nbytes, piece.crc, lambda: copy_piece(piece, self._file, seen, needs_crc=True))

    def _add(self, name: str, size: int, crc: int | None, fill: Callable[[], int]) -> None:
        raw = (_ROOT + name).encode()
        header, wide = self._at, size >= _WIDE
        extra = struct.pack("<2H2Q", 1, 16, size, size) if wide else b""
        start = header + 30 + len(raw) + len(extra) + 4
        padding = -start % _ALIGN
        extra += struct.pack("<2H", 0x4246, padding) + b"Z" * padding
        narrow = _WIDE if wide else size
        fields = (b"PK\3\4", 45 if wide else 20, 0x800, 0, 0, _DATE, crc or 0, narrow, narrow, len(raw), len(extra))
        self._file.write(struct.pack("<4s5H3L2H", *fields) + raw + extra)
        computed = fill()
        if crc is None:
            self._patches.append((header + 14, computed))
            crc = computed
        self._at = start + padding + size
        wides = [v for v, is_wide in ((size, wide), (size, wide), (header, header >= _WIDE)) if is_wide]
        extra = struct.pack(f"<2H{len(wides)}Q", 1, 8 * len(wides), *wides) if wides else b""
        entry = (b"PK\1\2", 45, 45 if wides else 20, 0x800, 0, 0, _DATE, crc, narrow, narrow, len(raw), len(extra))
        self._entries.append(struct.pack("<4s6H3L5H2L", *entry, 0, 0, 0, 0, min(header, _WIDE)) + raw + extra)

    def finish(self) -> None:
        directory = b"".join(self._entries)
        count, size, start = len(self._entries), len(directory), self._at
        end = b""
        if count >= 0xFFFF or start >= _WIDE:
            end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
            end += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
        few = min(count, 0xFFFF)
        end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, few, few, size, min(start, _WIDE), 0)
        self._file.write(directory + end)
        for at, crc in self._patches:
            self._file.seek(at)
            self._file.write(struct.pack("<L", crc))


def write(
    file: BinaryIO,
    pieces: Sequence[Piece],
    meta: Mapping[str, object],
    seen: WriteProgress,
    section: str = "state_dict",
) -> None:
    """Write pieces, under ``section``, and metadata; verifying the source and its checksums is the caller's."""
    archive = _Zip(file)
    data = pickled([(p.name, p.spec) for p in pieces], meta, section)
    archive.add("data.pkl", data)
    archive.add("byteorder", b"little")
    for i, piece in enumerate(pieces):
        archive.add_piece(f"data/{i}", piece, seen)
    archive.add("version", b"3\n")
    archive.finish()
