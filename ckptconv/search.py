"""Which plans a file admits: over its sections, its prefixes, and the layouts of methods.

Pure: it sees names and shapes, and no file. `identify` decides with it, and looks for a way in before it refuses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from ckptconv.backbones import FAMILIES
from ckptconv.errors import printable
from ckptconv.folding import place
from ckptconv.methods.conventions import GENERIC
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning import Options, Plan, behind, make_plan, unexplained
from ckptconv.rules import Pattern
from ckptconv.sections import BELOW, section_at
from ckptconv.spec import Section, StateSpec
from ckptconv.wrappers import COUNTERS, wrapped, wrapper_of

Sections = Mapping[str, Section]
_T = TypeVar("_T")

_LEAST = 12  # tensors of the smallest network that is looked for behind a prefix
_DEEPEST = 8  # segments of a prefix
_MOST_NAMES = 100_000  # that are looked at on the way: names of real files times their depth
_MOST_WAYS = 4
_NUMBER = re.compile("[0-9]+")
_MOST_NEAR = 10  # incomplete plans made in full
_MOST_PLANNED = 6_000  # names of a section; student, teacher and heads of the largest ViTs have 2,000


class _Glance:
    """What a quick look at names says of a layout: all that it rules out makes no complete plan."""

    def __init__(self, names: StateSpec) -> None:
        wrapper = wrapper_of(names)
        self._bare = {name.removeprefix(wrapper): spec for name, spec in names.items()} if wrapper else names
        self._heads = [Counter(name.partition(".")[0] for name in some) for some in (names, self._bare)]
        self._sure = not wrapped("\n".join(self._bare))  # else a rule sees other names than these

    @cached_property
    def _readable(self) -> set[str]:
        return {family.name for family in FAMILIES.values() if family.read(self._bare) is not None}

    def unexplained(self, layout: Layout) -> int:
        """How many names the layout leaves unexplained at least: those that start as none of its rules does."""
        first = layout.first_segments
        if first is None or not self._sure:
            return 0
        known = {*first, *COUNTERS}
        return min(sum(n for head, n in heads.items() if head not in known) for heads in self._heads)

    def rules_out(self, layout: Layout) -> bool:
        """Whether no plan of the layout is complete."""
        if self.unexplained(layout):
            return True
        return self._sure and layout.keeps_names and self._readable.isdisjoint(layout.families or FAMILIES)


class Planner:
    """Makes plans for one file, each layout's rules once: many methods share the rules of a bare backbone."""

    def __init__(self, sections: Sections, options: Options) -> None:
        self._sections, self._options = sections, options
        self._made: dict[tuple[int, str], Plan] = {}
        self._left: dict[tuple[int, str], int] = {}
        self._glances: dict[str, _Glance] = {}
        self._found: dict[str, Section | None] = {}

    def _section(self, path: str) -> Section | None:
        if path not in self._found:
            found = section_at(self._sections, path)
            self._found[path] = found if found is None or found.entries <= _MOST_PLANNED else None
        return self._found[path]

    def _behind(self, path: str) -> bool:
        """Whether the section at a path exists and has names behind the prefix that the user gave."""
        section = self._section(path)
        return section is not None and behind(section.tensors or section.unreadable, self._options.prefix) is not None

    def places(self, method: Method) -> Iterator[tuple[Layout, str, Section]]:
        """The method's layouts with the sections of the file that they are for, in order.

        A prefix leads to the section that has it, whether or not the layout looks there.
        """
        for layout in method.layouts:
            wanted: Iterable[str] = layout.sections if self._options.section is None else (self._options.section,)
            paths = [path for path in wanted if self._behind(path)]
            if self._options.prefix and self._options.section is None:
                paths = paths or [path for path in self._sections if self._behind(path)]
            for path in paths:
                section = self._section(path)
                assert section is not None
                yield layout, path, section

    def _unexplained(self, layout: Layout, path: str, section: Section, most: int) -> int:
        """How many names no rule of the layout explains; more than ``most`` if there are more."""
        key = layout.number, path
        if self._left.get(key, -1) < 0 or self._left[key] <= most:
            self._left[key] = unexplained(layout, section, self._options, most)
        return self._left[key]

    def _glance(self, path: str, section: Section) -> _Glance | None:
        """A quick look at what the rules will see of a section; None where the user drops some of it."""
        if self._options.drops:
            return None
        if path not in self._glances:
            start = behind(section.tensors, self._options.prefix) or ""
            names = {n[len(start) :]: s for n, s in section.tensors.items() if n.startswith(start)}
            self._glances[path] = _Glance(names)
        return self._glances[path]

    def plan(self, method: Method, layout: Layout, path: str, section: Section) -> Plan:
        made = self._made.get((layout.number, path))
        if made is None:
            made = make_plan(method, layout, path, section, self._options)
            self._made[layout.number, path] = made
        return replace(made, method=method.name, layout=layout.title)

    def complete(self, method: Method) -> Plan | None:
        """The first complete plan of the method; None if there is none."""
        for layout, path, section in self.places(method):
            glance = self._glance(path, section)
            if (glance is None or not glance.rules_out(layout)) and not self._unexplained(layout, path, section, 0):
                plan = self.plan(method, layout, path, section)
                if plan.complete:
                    return plan
        return None

    def explaining(self, methods: Iterable[Method]) -> list[tuple[Method, Plan]]:
        """Every method with a complete plan, those that may be guessed first."""
        complete = [(m, p) for m in methods if (p := self.complete(m)) is not None]
        return sorted(complete, key=lambda pair: (not pair[0].guess, badness(pair[1])))

    def best(self, method: Method) -> Plan | None:
        """The plan of the layout and section that leaves fewest problems; None if the file has no such section."""
        plans = []
        for layout, path, section in self.places(method):
            plans.append(self.plan(method, layout, path, section))
            if plans[-1].complete:
                return plans[-1]
        return min(plans, key=badness, default=None)

    def rank(self, methods: Iterable[Method]) -> list[tuple[Method, Plan]]:
        """The best plan of each method that is near, best first: complete plans, then those with fewest problems.

        A method is near if its rules explain half of a section's names. Of the methods that leave names unexplained,
        those that leave fewest are planned in full.
        """
        whole: list[tuple[Method, Layout, str, Section]] = []
        near: list[tuple[int, Method, Layout, str, Section]] = []
        for method in methods:
            for layout, path, section in self.places(method):
                most, glance = len(section.tensors) // 2, self._glance(path, section)
                if glance is not None and glance.unexplained(layout) > most:
                    continue
                left = self._unexplained(layout, path, section, most)
                if not left and glance is not None and glance.rules_out(layout):
                    continue  # whatever it keeps is no network
                if not left:
                    whole.append((method, layout, path, section))
                elif left <= most:
                    near.append((left, method, layout, path, section))
        near.sort(key=lambda one: one[0])
        best: dict[str, tuple[Method, Plan]] = {}
        for method, layout, path, section in (*whole, *(one[1:] for one in near[:_MOST_NEAR])):
            known = best.get(method.name)
            if known is None or not known[1].complete:
                plan = self.plan(method, layout, path, section)
                if known is None or badness(plan) < badness(known[1]):
                    best[method.name] = method, plan
        return sorted(best.values(), key=lambda pair: badness(pair[1]))


