"""Names x rules x backbone -> `Plan`: applies a layout's rules, reads the backbone, and lists what is wrong.

Pure: it sees names, shapes and element types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from ckptconv import backbones
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.interface import CANONICAL
from ckptconv.errors import UsageError
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning import matching, user_drops
from ckptconv.planning.adjust import keep_channels, translated_name
from ckptconv.planning.matching import Dropped, Move, apply_rules, apply_to_others, translate
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan, SelectedChannels
from ckptconv.planning.problems import (
    Collision,
    EntryMissing,
    NoBackbone,
    NoEntry,
    PartMissing,
    Problem,
    UnsupportedTarget,
    WrongDtype,
    WrongShape,
)
from ckptconv.rules import Drop, Rule, drop
from ckptconv.spec import Section
from ckptconv.text import some
from ckptconv.wrappers import wrapper_of

_ACCEPTED = "dropped on request"


def actual_prefix(names: Iterable[str], prefix: str) -> str | None:
    """The prefix as names have it: as it is, or after the wrapper of all names. None if no name has it."""
    if not prefix:
        return ""
    names = list(names)
    starts = (prefix, wrapper_of(names) + prefix)
    return next((start for start in starts if any(name.startswith(start) for name in names)), None)


def taken_off(rules: Sequence[Rule], section: Section, options: Options) -> str:
    """What is removed from every name before rules are applied: the user's prefix, and the wrapper after it."""
    names: Collection[str] = section.tensors or section.unreadable
    start = actual_prefix(names, options.strip_prefix)
    if start is None:
        heads = dict.fromkeys(".".join(n.split(".")[:2]) + "." for n in names if n.count(".") > 1)
        raise UsageError(
            f"no name starts with '{options.strip_prefix}'", f"Prefixes in the file: {some(map(repr, heads), 6)}."
        )
    wrapper = wrapper_of(n[len(start) :] for n in names if n.startswith(start)) if start else section.wrapper
    spelled_out = wrapper and any(s.prefix.startswith(wrapper) for r in rules for s in r.sources)
    return start if spelled_out else start + wrapper


def _missing_parts(backbone: Backbone, layout: Layout, dropped: Iterable[Dropped]) -> Iterator[Problem]:
    """Problems for the parts that the network lacks and files of this layout have, or networks of every known depth."""
    without = {*layout.without, *(d.rule.instead for d in dropped if isinstance(d.rule, Drop))}
    for part in backbone.missing_parts:
        truncated = part.part not in without
        if truncated or (part.part in ("norm", "stages") and backbone.partial):
            yield PartMissing(part.entry, backbone, part, truncated)


def _compared(backbone: Backbone, moves: Sequence[Move], for_target: str) -> tuple[list[Problem], list[str]]:
    """The problems of these moves with this backbone, and the optional entries that no move fills."""
    problems: list[Problem] = []
    entries = backbone.entries()
    filled: dict[str, Move] = {}
    for move in moves:
        source, target = move.sources[0], move.target
        if target in filled:
            problems.append(Collision(source, target, filled[target].sources[0]))
            continue
        filled[target] = move
        shape = entries.get(target)
        if shape is None:
            problems.append(NoEntry(source, move.spec, target, backbone))
        elif shape != move.spec.shape:
            problems.append(WrongShape(source, move.spec, target, backbone))
        elif not backbone.optional(target) and not move.spec.dtype.is_float:
            problems.append(WrongDtype(source, move.spec, target, backbone))
    empty = [name for name in entries if name not in filled]
    problems += [EntryMissing(name, backbone) for name in empty if not backbone.optional(name)]
    if for_target not in FAMILIES[backbone.family].targets or backbone.obstacle(for_target):
        problems.append(UnsupportedTarget(backbone.name, for_target, backbone))
    return problems, [name for name in empty if backbone.optional(name)]


def unexplained(layout: Layout, section: Section, options: Options, most: int = 0) -> int:
    """How many names of a section no rule of the layout explains; more than ``most`` if there are more.

    No plan is complete that leaves one, and this is cheaper than a plan. Raises UsageError for unusable options.
    """
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    return matching.count_unexplained(layout.index, names, prefix, drops, most)


def make_plan(method: Method, layout: Layout, path: str, section: Section, options: Options | None = None) -> Plan:
    """The plan of one layout for the section at ``path``, complete or not. Raises UsageError for unusable options."""
    options = options or Options()
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    draft = apply_rules(layout.index, names, prefix, drops)
    problems = [*user_drops.forbidden(layout, names, prefix, drops, draft), *draft.problems]
    optional_missing, droppable_names, moves, dialect = list[str](), tuple[str, ...](), draft.moves, CANONICAL
    dropped, target = list(draft.dropped), options.target or ""
    selected_channels: SelectedChannels | None = None
    backbone = backbones.read({m.target: m.spec for m in moves}, layout.families)
    if backbone is None:
        kept = tuple(m.sources[0] for m in draft.moves)
        problems.append(NoBackbone(kept[0] if kept else "", kept))
    else:
        target = target or FAMILIES[backbone.family].targets[0]
        if options.channels and not problems:
            backbone, moves, selected_channels = keep_channels(backbone, moves, options.channels)
        found, optional_missing = _compared(backbone, moves, target)
        problems += found
        problems += _missing_parts(backbone, layout, dropped)
        droppable_names = user_drops.droppable_names(backbone, layout, names, moves, problems)
        if not problems:
            dialect = backbone.dialect(target)
            said = translate(moves, dialect.rules)
            moves, dropped, problems = said.moves, dropped + said.dropped, said.problems
            if selected_channels is not None:
                selected_channels = replace(
                    selected_channels, target=translated_name(dialect, selected_channels.target)
                )
    network = (*(backbone.entries() if backbone else ()), *(move.target for move in draft.moves))
    others = apply_to_others(layout.index, section, prefix, drops, bool(options.strip_prefix), network)
    dropped, problems = dropped + others.dropped, others.problems + problems
    return Plan(
        method=method.name,
        layout=layout.title,
        section=path,
        target=target,
        dialect=dialect,
        moves=tuple(moves),
        dropped=tuple(dropped),
        problems=tuple(problems),
        backbone=backbone,
        optional_missing=tuple(optional_missing),
        unused_rules=len(layout.rules) - len(draft.used),
        tensors=len(names),
        entries=section.entries,
        prefix=prefix,
        unused_drops=tuple(d.source.text for d in drops if all(gone.rule is not d for gone in dropped)),
        droppable_names=droppable_names,
        selected_channels=selected_channels,
    )
