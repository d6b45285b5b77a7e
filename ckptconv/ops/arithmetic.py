"""Ops that compute with the numbers. numpy does not have bfloat16: its values are read as bit patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ckptconv import fields
from ckptconv.errors import UnreadableError
from ckptconv.ops.interface import Op, OpError
from ckptconv.spec import DTYPES, DType, TensorSpec

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array

CASTABLE = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Scale(Op):
    """Multiply each row (first axis) of the first tensor by that row's number in the second."""

    arity: ClassVar[int] = 0

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        if len(parts) != 2 or parts[1].shape != parts[0].shape[:1] or not parts[0].shape:
            raise OpError(f"{self} does not suit {' and '.join(map(str, parts))}")
        if parts[0].dtype != parts[1].dtype or parts[0].dtype.name not in CASTABLE:
            raise OpError(f"{self} cannot multiply {parts[0]} by {parts[1]}")
        return parts[0]

    def apply(self, parts: Sequence[Array]) -> Array:
        import numpy as np

        array, factors = map(numbers_of, parts)
        if not np.isfinite(factors).all():
            raise UnreadableError(
                "a tensor that scales another has NaN or infinite values",
                "The file was saved before its network was initialised: get another.",
            )
        scaled: Array = array * factors.reshape(-1, *(1,) * (array.ndim - 1))
        return stored_as(parts[0], scaled)

    def __str__(self) -> str:
        return "scale the rows"


@dataclass(frozen=True)
class AddRow(Op):
    """Add a row of the second tensor (1, rows, channels), numbered from 0, to each row of the first.

    The sums are rounded to nearest, once, as torch's are.
    """

    row: int
    arity: ClassVar[int] = 0

    def __post_init__(self) -> None:
        fields.set_fields(self, row=fields.integer("row", self.row, 0))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        fits = len(parts) == 2 and all(len(part.shape) == 3 for part in parts)
        if not fits or parts[1].shape[0] != 1 or parts[0].shape[2] != parts[1].shape[2]:
            raise OpError(f"{self} does not suit {' and '.join(map(str, parts))}")
        if self.row >= parts[1].shape[1]:
            raise OpError(f"{self}: {parts[1]} does not have it")
        if parts[0].dtype != parts[1].dtype or parts[0].dtype.name not in CASTABLE:
            raise OpError(f"{self} cannot add {parts[1]} to {parts[0]}")
        return parts[0]

    def apply(self, parts: Sequence[Array]) -> Array:
        first, table = parts
        return stored_as(first, numbers_of(first) + numbers_of(table[:, self.row : self.row + 1]))

    def __str__(self) -> str:
        return f"add row {self.row}"


@dataclass(frozen=True)
class SelectChannels(Op):
    """Take input channels of a kernel (out, in, ...), its second axis, by their numbers from 1, in this order.

    A channel that is taken n times is divided by n each time, so that they add up to what it was. The quotients are
    rounded to nearest, once: exact where n is a power of two, else off by half a unit in the last place at most. All
    other numbers stay bit for bit.
    """

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        fields.set_fields(self, channels=fields.items("channels", self.channels, int, "whole numbers"))

    def spec(self, parts: Sequence[TensorSpec]) -> TensorSpec:
        (part,) = parts
        fits = len(part.shape) > 1 and self.channels and 0 < min(self.channels) <= max(self.channels) <= part.shape[1]
        if not fits or part.dtype.name not in CASTABLE:
            raise OpError(f"{self} does not suit {part}")
        return TensorSpec((part.shape[0], len(self.channels), *part.shape[2:]), part.dtype)

    def apply(self, parts: Sequence[Array]) -> Array:
        (kernel,) = parts
        taken: Array = kernel.take([channel - 1 for channel in self.channels], axis=1)
        for at, channel in enumerate(self.channels):
            times = self.channels.count(channel)
            if times > 1:
                taken[:, at] = stored_as(kernel, numbers_of(taken[:, at]) / times)
        return taken

    def __str__(self) -> str:
        return f"select channels {', '.join(map(str, self.channels))}"


@dataclass(frozen=True)
class Cast(Op):
    """Round the numbers to another floating type (to nearest, ties to even).

    The arrays of `apply` are in numpy's type for the source, or uint16 bit patterns for bfloat16.
    """

    source: DType
    target: DType

    def __post_init__(self) -> None:
        for dtype in (self.source, self.target):
            if dtype.name not in CASTABLE:
                raise OpError(f"tensors of type {dtype} cannot be cast", f"Types that can: {', '.join(CASTABLE)}.")

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
                array = from_bfloat16(array.view("<u2"))
            else:
                array = array.view(self.source.numpy)
            if self.source.itemsize == 8 and self.target.itemsize == 2:
                array = array.astype("<f4")  # torch, too, rounds twice here
            return to_bfloat16(array) if self.target.name == "bfloat16" else array.astype(self.target.numpy)

    def __str__(self) -> str:
        return f"cast to {self.target}"


def numbers_of(array: Array) -> Array:
    """The numbers of an array as the reader gives it: bfloat16 comes as bit patterns, and goes as float32."""
    return from_bfloat16(array) if array.dtype.kind == "u" else array


def stored_as(like: Array, numbers: Array) -> Array:
    """Numbers rounded to the type of ``like``, an array as the reader gives it."""
    import numpy as np

    with np.errstate(over="ignore"):  # what is too large becomes infinite, as in torch
        return to_bfloat16(numbers) if like.dtype.kind == "u" else numbers.astype(like.dtype, copy=False)


def from_bfloat16(patterns: Array) -> Array:
    """The float32 that each bfloat16 (uint16 bit pattern) is."""
    array: Array = (patterns.astype("<u4") << 16).view("<f4")
    return array


def to_bfloat16(array: Array) -> Array:
    """Bit patterns (uint16) of the bfloat16 nearest to a float32, ties to even; a NaN becomes 0x7fc0 as in torch."""
    import numpy as np

    bits = array.astype("<f4", copy=False).view("<u4")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    patterns: Array = np.where(np.isnan(array), np.uint16(0x7FC0), rounded)
    return patterns


def scale() -> Scale:
    return Scale()


def add_row(row: int) -> AddRow:
    return AddRow(row)


def select_channels(channels: Sequence[int]) -> SelectChannels:
    return SelectChannels(tuple(channels))


def cast(source: DType | str, target: str) -> Cast:
    """Both types may be given by their names."""
    for name in (source, target):
        if isinstance(name, str) and name not in DTYPES:
            raise OpError(f"there is no element type '{name}'", f"Types that can be cast to: {', '.join(CASTABLE)}.")
    return Cast(DTYPES[source] if isinstance(source, str) else source, DTYPES[target])
