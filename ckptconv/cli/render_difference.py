"""Prints how two checkpoints differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from ckptconv.cli import render
from ckptconv.difference.compare import Diff, DifferingTensor, DiffSide
from ckptconv.text import fold, section_label, size

_MOST_LINES = 20


def difference(found: Diff, full: bool, as_json: bool) -> None:
    if as_json:
        render.dump("diff", {"same": found.same, "compared": found.compared, **asdict(found)})
        return
    render.row("A", _side(found.a))
    render.row("B", _side(found.b))
    render.row("network", _network(found))
    if not found.compared and not full:
        render.row("result", "no tensor in common: --all lists the names of both")
        return
    if found.compared:
        render.row("equal", f"{len(found.equal)} of {render.count(found.compared, 'tensor')}, bit for bit")
    if found.rounded:
        render.row("rounded", f"{len(found.rounded)} more are equal once they are rounded to the other's type")
    _differing(found.differing, full)
    _lines("shapes", [f"{one.name}: {list(one.shape_a)} and {list(one.shape_b)}" for one in found.shapes], full)
    for label, names, others in (("only A", found.only_a, found.a.others), ("only B", found.only_b, found.b.others)):
        _lines(label, list(names if full else fold(names)), full)
        if others:
            render.row(label, f"outside the network: {_some(others)}")
    render.row("result", _result(found))


def _side(side: DiffSide) -> str:
    file = f" ({side.format}, {size(side.size)})" if side.format else ""
    held = f": {side.backbone}, by the names of {side.method}" if side.backbone else ""
    return f"{side.label}{file}, {section_label(side.section)}{held}"


def _network(found: Diff) -> str:
    under = f"compared under the names of {found.target}" if found.target else "compared under their own names"
    if found.same_network is None:
        which = " and ".join(name for name, side in (("A", found.a), ("B", found.b)) if not side.backbone)
        return f"no method explains {which}: {under}"
    return f"{'the same' if found.same_network else 'not the same'}, {under}"


def _differing(tensors: Sequence[DifferingTensor], full: bool) -> None:
    if not tensors:
        return
    shown = tensors if full else tensors[:_MOST_LINES]
    width = max(len(one.name) for one in shown)
    render.row("differ", f"{render.count(len(tensors), 'tensor')}, the largest relative difference first")
    render.row("", f"{'':<{width}}  {'largest':>9}  {'relative':>9}  {'cosine':>9}")
    for one in shown:
        far = one.distance
        numbers = (far.max_abs, far.relative, far.cosine)
        cells = "  ".join(f"{'?' if number is None else f'{number:.3g}':>9}" for number in numbers)
        notes = [f"{far.not_finite} NaN or infinite"] if far.not_finite else []
        notes += [f"{one.dtype_a} and {one.dtype_b}"] if one.dtype_a != one.dtype_b else []
        render.row("", f"{one.name:<{width}}  {cells}" + "".join(f"  {note}" for note in notes))
    _more(len(tensors) - len(shown))


def _lines(label: str, lines: Sequence[str], full: bool) -> None:
    shown = lines if full else lines[:_MOST_LINES]
    for i, line in enumerate(shown):
        render.row("" if i else label, line)
    _more(len(lines) - len(shown))


def _more(left: int) -> None:
    if left:
        render.row("", f"… and {left} more: --all")


def _some(names: Iterable[str]) -> str:
    lines = list(fold(names))
    return ", ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


def _result(found: Diff) -> str:
    if found.same:
        return "the same network with the same numbers"
    return "they differ" if found.compared else "no tensor in common"
