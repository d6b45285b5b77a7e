"""Charts of lines as SVG in a page, and what all charts share. Colours are the page's, by day and by night.

A chart has a sentence for those who do not see it, and its lines differ by their dashes, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptconv.report.axes import Axis, axis
from ckptconv.report.markup import Html, element, joined

COLOURS = 6
"""How many kinds of lines and dots the style tells apart."""
WIDTH, _LEFT, RIGHT, _TOP, _BOTTOM = 420, 46, 14, 24, 34
LETTER = 8  # pixels of a letter, at most
_FEW = 30  # points that get dots


@dataclass(frozen=True)
class Line:
    """``points``: (x, y), y above 0 on a log axis. ``kind``: the number of its colour and dashes, as in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: int = 0


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
    across = axis(xs, _LEFT, WIDTH - RIGHT)
    up = axis(ys, height - _BOTTOM, _TOP, log=log)
    parts: list[str] = [_horizontal(up.position(at), name) for at, name in up.ticks]
    if borders is None:
        parts += [
            element("text", name, x=coordinate(across.position(at)), y=height - _BOTTOM + 16, text_anchor="middle")
            for at, name in across.ticks
        ]
    else:
        parts += _bordered(borders, across, height)
    for name, value in levels.items():
        at = up.position(value)
        parts += [
            element("line", class_="level", x1=_LEFT, x2=WIDTH - RIGHT, y1=coordinate(at), y2=coordinate(at)),
            element("text", name, x=WIDTH - RIGHT, y=coordinate(at - 4), text_anchor="end"),
        ]
    for line in drawn:
        parts.append(_line(line, across, up))
    for px, py in rings:
        at = height - _BOTTOM if py is None else up.position(py)
        parts.append(element("circle", class_="ring", cx=coordinate(across.position(px)), cy=coordinate(at), r=6))
    parts += [
        element("text", y, x=0, y=12),
        element("text", x, x=WIDTH - RIGHT, y=height - 2, text_anchor="end"),
    ]
    return drawing(label, WIDTH, height, parts)


def drawing(label: str, width: float, height: float, parts: Iterable[str | None]) -> Html:
    """An SVG that is as wide as its place in the page, with a sentence for those who do not see it."""
    return element("svg", *parts, role="img", aria_label=label, viewBox=f"0 0 {coordinate(width)} {coordinate(height)}")


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


def _line(line: Line, across: Axis, up: Axis) -> Html:
    points = [(across.position(px), up.position(py)) for px, py in line.points]
    joined_points = " ".join(f"{coordinate(px)},{coordinate(py)}" for px, py in points)
    style = f"c{line.kind % COLOURS}"
    drawn = element("polyline", class_=f"line {style} d{line.kind % COLOURS}", points=joined_points)
    small = [
        element("circle", class_=f"dot {style}", cx=coordinate(px), cy=coordinate(py), r=3)
        for px, py in points
        if len(points) < _FEW
    ]
    return element("g", element("title", line.name), drawn, *small)


def _horizontal(at: float, name: str) -> Html:
    return joined(
        (
            element("line", class_="grid", x1=_LEFT, x2=WIDTH - RIGHT, y1=coordinate(at), y2=coordinate(at)),
            element("text", name, x=_LEFT - 6, y=coordinate(at + 4), text_anchor="end"),
        )
    )


def _bordered(borders: Mapping[float, str], across: Axis, height: int) -> list[str]:
    """Vertical lines with names; a name is left out where the one before it needs its room."""
    bottom, drawn, end = height - _BOTTOM, list[str](), -math.inf
    for x, name in ((across.position(at), name) for at, name in borders.items()):
        drawn.append(element("line", class_="grid", x1=coordinate(x), x2=coordinate(x), y1=_TOP, y2=bottom + 5))
        if x > end:
            drawn.append(element("text", name, x=coordinate(x), y=bottom + 17))
            end = x + LETTER * len(name) + 6
    return drawn


def coordinate(value: float) -> str:
    """A coordinate in a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
