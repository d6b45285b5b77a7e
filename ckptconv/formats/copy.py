"""Moves a piece's bytes into the file that is being written: inside the kernel where they stand as they are wanted."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from ckptconv.formats.interface import Piece, WriteProgress

_WORTH_A_CALL = 1 << 16
_AT_ONCE = 1 << 24


def copy_piece(piece: Piece, file: BinaryIO, seen: WriteProgress, needs_crc: bool) -> int:
    """Append the piece to the file. Returns its CRC-32 if ``needs_crc``, computing it where the source keeps none."""
    unknown = needs_crc and piece.crc is None
    if piece.place is not None and not unknown and piece.spec.nbytes >= _WORTH_A_CALL and _copied(piece, file, seen):
        return piece.crc or 0
    crc = 0
    for chunk in piece.read(False):
        if unknown:
            crc = zlib.crc32(chunk, crc)
        file.write(chunk)
        seen(piece.name, len(chunk))
    return crc if piece.crc is None else piece.crc


def _copied(piece: Piece, file: BinaryIO, seen: WriteProgress) -> bool:
    """Whether the kernel could copy the piece; if not, the file stands where it stood."""
    assert piece.place is not None
    source, offset = piece.place
    start, length = file.tell(), piece.spec.nbytes
    file.flush()
    for done in range(0, length, _AT_ONCE):
        count = min(_AT_ONCE, length - done)
        if not source.copy_to(file.fileno(), start + done, offset + done, count):
            file.seek(start)
            return False
        seen(piece.name, count)
    file.seek(start + length)
    return True
