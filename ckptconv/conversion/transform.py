"""Plan x Checkpoint -> a lazy stream of named bytes. Bytes move here and in the writers, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from ckptconv.formats.interface import Checkpoint, Piece, split
from ckptconv.formats.storage import StoredTensor
from ckptconv.planning.matching import Move
from ckptconv.planning.plan import Plan
from ckptconv.spec import TensorSpec


def transform(plan: Plan, checkpoint: Checkpoint) -> list[Piece]:
    """The pieces of a complete plan, in the plan's order. No tensor is read before its piece is."""
    return [_piece(move, plan.section, checkpoint) for move in plan.moves]


def as_they_are(section: str, checkpoint: Checkpoint) -> list[Piece]:
    """The pieces of a whole section, under the names they have."""
    return [_as_it_is(name, t.spec, t, checkpoint) for name, t in checkpoint.tensors(section).items()]


def _as_it_is(name: str, spec: TensorSpec, tensor: StoredTensor, checkpoint: Checkpoint) -> Piece:
    return Piece(
        name,
        spec,
        checkpoint.checksum(tensor),
        lambda verify: checkpoint.chunks(tensor, verify),
        checkpoint.location(tensor),
    )


def _piece(move: Move, section: str, checkpoint: Checkpoint) -> Piece:
    tensors = [checkpoint.tensors(section)[source] for source in move.sources]
    op = move.op
    if op is None:
        return _as_it_is(move.target, move.spec, tensors[0], checkpoint)

    def changed(verify: bool) -> Iterator[bytes]:
        return split(op.apply([checkpoint.array(t, verify) for t in tensors]).tobytes())

    return Piece(move.target, move.spec, None, changed)
