"""Measured x expected -> pass, fail or inconclusive, by rules that the report repeats in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

PASS, FAIL, INCONCLUSIVE, MEASURED = "pass", "fail", "inconclusive", "measured"
GOOD = (PASS, MEASURED)
COLOURS: Mapping[str, str] = {PASS: "good", MEASURED: "good", FAIL: "bad", INCONCLUSIVE: "warn"}
"""How a page shows each status."""
LEVEL = 0.95
_MOST_SEEDS = 100


@dataclass(frozen=True)
class Expected:
    """AP in percent by metric, the tolerance in points, the reason for it, and the source of the AP.

    ``above``: what an AP above the band means: 'fail', 'pass', or a 'remark'.
    """

    ap: Mapping[str, float]
    tolerance: float
    reason: str
    source: str
    above: str = "remark"

    @property
    def band(self) -> str:
        """The AP that passes, in words."""
        wanted = ", ".join(f"{metric} AP {ap:g}" for metric, ap in self.ap.items())
        if self.above == PASS and not self.tolerance:
            return f"at least {wanted}"
        return f"{wanted}, at most {self.tolerance:g} points {'off' if self.above == FAIL else 'below'}"


@dataclass(frozen=True)
class Interval:
    """A mean over ``seeds`` trainings, with the half-width of its 95 % interval; no width for one seed."""

    mean: float
    half: float | None
    seeds: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.half:.2f}" if self.half is not None else "")


@dataclass(frozen=True)
class Verdict:
    """``status``: pass, fail, inconclusive; or measured, where there is nothing to compare with.

    ``reasons``: sentences. ``rule``: how it was judged. ``needed``: how many seeds would decide, by the scatter of the
    measured ones; None if that is not known, or if it is decided. ``meaning``: what the status says about the target.
    """

    status: str
    reasons: tuple[str, ...]
    rule: str
    needed: int | None = None
    meaning: str = ""

    def _repr_html_(self) -> str:
        from ckptconv.report.page import fragment

        headline = ": ".join(filter(None, (self.status, self.meaning)))
        needed = f"about {self.needed} would decide" if self.needed else ""
        return fragment(
            COLOURS.get(self.status, "warn"), headline, [("rule", self.rule), ("seeds", needed)], self.reasons
        )


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean.

    >>> str(interval([40.0, 41.0, 42.0]))
    '41.00 ± 2.48'
    """
    seeds = len(values)
    if seeds == 1:
        return Interval(values[0], None, 1)
    return Interval(fmean(values), _half(stdev(values), seeds), seeds)


def _half(scatter: float, seeds: int) -> float:
    from scipy.stats import t  # mmdet brings it

    return float(t.ppf((1 + LEVEL) / 2, seeds - 1)) * scatter / math.sqrt(seeds)


def needed_seeds(values: Sequence[float], bound: float) -> int | None:
    """How many seeds would separate this mean from the bound."""
    scatter, distance = stdev(values), abs(fmean(values) - bound)
    return next((n for n in range(len(values) + 1, _MOST_SEEDS) if _half(scatter, n) < distance), None)


def compared(values: Mapping[str, Sequence[float]], expected: Expected) -> Verdict:
    """Whether AP, one value per seed, is as expected. The worst metric decides."""
    verdicts = [_metric(metric, values[metric], ap, expected) for metric, ap in expected.ap.items()]
    seeds = len(next(iter(values.values())))
    rule = f"{expected.band} ({expected.reason})"
    if seeds > 1:
        rule += f"; the {LEVEL:.0%} interval of the mean of {seeds} seeds must lie inside to pass, and outside to fail"
    status = next((s for s in (FAIL, INCONCLUSIVE) if any(v.status == s for v in verdicts)), PASS)
    needed = [v.needed for v in verdicts if v.status == INCONCLUSIVE]
    most = max((n for n in needed if n), default=None) if None not in needed else None
    return Verdict(status, tuple(r for v in verdicts for r in v.reasons), rule, most)


def _metric(metric: str, values: Sequence[float], ap: float, expected: Expected) -> Verdict:
    mean = interval(values)
    low, high = ap - expected.tolerance, ap + expected.tolerance if expected.above == FAIL else math.inf
    comparison = f"{metric} AP {mean}, expected {ap:g}"
    if mean.high < low or mean.low > high:
        side, off = ("below", low - mean.mean) if mean.high < low else ("above", mean.mean - high)
        return Verdict(FAIL, (f"{comparison}: {off:.2f} points {side} the tolerance of {expected.tolerance:g}",), "")
    if mean.low >= low and mean.high <= high:
        more = expected.above == "remark" and mean.low > ap + expected.tolerance
        remark = ": more than noise explains; check whether it is the same recipe" if more else ""
        return Verdict(PASS, (f"{comparison}{remark}",), "")
    nearest = low if abs(mean.mean - low) <= abs(mean.mean - high) else high
    return Verdict(
        INCONCLUSIVE,
        (f"{comparison}: its interval contains {nearest:g}, the bound",),
        "",
        needed_seeds(values, nearest) if len(values) > 1 else None,
    )
