"""How far the numbers of two arrays of one shape are apart. Knows numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ckptconv.ops.arithmetic import from_bfloat16, to_bfloat16
from ckptconv.spec import DType

if TYPE_CHECKING:
    from ckptconv.ops.interface import Array

_BLOCK = 1 << 20  # numbers that are compared at a time, as float64


@dataclass(frozen=True)
class Distance:
    """How far b is from a. ``max_abs`` is the largest difference of two numbers.

    ``relative`` is the length of b - a divided by that of a, both as vectors: inf where a is all zeros. ``cosine`` is
    that of the angle between them; None where one is all zeros. ``not_finite`` counts the numbers that are NaN or
    infinite in one and not the same in the other; the three others leave them out. The three are None for types that
    numpy does not have.
    """

    max_abs: float | None
    relative: float | None
    cosine: float | None
    not_finite: int = 0


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays of one type have the same bytes."""
    return a.tobytes() == b.tobytes()


def equal_when_rounded(a: Array, dtype_a: DType, b: Array, dtype_b: DType) -> bool:
    """Whether two arrays of different types are equal once the finer one is rounded to the coarser type."""
    if not _computable(dtype_a) or not _computable(dtype_b):
        return False
    if dtype_a.itemsize < dtype_b.itemsize:
        a, dtype_a, b, dtype_b = b, dtype_b, a, dtype_a
    with np.errstate(over="ignore"):
        fine = _numbers(a, dtype_a)
        rounded = to_bfloat16(fine) if dtype_b.name == "bfloat16" else fine.astype(dtype_b.numpy)
    return np.array_equal(_numbers(rounded, dtype_b), _numbers(b, dtype_b), equal_nan=dtype_b.kind == "float")


def distance(a: Array, dtype_a: DType, b: Array, dtype_b: DType) -> Distance:
    """How far two arrays of one shape are apart."""
    if not _computable(dtype_a) or not _computable(dtype_b):
        return Distance(None, None, None)
    first, second = _numbers(a, dtype_a).reshape(-1), _numbers(b, dtype_b).reshape(-1)
    largest = apart = of_a = of_b = product = 0.0
    not_finite = 0
    for start in range(0, first.size, _BLOCK):
        x, y = (_wide(one[start : start + _BLOCK]) for one in (first, second))
        finite = np.isfinite(x) & np.isfinite(y)
        not_finite += int((~finite & (x != y) & ~(np.isnan(x) & np.isnan(y))).sum())
        x, y = x[finite], y[finite]
        if x.size:
            largest = max(largest, float(np.abs(y - x).max()))
            apart += float((np.abs(y - x) ** 2).sum())
            of_a += float((np.abs(x) ** 2).sum())
            of_b += float((np.abs(y) ** 2).sum())
            product += float((x * y.conj()).real.sum())
    relative = (apart / of_a) ** 0.5 if of_a else (0.0 if not apart else float("inf"))
    cosine = product / (of_a**0.5 * of_b**0.5) if of_a and of_b else None
    return Distance(largest, relative, cosine, not_finite)


def _computable(dtype: DType) -> bool:
    return dtype.numpy is not None or dtype.name == "bfloat16"


def _numbers(array: Array, dtype: DType) -> Array:
    """The numbers of an array as the reader gives it."""
    return from_bfloat16(array.view("<u2")) if dtype.name == "bfloat16" else array


def _wide(array: Array) -> Array:
    return array.astype("<c16" if array.dtype.kind == "c" else "<f8")
