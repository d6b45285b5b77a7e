"""Charts as SVG in a page: lines over an axis, and dots in groups. Colours are the page's, by day and by night.

A chart has a sentence for those who do not see it, and its lines differ by their dashes, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ckptconv.report.markup import Html, element, joined

COLOURS = 6
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 46, 14, 24, 34
_NAMES = 96  # where the axis of dots begins: names stand before it
_BARS, _NOTE, _ROW = 160, 70, 22  # where bars begin, what is kept behind them, and the height of a row
_LETTER = 8  # pixels of a letter, at most
_MOST_LETTERS = 5  # of a number at the y axis
_FEW = 30  # points that get dots


@dataclass(frozen=True)
class Line:
    """``points``: (x, y), y above 0 on a log axis. ``kind``: the number of its colour and dashes, as in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: int = 0


@dataclass(frozen=True)
class Axis:
    """Positions on an axis: of a value, and of its round numbers with what they are called."""

    position: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def lines(
    label: str,
    drawn: Sequence[Line],
    *,
    x: str,
    y: str,
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    rings: Iterable[tuple[float, float | None]] = (),
    borders: Mapping[float, str] | None = None,
    height: int = 240,
) -> Html:
    """Lines over the iterations, or over the layers.

    Args:
        label: what the chart shows, in a sentence.
        log: a log axis for y.
        levels: horizontal lines, with their names.
        rings: points that are marked; at the lower edge where y is None, as it has no place on the axis.
        borders: vertical lines, and what begins there; they replace the numbers of the x axis.
    """
    levels, rings = levels or {}, list(rings)
    xs = [px for line in drawn for px, _ in line.points] + [px for px, _ in rings] + [*(borders or ())]
    ys = [py for line in drawn for _, py in line.points] + [*levels.values()]
    across = axis(xs, _LEFT, _WIDTH - _RIGHT)
    up = axis(ys, height - _BOTTOM, _TOP, log=log)
    parts: list[str] = [_horizontal(up.position(at), name) for at, name in up.ticks]
    if borders is None:
        parts += [
            element("text", name, x=_n(across.position(at)), y=height - _BOTTOM + 16, text_anchor="middle")
            for at, name in across.ticks
        ]
    else:
        parts += _bordered(borders, across, height)
    for name, value in levels.items():
        at = up.position(value)
        parts += [
            element("line", class_="level", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_n(at), y2=_n(at)),
            element("text", name, x=_WIDTH - _RIGHT, y=_n(at - 4), text_anchor="end"),
        ]
    for line in drawn:
        parts.append(_line(line, across, up))
    for px, py in rings:
        at = height - _BOTTOM if py is None else up.position(py)
        parts.append(element("circle", class_="ring", cx=_n(across.position(px)), cy=_n(at), r=6))
    parts += [
        element("text", y, x=0, y=12),
        element("text", x, x=_WIDTH - _RIGHT, y=height - 2, text_anchor="end"),
    ]
    return drawing(label, _WIDTH, height, parts)


def drawing(label: str, width: float, height: float, parts: Iterable[str | None]) -> Html:
    """An SVG that is as wide as its place in the page, with a sentence for those who do not see it."""
    return element("svg", *parts, role="img", aria_label=label, viewBox=f"0 0 {_n(width)} {_n(height)}")


