"""Ops that move elements and do not compute with them: they work on any element type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ckptconv import fields
from ckptconv.ops.interface import Op, OpError
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array


@dataclass(frozen=True)
class Concat(Op):
    """Join tensors of one type along ``axis``; all other axes agree."""

    axis: int
    arity: ClassVar[int] = 0

    def __post_init__(self) -> None:
        fields.set_fields(self, axis=fields.integer("axis", self.axis, 0))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        first = parts[0]
        if self.axis >= len(first.shape):
            raise OpError(f"{self} needs a tensor with more axes than {first}")
        for part in parts[1:]:
            alike = len(part.shape) == len(first.shape) and all(
                a == b for i, (a, b) in enumerate(zip(part.shape, first.shape, strict=True)) if i != self.axis
            )
            if not alike or part.dtype != first.dtype:
                raise OpError(f"{self} cannot join {first} and {part}")
        length = sum(part.shape[self.axis] for part in parts)
        shape = (*first.shape[: self.axis], length, *first.shape[self.axis + 1 :])
        return TensorSpec(shape, first.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        return np.concatenate(parts, axis=self.axis)

    def __str__(self) -> str:
        return f"concat(axis={self.axis})"


@dataclass(frozen=True)
class ConcatWithZeros(Op):
    """Join two tensors of one shape along their first axis, with as many zeros between them."""

    arity: ClassVar[int] = 0

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        first = parts[0]
        if len(parts) != 2 or parts[1] != first or not first.shape:
            raise OpError(f"{self} does not suit {' and '.join(map(str, parts))}")
        return TensorSpec((3 * first.shape[0], *first.shape[1:]), first.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        first, last = parts
        return np.concatenate((first, np.zeros_like(first), last))

    def __str__(self) -> str:
        return "concat with zeros between"


@dataclass(frozen=True)
class Permute(Op):
    """Reorder the axes: axis i of the result is axis ``axes[i]`` of the source."""

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        fields.set_fields(self, axes=_permutation("axes", self.axes))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if len(self.axes) != len(part.shape):
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec(tuple(part.shape[a] for a in self.axes), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        moved: Array = parts[0].transpose(self.axes)
        return moved

    def __str__(self) -> str:
        return f"permute{self.axes}"


@dataclass(frozen=True)
class Reshape(Op):
    """Give the elements another shape, in the same order; one length may be -1, and 0 is what this axis had."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = fields.items("shape", self.shape, int, "lengths")
        fields.set_fields(self, shape=tuple(fields.integer("shape", length, -1) for length in shape))
        if self.shape.count(-1) > 1:
            raise OpError(f"{self} leaves more than one length open", "Only one may be -1.")

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        lengths = self._lengths(part.shape)
        known = math.prod(n for n in lengths if n != -1)
        free = lengths.count(-1)
        fits = (known and part.numel % known == 0) if free else known == part.numel
        if not fits:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec(tuple(part.numel // known if n == -1 else n for n in lengths), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        return parts[0].reshape(self._lengths(parts[0].shape))

    def _lengths(self, had: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n or (had[i] if i < len(had) else 0) for i, n in enumerate(self.shape))

    def __str__(self) -> str:
        return f"reshape({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Regroup(Op):
    """Cut ``axis`` into equal blocks, take them in ``order``, and interleave them: first of each, second of each, ….

    Columns in the order (block, channel) become (channel, block). ``back`` does the opposite.
    """

    axis: int
    order: tuple[int, ...]
    back: bool = False

    def __post_init__(self) -> None:
        fields.boolean("back", self.back)
        fields.set_fields(self, axis=fields.integer("axis", self.axis, 0), order=_permutation("order", self.order))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if self.axis >= len(part.shape) or part.shape[self.axis] % len(self.order):
            raise OpError(f"{self} does not suit {part}")
        return part

    def apply(self, parts: Sequence[Array]) -> Array:
        (array,) = parts
        before, after = array.shape[: self.axis], array.shape[self.axis + 1 :]
        if self.back:
            blocks: Array = array.reshape(*before, -1, len(self.order), *after).swapaxes(self.axis, self.axis + 1)
            blocks = blocks.take(sorted(range(len(self.order)), key=self.order.__getitem__), axis=self.axis)
        else:
            blocks = array.reshape(*before, len(self.order), -1, *after).take(self.order, axis=self.axis)
            blocks = blocks.swapaxes(self.axis, self.axis + 1)
        moved: Array = blocks.reshape(array.shape)
        return moved

    def __str__(self) -> str:
        return f"regroup(axis={self.axis}, order={self.order}{', back=True' * self.back})"


@dataclass(frozen=True)
class Chunk(Op):
    """Cut ``axis`` into ``of`` equal parts, and take the one with this ``index``, counted from 0."""

    axis: int
    index: int
    of: int

    def __post_init__(self) -> None:
        fields.set_fields(self, axis=fields.integer("axis", self.axis, 0), of=fields.integer("of", self.of, 2))
        fields.set_fields(self, index=fields.integer("index", self.index, 0))
        if self.index >= self.of:
            raise OpError(f"{self} takes a part that does not exist", "Parts are counted from 0.")

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if self.axis >= len(part.shape) or not part.shape[self.axis] or part.shape[self.axis] % self.of:
            raise OpError(f"{self} does not suit {part}")
        shape = (*part.shape[: self.axis], part.shape[self.axis] // self.of, *part.shape[self.axis + 1 :])
        return TensorSpec(shape, part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        length = parts[0].shape[self.axis] // self.of
        taken: Array = parts[0][(slice(None),) * self.axis + (slice(self.index * length, (self.index + 1) * length),)]
        return taken

    def __str__(self) -> str:
        return f"chunk(axis={self.axis}, index={self.index}, of={self.of})"


@dataclass(frozen=True)
class Take(Op):
    """Keep the elements ``start`` to ``stop`` of an axis, numbered from 0, without ``stop``; None is up to the end."""

    axis: int
    start: int
    stop: int | None = None

    def __post_init__(self) -> None:
        fields.set_fields(self, axis=fields.integer("axis", self.axis, 0), start=fields.integer("start", self.start, 0))
        if self.stop is not None:
            fields.set_fields(self, stop=fields.integer("stop", self.stop, self.start + 1))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        had = part.shape[self.axis] if self.axis < len(part.shape) else 0
        stop = had if self.stop is None else self.stop
        if not self.start < stop <= had:
            raise OpError(f"{self} does not suit {part}")
        shape = (*part.shape[: self.axis], stop - self.start, *part.shape[self.axis + 1 :])
        return TensorSpec(shape, part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        taken: Array = parts[0][(slice(None),) * self.axis + (slice(self.start, self.stop),)]
        return taken

    def __str__(self) -> str:
        return f"take {self.start} to {'the end' if self.stop is None else self.stop} of axis {self.axis}"


@dataclass(frozen=True)
class Zeros(Op):
    """A zero for each row (first axis): the bias of a layer that does not have one."""

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if not part.shape:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec(part.shape[:1], part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        zeros: Array = np.zeros(parts[0].shape[:1], parts[0].dtype)
        return zeros

    def __str__(self) -> str:
        return "a zero for each row"


def _permutation(field: str, value: Sequence[int]) -> tuple[int, ...]:
    """Each of 0, 1, … up to their count, in any order."""
    numbers = fields.items(field, value, int, "whole numbers")
    if sorted(numbers) != list(range(len(numbers))):
        raise fields.invalid(field, f"the numbers 0 to {len(numbers) - 1} in some order", numbers)
    return numbers


def concat(axis: int) -> Concat:
    return Concat(axis)


def chunk(axis: int, index: int, of: int) -> Chunk:
    return Chunk(axis, index, of)


def concat_with_zeros() -> ConcatWithZeros:
    return ConcatWithZeros()


def permute(*axes: int) -> Permute:
    return Permute(axes)


def reshape(*shape: int) -> Reshape:
    return Reshape(shape)


def regroup(axis: int, order: Sequence[int], back: bool = False) -> Regroup:
    return Regroup(axis, tuple(order), back)


def take(axis: int, start: int, stop: int | None = None) -> Take:
    return Take(axis, start, stop)


def zeros() -> Zeros:
    return Zeros()
