"""Ops made of ops: one op on the results of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ckptconv.ops.interface import Op, OpError
from ckptconv.ops.moving import Regroup
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array

_T = TypeVar("_T")


@dataclass(frozen=True)
class Composed(Op):
    """``op`` on parts: ``inner[i]``, if any, makes part i from the next ``counts[i]`` tensors."""

    op: Op
    inner: tuple[Op | None, ...]
    counts: tuple[int, ...]

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        made = [op.spec(some) if op else some[0] for op, some in self._dealt(parts)]
        return self.op.spec(made)

    def apply(self, parts: Sequence[Array]) -> Array:
        return self.op.apply([op.apply(some) if op else some[0] for op, some in self._dealt(parts)])

    def _dealt(self, parts: Sequence[_T]) -> Iterator[tuple[Op | None, Sequence[_T]]]:
        at = 0
        for op, count in zip(self.inner, self.counts, strict=True):
            yield op, parts[at : at + count]
            at += count

    def __str__(self) -> str:
        first = ", ".join(dict.fromkeys(str(op) for op in self.inner if op))
        return f"{first}, {self.op}"


def compose(op: Op | None, inner: Sequence[tuple[Op | None, int]]) -> Op | None:
    """``op`` on parts, each made from a number of tensors by its own op; None if nothing changes."""
    if all(own is None for own, _ in inner):
        return op
    if op is None:
        return inner[0][0]
    if isinstance(op, Regroup) and inner[0][0] == replace(op, back=not op.back):
        return None
    return Composed(op, tuple(own for own, _ in inner), tuple(count for _, count in inner))


def chain(first: Op, *then: Op) -> Op:
    """One op after another, each on the result of the previous one. Raises OpError for a value that is not an op."""
    for op in (first, *then):
        if not isinstance(op, Op):
            raise OpError(f"chain() takes ops, not {op!r}", "Write chain(permute(1, 0), reshape(-1)).")
    for op in then:
        first = Composed(op, (first,), (1,))
    return first
