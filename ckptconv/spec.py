"""Names, shapes and element types: all that a plan may know about a tensor. No bytes, no torch, no numpy.

Each row of `DTYPES` has an element type's name in four vocabularies: torch's name, its typed storage class,
safetensors' code and numpy's type string; None where a vocabulary does not have one. Storage classes:
`torch/storage.py`; safetensors codes: the `Dtype` enum of the safetensors crate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ckptconv.wrappers import wrapper_of


@dataclass(frozen=True)
class DType:
    """An element type: torch's name, bytes an element, kind, and the same type in three other vocabularies."""

    name: str
    itemsize: int
    kind: Literal["float", "int", "bool", "complex"]
    storage: str | None
    safetensors: str | None
    numpy: str | None

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


DTYPES: Mapping[str, DType] = {
    d.name: d
    for d in (
        DType("float64", 8, "float", "DoubleStorage", "F64", "<f8"),
        DType("float32", 4, "float", "FloatStorage", "F32", "<f4"),
        DType("float16", 2, "float", "HalfStorage", "F16", "<f2"),
        DType("bfloat16", 2, "float", "BFloat16Storage", "BF16", None),
        DType("float8_e4m3fn", 1, "float", None, "F8_E4M3", None),
        DType("float8_e5m2", 1, "float", None, "F8_E5M2", None),
        DType("float8_e4m3fnuz", 1, "float", None, "F8_E4M3FNUZ", None),
        DType("float8_e5m2fnuz", 1, "float", None, "F8_E5M2FNUZ", None),
        DType("float8_e8m0fnu", 1, "float", None, "F8_E8M0", None),
        DType("complex32", 4, "complex", None, None, None),
        DType("complex64", 8, "complex", "ComplexFloatStorage", "C64", "<c8"),
        DType("complex128", 16, "complex", "ComplexDoubleStorage", None, "<c16"),
        DType("int64", 8, "int", "LongStorage", "I64", "<i8"),
        DType("int32", 4, "int", "IntStorage", "I32", "<i4"),
        DType("int16", 2, "int", "ShortStorage", "I16", "<i2"),
        DType("int8", 1, "int", "CharStorage", "I8", "|i1"),
        DType("uint8", 1, "int", "ByteStorage", "U8", "|u1"),
        DType("uint16", 2, "int", None, "U16", "<u2"),
        DType("uint32", 4, "int", None, "U32", "<u4"),
        DType("uint64", 8, "int", None, "U64", "<u8"),
        DType("bool", 1, "bool", "BoolStorage", "BOOL", "|b1"),
    )
}


@dataclass(frozen=True)
class TensorSpec:
    """Shape (elements along each axis, () for a scalar) and element type of one tensor."""

    shape: tuple[int, ...]
    dtype: DType

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return self.numel * self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the contiguous tensor, in elements, as torch counts them (an empty axis counts as one)."""
        strides, step = [], 1
        for length in reversed(self.shape):
            strides.append(step)
            step *= max(length, 1)
        return tuple(reversed(strides))

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


StateSpec = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Unreadable:
    """An entry that stands for a tensor and cannot be read: what it is, and what to do about it.

    ``certain`` is False for an object of a class unknown here, which holds tensors and may be anything.
    """

    what: str
    advice: str
    certain: bool = True


@dataclass(frozen=True)
class Section:
    """One mapping inside a checkpoint that holds tensors: their specs, and what else it holds by kind ('dict').

    ``node`` is the mapping itself, for the code that reads the tensors; a plan never looks at it. ``unreadable`` are
    those of ``others`` that stand for tensors.
    """

    tensors: StateSpec
    others: Mapping[str, str]
    node: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict)

    @cached_property
    def wrapper(self) -> str:
        """What wraps the network: the segments that every name starts with."""
        return wrapper_of(self.tensors or self.unreadable)

    @property
    def entries(self) -> int:
        """How many names it has, of tensors and of other values."""
        return len(self.tensors) + len(self.others)
