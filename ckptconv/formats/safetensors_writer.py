"""Writes safetensors, byte for byte the same for the same input.

Tensors are sorted by element size, largest first, and then by name, so that each is aligned.
Source: the safetensors repository's README, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.formats.copy import copy_piece
from ckptconv.formats.interface import Piece, WriteProgress

_TORCH = f"Write a torch file: {argument('format', 'torch')}."


def in_order(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces in the order they are written. Raises UsageError for a type the format has no word for."""
    for piece in pieces:
        if piece.name == "__metadata__" or any("\ud800" <= letter <= "\udfff" for letter in piece.name):
            raise UsageError(
                f"safetensors cannot hold the name {piece.name!r}",
                _TORCH,
                "format",
            )
        if piece.spec.dtype.safetensors is None:
            raise UsageError(
                f"safetensors cannot hold {piece.name}: it has no {piece.spec.dtype}",
                _TORCH,
                "format",
            )
    return sorted(pieces, key=lambda p: (-p.spec.dtype.itemsize, p.name))


def write(file: BinaryIO, pieces: Sequence[Piece], metadata: Mapping[str, str], seen: WriteProgress) -> None:
    """Write pieces that are `in_order`; verifying the source is the caller's."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for piece in pieces:
        end = at + piece.spec.nbytes
        code = piece.spec.dtype.safetensors
        header[piece.name] = {"dtype": code, "shape": list(piece.spec.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    file.write(len(raw).to_bytes(8, "little") + raw)
    for piece in pieces:
        copy_piece(piece, file, seen, needs_crc=False)
