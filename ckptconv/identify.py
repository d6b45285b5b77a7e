"""Which method wrote this file: the one whose rules explain every name and leave exactly a known backbone.

There are no detector functions. If several methods give the same plan, any of them will do and all are named; if they
differ, the user must say; if none fits, the nearest is shown with what it leaves unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptconv import fields, registry
from ckptconv.backbones.strangers import stranger
from ckptconv.errors import (
    IncompletePlanError,
    UnidentifiedError,
    UnreadableError,
    UsageError,
    VerdictError,
    printable,
)
from ckptconv.folding import fold, place, some
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning import Options, Plan, explains, make_plan
from ckptconv.rules import Drop, Fuse, Keep, Rule
from ckptconv.sections import section_at
from ckptconv.spec import Section

Sections = Mapping[str, Section]


@dataclass(frozen=True)
class Match:
    """A complete plan, the method it is from, how it was found, and which other methods give the same plan."""

    method: Method
    plan: Plan
    named: bool
    also: tuple[str, ...] = ()


class _Planner:
    """Makes plans for one file, each layout's rules once: many methods share the rules of a bare backbone."""

    def __init__(self, sections: Sections, options: Options) -> None:
        self._sections, self._options = sections, options
        self._made: dict[tuple[tuple[Rule, ...], tuple[str, ...], str], Plan] = {}
        self._explained: dict[tuple[tuple[Rule, ...], str], bool] = {}
        self._found: dict[str, Section | None] = {}

    def _section(self, path: str) -> Section | None:
        if path not in self._found:
            self._found[path] = section_at(self._sections, path)
        return self._found[path]

    def _explains(self, layout: Layout, path: str, section: Section) -> bool:
        key = layout.rules, path
        if key not in self._explained:
            self._explained[key] = explains(layout, section, self._options)
        return self._explained[key]

    def _plan(self, method: Method, layout: Layout, path: str, section: Section) -> Plan:
        made = self._made.get((layout.rules, layout.families, path))
        if made is not None:
            return replace(made, method=method.name, layout=layout.title)
        plan = make_plan(method, layout, path, section, self._options)
        self._made[layout.rules, layout.families, path] = plan
        return plan

    def _places(self, method: Method) -> Iterator[tuple[Layout, str, Section]]:
        """The method's layouts with the sections of the file that they are for, in order."""
        for layout in method.layouts:
            wanted = layout.sections if self._options.section is None else (self._options.section,)
            for path in wanted:
                section = self._section(path)
                if section is not None:
                    yield layout, path, section

    def complete(self, method: Method) -> Plan | None:
        """The first complete plan of the method; None if there is none."""
        for layout, path, section in self._places(method):
            if self._explains(layout, path, section):
                plan = self._plan(method, layout, path, section)
                if plan.complete:
                    return plan
        return None

    def best(self, method: Method) -> Plan | None:
        """The plan of the layout and section that leaves fewest problems; None if the file has no such section."""
        plans = []
        for layout, path, section in self._places(method):
            plans.append(self._plan(method, layout, path, section))
            if plans[-1].complete:
                return plans[-1]
        return min(plans, key=_badness, default=None)


def _badness(plan: Plan) -> tuple[bool, int, int]:
    return plan.backbone is None, len(plan.problems), plan.idle_rules


