"""Why a file is refused, and the call that converts it: the nearest method, the network that is there, what to drop.

Pure: it sees names and shapes. `identify` decides; this words its errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckptconv.arguments import argument, call
from ckptconv.backbones import FAMILIES
from ckptconv.backbones.unsupported import unsupported_network
from ckptconv.errors import IncompletePlanError, UnidentifiedError, UnreadableError, UsageError, VerdictError, printable
from ckptconv.methods import registry
from ckptconv.methods.interface import Method
from ckptconv.planning.convert_calls import convert_call
from ckptconv.planning.make_plan import actual_prefix
from ckptconv.planning.networks_elsewhere import Alternative, find_alternatives
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner, Sections
from ckptconv.planning.problem_texts import advice, refusal
from ckptconv.planning.same_result import disagreement
from ckptconv.sections import section_at
from ckptconv.spec import Section
from ckptconv.text import fold, section_label, some

_MOST_DROPS = 8  # patterns that a person types

_OWN_RULES = f"To write rules for it: {argument('rules', 'FILE.toml')} (ckptconv guide rules)"
LOOK = f"See what the file holds: {call('inspect', 'SRC')}"


def incomplete(plan: Plan, hint: str = "") -> IncompletePlanError:
    """The error for a plan that is not complete: it names the keys, and what to do about them before the hint."""
    return IncompletePlanError(refusal(plan), "\n".join(filter(None, (advice(plan), hint))) or LOOK)


def _largest(sections: Sections) -> tuple[str, Section]:
    return max(sections.items(), key=lambda item: len(item[1].tensors) + len(item[1].unreadable))


def known_unsupported(sections: Sections) -> str:
    """The network of a file that no target supports; '' for any other file."""
    if not sections:
        return ""
    section = _largest(sections)[1]
    shapes = {name: spec.shape for name, spec in section.tensors.items()}
    return unsupported_network({**shapes, **dict.fromkeys(section.others)})[1]


def _alternative_lines(found: Iterable[Alternative], options: Options, method: str | None = None) -> list[str]:
    """A line for each network that is elsewhere in the file, with the call that converts it."""
    lines = []
    for one in found:
        command = one.obstacle or convert_call(options, one.method or method, one)
        lines.append(f"{_article(one.network)} is {one.where}: {command}")
    return lines


def _article(noun: str) -> str:
    return f"{'An' if noun[:1] in 'AEIO' else 'A'} {noun}"


def other_target(plan: Plan, options: Options, method: str | None) -> str:
    """The command for the first target that can hold the network of a plan; '' if none can."""
    if plan.backbone is None or plan.backbone.partial:
        return ""
    targets = [t for t in FAMILIES[plan.backbone.family].targets if not plan.backbone.obstacle(t)]
    if not targets:
        return ""
    return f"Write it for {targets[0]}: {convert_call(replace(options, target=targets[0]), method)}"


def _drops(planner: Planner, method: Method, plan: Plan) -> str:
    """The command that converts without the names that no rule explains; '' where that would not be all."""
    options = planner.options
    others = {s for m in plan.moves for s in m.sources} | {d.source for d in plan.dropped}
    patterns = _patterns(plan.droppable_names, others - set(plan.droppable_names))
    options = replace(options, drop=tuple(d for d in options.drop if d not in plan.unused_drops))
    if not 0 < len(patterns) <= _MOST_DROPS:
        return ""
    try:
        done = Planner(planner.sections, replace(options, drop=(*options.drop, *patterns))).complete(method)
    except UsageError:  # a name has a brace, or may not be dropped
        return ""
    if done is None:
        return ""
    return f"If these are not part of the backbone, drop them: {convert_call(options, method.name, drops=patterns)}"


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


def nothing_fits(planner: Planner, methods: Sequence[Method]) -> VerdictError:
    """The error for a file that no method explains: what is near, what stands elsewhere in it, or what it holds."""
    sections, options = planner.sections, planner.options
    guessed = [m for m in methods if m.guess]
    ranked = planner.rank(guessed)
    near, hint = None, ""
    if ranked and ranked[0][1].backbone is not None:
        near, plan = ranked[0]
        hint = other_target(plan, options, near.name) if plan.unsupported_target else advice(plan)
    elsewhere = () if hint else find_alternatives(planner, methods)
    if near is not None and not hint:
        hint = _drops(planner, near, plan)
        elsewhere = (
            tuple(one for one in elsewhere if not one.prefix) if hint else elsewhere
        )  # a whole section is better
    found = _alternative_lines(elsewhere, options)
    what = known_unsupported(sections)
    if not found and not hint and what:
        return UnidentifiedError(f"no method explains this file. It is {what}", LOOK)
    if near is None or found:
        path, section = _largest(sections)
        if section.unreadable and not found:
            return _unreadable(path, section)
        return UnidentifiedError(
            f"no method explains this file: {section_label(path)} holds {len(section.tensors)} tensors, "
            f"{some(section.tensors, 3)}",
            "\n".join(found) or f"{LOOK}\n{_OWN_RULES}",
        )
    nearest = "" if plan.unsupported_target else f"no method explains this file; the nearest is {near.name}:\n"
    return UnidentifiedError(f"{nearest}{refusal(plan)}", hint or LOOK)


def _unreadable(path: str, section: Section) -> UnidentifiedError:
    """The error for a section whose tensors cannot be read."""
    whats = dict.fromkeys(f"{printable(name)} is {one.what}" for name, one in section.unreadable.items())
    return UnidentifiedError(
        f"{section_label(path)} holds {len(section.tensors)} tensors and {len(section.unreadable)} entries that cannot "
        f"be read as plain tensors: {some(whats, 2)}",
        "\n".join(dict.fromkeys(one.advice for one in section.unreadable.values())),
    )


def require_tensors(sections: Sections) -> None:
    if not sections:
        raise UnreadableError("the file holds no named tensors", "A state dict maps names to tensors.")


def require_known(planner: Planner) -> None:
    """Raises UsageError for a section that the file has not, and for a prefix that no name has."""
    sections, options = planner.sections, planner.options
    if options.section is not None and section_at(sections, options.section) is None:
        raise UsageError(f"there is no section '{options.section}'", f"Sections: {some(map(repr, fold(sections)), 8)}.")
    looked = [s for p, s in sections.items() if options.section in (None, p)]
    if options.section is not None and not looked:  # all that lies below a path
        looked = [s for s in (section_at(sections, options.section),) if s]
    if any(
        actual_prefix(section.tensors or section.unreadable, options.strip_prefix) is not None for section in looked
    ):
        return
    found = find_alternatives(planner, list(registry.methods(options.methods).values()))
    heads = dict.fromkeys(
        ".".join(name.split(".")[:2]) + "." for one in looked for name in one.tensors if name.count(".") > 1
    )
    hints = _alternative_lines(found, options) or [f"Prefixes in the file: {some(map(repr, heads), 6)}."]
    raise UsageError(f"no name starts with '{options.strip_prefix}'", "\n".join(hints))


def instead(planner: Planner, wanted: Method, plan: Plan | None) -> str:
    """What to type instead of a method that does not fit as it was asked for; '' if nothing is nearer."""
    sections, options = planner.sections, planner.options
    known = list(registry.methods(options.methods).values())
    hints = []
    complete = planner.explaining([m for m in known if m.guess])
    if complete:
        error = disagreement(complete, options)
        name = complete[0][0].name
        hints.append(error.hint if error else f"The file is explained by {name}: {convert_call(options, name)}")
    hints.append(_drops(planner, wanted, plan) if plan is not None else "")
    hints = [hint for hint in hints if hint]
    hints = hints or _alternative_lines(find_alternatives(planner, [wanted]), options, wanted.name)
    if hints:
        return "\n".join(hints)
    near = next((m for m, p in planner.rank(known) if p.droppable_names and m.guess and m.name != wanted.name), None)
    if near is not None and not known_unsupported(sections):  # its refusal will say what to drop
        return f"The nearest method is {near.name}: {convert_call(options, near.name)}"
    return "\n".join(_alternative_lines(find_alternatives(planner, known), options))
