"""Which method wrote this file: the one whose rules explain every name and leave exactly a known backbone.

There are no detector functions. If several methods give the same plan, any of them will do and all are named; if they
differ, the user must say. If none fits, every section and prefix is tried before the refusal is written, and it names
the command that converts what stands there, or else the nearest method with what that leaves unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ckptconv import fields
from ckptconv.arguments import argument, call
from ckptconv.backbones import FAMILIES
from ckptconv.backbones.interface import PARTS
from ckptconv.backbones.unsupported import stranger
from ckptconv.errors import UnidentifiedError, UnreadableError, UsageError, VerdictError, printable
from ckptconv.methods import registry
from ckptconv.methods.interface import Layout, Method
from ckptconv.methods.naming_schemes import GENERIC
from ckptconv.planning.alternatives import Way, ways
from ckptconv.planning.candidates import Planner, Sections, badness
from ckptconv.planning.plan import Options, Plan, behind
from ckptconv.rules import Drop, Fuse, Keep, Rule
from ckptconv.sections import section_at
from ckptconv.spec import Section
from ckptconv.text import fold, place, some

_MOST_DROPS = 8  # patterns that a person types

_OWN_RULES = f"To write rules for it: {argument('rules', 'FILE.toml')} (ckptconv guide rules)"
_LOOK = f"See what the file holds: {call('inspect', 'SRC')}"


@dataclass(frozen=True)
class Match:
    """A complete plan, the method it is from, how it was found, and which other methods give the same plan."""

    method: Method
    plan: Plan
    named: bool
    also: tuple[str, ...] = ()


def rank(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """The best plan of every method that is near, best first: complete plans, then those with fewest problems."""
    return Planner(sections, options).rank(methods)


def explaining(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """Every method that explains the file, those that may be guessed first.

    Raises UnidentifiedError if none does, and UnreadableError for a file without tensors by name.
    """
    _require_tensors(sections)
    return _explaining(Planner(sections, options), list(methods))


def _explaining(planner: Planner, methods: Sequence[Method]) -> list[tuple[Method, Plan]]:
    complete = planner.explaining(methods)
    if not complete:
        raise _nothing_fits(planner, methods)
    return complete


def identify(sections: Sections, methods: Iterable[Method], options: Options) -> Match:
    """The one of the methods that explains the file. Raises UnidentifiedError if none does, or several differ."""
    return _agreed(explaining(sections, methods, options), options)


def _agreed(complete: Sequence[tuple[Method, Plan]], options: Options) -> Match:
    """One match of several complete plans. Raises UnidentifiedError if they differ."""
    method, plan = complete[0]
    others = [(m, p) for m, p in complete[1:] if not p.same_as(plan)]
    if others:
        differing = [complete[0], *others]
        kept = [f"{m.name} keeps {len(p.moves)} tensors of {place(p.section)}" for m, p in differing]
        raise UnidentifiedError(
            f"more than one method explains the file, and they keep different tensors: {'; '.join(kept)}",
            "Say which you want:\n" + "\n".join(_convert(options, m.name) for m, _ in differing),
        )
    return Match(method, plan, named=False, also=tuple(m.name for m, _ in complete[1:]))


def _largest(sections: Sections) -> tuple[str, Section]:
    return max(sections.items(), key=lambda item: len(item[1].tensors) + len(item[1].unreadable))


def known_stranger(sections: Sections) -> str:
    """What network a file holds, if it is one that no target has a place for; '' else."""
    if not sections:
        return ""
    section = _largest(sections)[1]
    shapes = {name: spec.shape for name, spec in section.tensors.items()}
    return stranger({**shapes, **dict.fromkeys(section.others)})[1]


# -- refusals, and the commands in their hints -------------------------------------------------------------------------


def _convert(options: Options, method: str | None = None, way: Way | None = None, drops: Iterable[str] = ()) -> str:
    """The call that converts, with all that was asked for already and what is given here."""
    way = way or Way("", "", "", None, options.section, options.prefix)
    method = method if method in registry.methods(options.methods) else None  # a caller's own has no name to type
    section = options.section if way.section is None else way.section  # '' is the top level
    asked = replace(way, method=method, section=section).arguments
    target = asked.pop("target") or options.target
    dropped = [*options.drops, *drops] or None
    return call("convert", "SRC", "DST", **asked, drop=dropped, channels=options.channels, target=target)


def _way_in(found: Iterable[Way], options: Options, method: str | None = None) -> list[str]:
    """A line for each network that stands somewhere else in the file, with its command."""
    return [
        f"{_article(way.network)} stands {way.where}: {way.obstacle or _convert(options, way.method or method, way)}"
        for way in found
    ]


def _article(noun: str) -> str:
    return f"{'An' if noun[:1] in 'AEIO' else 'A'} {noun}"


def _other_target(plan: Plan, options: Options, method: str | None) -> str:
    """The command for the first target that can hold the network of a plan; '' if none can."""
    if plan.backbone is None or plan.backbone.partial:
        return ""
    targets = [t for t in FAMILIES[plan.backbone.family].targets if not plan.backbone.obstacle(t)]
    if not targets:
        return ""
    return f"Write it for {targets[0]}: {_convert(replace(options, target=targets[0]), method)}"


def _drops(planner: Planner, method: Method, plan: Plan) -> str:
    """The command that converts without the names that no rule explains; '' where that would not be all."""
    options = planner.options
    others = {s for m in plan.moves for s in m.sources} | {d.source for d in plan.dropped}
    patterns = _patterns(plan.losable, others - set(plan.losable))
    options = replace(options, drops=tuple(d for d in options.drops if d not in plan.idle_drops))
    if not 0 < len(patterns) <= _MOST_DROPS:
        return ""
    try:
        done = Planner(planner.sections, replace(options, drops=(*options.drops, *patterns))).complete(method)
    except UsageError:  # a name has a brace, or may not be dropped
        return ""
    if done is None:
        return ""
    return f"If these are not part of the backbone, drop them: {_convert(options, method.name, drops=patterns)}"


def _patterns(keys: Sequence[str], others: Iterable[str]) -> list[str]:
    """The fewest patterns that take these keys and none of the others."""
    others = set(others)
    patterns: dict[str, None] = {}
    for key in keys:
        segments = key.split(".")
        parents = (".".join(segments[:n]) + "." for n in range(1, len(segments)))
        own = next((p for p in parents if not any(o.startswith(p) for o in others)), None)
        patterns[f"{own}{{p...}}" if own else key] = None
    return list(patterns)


def _nothing_fits(planner: Planner, methods: Sequence[Method]) -> VerdictError:
    """The error for a file that no method explains: what is near, what stands elsewhere in it, or what it holds."""
    sections, options = planner.sections, planner.options
    guessed = [m for m in methods if m.guess]
    ranked = planner.rank(guessed)
    near, hint = None, ""
    if ranked and ranked[0][1].backbone is not None:
        near, plan = ranked[0]
        hint = _other_target(plan, options, near.name) if plan.misplaced else plan.advice
    elsewhere = () if hint else ways(planner, methods)
    if near is not None and not hint:
        hint = _drops(planner, near, plan)
        elsewhere = tuple(way for way in elsewhere if not way.behind) if hint else elsewhere  # all of it is better
    found = _way_in(elsewhere, options)
    what = known_stranger(sections)
    if not found and not hint and what:
        return UnidentifiedError(f"no method explains this file. It is {what}", _LOOK)
    if near is None or found:
        path, section = _largest(sections)
        if section.unreadable and not found:
            return _unreadable(path, section)
        return UnidentifiedError(
            f"no method explains this file: {place(path)} holds {len(section.tensors)} tensors, "
            f"{some(section.tensors, 3)}",
            "\n".join(found) or f"{_LOOK}\n{_OWN_RULES}",
        )
    nearest = "" if plan.misplaced else f"no method explains this file; the nearest is {near.name}:\n"
    return UnidentifiedError(f"{nearest}{plan.refusal}", hint or _LOOK)


def _unreadable(path: str, section: Section) -> UnidentifiedError:
    """The error for a section of which no network can be made, for its tensors are none that can be read."""
    whats = dict.fromkeys(f"{printable(name)} is {one.what}" for name, one in section.unreadable.items())
    return UnidentifiedError(
        f"{place(path)} holds {len(section.tensors)} tensors and {len(section.unreadable)} entries that cannot be read "
        f"as plain tensors: {some(whats, 2)}",
        "\n".join(dict.fromkeys(one.advice for one in section.unreadable.values())),
    )


def _require_tensors(sections: Sections) -> None:
    if not sections:
        raise UnreadableError("the file holds no tensors by name", "A state dict maps names to tensors.")


def _require_known(planner: Planner) -> None:
    """Raises UsageError for a section that the file has not, and for a prefix that no name has."""
    sections, options = planner.sections, planner.options
    if options.section is not None and section_at(sections, options.section) is None:
        raise UsageError(f"there is no section '{options.section}'", f"Sections: {some(map(repr, fold(sections)), 8)}.")
    looked = [s for p, s in sections.items() if options.section in (None, p)]
    if options.section is not None and not looked:  # all that lies below a path
        looked = [s for s in (section_at(sections, options.section),) if s]
    if any(behind(section.tensors or section.unreadable, options.prefix) is not None for section in looked):
        return
    found = ways(planner, list(registry.methods(options.methods).values()))
    heads = dict.fromkeys(
        ".".join(name.split(".")[:2]) + "." for one in looked for name in one.tensors if name.count(".") > 1
    )
    hints = _way_in(found, options) or [f"Prefixes there are: {some(map(repr, heads), 6)}."]
    raise UsageError(f"no name starts with '{options.prefix}'", "\n".join(hints))


def choose(sections: Sections, method: str | Method | Iterable[Rule], options: Options) -> Match:
    """The match for 'auto', a method's name or alias, a Method or rules. Raises VerdictError if none fits.

    A named method that does not fit is refused with the one that does, if there is one. Where an alias stands for
    several methods, it is the one of them that explains the file. With a prefix, 'auto' asks the generic method first:
    what a person takes off is mostly all that stands between them and a bare backbone.
    """
    return _decide(Planner(sections, options), method)


def _decide(planner: Planner, method: str | Method | Iterable[Rule]) -> Match:
    _require_tensors(planner.sections)
    _require_known(planner)
    if registry.is_auto(method):
        match = _auto(planner)
    else:
        match = _named(planner, methods_of(method, planner.sections, planner.options))
    for pattern in match.plan.idle_drops:
        raise UsageError(
            f"{argument('drop', [pattern])} matches no name of {place(match.plan.section)}",
            f"See the names: {call('inspect', 'SRC')}",
            "drop",
        )
    return match


def _auto(planner: Planner) -> Match:
    known = registry.methods(planner.options.methods)
    if not planner.options.prefix:
        return _agreed(_explaining(planner, [m for m in known.values() if m.guess]), planner.options)
    generic = known[GENERIC.name]
    plan = planner.complete(generic)
    if plan is not None:
        return Match(generic, plan, named=True)
    complete = planner.explaining([m for m in known.values() if m.guess])
    if complete:
        return _agreed(complete, planner.options)
    raise _nothing_fits(planner, [replace(generic, guess=True), *known.values()])


def _named(planner: Planner, methods: Sequence[Method]) -> Match:
    """The match of a method, or of the one of an alias's methods that fits; or the error that names a better one."""
    sections, options = planner.sections, planner.options
    if len(methods) > 1 and (complete := planner.explaining(methods)):
        return _agreed(complete, options)
    plans = [(m, p) for m in methods if (p := planner.best(m)) is not None]
    wanted, plan = min(plans, key=lambda pair: badness(pair[1]), default=(methods[0], None))
    if plan is not None and plan.complete:
        return Match(wanted, plan, named=True)
    for method, layout in ((m, layout) for m in methods for layout in m.converted):
        converted = planner.complete(replace(method, layouts=(layout,)))
        if converted is not None:
            return Match(method, converted, named=True)
    if plan is not None and plan.misplaced:
        plan.require_complete(_other_target(plan, options, wanted.name))
    hint = "" if plan is not None and plan.advice else _instead(planner, wanted, plan)
    if plan is not None:
        plan.require_complete(hint)
    known = dict.fromkeys(s or "the top level" for layout in wanted.layouts for s in layout.sections)
    what = known_stranger(sections)
    raise UnidentifiedError(
        f"{wanted.name} keeps its weights in {' or '.join(known)}; this file has none there"
        + (f". It is {what}" if what else ""),
        hint or f"The file has {some(map(repr, fold(sections)), 6)}. {_LOOK}",
    )