def badness(plan: Plan) -> tuple[bool, int, int]:
    """How far a plan is from what a person wants: no network is worst, then problems, then rules without a use."""
    return plan.backbone is None, len(plan.problems), plan.idle_rules


@dataclass(frozen=True)
class Way:
    """A network in a file, and what to ask for to get it: a method, a section, a prefix; None or '' where not needed.

    ``path`` and ``behind`` say where it is: the section, and what stands before its names there. ``target`` is named
    where the usual one cannot hold the network; ``obstacle`` says why where none can.
    """

    network: str
    path: str
    behind: str
    method: str | None
    section: str | None
    prefix: str
    target: str | None = None
    obstacle: str = ""

    @property
    def asked(self) -> tuple[tuple[str, str | None], ...]:
        """The options of the command line, each with its value, None where it is not needed."""
        taken_off = self.prefix or None
        words = (("--selfsup", self.method), ("--strip-prefix", taken_off), ("--section", self.section))
        return (*words, ("--target", self.target))

    @property
    def where(self) -> str:
        """The section and the prefix, for a sentence: "in 'model', behind 'teacher.'"."""
        if self.behind and self.section is None:
            return f"behind '{printable(self.behind)}'"
        inside = f"in {place(self.path)}" if self.path else "at the top level"
        return inside + (f", behind '{printable(self.behind)}'" if self.behind else "")


