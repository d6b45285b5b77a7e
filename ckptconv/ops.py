"""The closed set of changes a rule may make to tensors, beyond their names. Each knows its output's shape.

An op is data: the plan asks it for a TensorSpec, the transform asks it for an array. Ops move elements and never look
into them, so they work on any element type, seen by numpy as opaque integers; `Cast` alone reads numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ckptconv.errors import UsageError
from ckptconv.spec import DTYPES, DType, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


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
    """Give the elements another shape, in the same order; one length may be -1."""

    shape: tuple[int, ...]

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        known = math.prod(n for n in self.shape if n != -1)
        free = self.shape.count(-1)
        fits = (known and part.numel % known == 0) if free else known == part.numel
        if free > 1 or min(self.shape, default=0) < -1 or not fits:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec(tuple(part.numel // known if n == -1 else n for n in self.shape), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        return parts[0].reshape(self.shape)

    def __str__(self) -> str:
        return f"reshape{self.shape}"


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
                array = (array.view("<u2").astype("<u4") << 16).view("<f4")
            else:
                array = array.view(self.source.numpy)
            if self.source.itemsize == 8 and self.target.itemsize == 2:
                array = array.astype("<f4")  # torch, too, rounds twice here
            return _to_bfloat16(array) if self.target.name == "bfloat16" else array.astype(self.target.numpy)

    def __str__(self) -> str:
        return f"cast to {self.target}"


def _to_bfloat16(array: Array) -> Array:
    """Bit patterns (uint16) of the bfloat16 nearest to a float32, ties to even; a NaN becomes 0x7fc0 as in torch."""
    import numpy as np

    bits = array.astype("<f4", copy=False).view("<u4")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    patterns: Array = np.where(np.isnan(array), np.uint16(0x7FC0), rounded)
    return patterns


@dataclass(frozen=True)
class Then(Op):
    """One op after another."""

    first: Op
    second: Op

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        return self.second.spec([self.first.spec(parts)])

    def apply(self, parts: Sequence[Array]) -> Array:
        return self.second.apply([self.first.apply(parts)])

    def __str__(self) -> str:
        return f"{self.first}, {self.second}"


def concat(axis: int) -> Concat:
    return Concat(axis)


def permute(*axes: int) -> Permute:
    return Permute(axes)


def reshape(*shape: int) -> Reshape:
    return Reshape(shape)


def cast(source: DType, target: str) -> Cast:
    if target not in DTYPES:
        raise OpError(f"there is no element type '{target}'", f"Types that can be cast to: {', '.join(_CASTABLE)}.")
    return Cast(source, DTYPES[target])
