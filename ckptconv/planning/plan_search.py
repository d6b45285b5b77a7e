"""Makes the plans of a file, over its sections and the layouts of methods: each once, and only where names allow it.

Pure: it sees names and shapes, and no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ckptconv.backbones import FAMILIES
from ckptconv.methods.interface import Layout, Method
from ckptconv.planning.make_plan import actual_prefix, make_plan, taken_off, unexplained
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.sections import section_at
from ckptconv.spec import Section, StateSpec
from ckptconv.wrappers import COUNTERS, wrapped, wrapper_of

Sections = Mapping[str, Section]

_MOST_NEAR = 10  # incomplete plans made in full
MOST_PLANNED = 6_000  # names of a section; student, teacher and heads of the largest ViTs have 2,000


class Prefilter:
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


@dataclass(frozen=True)
class SectionPart:
    """What the section at ``path`` holds under ``prefix``, without what the user drops: names without the prefix."""

    path: str
    prefix: str
    section: Section

    @cached_property
    def content(self) -> object:
        """The same for two parts that hold the same names, shapes and types, whichever wrapper their names have."""
        wrapper, section = self.section.wrapper, self.section
        return tuple(
            frozenset((name.removeprefix(wrapper), one) for name, one in entries.items())
            for entries in (section.tensors, section.others, section.unreadable)
        )


class Planner:
    """Makes the plans of one question about a file. It keeps them: many methods share their rules.

    Whoever asks further about the same file with the same options asks the same planner.
    """

    def __init__(self, sections: Sections, options: Options) -> None:
        self.sections, self.options = sections, options
        self._plans: dict[tuple[int, str], Plan] = {}
        self._part_plans: dict[tuple[object, ...], Plan | None] = {}
        self._ranks: dict[tuple[int, ...], tuple[Sequence[Method], list[tuple[Method, Plan]]]] = {}
        self._left: dict[tuple[int, str], int] = {}
        self._glances: dict[str, Prefilter] = {}
        self._found: dict[str, Section | None] = {}

    def _section(self, path: str) -> Section | None:
        if path not in self._found:
            found = section_at(self.sections, path)
            self._found[path] = found if found is None or found.entries <= MOST_PLANNED else None
        return self._found[path]

    def _has_prefix(self, path: str) -> bool:
        """Whether the section at a path exists and has names under the prefix that the user gave."""
        section = self._section(path)
        return (
            section is not None
            and actual_prefix(section.tensors or section.unreadable, self.options.strip_prefix) is not None
        )

    def places(self, method: Method) -> Iterator[tuple[Layout, str, Section]]:
        """The method's layouts with the sections of the file that they are for, in order.

        A prefix leads to the section that has it, whether or not the layout looks there.
        """
        for layout in method.layouts:
            wanted: Iterable[str] = layout.sections if self.options.section is None else (self.options.section,)
            paths = [path for path in wanted if self._has_prefix(path)]
            if self.options.strip_prefix and self.options.section is None:
                paths = paths or [path for path in self.sections if self._has_prefix(path)]
            for path in paths:
                section = self._section(path)
                assert section is not None
                yield layout, path, section

    def _unexplained(self, layout: Layout, path: str, section: Section, most: int) -> int:
        """How many names no rule of the layout explains; more than ``most`` if there are more."""
        key = layout.number, path
        if self._left.get(key, -1) < 0 or self._left[key] <= most:
            self._left[key] = unexplained(layout, section, self.options, most)
        return self._left[key]

    def _glance(self, path: str, section: Section) -> Prefilter | None:
        """A quick look at what the rules will see of a section; None where the user drops some of it."""
        if self.options.drop:
            return None
        if path not in self._glances:
            start = actual_prefix(section.tensors, self.options.strip_prefix) or ""
            names = {n[len(start) :]: s for n, s in section.tensors.items() if n.startswith(start)}
            self._glances[path] = Prefilter(names)
        return self._glances[path]

    def plan(self, method: Method, layout: Layout, path: str, section: Section) -> Plan:
        """The plan of a layout for the section at ``path``."""
        made = self._plans.get((layout.number, path))
        if made is None:
            made = make_plan(method, layout, path, section, self.options)
            self._plans[layout.number, path] = made
        return replace(made, method=method.name, layout=layout.title)

    def part_plan(self, method: Method, layout: Layout, part: SectionPart) -> Plan | None:
        """The plan of a layout for a part of a section; None if it leaves a name unexplained.

        Parts with the same names, shapes and types, such as the blocks of a network, have one plan.
        """
        inside = replace(self.options, drop=(), strip_prefix="", section=None)
        unwrapped = taken_off(layout.rules, part.section, inside) == part.section.wrapper
        key = layout.number, unwrapped, part.content
        if key not in self._part_plans:
            plan = None
            if not part.prefix and inside == replace(
                self.options, section=None
            ):  # the whole section, as it is asked for
                if not self._unexplained(layout, part.path, part.section, 0):
                    plan = self.plan(method, layout, part.path, part.section)
            elif not unexplained(layout, part.section, inside, 0):
                plan = make_plan(method, layout, part.path, part.section, inside)
            self._part_plans[key] = plan
        return self._part_plans[key]

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
        """Every method with a complete plan, those that may be guessed first.

        A method that states how many registers its networks have explains no others, and these before any other.
        """
        complete = [(m, p) for m in methods if (p := self.complete(m)) is not None]
        suiting = [pair for pair in complete if _suits(*pair)]
        return sorted(suiting, key=lambda pair: (not pair[0].guess, pair[0].num_registers is None, distance(pair[1])))

    def best(self, method: Method) -> Plan | None:
        """The plan of the layout and section that leaves fewest problems; None if the file has no such section."""
        plans = []
        for layout, path, section in self.places(method):
            plans.append(self.plan(method, layout, path, section))
            if plans[-1].complete:
                return plans[-1]
        return min(plans, key=distance, default=None)

    def rank(self, methods: Iterable[Method]) -> list[tuple[Method, Plan]]:
        """The best plan of each method that is near, best first: complete plans, then those with fewest problems.

        A method is near if its rules explain half of a section's names. Of the methods that leave names unexplained,
        those that leave fewest are planned in full.
        """
        methods = tuple(methods)
        key = tuple(map(id, methods))
        if key not in self._ranks:
            self._ranks[key] = (
                methods,
                self._ranked(methods),
            )  # keeps the methods, so that no other gets an id of theirs
        return self._ranks[key][1]

    def _ranked(self, methods: Iterable[Method]) -> list[tuple[Method, Plan]]:
        whole: list[tuple[Method, Layout, str, Section]] = []
        near: list[tuple[int, Method, Layout, str, Section]] = []
        for method in methods:
            for layout, path, section in self.places(method):
                most, glance = len(section.tensors) // 2, self._glance(path, section)
                if glance is not None and glance.unexplained(layout) > most:
                    continue
                left = self._unexplained(layout, path, section, most)
                if not left and glance is not None and glance.rules_out(layout):
                    continue  # what it keeps is not a network
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
                if known is None or distance(plan) < distance(known[1]):
                    best[method.name] = method, plan
        return sorted((pair for pair in best.values() if _suits(*pair)), key=lambda pair: distance(pair[1]))


def _suits(method: Method, plan: Plan) -> bool:
    """Whether the network has as many registers as the method says that its networks have."""
    return method.num_registers in (None, getattr(plan.backbone, "num_registers", 0))


def distance(plan: Plan) -> tuple[bool, int, int]:
    """How far a plan is from what a person wants: no network is worst, then problems, then rules without a use."""
    return plan.backbone is None, len(plan.problems), plan.unused_rules