def ways(sections: Sections, methods: Sequence[Method], options: Options) -> tuple[Way, ...]:
    """The networks that stand in some section behind some prefix, and that a method explains there, outermost first.

    ``methods`` are asked for what a person may want, in the order of the table. Nothing that ``options`` name is
    looked for elsewhere, but for the prefix: a wrong one is the question.
    """
    found: list[Way] = []
    seen = 0
    for path, section in sections.items():
        if options.section not in (None, path) or not _LEAST <= section.entries <= _MOST_PLANNED:
            continue
        done: list[str] = []
        for prefix, names in _prefixes(section):
            seen += len(names)
            if seen > _MOST_NAMES or len(found) == _MOST_WAYS:
                return tuple(found)
            if not any(prefix.startswith(other) for other in done):
                way = way_to(sections, path, prefix, methods, options, names)
                if way is not None:
                    done.append(prefix)
                    if way.section is not None or way.prefix or options.prefix:  # else it is what was asked for
                        found.append(way)
    return tuple(found)


def _prefixes(section: Section) -> Iterator[tuple[str, Sequence[str]]]:
    """'' and every dotted prefix that enough names have, short ones first, with these names."""
    having: dict[str, list[str]] = {}
    for name in section.tensors:
        segments = name.split(".", _DEEPEST + 1)[:-1][:_DEEPEST]
        prefix = ""
        for segment in segments:
            prefix += f"{segment}."
            having.setdefault(prefix, []).append(name)
    yield "", list(section.tensors)
    enough = [(p, names) for p, names in having.items() if len(names) >= _LEAST]
    yield from sorted(enough, key=lambda one: one[0].count("."))


def way_to(
    sections: Sections,
    path: str,
    prefix: str,
    methods: Iterable[Method],
    options: Options,
    names: Sequence[str] | None = None,
) -> Way | None:
    """How to get what stands in a section behind a prefix; None if no method explains it.

    ``names`` are those of the tensors that have the prefix, where they are known.
    """
    drops = [Pattern(pattern) for pattern in options.drops]  # of whole names
    whole = sections[path]

    def inside(entries: Mapping[str, _T], names: Iterable[str]) -> dict[str, _T]:
        return {
            name[len(prefix) :]: entries[name]
            for name in names
            if name.startswith(prefix) and all(pattern.match(name) is None for pattern in drops)
        }

    section = Section(
        inside(whole.tensors, whole.tensors if names is None else names),
        inside(whole.others, whole.others),
        unreadable=inside(whole.unreadable, whole.unreadable),
    )
    found: list[tuple[Method, Layout, Plan]] = []
    for one in _explaining(section, sorted(methods, key=lambda m: m.name != GENERIC.name), options):
        found.append(one)
        if prefix and one[0].name == GENERIC.name and one[2].complete:
            break  # what a prefix alone asks for
    found = [one for one in found if one[2].complete] or found
    if not found:
        return None
    usual = [one for one in found if prefix and one[0].name == GENERIC.name]
    usual = usual or [one for one in found if one[0].guess]
    method, layout, plan = (usual or found)[0]
    target, obstacle = (None, "") if plan.complete else _place(plan)
    if options.drops and Planner(sections, replace(options, prefix=prefix, section=path)).complete(method) is None:
        return None  # what is dropped is a part of it
    needed = None if usual and all(plan.same_as(other) for _, _, other in usual) else method.name
    looked = [at for at in layout.sections if at in sections]
    if prefix:
        looked = [at for at in looked if behind(sections[at].tensors, prefix) is not None] or [
            at for at, section in sections.items() if behind(section.tensors, prefix) is not None
        ]
    network = plan.backbone.name if plan.backbone else ""
    return Way(network, path, prefix, needed, None if looked[:1] == [path] else path, prefix, target, obstacle)


