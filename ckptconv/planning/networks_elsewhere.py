"""Networks that a file holds in another section or under another prefix than the methods expect.

Pure: it sees names and shapes, and no file. Before `identify` refuses a file it looks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ckptconv.backbones import FAMILIES
from ckptconv.errors import printable
from ckptconv.methods.interface import Layout, Method
from ckptconv.methods.naming_schemes import GENERIC
from ckptconv.patterns import Pattern
from ckptconv.planning.make_plan import actual_prefix
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import MOST_PLANNED, Planner, Prefilter, SectionPart
from ckptconv.planning.problem_texts import text_of
from ckptconv.spec import Section
from ckptconv.text import section_label

_T = TypeVar("_T")
Explained = tuple[Method, Layout, Plan]

_LEAST = 12  # tensors of the smallest network that is searched under a prefix
_DEEPEST = 8  # segments of a prefix
_MOST_NAMES = 100_000  # that are searched: names of real files times their depth
_MOST_ALTERNATIVES = 4


@dataclass(frozen=True)
class Alternative:
    """A network in a file, and the arguments with which `convert` takes it.

    ``section`` and ``prefix`` say where its names are; ``section_needed``: whether `convert` must be told the section.
    ``method`` is None where `convert` finds it. ``target`` is set if the usual target cannot hold the network;
    ``obstacle`` says why if no target can.
    """

    network: str
    section: str
    prefix: str
    method: str | None
    section_needed: bool
    target: str | None = None
    obstacle: str = ""

    @property
    def arguments(self) -> dict[str, str | None]:
        """What `convert` takes to get it, None where it is not needed."""
        return {
            "method": self.method,
            "strip_prefix": self.prefix or None,
            "section": self.section if self.section_needed else None,
            "target": self.target,
        }

    @property
    def where(self) -> str:
        """The section and the prefix, for a sentence: "in 'model' under 'teacher.'"."""
        under = f"under '{printable(self.prefix)}'" if self.prefix else ""
        if under and not self.section_needed:
            return under
        inside = f"in {section_label(self.section)}" if self.section else "at the top level"
        return f"{inside} {under}".rstrip()


def find_alternatives(planner: Planner, methods: Sequence[Method]) -> tuple[Alternative, ...]:
    """The networks that some method explains in some section under some prefix, outermost first.

    ``methods`` are tried in their order. If the options name a section, only that is searched.
    """
    options = planner.options
    found: list[Alternative] = []
    searched = 0
    for path, section in planner.sections.items():
        if options.section not in (None, path) or not _LEAST <= section.entries <= MOST_PLANNED:
            continue
        done: list[str] = []
        for prefix, names in _prefixes(section):
            searched += len(names)
            if searched > _MOST_NAMES or len(found) == _MOST_ALTERNATIVES:
                return tuple(found)
            if not any(prefix.startswith(other) for other in done):
                alternative = alternative_at(planner, path, prefix, methods, names)
                if alternative is not None:
                    done.append(prefix)
                    if alternative.section_needed or prefix or options.strip_prefix:  # else it is what was asked for
                        found.append(alternative)
    return tuple(found)


def _prefixes(section: Section) -> Iterator[tuple[str, Sequence[str]]]:
    """'' and every dotted prefix of enough names, short prefixes first, with these names."""
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


def alternative_at(
    planner: Planner, path: str, prefix: str, methods: Iterable[Method], names: Sequence[str] | None = None
) -> Alternative | None:
    """How to convert what a section holds under a prefix; None if no method explains it.

    ``names`` are the tensors with the prefix, where they are known.
    """
    sections, options = planner.sections, planner.options
    drops = [Pattern(pattern) for pattern in options.drop]  # of whole names
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
    part = SectionPart(path, prefix, section)
    found: list[tuple[Method, Layout, Plan]] = []
    for one in _explaining(planner, part, sorted(methods, key=lambda m: m.name != GENERIC.name)):
        found.append(one)
        if prefix and one[0].name == GENERIC.name and one[2].complete:
            break  # the prefix alone is enough
    found = [one for one in found if one[2].complete] or found
    if not found:
        return None
    usual = [one for one in found if prefix and one[0].name == GENERIC.name]
    usual = usual or [one for one in found if one[0].guess]
    method, layout, plan = (usual or found)[0]
    target, obstacle = (None, "") if plan.complete else _first_target(plan)
    if options.drop and Planner(sections, replace(options, strip_prefix=prefix, section=path)).complete(method) is None:
        return None  # the drops take a part of it
    needed = None if usual and all(plan.same_as(other) for _, _, other in usual) else method.name
    searched = [at for at in layout.sections if at in sections]
    if prefix:
        searched = [at for at in searched if actual_prefix(sections[at].tensors, prefix) is not None] or [
            at for at, section in sections.items() if actual_prefix(section.tensors, prefix) is not None
        ]
    network = plan.backbone.name if plan.backbone else ""
    return Alternative(network, path, prefix, needed, searched[:1] != [path], target, obstacle)


def _first_target(plan: Plan) -> tuple[str | None, str]:
    """The first target that can hold the network of a plan, or why the requested target cannot."""
    assert plan.backbone is not None
    targets = [t for t in FAMILIES[plan.backbone.family].targets if not plan.backbone.obstacle(t)]
    return (targets[0], "") if targets else (None, text_of(plan.problems[0]))


def _explaining(planner: Planner, part: SectionPart, methods: Iterable[Method]) -> Iterator[Explained]:
    """Every method that explains a part of a section, in any section, with the first plan that will do.

    That is a complete one, or one for a network that only the target cannot hold.
    """
    glance = Prefilter(part.section.tensors)
    for method in methods:
        for layout in method.layouts:
            if glance.rules_out(layout) or _only_section_tells(layout):
                continue
            plan = planner.part_plan(method, layout, part)
            if plan is not None and (plan.complete or plan.unsupported_target):
                yield method, layout, plan
                break


def _only_section_tells(layout: Layout) -> bool:
    """Whether only the section tells this layout from half of another method's network."""
    takes_all = layout.first_segments is None and layout.keeps_names
    return takes_all and "norm" in layout.without and "" not in layout.sections
