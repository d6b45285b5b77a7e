"""Names x rules x backbone -> `Plan`: applies a layout's rules, reads the backbone, and lists what is wrong.

Pure: it sees names, shapes and element types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from ckptconv import backbones
from ckptconv.arguments import argument
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.interface import CANONICAL
from ckptconv.errors import UsageError, printable
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning import matching, user_drops
from ckptconv.planning.adjust import keep_channels, translated_name
from ckptconv.planning.matching import Dropped, Move, Problem, apply_rules, apply_to_others, translate
from ckptconv.planning.options import Options
from ckptconv.planning.plan import CUT, Plan, SelectedChannels
from ckptconv.rules import Drop, Rule, drop
from ckptconv.spec import Section
from ckptconv.text import some
from ckptconv.wrappers import wrapper_of

_ACCEPTED = "dropped on request"


def behind(names: Iterable[str], prefix: str) -> str | None:
    """The prefix as names have it: as it is, or after the wrapper of all names. None if no name has it."""
    if not prefix:
        return ""
    names = list(names)
    starts = (prefix, wrapper_of(names) + prefix)
    return next((start for start in starts if any(name.startswith(start) for name in names)), None)


def taken_off(rules: Sequence[Rule], section: Section, options: Options) -> str:
    """What is removed from every name before rules are applied: the user's prefix, and the wrapper after it."""
    names: Collection[str] = section.tensors or section.unreadable
    start = behind(names, options.strip_prefix)
    if start is None:
        heads = dict.fromkeys(".".join(n.split(".")[:2]) + "." for n in names if n.count(".") > 1)
        raise UsageError(
            f"no name starts with '{options.strip_prefix}'", f"Prefixes in the file: {some(map(repr, heads), 6)}."
        )
    wrapper = wrapper_of(n[len(start) :] for n in names if n.startswith(start)) if start else section.wrapper
    spelled_out = wrapper and any(s.prefix.startswith(wrapper) for r in rules for s in r.sources)
    return start if spelled_out else start + wrapper


def _other_targets(backbone: Backbone, target: str) -> tuple[str, ...]:
    """The other targets that can hold the network."""
    return tuple(t for t in FAMILIES[backbone.family].targets if t != target and not backbone.obstacle(t))


def _missing_parts(backbone: Backbone, layout: Layout, dropped: Iterable[Dropped]) -> Iterator[Problem]:
    """Problems for the parts that the network lacks and files of this layout have, or networks of every known depth."""
    without = {*layout.without, *(d.rule.instead for d in dropped if isinstance(d.rule, Drop))}
    for part in backbone.missing_parts:
        start = f"{part.entry} of {backbone.name}: {part.what}"
        if part.part not in without:
            yield Problem("missing", part.entry, f"{start}, {CUT}")
        elif part.part in ("norm", "stages") and backbone.partial:
            yield Problem("missing", part.entry, f"{start}, so the network is not complete. {backbone.unusual}")


def _compared(backbone: Backbone, moves: Sequence[Move], for_target: str) -> tuple[list[Problem], list[str]]:
    """The problems of these moves with this backbone, and the optional entries that no move fills."""
    problems: list[Problem] = []
    entries = backbone.entries()
    filled: dict[str, Move] = {}
    for move in moves:
        source, target = printable(move.sources[0]), printable(move.target)
        if move.target in filled:
            text = f"{source}: {target} is already made from {printable(filled[move.target].sources[0])}"
            problems.append(Problem("collision", move.sources[0], text))
            continue
        filled[move.target] = move
        shape = entries.get(move.target)
        if shape is None:
            text = f"{source} ({move.spec}): {backbone.name} has no {target}"
            problems.append(Problem("unexplained", move.sources[0], text))
        elif shape != move.spec.shape:
            text = f"{source}: shape {list(move.spec.shape)}, but {target} of {backbone.name} is {list(shape)}"
            problems.append(Problem("shape", move.sources[0], text))
        elif not backbone.optional(move.target) and not move.spec.dtype.is_float:
            text = f"{source}: dtype {move.spec.dtype}, but {target} of {backbone.name} is floating point"
            problems.append(Problem("dtype", move.sources[0], text))
    empty = [name for name in entries if name not in filled]
    problems.extend(
        Problem(
            "missing",
            name,
            f"{name} of {backbone.name} ({list(entries[name])}): missing, no tensor of the file becomes it",
        )
        for name in empty
        if not backbone.optional(name)
    )
    targets = FAMILIES[backbone.family].targets
    known = for_target in targets
    obstacle = backbone.obstacle(for_target) if known else f"a {backbone.family} can be written for {some(targets)}"
    if obstacle:
        others = _other_targets(backbone, for_target) if known and not backbone.partial else ()
        advice = f" ({' or '.join(argument('target', other) for other in others)} can)" if others else ""
        advice += f". {backbone.unusual}" if backbone.partial else ""
        text = f"{for_target} cannot hold {backbone.name}: {obstacle}{advice}"
        problems.append(Problem("target", backbone.name, text))
    return problems, [name for name in empty if backbone.optional(name)]


def unexplained(layout: Layout, section: Section, options: Options, most: int = 0) -> int:
    """How many names of a section no rule of the layout explains; more than ``most`` if there are more.

    No plan is complete that leaves one, and this is cheaper than a plan. Raises UsageError for unusable options.
    """
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    return matching.count_unexplained(layout.rules, names, prefix, drops, most)


def make_plan(method: Method, layout: Layout, path: str, section: Section, options: Options | None = None) -> Plan:
    """The plan of one layout for the section at ``path``, complete or not. Raises UsageError for unusable options."""
    options = options or Options()
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    draft = apply_rules(layout.rules, names, prefix, drops)
    problems = [*user_drops.forbidden(layout, names, prefix, drops, draft), *draft.problems]
    optional_missing, droppable_names, moves, dialect = list[str](), tuple[str, ...](), draft.moves, CANONICAL
    dropped, target = list(draft.dropped), options.target or ""
    selected_channels: SelectedChannels | None = None
    backbone = backbones.read({m.target: m.spec for m in moves}, layout.families)
    if backbone is None:
        kept = [m.sources[0] for m in draft.moves]
        text = f"the kept tensors are not a known backbone: {some(kept, 3)}" if kept else "no tensor is kept"
        problems.append(Problem("backbone", kept[0] if kept else "", text))
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
    others = apply_to_others(layout.rules, section, prefix, drops, bool(options.strip_prefix), network)
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
