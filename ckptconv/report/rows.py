"""Charts of rows, each with its name: dots on one axis, and bars of several amounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ckptconv.report.axes import Axis, axis
from ckptconv.report.charts import COLOURS, LETTER, RIGHT, WIDTH, coordinate, drawing
from ckptconv.report.markup import Html, element, joined

_TOP, _NAMES = 24, 96  # where the first row and the axis of dots begin: names stand before it
_BARS, _NOTE, _ROW = 160, 70, 22  # where bars begin, what is kept behind them, and the height of a row


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
    across = axis([*values, 0.0] if zero else values, _NAMES, WIDTH - RIGHT)
    parts: list[str] = [_vertical(across.position(at), bottom, name) for at, name in across.ticks]
    if zero:
        at = coordinate(across.position(0))
        parts.append(element("line", class_="level", x1=at, x2=at, y1=_TOP - 10, y2=bottom))
    for (one, other), (y1, y2) in zip(_neighbours([*groups.values()]), _neighbours([*rows.values()]), strict=True):
        parts += [
            element(
                "line",
                class_="grid",
                x1=coordinate(across.position(value)),
                x2=coordinate(across.position(dict(other)[who])),
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
    parts.append(element("text", x, x=WIDTH - RIGHT, y=bottom + 32, text_anchor="end"))
    return drawing(label, WIDTH, bottom + 36, parts)


_Item = TypeVar("_Item")


def _neighbours(items: Sequence[_Item]) -> list[tuple[_Item, _Item]]:
    return list(zip(items, items[1:], strict=False))


def _bar(interval: Interval, across: Axis, y: float, kind: int) -> Html:
    low, mean, high = (coordinate(across.position(value)) for value in (interval.low, interval.mean, interval.high))
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
        return element("circle", title, class_=f"dot c{kind % COLOURS}", cx=coordinate(x), cy=coordinate(y), r=6)
    return element(
        "rect",
        title,
        class_=f"dot c{kind % COLOURS}",
        x=coordinate(x - 5.5),
        y=coordinate(y - 5.5),
        width=11,
        height=11,
    )


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
    room = WIDTH - _BARS - _NOTE
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
            element("text", bar.note, x=coordinate(x + 6), y=y + 15),
        ]
    return drawing(label, WIDTH, len(drawn) * _ROW, parts)


def _piece(x: float, y: float, width: float, kind: str | None, fill: str | None = None) -> Html:
    return element("rect", x=coordinate(x), y=y + 3, width=coordinate(width), height=_ROW - 7, class_=kind, fill=fill)


def _cut(name: str) -> str:
    """A name that has room before a bar."""
    most = _BARS // LETTER - 1
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _vertical(at: float, bottom: float, name: str) -> Html:
    return joined(
        (
            element("line", class_="grid", x1=coordinate(at), x2=coordinate(at), y1=_TOP - 10, y2=bottom),
            element("text", name, x=coordinate(at), y=bottom + 16, text_anchor="middle"),
        )
    )
