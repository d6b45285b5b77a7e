"""The numbers of each tensor that is written: mean, spread and norm, taken from its bytes, a chunk at a time.

numpy is imported where statistics are asked for, and not before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptconv.spec import DType

if TYPE_CHECKING:
    import numpy as np

    _Array = np.ndarray[Any, Any]

MEASURED = ("float64", "float32", "float16", "bfloat16")
"""The element types that are measured."""


@dataclass(frozen=True)
class TensorStatistics:
    """Of the finite numbers of a tensor. ``std`` divides by ``count``; ``nan`` and ``inf`` count the others.

    ``std`` is not finite where the squares of the numbers are too large for a float of 64 bits.
    """

    count: int
    mean: float
    std: float
    least: float
    most: float
    nan: int = 0
    inf: int = 0

    @property
    def norm(self) -> float:
        """The square root of the sum of squares."""
        return math.sqrt(self.count * (self.std * self.std + self.mean * self.mean))

    @property
    def finite(self) -> bool:
        return not (self.nan or self.inf)

    @property
    def constant(self) -> bool:
        """Whether all numbers are the same one. A tensor of one number tells nothing."""
        return self.finite and self.count > 1 and self.least == self.most


class RunningStatistics:
    """The statistics of a tensor, from the chunks of its bytes: Chan, Golub and LeVeque, 1979."""

    def __init__(self, dtype: DType) -> None:
        self._dtype, self._rest = dtype, b""
        self._count, self._nan, self._inf = 0, 0, 0
        self._mean, self._squares = 0.0, 0.0
        self._least, self._most = math.inf, -math.inf

    def add(self, chunk: bytes) -> None:
        """Take the next bytes, little-endian. Other types than `MEASURED` have no statistics."""
        import numpy as np

        if self._dtype.name not in MEASURED:
            return
        whole, size = self._rest + chunk if self._rest else chunk, self._dtype.itemsize
        count = len(whole) // size
        self._rest = whole[count * size :]
        if count:
            with np.errstate(all="ignore"):  # NaN and numbers whose squares are infinite are what is looked for
                self._take(_numbers(np.frombuffer(whole, f"<u{size}", count), self._dtype))

    def _take(self, numbers: _Array) -> None:
        import numpy as np

        least, most = float(numbers.min()), float(numbers.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            self._nan += int(np.isnan(numbers).sum())
            self._inf += int(np.isinf(numbers).sum())
            numbers = numbers[np.isfinite(numbers)]
            if not numbers.size:
                return
            least, most = float(numbers.min()), float(numbers.max())
        self._least, self._most = min(self._least, least), max(self._most, most)
        if max(abs(least), abs(most)) > 1e15:
            numbers = numbers.astype(np.float64)  # of which a square would be too large
        count, mean = numbers.size, float(numbers.mean())
        away = numbers - numbers.dtype.type(mean)
        squares, drift = float(np.dot(away, away)), float(away.sum())
        mean, squares = mean + drift / count, squares - drift * drift / count
        total = self._count + count
        between = mean - self._mean
        self._squares += squares + between * between * self._count * count / total
        self._mean += between * count / total
        self._count = total

    def statistics(self) -> TensorStatistics | None:
        """Those of all chunks; None for other types than `MEASURED`, and for a tensor without numbers."""
        if not (self._count or self._nan or self._inf):
            return None
        if not self._count:
            return TensorStatistics(0, math.nan, math.nan, math.nan, math.nan, self._nan, self._inf)
        std = math.sqrt(max(self._squares, 0.0) / self._count)
        return TensorStatistics(self._count, self._mean, std, self._least, self._most, self._nan, self._inf)


def _numbers(stored: _Array, dtype: DType) -> _Array:
    """The numbers of one chunk, in a type that numpy computes with."""
    import numpy as np

    if dtype.name == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    assert dtype.numpy is not None
    numbers = stored.view(dtype.numpy)
    return numbers.astype(np.float32) if dtype.name == "float16" else numbers
