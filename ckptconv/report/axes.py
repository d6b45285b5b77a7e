"""Axes of charts: where a value is, and round numbers to say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_MOST_LETTERS = 5  # of a number at an axis


@dataclass(frozen=True)
class Axis:
    """Positions on an axis: of a value, and of its round numbers with what they are called."""

    position: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def axis(values: Iterable[float], start: float, end: float, log: bool = False) -> Axis:
    """An axis from ``start`` to ``end``, in pixels, with room for all values, and round numbers."""
    most = max(abs(end - start) / 34, 2)
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0)
    if log:
        return _log_axis(low, high, start, end)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = _step(high - low, most)
    first, last = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((last - first) / step)
    ticks = _named([first + i * step for i in range(count + 1)])
    return Axis(lambda value: start + (value - first) / (last - first) * (end - start), ticks)


def _step(length: float, most: float) -> float:
    """A round step for at most so many of them, and for seven."""
    power = 10.0 ** math.floor(math.log10(length / 10))
    return next(power * factor for factor in (1, 2, 5, 10, 20, 50, 100) if length / (power * factor) <= min(most, 6))


def _named(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """The values with their names: as powers of ten where the usual way takes more room than there is."""
    least = 1e-9 * max(map(abs, values), default=0)  # what is nearer to 0 is 0, but for rounding
    names = [f"{value if abs(value) > least else 0:.10g}" for value in values]
    if any(len(name) > _MOST_LETTERS for name in names):
        parts = [f"{value:.3e}".split("e") for value in values]
        names = [f"{float(head):g}e{int(power)}" if float(head) else "0" for head, power in parts]
    return tuple(zip(values, names, strict=True))


def _log_axis(low: float, high: float, start: float, end: float) -> Axis:
    if high / low < 1.5:
        low, high = low / 1.5, high * 1.5
    bottom, top = math.log10(low) - 0.02, math.log10(high) + 0.02
    decades = range(math.floor(bottom), math.ceil(top) + 1)
    factors = (1, 1.5, 2, 3, 4, 5, 7) if top - bottom < 0.7 else (1, 2, 5) if top - bottom < 2.2 else (1,)
    skip = max(round((top - bottom) / 6), 1) if factors == (1,) else 1
    known = [f * 10.0**d for d in decades for f in factors if d % skip == 0]
    ticks = _named([at for at in known if bottom <= math.log10(at) <= top])
    return Axis(lambda value: start + (math.log10(value) - bottom) / (top - bottom) * (end - start), ticks)
