"""The directory of a zip archive, read as strictly as a checkpoint allows.

torch writes stored records under unique names, one after another, with nothing before or after them. Any other zip
(compressed, encrypted, with one name twice, with overlapping records) has two meanings or hides something. It is
refused. Layout: PKWARE's APPNOTE 4.3, 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from ckptconv.errors import UnreadableError
from ckptconv.sources.file import Source

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 16 << 20
_MAX_PADDING = 4096  # torch aligns records to 64 bytes, or to what its caller asks for
_NARROW = 0xFFFFFFFF
_ENCRYPTED = 0x2041


@dataclass(frozen=True)
class ZipEntry:
    """One record: checksum, bytes in the file, its local header, where the next one may start, whether it is stored."""

    name: str
    crc: int
    size: int
    header: int
    limit: int
    plain: bool


class ZipDirectory:
    """The records of an archive by name. Raises UnreadableError for an archive that could mean two things."""

    def __init__(self, source: Source) -> None:
        self._source = source
        start, size, count = self._end()
        if size > _MAX_DIRECTORY:
            raise self._manipulated(f"its directory takes {size:,} bytes")
        self.records = self._entries(source.read(start, size), count, start)

    def _manipulated(self, what: str) -> UnreadableError:
        return UnreadableError(
            f"{self._source.path} is a damaged or manipulated zip archive: {what}",
            "torch.save does not write such files. Download it again from its source.",
        )

    def _end(self) -> tuple[int, int, int]:
        """Offset, size and number of entries of the central directory."""
        source = self._source
        if source.size < _END.size:
            raise source.truncated()
        at = source.size - _END.size
        magic, disk, start_disk, here, count, size, start, comment = _END.unpack(source.read(at, _END.size))
        if magic != b"PK\5\6":
            tail = source.read(max(0, source.size - 65557), min(source.size, 65557))
            last = tail.rfind(b"PK\5\6")
            if last < 0 or last + _END.size > len(tail):
                raise source.truncated()
            raise self._manipulated("data follows its end")
        if comment or disk or start_disk or here != count:
            raise self._manipulated("its end record is not one that torch writes")
        if at >= _LOCATOR.size:
            magic64, _, at64, _ = _LOCATOR.unpack(source.read(at - _LOCATOR.size, _LOCATOR.size))
            if magic64 == b"PK\6\7":
                at -= _LOCATOR.size
                if at64 + _END64.size > at:
                    raise self._manipulated("its zip64 end record is outside of the file")
                magic64, _, _, _, _, _, here64, count64, size64, start64 = _END64.unpack(source.read(at64, _END64.size))
                if magic64 != b"PK\6\6" or here64 != count64:
                    raise self._manipulated("its zip64 end record is invalid")
                for narrow, wide, full in (
                    (count, count64, 0xFFFF),
                    (size, size64, _NARROW),
                    (start, start64, _NARROW),
                ):
                    if narrow not in (wide, full):
                        raise self._manipulated("its two end records differ")
                count, size, start, at = count64, size64, start64, at64
        if start + size != at:
            raise self._manipulated("its directory is not where its end record says")
        return start, size, count

    def _entries(self, directory: bytes, count: int, end: int) -> dict[str, ZipEntry]:
        entries: list[tuple[int, ZipEntry]] = []
        at = 0
        while at < len(directory):
            if at + _ENTRY.size > len(directory):
                raise self._manipulated("its directory is truncated")
            fields = _ENTRY.unpack_from(directory, at)
            magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length = fields[:13]
            header = fields[16]
            if magic != b"PK\1\2":
                raise self._manipulated("its directory has an invalid entry")
            at += _ENTRY.size
            raw = directory[at : at + name_length]
            extra = directory[at + name_length : at + name_length + extra_length]
            at += name_length + extra_length + comment_length
            try:
                name = raw.decode("utf-8")
            except UnicodeDecodeError:
                raise self._manipulated("a record's name is not text") from None
            if at > len(directory):
                raise self._manipulated("its directory is truncated")
            if flags & _ENCRYPTED:
                raise self._manipulated(f"the record '{name}' is encrypted")
            size, packed, header = self._widened(extra, size, packed, header)
            plain = method == 0 and packed == size
            entries.append((header, ZipEntry(name, crc, packed, header, 0, plain)))
        if len(entries) != count:
            raise self._manipulated(f"its directory has {len(entries)} entries and announces {count}")
        return self._by_name(entries, end)

    def _widened(self, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
        """The three fields, from the zip64 extra field where the entry is too narrow for them."""
        at, wide = 0, b""
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                wide = extra[at + 4 : at + 4 + length]
            at += 4 + length
        values = []
        for narrow in (size, packed, header):
            if narrow == _NARROW and wide:
                if len(wide) < 8:
                    raise self._manipulated("a zip64 field is truncated")
                narrow, wide = int.from_bytes(wide[:8], "little"), wide[8:]
            values.append(narrow)
        return values[0], values[1], values[2]

    def _by_name(self, entries: list[tuple[int, ZipEntry]], end: int) -> dict[str, ZipEntry]:
        """The records by name, each with the offset where the next one starts."""
        records: dict[str, ZipEntry] = {}
        entries.sort(key=lambda pair: pair[0])
        limits = [header for header, _ in entries[1:]] + [end]
        for (header, record), limit in zip(entries, limits, strict=False):
            if record.name in records:
                raise self._manipulated(f"it holds two records named '{record.name}'")
            if header + _LOCAL.size + len(record.name.encode()) + record.size > limit:
                raise self._manipulated(f"the record '{record.name}' overlaps another or is outside of the file")
            records[record.name] = replace(record, limit=limit)
        if entries and entries[0][0] != 0:
            raise self._manipulated("data precedes its first record")
        return records

    def require_plain(self) -> None:
        """Refuse compressed records, which torch.save never writes: a few bytes could expand to any number."""
        for record in self.records.values():
            if not record.plain:
                raise self._manipulated(f"the record '{record.name}' is compressed")

    def extent(self, record: ZipEntry) -> tuple[int, int]:
        """First and last offset of what `locate` and a reader of the record need."""
        room = record.header + _LOCAL.size + len(record.name.encode()) + record.size + _MAX_PADDING
        return record.header, min(record.limit, room)

    def locate(self, record: ZipEntry) -> int:
        """Where a record's bytes start, read from its local header, which must agree with the directory."""
        raw = record.name.encode()
        local = self._source.read(record.header, _LOCAL.size + len(raw))
        magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(local)
        if magic != b"PK\3\4" or local[_LOCAL.size :] != raw or name_length != len(raw):
            raise self._manipulated(f"the record '{record.name}' has another name in its own header")
        if flags & _ENCRYPTED:
            raise self._manipulated(f"the record '{record.name}' is encrypted")
        late = bool(flags & 8)  # checksum and size follow the data
        wide = packed == _NARROW or size == _NARROW
        if method or (not late and (crc != record.crc or not (wide or packed == size == record.size))):
            raise self._manipulated(f"the record '{record.name}' has another size in its own header")
        start: int = record.header + _LOCAL.size + name_length + extra_length
        if start + record.size > record.limit:
            raise self._manipulated(f"the record '{record.name}' overlaps another or is outside of the file")
        return start
