"""Which tensors a user may drop: what is in the file besides the network, and nothing of the network itself.

Without a bias, a token or a norm of its own, a network computes something else, and its file often reads as another,
smaller network. Pure: it sees names, shapes and rules.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptconv import backbones
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.methods.interface import Layout
from ckptconv.planning.matching import Move, Outcome, apply_rules
from ckptconv.planning.problems import DropsEntry, DropsPart, Problem
from ckptconv.rules import Drop
from ckptconv.spec import StateSpec


def blocks_of(backbone: Backbone, moves: Sequence[Move]) -> tuple[str, ...]:
    """The prefixes that only one block or stage of the network has, as the file names them."""
    found: dict[str, None] = {}
    for level in FAMILIES[backbone.family].blocks:
        blocks: dict[str, set[str]] = {}  # that names with such a start belong to
        for move in moves:
            block = re.match(level, move.target)
            for source in move.sources:
                for start in _starts(source):
                    blocks.setdefault(start, set()).add(block[0] if block else "")
        own = {start for start, belonging in blocks.items() if len(belonging) == 1 and "" not in belonging}
        found |= {start: None for start in blocks if start in own and own.isdisjoint(_starts(start[:-1]))}
    return tuple(found)


def parts_of(backbone: Backbone, moves: Sequence[Move]) -> tuple[str, ...]:
    """The prefixes of each block or stage, and of each layer outside of them."""
    blocks = blocks_of(backbone, moves)
    names = (source.rpartition(".") for move in moves for source in move.sources)
    layers = {f"{layer}.": None for layer, _, last in names if layer and last in ("weight", "bias")}
    return (*blocks, *(layer for layer in layers if not inside(layer, blocks)))


def _joins_tokens(key: str, names: StateSpec, backbone: Backbone, moves: Sequence[Move]) -> bool:
    """Whether a tensor is as wide as the tokens and next to theirs: register tokens, prompts, positions, or a norm.

    The mask token is only used in pre-training.
    """
    width, shape = backbone.token_dim, names[key].shape
    own = {source.rpartition(".")[0] for m in moves if len(m.spec.shape) == 3 for source in m.sources}
    parent, _, last = key.rpartition(".")
    if shape == (width,) and parent and parent.rpartition(".")[0] in own:
        return all(spec.shape == shape for name, spec in names.items() if name.startswith(f"{parent}."))
    return parent in own and len(shape) > 2 and shape[0] == 1 and width in shape and "mask" not in last


def _starts(name: str) -> Iterator[str]:
    """Its first segment with a dot, its first two, and so on; never all of them."""
    dot = name.find(".")
    while dot >= 0:
        yield name[: dot + 1]
        dot = name.find(".", dot + 1)


def inside(key: str, blocks: Iterable[str]) -> str:
    """The block or stage that a name belongs to; '' if none."""
    return max((block for block in blocks if key.startswith(block)), key=len, default="")


def forbidden(
    layout: Layout, names: StateSpec, prefix: str, drops: Collection[Drop], outcome: Outcome
) -> list[Problem]:
    """A problem for each name that the user drops from the network itself. ``outcome`` is what the rules made.

    A second name of a kept tensor may be dropped.
    """
    gone = [dropped.source for dropped in outcome.dropped if any(dropped.rule is drop for drop in drops)]
    network = backbones.read({m.target: m.spec for m in outcome.moves}, layout.families) if gone else None
    if network is None:
        return []
    blocks, filled = parts_of(network, outcome.moves), {m.target for m in outcome.moves}
    undropped = apply_rules(layout.index, names, prefix).moves
    whole = backbones.read({m.target: m.spec for m in undropped}, layout.families) or network
    entries = {name for name in whole.entries() if name not in filled and not whole.optional(name)}
    own = {source: m.target for m in undropped if m.target in entries for source in m.sources}
    alone = apply_rules(layout.index, {key: names[key] for key in gone}, prefix).moves
    again = {m.sources[0] for m in (*undropped, *alone) if m.target in filled}
    problems: list[Problem] = []
    for key in gone:
        block = inside(key, blocks)
        if key in own:
            problems.append(DropsEntry(key, own[key], whole))
        elif block and key not in again:
            problems.append(DropsPart(key, block[:-1]))
    return problems


def droppable_names(
    backbone: Backbone, layout: Layout, names: StateSpec, moves: Sequence[Move], problems: Sequence[Problem]
) -> tuple[str, ...]:
    """The names whose drop makes a plan complete; () if no drop does, or if one is part of the network.

    ``names`` are the section's, ``moves`` those of the canonical names, ``problems`` all that the plan has.
    """
    keys = {problem.key: None for problem in problems if problem.kind == "unexplained"}
    if not keys or len(keys) != len(problems):
        return ()
    stay = [move for move in moves if not keys.keys() & set(move.sources)]
    blocks = parts_of(backbone, stay)
    if any(key in names and _joins_tokens(key, names, backbone, stay) for key in keys):
        return ()
    same = backbones.read({m.target: m.spec for m in stay}, layout.families) == backbone
    return tuple(keys) if same and not any(inside(key, blocks) for key in keys) else ()
