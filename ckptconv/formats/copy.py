"""Copies a tensor's bytes into the file that is being written: inside the kernel if a file holds them as they are."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from ckptconv.formats.interface import Piece, WriteProgress

_WORTH_A_CALL = 1 << 16
_AT_ONCE = 1 << 24


def copy_piece(piece: Piece, file: BinaryIO, seen: WriteProgress, needs_crc: bool) -> int:
    """Append the piece to the file. Returns its CRC-32 if ``needs_crc``, and computes it where the source has none."""
    unknown = needs_crc and piece.crc is None
    if piece.location is not None and not unknown and piece.spec.nbytes >= _WORTH_A_CALL and _copied(piece, file, seen):
        return piece.crc or 0
    crc = 0
    for chunk in piece.read(False):
        if unknown:
            crc = zlib.crc32(chunk, crc)
        file.write(chunk)
        seen(piece.name, len(chunk))
    return crc if piece.crc is None else piece.crc


def _copied(piece: Piece, file: BinaryIO, seen: WriteProgress) -> bool:
    """Whether the kernel copied the piece; if not, the file's position is unchanged."""
    assert piece.location is not None
    source, offset = piece.location
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
