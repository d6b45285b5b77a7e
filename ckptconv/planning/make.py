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
from ckptconv.planning import droppable, matching
from ckptconv.planning.adjust import pick_channels, spoken_name
from ckptconv.planning.matching import Dropped, Move, Problem, match, match_others, spoken
from ckptconv.planning.options import Options
from ckptconv.planning.plan import CUT, Picked, Plan
from ckptconv.rules import Drop, Rule, drop
from ckptconv.spec import Section
from ckptconv.text import some
from ckptconv.wrappers import wrapper_of

_ACCEPTED = "dropped on request"


def behind(names: Iterable[str], prefix: str) -> str | None:
    """The prefix as names have it: itself, or itself after what wraps all names. None if no name has it."""
    if not prefix:
        return ""
    names = list(names)
    starts = (prefix, wrapper_of(names) + prefix)
    return next((start for start in starts if any(name.startswith(start) for name in names)), None)


def taken_off(rules: Sequence[Rule], section: Section, options: Options) -> str:
    """What to take off every name before the rules are asked: the user's prefix, and what wraps all names behind it."""
    names: Collection[str] = section.tensors or section.unreadable
    start = behind(names, options.strip_prefix)
    if start is None:
        heads = dict.fromkeys(".".join(n.split(".")[:2]) + "." for n in names if n.count(".") > 1)
        raise UsageError(
            f"no name starts with '{options.strip_prefix}'", f"Prefixes there are: {some(map(repr, heads), 6)}."
        )
    wrapper = wrapper_of(n[len(start) :] for n in names if n.startswith(start)) if start else section.wrapper
    spelled_out = wrapper and any(s.prefix.startswith(wrapper) for r in rules for s in r.sources)
    return start if spelled_out else start + wrapper


def _other_targets(backbone: Backbone, target: str) -> tuple[str, ...]:
    """The other targets that can hold the network."""
    return tuple(t for t in FAMILIES[backbone.family].targets if t != target and not backbone.obstacle(t))


def _missing_parts(backbone: Backbone, layout: Layout, dropped: Iterable[Dropped]) -> Iterator[Problem]:
    """What a whole network would have: parts that the layout's files have, or any where nobody trains such a depth."""
    without = {*layout.without, *(d.rule.instead for d in dropped if isinstance(d.rule, Drop))}
    for lack in backbone.lacks:
        start = f"{lack.entry} of {backbone.name}: {lack.what}"
        if lack.part not in without:
            yield Problem("missing", lack.entry, f"{start}, {CUT}")
        elif lack.part in ("norm", "stages") and backbone.partial:
            yield Problem("missing", lack.entry, f"{start}, and it is no whole network. {backbone.unusual}")


def _compared(backbone: Backbone, moves: Sequence[Move], for_target: str) -> tuple[list[Problem], list[str]]:
    """What is wrong with these moves for this backbone, and which optional entries nothing fills."""
    problems: list[Problem] = []
    entries = backbone.entries()
    filled: dict[str, Move] = {}
    for move in moves:
        source, target = printable(move.sources[0]), printable(move.target)
        if move.target in filled:
            text = f"{source}: {target} is already taken from {printable(filled[move.target].sources[0])}"
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
            text = f"{source}: {move.spec.dtype} numbers, but {target} of {backbone.name} takes floating ones"
            problems.append(Problem("dtype", move.sources[0], text))
    empty = [name for name in entries if name not in filled]
    problems.extend(
        Problem("missing", name, f"{name} of {backbone.name} ({list(entries[name])}): nothing in the file becomes it")
        for name in empty
        if not backbone.optional(name)
    )
    targets = FAMILIES[backbone.family].targets
    known = for_target in targets
    obstacle = backbone.obstacle(for_target) if known else f"a {backbone.family} can be written for {some(targets)}"
    if obstacle:
        ways = _other_targets(backbone, for_target) if known and not backbone.partial else ()
        way_out = f" ({' or '.join(argument('target', way) for way in ways)} writes it all the same)" if ways else ""
        way_out += f". {backbone.unusual}" if backbone.partial else ""
        text = f"{backbone.name} has no place in {for_target}: {obstacle}{way_out}"
        problems.append(Problem("target", backbone.name, text))
    return problems, [name for name in empty if backbone.optional(name)]


def unexplained(layout: Layout, section: Section, options: Options, most: int = 0) -> int:
    """How many names of a section no rule of the layout explains; more than ``most`` if there are more.

    No plan is complete that leaves one, and this is cheaper than a plan. Raises UsageError for unusable options.
    """
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    return matching.unexplained(layout.rules, names, prefix, drops, most)


def make_plan(method: Method, layout: Layout, path: str, section: Section, options: Options | None = None) -> Plan:
    """The plan of one layout for the section at ``path``, complete or not. Raises UsageError for unusable options."""
    options = options or Options()
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drop]
    draft = match(layout.rules, names, prefix, drops)
    problems = [*droppable.forbidden(layout, names, prefix, drops, draft), *draft.problems]
    absent, losable, moves, dialect = list[str](), tuple[str, ...](), draft.moves, CANONICAL
    dropped, target = list(draft.dropped), options.target or ""
    picked: Picked | None = None
    backbone = backbones.read({m.target: m.spec for m in moves}, layout.families)
    if backbone is None:
        kept = [m.sources[0] for m in draft.moves]
        text = f"what is kept is no backbone known here: {some(kept, 3)}" if kept else "nothing is kept"
        problems.append(Problem("backbone", kept[0] if kept else "", text))
    else:
        target = target or FAMILIES[backbone.family].targets[0]
        if options.channels and not problems:
            backbone, moves, picked = pick_channels(backbone, moves, options.channels)
        found, absent = _compared(backbone, moves, target)
        problems += found
        problems += _missing_parts(backbone, layout, dropped)
        losable = droppable.losable(backbone, layout, names, moves, problems)
        if not problems:
            dialect = backbone.dialect(target)
            said = spoken(moves, dialect.rules)
            moves, dropped, problems = said.moves, dropped + said.dropped, said.problems
            if picked is not None:
                picked = replace(picked, target=spoken_name(dialect, picked.target))
    network = (*(backbone.entries() if backbone else ()), *(move.target for move in draft.moves))
    others = match_others(layout.rules, section, prefix, drops, bool(options.strip_prefix), network)
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
        absent=tuple(absent),
        idle_rules=len(layout.rules) - len(draft.used),
        tensors=len(names),
        entries=section.entries,
        prefix=prefix,
        idle_drops=tuple(d.source.text for d in drops if all(gone.rule is not d for gone in dropped)),
        losable=losable,
        picked=picked,
    )
