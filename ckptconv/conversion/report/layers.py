"""The tensors of a plan in the network's own order: in which stage and block each one is, and which are of one kind.

Blocks are those that the table of networks names; a target's names are translated back by its own rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.planning.matching import Move, apply_rules
from ckptconv.planning.plan import Plan
from ckptconv.spec import DTYPES, TensorSpec

STEM, END = "stem", "end"
"""What is before the first block, and what is after the last one."""


@dataclass(frozen=True)
class Layer:
    """One tensor that is written. ``kind``: its canonical name without stage and block, alike in all blocks."""

    move: Move
    stage: str
    block: str
    kind: str


@dataclass(frozen=True)
class Block:
    """A block, or all that is beside the blocks of a stage. ``channels`` come out of it."""

    name: str
    stage: str
    layers: tuple[Layer, ...]
    channels: int

    @cached_property
    def numel(self) -> int:
        return sum(layer.move.spec.numel for layer in self.layers)


def blocks(plan: Plan) -> list[Block]:
    """The blocks of a complete plan, in the network's order, with all of its moves."""
    assert plan.backbone is not None
    entries = plan.backbone.entries()
    homes = _homes(entries, [re.compile(pattern) for pattern in FAMILIES[plan.backbone.family].blocks])
    canonical = _canonical_names(plan, entries)
    order = {name: i for i, name in enumerate(entries)}
    found: dict[tuple[str, str], list[Layer]] = {}
    for move in sorted(plan.moves, key=lambda move: order.get(canonical.get(move.target, ""), len(order))):
        name = canonical.get(move.target, move.target)
        stage, block, kind = homes.get(name, (END, "", name))
        found.setdefault((stage, block), []).append(Layer(move, stage, block, kind))
    return [
        Block(block or stage, stage, tuple(layers), _channels(entries, homes, stage, block, plan.backbone))
        for (stage, block), layers in found.items()
    ]


def _homes(entries: Iterable[str], patterns: Sequence[re.Pattern[str]]) -> dict[str, tuple[str, str, str]]:
    """Of each canonical name: its stage, its block ('' beside the blocks), and the rest of the name."""
    found = {
        name: sorted({match[0] for pattern in patterns if (match := pattern.match(name))}, key=len) for name in entries
    }
    stages = {starts[0] for starts in found.values() if len(starts) > 1}
    homes, seen = dict[str, tuple[str, str, str]](), False
    for name, starts in found.items():
        if not starts:
            homes[name] = (END if seen else STEM, "", name)
            continue
        seen, last = True, starts[-1]
        block = "" if last in stages else last[:-1]
        stage = starts[0][:-1] if starts[0] in stages else last[:-1].rpartition(".")[0]
        homes[name] = (stage, block, name[len(last) :])
    return homes


def _canonical_names(plan: Plan, entries: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Names of the target -> those of the table; several of these may be in one tensor, of which the first counts."""
    if not plan.dialect.rules:
        return {name: name for name in entries}
    own = {name: TensorSpec(shape, DTYPES["float32"]) for name, shape in entries.items()}
    return {move.target: move.sources[0] for move in reversed(apply_rules(plan.dialect.rules, own).moves)}


def _channels(
    entries: Mapping[str, tuple[int, ...]],
    homes: Mapping[str, tuple[str, str, str]],
    stage: str,
    block: str,
    backbone: Backbone,
) -> int:
    """What the last matrix of a block puts out, or the kernel that sees the image; a plain transformer's width."""
    if backbone.token_dim is not None and block:
        return backbone.token_dim
    if stage == STEM:
        return entries[FAMILIES[backbone.family].stem][0]
    inside = [shape for name, shape in entries.items() if homes[name][:2] == (stage, block)]
    matrices = [shape for shape in inside if len(shape) > 1 and math.prod(shape[1:]) > 1]
    return (matrices or [shape for shape in inside if shape] or [(0,)])[-1][0]
