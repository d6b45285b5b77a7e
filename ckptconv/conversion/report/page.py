"""A receipt -> the page about it. It speaks of numbers where they were measured while the file was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckptconv.conversion.report import picture
from ckptconv.conversion.report.layers import END, STEM, Block, Layer, blocks
from ckptconv.conversion.report.unusual import RULE, Unusual, untrained, unusual
from ckptconv.conversion.statistics import TensorStatistics
from ckptconv.planning.matching import Move
from ckptconv.planning.plan import Plan
from ckptconv.report import charts, parts
from ckptconv.report.markup import Html, element
from ckptconv.report.page import fragment
from ckptconv.report.page import page as page_of
from ckptconv.rules import Split
from ckptconv.text import fold, quantity, section_label, size

if TYPE_CHECKING:
    from ckptconv.conversion.receipt import Receipt

_KEPT, _RENAMED, _JOINED, _CUT, _CHANGED = "kept", "renamed", "joined", "cut", "changed"
_HEAD = ("tensor", "way", "shape", "mean", "std", "norm")
_MOST_NAMES = 200  # of what is left out for one reason, folded


def page(done: Receipt) -> str:
    """The page's text."""
    assert done.plan.backbone is not None
    ordered = blocks(done.plan)
    found = unusual(ordered, done.statistics)
    random = untrained(ordered, done.statistics)
    name = done.plan.backbone.name
    title = f"{name} of {done.method.title}" if not done.also else name
    return page_of(title, _parts(done, title, ordered, found, random))


def _parts(
    done: Receipt, title: str, ordered: Sequence[Block], found: Mapping[str, Unusual], random: str
) -> Iterator[Html]:
    yield element("h1", title)
    yield element("p", f"{done.source} → {done.destination}", class_="soft")
    yield _verdict(done, found, random)
    assert done.plan.backbone is not None
    drawn = picture.network(done.plan.backbone.name, ordered, found)
    caption = "Each bar is a block, as high as its channels, which stand above. Below: how many blocks and numbers."
    yield parts.section("The network", element("figure", drawn, element("figcaption", caption)))
    if found:
        rows = [(one.name, one.what) for one in found.values()]
        yield parts.section("What is unusual", parts.table(("tensor", "what"), rows, "Unusual tensors", words=()))
    if done.statistics:
        yield parts.section("The numbers", _gains(done, ordered, found), element("p", RULE, class_="soft"))
    yield parts.section("Each tensor's way", _ways(done.plan), *_groups(done, ordered, found))
    yield parts.section("Left out", *_left_out(done.plan))
    yield parts.section("Provenance", parts.facts(provenance(done)))


def headline(done: Receipt) -> str:
    """What became of the network, in a few words."""
    plan = done.plan
    assert plan.backbone is not None
    kept = f"{len(plan.moves)} tensors of {plan.backbone.name}"
    if not done.written:
        return f"Planned: {kept}; nothing was written"
    return f"Converted: {kept}, read back and equal"


def _verdict(done: Receipt, found: Mapping[str, Unusual], random: str) -> Html:
    said, broken = list[str](), [one for one in found.values() if one.broken]
    if random:
        said.append(f"The network looks untrained: {random}.")
    if broken:
        said.append(f"But {_tensors(len(broken))} cannot be right: {broken[0].name}: {broken[0].what}.")
    if rest := len(found) - len(broken):
        said.append(f"{_tensors(rest)} look{'s' * (rest == 1)} unusual, see below.")
    if done.statistics and not (found or random):
        said.append("No tensor looks unusual beside the others of its kind.")
    if done.dangerous:
        said.append(f"Unpickling the source would have called {', '.join(done.dangerous)}. Nothing was run.")
    colour = parts.BAD if broken else parts.WARN if found or random or done.dangerous else parts.GOOD
    return parts.verdict(colour, headline(done), said, _left(done.plan))


def _tensors(number: int) -> str:
    return f"{number} tensor{'s' * (number != 1)}"


def _left(plan: Plan) -> list[str]:
    left = len(plan.dropped)
    return (
        []
        if not left
        else [f"{left} {'entries' if left != 1 else 'entry'} of the file {'are' if left != 1 else 'is'} left out."]
    )


def way(move: Move) -> str:
    """What became of a tensor, in a word."""
    if len(move.sources) > 1:
        return _JOINED
    if isinstance(move.rule, Split):
        return _CUT
    if move.op is not None:
        return _CHANGED
    return _KEPT if move.sources == (move.target,) else _RENAMED


def _ways(plan: Plan) -> Html:
    ways = [way(move) for move in plan.moves]
    said = [f"{ways.count(one)} {one}" for one in (_KEPT, _RENAMED, _JOINED, _CUT, _CHANGED) if one in ways]
    return element("p", f"{', '.join(said)}; {len(plan.dropped)} left out.")


