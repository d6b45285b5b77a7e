"""Which method wrote this file: the one whose rules explain every name and leave exactly a known backbone.

There are no detector functions. If several methods give the same plan, any of them will do and all are named; if they
differ, the user must say. If none fits, every section and prefix is tried before the refusal is written, and it names
the command that converts what stands there, or else the nearest method with what that leaves unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckptconv import fields
from ckptconv.arguments import argument, call
from ckptconv.backbones.interface import PARTS
from ckptconv.errors import UnidentifiedError, UsageError, VerdictError
from ckptconv.methods import registry
from ckptconv.methods.interface import Layout, Method
from ckptconv.methods.naming_schemes import GENERIC
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner, Sections, distance
from ckptconv.planning.problem_texts import advice
from ckptconv.planning.refusals import (
    LOOK,
    incomplete,
    instead,
    known_unsupported,
    nothing_fits,
    other_target,
    require_known,
    require_tensors,
)
from ckptconv.planning.same_result import Match, agreed
from ckptconv.rules import RULES, Rule
from ckptconv.text import fold, section_label, some


def rank(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """The best plan of every method that is near, best first: complete plans, then those with fewest problems."""
    return Planner(sections, options).rank(methods)


def explaining(sections: Sections, methods: Iterable[Method], options: Options) -> list[tuple[Method, Plan]]:
    """Every method that explains the file, those that may be guessed first.

    Raises UnidentifiedError if none does, and UnreadableError for a file without tensors by name.
    """
    require_tensors(sections)
    return _explaining(Planner(sections, options), list(methods))


def _explaining(planner: Planner, methods: Sequence[Method]) -> list[tuple[Method, Plan]]:
    complete = planner.explaining(methods)
    if not complete:
        raise nothing_fits(planner, methods)
    return complete


def identify(sections: Sections, methods: Iterable[Method], options: Options) -> Match:
    """The one of the methods that explains the file. Raises UnidentifiedError if none does, or several differ."""
    return agreed(explaining(sections, methods, options), options)


def choose(sections: Sections, method: str | Method | Iterable[Rule], options: Options) -> Match:
    """The match for 'auto', a method's name or alias, a Method or rules. Raises VerdictError if none fits.

    A named method that does not fit is refused with the one that does, if there is one. Where an alias stands for
    several methods, it is the one of them that explains the file. With a prefix, 'auto' asks the generic method first:
    what a person takes off is mostly all that stands between them and a bare backbone.
    """
    return _decide(Planner(sections, options), method)


def _decide(planner: Planner, method: str | Method | Iterable[Rule]) -> Match:
    require_tensors(planner.sections)
    require_known(planner)
    if registry.is_auto(method):
        match = _auto(planner)
    else:
        match = _named(planner, methods_of(method, planner.sections, planner.options))
    for pattern in match.plan.unused_drops:
        raise UsageError(
            f"{argument('drop', [pattern])} matches no name of {section_label(match.plan.section)}",
            f"See the names: {call('inspect', 'SRC')}",
            "drop",
        )
    return match


def _auto(planner: Planner) -> Match:
    known = registry.methods(planner.options.methods)
    if not planner.options.strip_prefix:
        return agreed(_explaining(planner, [m for m in known.values() if m.guess]), planner.options)
    generic = known[GENERIC.name]
    plan = planner.complete(generic)
    if plan is not None:
        return Match(generic, plan, named=True)
    complete = planner.explaining([m for m in known.values() if m.guess])
    if complete:
        return agreed(complete, planner.options)
    raise nothing_fits(planner, [replace(generic, guess=True), *known.values()])


def _named(planner: Planner, methods: Sequence[Method]) -> Match:
    """The match of a method, or of the one of an alias's methods that fits; or the error that names a better one."""
    sections, options = planner.sections, planner.options
    if len(methods) > 1 and (complete := planner.explaining(methods)):
        return agreed(complete, options)
    plans = [(m, p) for m in methods if (p := planner.best(m)) is not None]
    wanted, plan = min(plans, key=lambda pair: distance(pair[1]), default=(methods[0], None))
    if plan is not None and plan.complete:
        return Match(wanted, plan, named=True)
    for method, layout in ((m, layout) for m in methods for layout in m.converted):
        converted = planner.complete(replace(method, layouts=(layout,)))
        if converted is not None:
            return Match(method, converted, named=True)
    if plan is not None and plan.unsupported_target:
        raise incomplete(plan, other_target(plan, options, wanted.name))
    hint = "" if plan is not None and advice(plan) else instead(planner, wanted, plan)
    if plan is not None:
        raise incomplete(plan, hint)
    known = dict.fromkeys(s or "the top level" for layout in wanted.layouts for s in layout.sections)
    what = known_unsupported(sections)
    raise UnidentifiedError(
        f"{wanted.name} expects the weights in {' or '.join(known)}; this file has none there"
        + (f". It is {what}" if what else ""),
        hint or f"The file has {some(map(repr, fold(sections)), 6)}. {LOOK}",
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
        method, plan = min(near, key=lambda pair: distance(pair[1]))
        return Match(method, plan, named=not auto)


def methods_of(method: str | Method | Iterable[Rule], sections: Sections, options: Options) -> tuple[Method, ...]:
    """The methods of a name or alias, nearly always one; or the one of a Method or a list of rules."""
    if isinstance(method, Method):
        return (method,)
    if isinstance(method, str):
        return registry.named(method, options.methods)
    rules = tuple(method) if isinstance(method, Iterable) else ()
    if not rules or not all(isinstance(r, RULES) for r in rules):
        raise UsageError(
            "the method must be a name, a Method or a list of rules", "Make rules with keep, drop, fuse, split."
        )
    paths = tuple(path for path in sections if fields.is_section(path)) or ("",)
    return (Method("rules", "rules given by the caller", (Layout(rules, paths, "as given", without=PARTS),)),)
