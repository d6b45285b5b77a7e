"""Read the output back and compare it, byte for byte, with the plan applied to the source once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ckptconv.errors import CkptconvError, ProofError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Piece


def prove(
    path: Path, pieces: Sequence[Piece], section: str, seen: Callable[[str, int], None] = lambda _name, _count: None
) -> int:
    """How many tensors of the file at ``path`` equal their pieces: all of them, or ProofError says which does not.

    ``seen`` is called with the name of each that does, and its bytes.
    """
    try:
        with open_checkpoint(path) as written:
            stored = written.tensors(section) if section in written.sections else {}
            if set(stored) != {piece.name for piece in pieces}:
                raise ProofError("the file that was written holds other names than planned", _BUG)
            for piece in pieces:
                tensor = stored[piece.name]
                same = tensor.spec == piece.spec and all(
                    wanted == found
                    for wanted, found in zip(piece.read(False), written.chunks(tensor, verify=False), strict=True)
                )
                if not same:
                    raise ProofError(f"{piece.name} was not written as it was read", _BUG)
                seen(piece.name, piece.spec.nbytes)
    except ProofError:
        raise
    except (CkptconvError, ValueError) as error:
        raise ProofError(f"the file that was written cannot be read back: {error}", _BUG) from error
    return len(pieces)


_BUG = "Nothing was kept. Check the disk; if it is sound, this is a bug of ckptconv: please report it."