def rank(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """Every method that finds a section it knows, best first: complete plans, then those with fewest problems."""
    planner = _Planner(sections, options)
    found = [(m, p) for m in methods if (p := planner.best(m)) is not None]
    return sorted(found, key=lambda pair: _badness(pair[1]))


def explaining(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """Every method that explains the file, those that may be guessed first.

    Raises UnidentifiedError if none does, and UnreadableError for a file without tensors by name.
    """
    _require_tensors(sections)
    methods, planner = list(methods), _Planner(sections, options)
    complete = [(m, p) for m in methods if (p := planner.complete(m)) is not None]
    if not complete:
        raise _nothing_fits(rank(sections, [m for m in methods if m.guess], options), sections)
    return sorted(complete, key=lambda pair: (not pair[0].guess, _badness(pair[1])))


def identify(sections: Sections, methods: Iterable[Method], options: Options) -> Match:
    """The one of the methods that explains the file. Raises UnidentifiedError if none does, or several differ."""
    complete = explaining(sections, methods, options)
    method, plan = complete[0]
    others = [(m, p) for m, p in complete[1:] if not p.same_as(plan)]
    if others:
        ways = [f"{m.name} keeps {len(p.moves)} tensors of {place(p.section)}" for m, p in [complete[0], *others]]
        raise UnidentifiedError(
            f"more than one method explains the file, and they keep different tensors: {'; '.join(ways)}",
            f"Say which you want: {' or '.join(f'--selfsup {m.name}' for m, _ in [complete[0], *others])}.",
        )
    return Match(method, plan, named=False, also=tuple(m.name for m, _ in complete[1:]))


def _largest(sections: Sections) -> tuple[str, Section]:
    return max(sections.items(), key=lambda item: len(item[1].tensors) + len(item[1].unreadable))


def known_stranger(sections: Sections) -> str:
    """What network a file holds, if it is one that no target has a place for; '' else."""
    return stranger(_largest(sections)[1].tensors)[1] if sections else ""


def _nothing_fits(ranked: list[tuple[Method, Plan]], sections: Sections) -> UnidentifiedError | IncompletePlanError:
    """The error for a file that no method explains: what network it is, the nearest method's own, or what it holds."""
    what = known_stranger(sections)
    if what:
        return UnidentifiedError(
            f"no method explains this file. It is {what}", "See what is there: ckptconv inspect FILE."
        )
    if not ranked or ranked[0][1].backbone is None:
        path, section = _largest(sections)
        if section.unreadable:
            raise _unreadable(path, section)
        return UnidentifiedError(
            f"no method explains this file: {place(path)} holds {len(section.tensors)} tensors, "
            f"{some(section.tensors, 3)}",
            "See what is there: ckptconv inspect FILE. To take a prefix off: --strip-prefix PREFIX. To write rules "
            "for it: --rules FILE.toml.",
        )
    method, plan = ranked[0]
    try:
        plan.require_complete()
    except IncompletePlanError as error:
        nearest = "" if plan.misplaced else f"no method explains this file; the nearest is {method.name}:\n"
        return UnidentifiedError(f"{nearest}{error.message}", error.hint)
    raise AssertionError("a plan without problems is complete")


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


def choose(sections: Sections, method: str | Method | Iterable[Rule], options: Options) -> Match:
    """The match for 'auto', a method's name or alias, a Method or rules. Raises VerdictError if none fits.

    A named method that does not fit is refused with the one that does, if there is one. Where an alias stands for
    several methods, it is the one of them that explains the file.
    """
    _require_tensors(sections)
    if options.section is not None and section_at(sections, options.section) is None:
        raise UsageError(f"there is no section '{options.section}'", f"Sections: {some(map(repr, fold(sections)), 8)}.")
    if registry.is_auto(method):
        match = identify(sections, [m for m in registry.methods(options.methods).values() if m.guess], options)
    else:
        match = _named(sections, methods_of(method, sections, options), options)
    for pattern in match.plan.idle_drops:
        raise UsageError(
            f"--drop '{pattern}' matches no name of {place(match.plan.section)}",
            "See the names: ckptconv inspect FILE.",
        )
    return match


def _named(sections: Sections, methods: Sequence[Method], options: Options) -> Match:
    """The match of a method, or of the one of an alias's methods that fits; or the error that names a better one."""
    if len(methods) > 1:
        planner = _Planner(sections, options)
        if any(planner.complete(m) for m in methods):
            return identify(sections, methods, options)
    ranked = rank(sections, methods, options)
    wanted, plan = ranked[0] if ranked else (methods[0], None)
    if plan is not None and plan.complete:
        return Match(wanted, plan, named=True)
    advice = "" if plan is not None and plan.misplaced else _better_than(wanted, sections, options)
    if plan is not None:
        plan.require_complete(advice)
    known = dict.fromkeys(s or "the top level" for layout in wanted.layouts for s in layout.sections)
    what = known_stranger(sections)
    raise UnidentifiedError(
        f"{wanted.name} keeps its weights in {' or '.join(known)}; this file has none there"
        + (f". It is {what}" if what else ""),
        advice or f"Say where they are with --section; the file has {some(map(repr, fold(sections)), 6)}.",
    )


def nearest(sections: Sections, method: str | Method | Iterable[Rule], options: Options) -> Match:
    """Like `choose`, but an incomplete plan will do: for looking at a file, never for writing one."""
    try:
        return choose(sections, method, options)
    except VerdictError:
        known = registry.methods(options.methods).values()
        auto = registry.is_auto(method)
        wanted = [m for m in known if m.guess] if auto else methods_of(method, sections, options)
        ranked = rank(sections, wanted, options)
        if not ranked:
            raise
        return Match(ranked[0][0], ranked[0][1], named=not auto)


def _better_than(wanted: Method, sections: Sections, options: Options) -> str:
    """What to type instead of a method that does not fit; '' if no other is nearer."""
    known = registry.methods(options.methods).values()
    try:
        name = identify(sections, [m for m in known if m.guess], options).method.name
        return f"The file is explained by {name}: --selfsup {name}"
    except VerdictError:
        near = next((m.name for m, p in rank(sections, known, options) if p.backbone and m.guess), wanted.name)
        return f"The nearest method is {near}: --selfsup {near}" if near != wanted.name else ""


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
    return (Method("rules", "rules given by the caller", (Layout(rules, paths, "as given"),)),)