def _gains(done: Receipt, ordered: Sequence[Block], found: Mapping[str, Unusual]) -> Html | None:
    drawn = picture.gains(ordered, done.statistics, found)
    if drawn is None:
        return None
    chart, kinds = drawn
    return element("figure", chart, charts.legend(kinds))


def _groups(done: Receipt, ordered: Sequence[Block], found: Mapping[str, Unusual]) -> Iterator[Html]:
    for block in ordered:
        bad = [layer for layer in block.layers if layer.move.target in found]
        ways = ", ".join(dict.fromkeys(way(layer.move) for layer in block.layers))
        said = f"{_tensors(len(block.layers))}, {quantity(block.numel)} numbers, {ways}"
        name = {STEM: "before the blocks", END: "after the blocks"}.get(block.name, block.name)
        if block.name == block.stage and block.stage not in (STEM, END):
            name = f"{name}, beside its blocks"
        summary = [element("b", name), parts.soft(said)]
        if bad:
            summary.append(parts.mark(parts.BAD, f"{len(bad)} unusual"))
        rows = [_row(layer, done.statistics.get(layer.move.target), found) for layer in block.layers]
        yield parts.folded(summary, parts.table(_HEAD, rows, f"Tensors of {name}", kind="tensors"))


def _row(layer: Layer, values: TensorStatistics | None, found: Mapping[str, Unusual]) -> Sequence[str]:
    move = layer.move
    moved = way(move)
    mark = found.get(move.target)
    said = element("small", mark.what, class_=f"mark {parts.BAD}") if mark else None
    name = parts.with_below(move.target, "" if moved == _KEPT else f"from {', '.join(move.sources)}", said)
    how = parts.with_below(moved, str(move.op) if move.op is not None else "")
    shape = parts.with_below("×".join(map(str, move.spec.shape)) or "one number", str(move.spec.dtype))
    numbers = (f"{values.mean:.3g}", f"{values.std:.3g}", f"{values.norm:.4g}") if values else ("–", "–", "–")
    return (name, how, shape, *numbers)


def _left_out(plan: Plan) -> Iterator[Html]:
    reasons: dict[str, list[str]] = {}
    for gone in plan.dropped:
        reasons.setdefault(gone.why, []).append(gone.source)
    for why, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        lines = fold(names)
        items = [element("li", name if len(alike) == 1 else f"{name} ({len(alike)})") for name, alike in lines.items()]
        more = [element("li", f"… and {len(items) - _MOST_NAMES} more")] if len(items) > _MOST_NAMES else []
        summary = [element("b", why), parts.soft(f"{len(names)} {'entries' if len(names) > 1 else 'entry'}")]
        yield parts.folded(summary, element("ul", *items[:_MOST_NAMES], *more))
    if not reasons:
        yield element("p", "Nothing: every entry of the file is part of the network.")
    if plan.optional_missing:
        missing = ", ".join(fold(plan.optional_missing))
        yield element("p", f"Not in the file, and not needed: {missing}.", class_="soft")


def provenance(done: Receipt) -> dict[str, str]:
    """Where the network is from, and what vouches for it."""
    plan, licence = done.plan, done.licence
    fetched = [
        ", ".join(filter(None, (one.address, one.version, "its published digest was checked" * one.hash_checked)))
        for one in done.transfers
    ]
    terms = (licence.name, licence.restrictions, licence.url) if licence else ()
    return {
        "source": f"{done.source} ({done.source_format}, {size(done.source_size)}), {section_label(plan.section)}",
        "fetched": "; ".join(fetched),
        "release": done.release,
        "method": f"{done.method.name}: {done.method.title}, {plan.layout}",
        "same names": ", ".join(done.also),
        "paper": done.method.paper,
        "licence": "; ".join(filter(None, terms)) or "not known",
        "target": plan.target,
        "unusual": plan.backbone.unusual if plan.backbone else "",
        "channels": str(plan.selected_channels or ""),
        "resized": "; ".join(map(str, plan.resized)),
        "rounded": f"floating tensors to {done.dtype}" if done.dtype else "",
        "other copies": "; ".join(f"the same network is also {one.where}" for one in done.copies),
        "written": f"{done.destination} ({done.destination_format}, {size(done.destination_size)})" * done.written,
        "proved": f"{done.proved} tensors were read back and are equal" * done.written,
        "fingerprint": done.fingerprint,
    }


def small(done: Receipt) -> str:
    """The receipt for a notebook."""
    said = provenance(done)
    facts = [(name, said[name]) for name in ("source", "method", "licence", "written", "fingerprint")]
    return fragment(parts.GOOD, headline(done), facts)