def nearest(sections: Sections, method: str | Method | Iterable[Rule], options: Options) -> Match:
    """Like `choose`, but an incomplete plan will do: for looking at a file, never for writing one."""
    planner = Planner(sections, options)
    try:
        return _decide(planner, method)
    except VerdictError:
        known = registry.methods(options.methods).values()
        auto = registry.is_auto(method)
        wanted = [m for m in known if m.guess] if auto else methods_of(method, sections, options)
        near = planner.rank(wanted) if auto else [(m, p) for m in wanted if (p := planner.best(m)) is not None]
        if not near:
            raise
        method, plan = min(near, key=lambda pair: badness(pair[1]))
        return Match(method, plan, named=not auto)


def _instead(planner: Planner, wanted: Method, plan: Plan | None) -> str:
    """What to type instead of a method that does not fit as it was asked for; '' if nothing is nearer."""
    sections, options = planner.sections, planner.options
    known = list(registry.methods(options.methods).values())
    hints = []
    complete = planner.explaining([m for m in known if m.guess])
    if complete:
        try:
            name = _agreed(complete, options).method.name
            hints.append(f"The file is explained by {name}: {_convert(options, name)}")
        except UnidentifiedError as error:
            hints.append(error.hint)
    hints.append(_drops(planner, wanted, plan) if plan is not None else "")
    hints = [hint for hint in hints if hint]
    hints = hints or _way_in(ways(planner, [wanted]), options, wanted.name)
    if hints:
        return "\n".join(hints)
    near = next((m for m, p in planner.rank(known) if p.losable and m.guess and m.name != wanted.name), None)
    if near is not None and not known_stranger(sections):  # its refusal will say what to drop
        return f"The nearest method is {near.name}: {_convert(options, near.name)}"
    return "\n".join(_way_in(ways(planner, known), options))


def methods_of(method: str | Method | Iterable[Rule], sections: Sections, options: Options) -> tuple[Method, ...]:
    """The methods of a name or alias, nearly always one; or the one of a Method or a list of rules."""
    if isinstance(method, Method):
        return (method,)
    if isinstance(method, str):
        return registry.named(method, options.methods)
    rules = tuple(method) if isinstance(method, Iterable) else ()
    if not rules or not all(isinstance(r, Keep | Drop | Fuse) for r in rules):
        raise UsageError("the method is no name, no Method and no list of rules", "Make rules with keep, drop, fuse.")
    paths = tuple(path for path in sections if fields.is_section(path)) or ("",)
    return (Method("rules", "rules given by the caller", (Layout(rules, paths, "as given", without=PARTS),)),)
