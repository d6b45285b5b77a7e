"""What every op is: it takes tensors, knows the shape of what it makes of them, and makes it."""

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