def legend(names: Mapping[int, str], solid: bool = False) -> Html:
    """What the colours and the dashes of lines mean; ``solid``: the colours of bars."""
    items = (
        element(
            "li",
            element(
                "svg",
                element("rect", class_=f"dot c{kind}", x=0, y=0, width=20, height=12)
                if solid
                else element("line", class_=f"line c{kind} d{kind}", x1=0, x2=28, y1=6, y2=6),
                class_="key",
                viewBox="0 0 28 12",
                aria_hidden="true",
            ),
            name,
        )
        for kind, name in names.items()
    )
    return element("ul", *items, class_="legend")


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval."""

    low: float
    mean: float
    high: float


def dots(
    label: str,
    groups: Mapping[str, Sequence[tuple[str, float]]],
    *,
    x: str,
    intervals: Mapping[str, Interval] | None = None,
    zero: bool = False,
    kinds: Sequence[int] | None = None,
    linked: bool = True,
) -> Html:
    """One row of dots for each group, of named values on one axis.

    ``intervals`` of groups are bars below their dots. ``zero``: the axis reaches 0, which has a line. ``kinds``: the
    colours of the rows. ``linked``: thin lines join what has one name in two rows.
    """
    intervals = intervals or {}
    rows = {name: _TOP + 8 + 42 * i for i, name in enumerate(groups)}
    bottom = max(rows.values()) + 28
    ends = [end for one in intervals.values() for end in (one.low, one.high)]
    values = [value for group in groups.values() for _, value in group] + ends
    across = axis([*values, 0.0] if zero else values, _NAMES, _WIDTH - _RIGHT)
    parts: list[str] = [_vertical(across.position(at), bottom, name) for at, name in across.ticks]
    if zero:
        at = _n(across.position(0))
        parts.append(element("line", class_="level", x1=at, x2=at, y1=_TOP - 10, y2=bottom))
    for (one, other), (y1, y2) in zip(_neighbours([*groups.values()]), _neighbours([*rows.values()]), strict=True):
        parts += [
            element(
                "line",
                class_="grid",
                x1=_n(across.position(value)),
                x2=_n(across.position(dict(other)[who])),
                y1=y1,
                y2=y2,
            )
            for who, value in one
            if linked and who in dict(other)
        ]
    for i, (name, group) in enumerate(groups.items()):
        kind = kinds[i] if kinds is not None else i
        parts.append(element("text", name, x=0, y=rows[name] + 4, class_="strong"))
        if name in intervals:
            parts.append(_bar(intervals[name], across, rows[name] + 15, kind))
        parts += [_dot(who, value, across.position(value), rows[name], kind, i) for who, value in group]
    parts.append(element("text", x, x=_WIDTH - _RIGHT, y=bottom + 32, text_anchor="end"))
    return drawing(label, _WIDTH, bottom + 36, parts)


_Item = TypeVar("_Item")


def _neighbours(items: Sequence[_Item]) -> list[tuple[_Item, _Item]]:
    return list(zip(items, items[1:], strict=False))


def _bar(interval: Interval, across: Axis, y: float, kind: int) -> Html:
    low, mean, high = (_n(across.position(value)) for value in (interval.low, interval.mean, interval.high))
    title = element("title", f"mean {interval.mean:.2f}, interval from {interval.low:.2f} to {interval.high:.2f}")
    return element(
        "g",
        title,
        element("line", class_=f"line c{kind}", stroke_width=4, x1=low, x2=high, y1=y, y2=y),
        *(element("line", class_=f"line c{kind}", x1=at, x2=at, y1=y - 5, y2=y + 5) for at in (low, mean, high)),
    )


def _dot(name: str, value: float, x: float, y: float, kind: int, row: int) -> Html:
    """A circle for the first row, a square for the next: colour is not all that tells them apart."""
    title = element("title", f"{name}: {value:.2f}")
    if row % 2 == 0:
        return element("circle", title, class_=f"dot c{kind % COLOURS}", cx=_n(x), cy=_n(y), r=6)
    return element("rect", title, class_=f"dot c{kind % COLOURS}", x=_n(x - 5.5), y=_n(y - 5.5), width=11, height=11)


@dataclass(frozen=True)
class Bar:
    """A bar of several amounts, in the colours of their kinds, with a ``note`` behind it; its start is ``hatched``."""

    name: str
    amounts: Mapping[int, float]
    note: str
    hatched: float = 0.0


def bars(label: str, drawn: Sequence[Bar]) -> Html:
    """One row for each bar: the name, the bar, whose longest is the whole width, and its note."""
    longest = max((sum(bar.amounts.values()) for bar in drawn), default=1) or 1
    room = _WIDTH - _BARS - _NOTE
    parts = [
        element(
            "pattern",
            element("path", d="M0 6 6 0", class_="hatch"),
            id="hatch",
            width=6,
            height=6,
            patternUnits="userSpaceOnUse",
        )
    ]
    for i, bar in enumerate(drawn):
        x, y = float(_BARS), i * _ROW
        title = element("title", f"{bar.name}: {bar.note}")
        pieces = []
        for kind, amount in bar.amounts.items():
            width = room * amount / longest
            if width:
                pieces.append(_piece(x, y, max(width, 1), f"dot c{kind}"))
            x += width
        total = x - _BARS
        if bar.hatched and total:
            share = total * bar.hatched / sum(bar.amounts.values())
            pieces.append(_piece(_BARS, y, share, None, fill="url(#hatch)"))
        parts += [
            element("g", title, *pieces),
            element("text", _cut(bar.name), x=0, y=y + 15, class_="strong"),
            element("text", bar.note, x=_n(x + 6), y=y + 15),
        ]
    return drawing(label, _WIDTH, len(drawn) * _ROW, parts)


def _piece(x: float, y: float, width: float, kind: str | None, fill: str | None = None) -> Html:
    return element("rect", x=_n(x), y=y + 3, width=_n(width), height=_ROW - 7, class_=kind, fill=fill)


def _cut(name: str) -> str:
    """A name that has room before a bar."""
    most = _BARS // _LETTER - 1
    return name if len(name) <= most else f"…{name[1 - most :]}"


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


def _line(line: Line, across: Axis, up: Axis) -> Html:
    points = [(across.position(px), up.position(py)) for px, py in line.points]
    joined_points = " ".join(f"{_n(px)},{_n(py)}" for px, py in points)
    style = f"c{line.kind % COLOURS}"
    drawn = element("polyline", class_=f"line {style} d{line.kind % COLOURS}", points=joined_points)
    small = [
        element("circle", class_=f"dot {style}", cx=_n(px), cy=_n(py), r=3) for px, py in points if len(points) < _FEW
    ]
    return element("g", element("title", line.name), drawn, *small)


def _horizontal(at: float, name: str) -> Html:
    return joined(
        (
            element("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_n(at), y2=_n(at)),
            element("text", name, x=_LEFT - 6, y=_n(at + 4), text_anchor="end"),
        )
    )


def _vertical(at: float, bottom: float, name: str) -> Html:
    return joined(
        (
            element("line", class_="grid", x1=_n(at), x2=_n(at), y1=_TOP - 10, y2=bottom),
            element("text", name, x=_n(at), y=bottom + 16, text_anchor="middle"),
        )
    )


def _bordered(borders: Mapping[float, str], across: Axis, height: int) -> list[str]:
    """Vertical lines with names; a name is left out where the one before it needs its room."""
    bottom, drawn, end = height - _BOTTOM, list[str](), -math.inf
    for x, name in ((across.position(at), name) for at, name in borders.items()):
        drawn.append(element("line", class_="grid", x1=_n(x), x2=_n(x), y1=_TOP, y2=bottom + 5))
        if x > end:
            drawn.append(element("text", name, x=_n(x), y=bottom + 17))
            end = x + _LETTER * len(name) + 6
    return drawn


def _n(value: float) -> str:
    """A coordinate in a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
