"""The closed set of changes a rule may make to tensors, beyond their names. Each knows its output's shape.

An op is data: the plan asks it for a TensorSpec, the transform asks it for an array. Most ops move elements and never
look into them, so they work on any element type; `Scale` and `Cast` read numbers, those of bfloat16 as bit patterns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.spec import DTYPES, DType, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_T = TypeVar("_T")


class OpError(UsageError):
    """An op was asked to change a tensor whose shape or type does not suit it."""


@dataclass(frozen=True)
class Op:
    """Base of the ops. ``arity`` is how many tensors it takes; 0 means two or more."""

    arity: ClassVar[int] = 1

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        """Shape and type of the result. Raises OpError if the parts do not suit."""
        raise NotImplementedError

    def apply(self, parts: Sequence[Array]) -> Array:
        """The result, from arrays whose shapes `spec` has accepted."""
        raise NotImplementedError


@dataclass(frozen=True)
class Concat(Op):
    """Join tensors of one type along ``axis``; all other axes agree."""

    axis: int
    arity: ClassVar[int] = 0

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        first = parts[0]
        if not 0 <= self.axis < len(first.shape):
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
class Permute(Op):
    """Reorder the axes: axis i of the result is axis ``axes[i]`` of the source."""

    axes: tuple[int, ...]

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if sorted(self.axes) != list(range(len(part.shape))):
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

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        lengths = self._lengths(part.shape)
        known = math.prod(n for n in lengths if n != -1)
        free = lengths.count(-1)
        fits = (known and part.numel % known == 0) if free else known == part.numel
        if free > 1 or min(lengths, default=0) < -1 or not fits:
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

    So columns that were laid out block by block, channels inside, get their channels outside and the blocks inside.
    ``back`` does the opposite: what lies interleaved is put into blocks again.
    """

    axis: int
    order: tuple[int, ...]
    back: bool = False

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        fits = 0 <= self.axis < len(part.shape) and part.shape[self.axis] % len(self.order) == 0
        if not fits or sorted(self.order) != list(range(len(self.order))):
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
class Scale(Op):
    """Multiply each row of the first tensor, its first axis, by that row's number in the second."""

    arity: ClassVar[int] = 0

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        if len(parts) != 2 or parts[1].shape != parts[0].shape[:1] or not parts[0].shape:
            raise OpError(f"{self} does not suit {' and '.join(map(str, parts))}")
        if parts[0].dtype != parts[1].dtype or parts[0].dtype.name not in _CASTABLE:
            raise OpError(f"{self} cannot multiply {parts[0]} by {parts[1]}")
        return parts[0]

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        array, factors = (_from_bfloat16(p) if p.dtype.itemsize == 2 and p.dtype.kind == "u" else p for p in parts)
        if not np.isfinite(factors).all():
            raise UnreadableError(
                "a tensor that scales another holds numbers that are none (NaN or infinite)",
                "The file was saved before its network was initialised: get another.",
            )
        scaled: Array = array * factors.reshape(-1, *(1,) * (array.ndim - 1))
        return _to_bfloat16(scaled) if parts[0].dtype.kind == "u" else scaled

    def __str__(self) -> str:
        return "scale the rows"


_CASTABLE = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Cast(Op):
    """Round the numbers to another floating type (to nearest, ties to even).

    The arrays of `apply` are in numpy's type for the source, or uint16 bit patterns for bfloat16.
    """

    source: DType
    target: DType

    def __post_init__(self) -> None:
        for dtype in (self.source, self.target):
            if dtype.name not in _CASTABLE:
                raise OpError(f"tensors of type {dtype} cannot be cast", f"Types that can: {', '.join(_CASTABLE)}.")

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        if part.dtype != self.source:
            raise OpError(f"{self} is for {self.source}, not for {part}")
        return TensorSpec(part.shape, self.target)

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        array = parts[0]
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, as in torch
            if self.source.name == "bfloat16":
                array = _from_bfloat16(array.view("<u2"))
            else:
                array = array.view(self.source.numpy)
            if self.source.itemsize == 8 and self.target.itemsize == 2:
                array = array.astype("<f4")  # torch, too, rounds twice here
            return _to_bfloat16(array) if self.target.name == "bfloat16" else array.astype(self.target.numpy)

    def __str__(self) -> str:
        return f"cast to {self.target}"


def _from_bfloat16(patterns: Array) -> Array:
    """The float32 that each bfloat16 (uint16 bit pattern) is."""
    array: Array = (patterns.astype("<u4") << 16).view("<f4")
    return array


def _to_bfloat16(array: Array) -> Array:
    """Bit patterns (uint16) of the bfloat16 nearest to a float32, ties to even; a NaN becomes 0x7fc0 as in torch."""
    import numpy as np

    bits = array.astype("<f4", copy=False).view("<u4")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    patterns: Array = np.where(np.isnan(array), np.uint16(0x7FC0), rounded)
    return patterns


@dataclass(frozen=True)
class Over(Op):
    """``op`` over parts that are made first: part i from the next ``counts[i]`` tensors, by ``inner[i]`` if any."""

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
    """``op`` over parts that are each made from so many tensors by an op of their own; None where nothing changes."""
    if all(own is None for own, _ in inner):
        return op
    if op is None:
        return inner[0][0]
    if isinstance(op, Regroup) and inner[0][0] == replace(op, back=not op.back):
        return None
    return Over(op, tuple(own for own, _ in inner), tuple(count for _, count in inner))


def chain(first: Op, *then: Op) -> Op:
    """One op after another, each on what the one before it made of one tensor."""
    for op in then:
        first = Over(op, (first,), (1,))
    return first


def concat(axis: int) -> Concat:
    return Concat(axis)


def permute(*axes: int) -> Permute:
    return Permute(axes)


def reshape(*shape: int) -> Reshape:
    return Reshape(shape)


def regroup(axis: int, order: Sequence[int], back: bool = False) -> Regroup:
    return Regroup(axis, tuple(order), back)


def scale() -> Scale:
    return Scale()


def cast(source: DType, target: str) -> Cast:
    if target not in DTYPES:
        raise OpError(f"there is no element type '{target}'", f"Types that can be cast to: {', '.join(_CASTABLE)}.")
    return Cast(source, DTYPES[target])
