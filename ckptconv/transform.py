"""Plan x Checkpoint -> a lazy stream of named bytes. Bytes move here and in the writers, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from ckptconv.formats.interface import Checkpoint, Piece, split
from ckptconv.planning import Move, Plan


def transform(plan: Plan, checkpoint: Checkpoint) -> list[Piece]:
    """The pieces of a complete plan, in the plan's order. No tensor is read before its piece is."""
    return [_piece(move, plan.section, checkpoint) for move in plan.moves]


def _piece(move: Move, section: str, checkpoint: Checkpoint) -> Piece:
    tensors = [checkpoint.tensors(section)[source] for source in move.sources]
    op = move.op
    if op is None:
        (tensor,) = tensors
        return Piece(
            move.target,
            move.spec,
            checkpoint.checksum(tensor),
            lambda verify: checkpoint.chunks(tensor, verify),
            checkpoint.place(tensor),
        )

    def changed(verify: bool) -> Iterator[bytes]:
        return split(op.apply([checkpoint.array(t, verify) for t in tensors]).tobytes())

    return Piece(move.target, move.spec, None, changed)