def _place(plan: Plan) -> tuple[str | None, str]:
    """The first target that holds the network of a plan, or why the one that was asked for does not."""
    assert plan.backbone is not None
    targets = [t for t in FAMILIES[plan.backbone.family].targets if not plan.backbone.obstacle(t)]
    return (targets[0], "") if targets else (None, plan.problems[0].text)


def _explaining(section: Section, methods: Iterable[Method], options: Options) -> Iterator[tuple[Method, Layout, Plan]]:
    """Every method that explains these names, whatever section it looks in, with its first plan that is complete.

    Or with one that only the target stands against.
    """
    names, inside = section.tensors, replace(options, drops=(), prefix="", section=None)
    glance, plans = _Glance(names), dict[int, Plan | None]()
    for method in methods:
        for layout in method.layouts:
            if glance.rules_out(layout) or _only_section_tells(layout):
                continue
            key = layout.number
            if key not in plans:
                plans[key] = None
                if not unexplained(layout, section, inside, 0):
                    plan = make_plan(method, layout, "", section, inside)
                    plans[key] = plan if plan.complete or plan.misplaced else None
            plan_here = plans[key]
            if plan_here is not None:
                yield method, layout, plan_here
                break


def _only_section_tells(layout: Layout) -> bool:
    """Whether half a network of another method would look like one of the layout, but for its section."""
    takes_all = layout.first_segments is None and layout.keeps_names
    return takes_all and "norm" in layout.without and "" not in layout.sections


@dataclass(frozen=True)
class Copy:
    """The same network once more: its section, what stands before its names there, and how to get it, if known."""

    path: str
    behind: str
    way: Way | None

    @property
    def where(self) -> str:
        """For a sentence: "at the top level, behind 'module.encoder_k.'"."""
        return Way("", self.path, self.behind, None, self.path, "").where


def _goes_on(section: Section, start: str, names: Iterable[str]) -> bool:
    """Whether more names behind a prefix differ in their numbers alone from these: blocks of a larger network."""
    kinds = {_NUMBER.sub("*", start + name) for name in names}
    more = section.tensors.keys() - {start + name for name in names}
    return any(name.startswith(start) and _NUMBER.sub("*", name) in kinds for name in more)


def copies(sections: Sections, plan: Plan, methods: Iterable[Method], options: Options) -> tuple[Copy, ...]:
    """Where the file holds the network of a complete plan again: other tensors with the same names and shapes."""
    assert plan.backbone is not None
    needed = [move.sources for move in plan.moves if not plan.backbone.optional(move.target)]
    sources = [name for names in needed for name in names]
    taken = section_at(sections, plan.section)
    if taken is None or not sources or plan.section.endswith(BELOW):
        return ()
    low, high = min(sources), max(sources)  # what these two share, all names share
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    common = low[: low.rfind(".", 0, shared) + 1]
    shapes = {name[len(common) :]: taken.tensors[name].shape for name in sources}
    first = next(iter(shapes))
    found: list[Copy] = []
    for path, section in sections.items():
        for name, spec in section.tensors.items():
            start = name[: -len(first)]
            if spec.shape != shapes[first] or not name.endswith(first) or (start and start[-1] != "."):
                continue
            others = (section.tensors.get(start + rest) for rest in shapes)
            same = all(o is not None and o.shape == shape for o, shape in zip(others, shapes.values(), strict=True))
            if same and (path, start) != (plan.section, common):
                start = "" if start == wrapper_of(section.tensors) else start
                way = way_to(sections, path, start, methods, options)
                larger = _goes_on(section, start, shapes) if way is None else way.network != plan.backbone.name
                if not larger:
                    found.append(Copy(path, start, way))
    return tuple(found)
