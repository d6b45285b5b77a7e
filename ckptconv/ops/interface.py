"""The base of the ops: an op takes tensors, knows the shape of its result, and makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ckptconv.errors import UsageError
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class OpError(UsageError):
    """An op cannot change a tensor of this shape or type."""


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
