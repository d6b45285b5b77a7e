"""A network as a picture: a bar for each block, as high as its channels, in the order in which an image meets them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ckptconv.conversion.report.layers import END, STEM, Block
from ckptconv.conversion.report.unusual import gain
from ckptconv.conversion.statistics import TensorStatistics
from ckptconv.report import charts
from ckptconv.report.charts import Line
from ckptconv.report.markup import Html, element
from ckptconv.text import quantity

_WIDTH, _HEIGHT, _BELOW, _ABOVE = 420, 96, 52, 18
_GAP, _WIDEST, _NARROWEST, _LABEL = 8, 16.0, 1.5, 44.0
_MOST_KINDS = 4  # of matrices in the chart: those with the most numbers


@dataclass(frozen=True)
class _Column:
    """Blocks side by side that have one label."""

    label: str
    blocks: tuple[Block, ...]
    numel: int


def network(name: str, blocks: Sequence[Block], marked: Collection[str] = ()) -> Html:
    """The picture. ``marked``: names in the target of tensors whose blocks are marked."""
    columns = _columns(blocks)
    bar = next(width for width in _widths() if _total(columns, width) <= _WIDTH or width <= _NARROWEST)
    low, high = min(b.channels for b in blocks), max(b.channels for b in blocks)
    parts, x, base = list[str | None](), 0.0, _ABOVE + _HEIGHT
    for column in columns:
        width = _width(column, bar)
        at = x + (width - bar * len(column.blocks)) / 2
        tall = 0.0
        for block in column.blocks:
            tall = _tall(block.channels, low, high)
            parts.append(_bar(block, at, base, bar, tall, any(layer.move.target in marked for layer in block.layers)))
            at += bar
        middle = x + width / 2
        times = f"× {len(column.blocks)}" if len(column.blocks) > 1 else ""
        parts += [
            _text(str(column.blocks[0].channels), middle, base - tall - 6, "strong"),
            _text(column.label, middle, base + 16, "strong"),
            _text(times, middle, base + 31),
            _text(quantity(column.numel), middle, base + 46),
        ]
        x += width + _GAP
    said = ", then ".join(f"{c.label}: {len(c.blocks)} of {c.blocks[0].channels} channels" for c in columns)
    return charts.drawing(f"{name}. {said}.", max(x - _GAP, 200), base + _BELOW, parts)


def _columns(blocks: Sequence[Block]) -> list[_Column]:
    """Stages, cut where their channels change. What is beside the blocks of a stage is counted and not drawn."""
    columns = []
    for stage, members in groupby(blocks, key=lambda block: block.stage):
        inside = list(members)
        drawn = [block for block in inside if block.layers[0].block or stage in (STEM, END)]
        beside = sum(block.numel for block in inside) - sum(block.numel for block in drawn)
        parts = [tuple(alike) for _, alike in groupby(drawn, key=lambda block: block.channels)]
        for i, part in enumerate(parts):
            numel = sum(block.numel for block in part) + (beside if i == 0 else 0)
            columns.append(_Column(_label(stage, part, len(parts)), part, numel))
    return columns


def _label(stage: str, part: tuple[Block, ...], of: int) -> str:
    """A stage's name without what all of them have; with the numbers of its blocks where it is in parts."""
    name = stage.removesuffix(".blocks").replace("cls_attn_blocks", "cls attn")
    first, last = (block.name.rpartition(".")[2] for block in (part[0], part[-1]))
    return name if of == 1 else first if first == last else f"{first}–{last}"


def _widths() -> list[float]:
    return [_WIDEST - i / 4 for i in range(int((_WIDEST - _NARROWEST) * 4) + 1)]


def _width(column: _Column, bar: float) -> float:
    return max(bar * len(column.blocks), _LABEL, 7.5 * len(column.label))


def _total(columns: Sequence[_Column], bar: float) -> float:
    return sum(_width(column, bar) + _GAP for column in columns) - _GAP


def _tall(channels: int, low: int, high: int) -> float:
    if low == high:
        return _HEIGHT * 0.7
    return _HEIGHT * (0.25 + 0.75 * math.log(channels / low) / math.log(high / low))


def _bar(block: Block, x: float, base: float, width: float, tall: float, marked: bool) -> Html:
    title = f"{block.name}: {block.channels} channels, {len(block.layers)} tensors, {quantity(block.numel)} numbers"
    return element(
        "rect",
        element("title", title + ", something unusual" * marked),
        class_="block marked" if marked else "block",
        x=f"{x + 0.5:.1f}",
        y=f"{base - tall:.1f}",
        width=f"{max(width - 1, 1):.1f}",
        height=f"{tall:.1f}",
        rx=min(2, width / 4),
    )


def _text(text: str, x: float, y: float, kind: str | None = None) -> Html | None:
    middle = f"{x:.1f}"
    return element("text", text, x=middle, y=f"{y:.1f}", text_anchor="middle", class_=kind) if text else None


def gains(
    blocks: Sequence[Block], statistics: Mapping[str, TensorStatistics], marked: Collection[str]
) -> tuple[Html, dict[int, str]] | None:
    """The gains of the largest matrices through the depth, one line a kind, and the kinds; None for few blocks."""
    inside = [block for block in blocks if block.layers[0].block]
    lines: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, int] = Counter()
    for i, block in enumerate(inside):
        for layer in block.layers:
            values = statistics.get(layer.move.target)
            mine = gain(layer, values)
            if mine:
                lines.setdefault(layer.kind, []).append((i, mine))
                sizes[layer.kind] += layer.move.spec.numel
    sizes = {kind: size for kind, size in sizes.items() if len(lines[kind]) > 2}
    largest = sorted(sizes, key=lambda kind: -sizes[kind])[:_MOST_KINDS]
    shown = {kind: i for i, kind in enumerate(kind for kind in lines if kind in largest)}
    if not shown:
        return None
    rings: list[tuple[float, float | None]] = []
    for i, block in enumerate(inside):
        for layer in block.layers:
            if layer.move.target in marked:
                mine = gain(layer, statistics.get(layer.move.target)) if layer.kind in shown else None
                rings.append((i, mine or None))
    borders = {float(i): _label(block.stage, (block,), 1) for i, block in enumerate(inside) if _begins(inside, i)}
    chart = charts.lines(
        f"The gain of {len(shown)} kinds of matrices over {len(inside)} blocks, on a log axis; "
        f"{len(rings) or 'no'} tensor{'s' * (len(rings) != 1)} of theirs are marked as unusual.",
        [Line(kind, lines[kind], i) for kind, i in shown.items()],
        x="block",
        y="gain",
        log=True,
        rings=rings,
        borders=borders,
    )
    return chart, {i: kind for kind, i in shown.items()}


def _begins(blocks: Sequence[Block], i: int) -> bool:
    return i == 0 or blocks[i].stage != blocks[i - 1].stage
