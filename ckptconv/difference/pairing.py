"""Which tensor of one side belongs to which of the other: by the network that both hold, or else by names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ckptconv.backbones import FAMILIES, Backbone, TargetName
from ckptconv.conversion.converted import Converted
from ckptconv.difference.sides import Side
from ckptconv.errors import CkptconvError
from ckptconv.methods import registry
from ckptconv.planning.identify import choose
from ckptconv.planning.matching import Move
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner
from ckptconv.planning.refusals import require_tensors
from ckptconv.rules import keep
from ckptconv.spec import TensorSpec

Moves = Mapping[str, Move]

_AS_IT_IS = keep("{key...}", "{key...}")
_MOST_COPIES = 6  # of a network in one file: student, teacher, and what they are wrapped in


@dataclass(frozen=True)
class Held:
    """A network that a side holds: in a section, by a method's rules, under the names of ``target``.

    ``others`` are the section's other tensors, each under its own name.
    """

    method: str
    section: str
    backbone: Backbone
    target: str
    moves: Moves
    others: Moves


@dataclass(frozen=True)
class Pairing:
    """The tensors of both sides by the names that they have in common; ``held`` are the networks that they are of."""

    section_a: str
    section_b: str
    a: Moves
    b: Moves
    held: tuple[Held, Held] | None = None


def held_by(side: Side) -> list[Held]:
    """Every network that the side may be about: one if its method is named, or if all methods that fit agree.

    Raises the refusal of `convert` for a method that is named and does not fit.
    """
    require_tensors(side.sections)
    if not registry.is_auto(side.method):
        match = choose(side.sections, side.method, side.options)
        return [_held(side, match.method.name, match.plan)]
    written = _written(side)
    known = [m for m in registry.methods(side.options.methods).values() if m.guess]
    plans: list[tuple[str, Plan]] = []
    for method, plan in Planner(side.sections, side.options).explaining(known):
        if not any(plan.same_as(other) for _, other in plans):
            plans.append((method.name, plan))
    return [*written, *(_held(side, name, plan) for name, plan in plans[:_MOST_COPIES])]


def _written(side: Side) -> list[Held]:
    """The network of a file that ckptconv wrote, under the names that it has."""
    converted = None if side.checkpoint is None or side.options.section else Converted.read(side.checkpoint)
    if converted is None or converted.origin is None or converted.backbone is None:
        return []
    moves = {name: _unchanged(name, spec) for name, spec in side.specs(converted.section).items()}
    origin = converted.origin
    return [Held(origin.method, converted.section, converted.backbone, origin.target, moves, {})]


def _held(side: Side, method: str, plan: Plan) -> Held:
    assert plan.backbone is not None
    taken = {name for move in plan.moves for name in move.sources}
    others = {name: _unchanged(name, spec) for name, spec in side.specs(plan.section).items() if name not in taken}
    return Held(method, plan.section, plan.backbone, plan.target, {move.target: move for move in plan.moves}, others)


def _named_for(target: TargetName, side: Side, held: Held) -> Held | None:
    """The same network under a target's names; None if that target cannot hold it."""
    if held.target == target:
        return held
    options = replace(side.options, target=target, section=held.section)
    method = held.method if registry.is_auto(side.method) else side.method
    try:
        return _held(side, held.method, choose(side.sections, method, options).plan)
    except CkptconvError:
        return None


def by_network(side_a: Side, a: Held, side_b: Side, b: Held) -> Pairing | None:
    """Both networks under the names of one target; None if they are of two families, or if no target holds both."""
    if a.backbone.family != b.backbone.family:
        return None
    targets = FAMILIES[a.backbone.family].targets
    for target in sorted(targets, key=lambda one: (one != a.target, one != b.target)):
        first, second = _named_for(target, side_a, a), _named_for(target, side_b, b)
        if first is not None and second is not None:
            return Pairing(a.section, b.section, first.moves, second.moves, (first, second))
    return None


def by_names(side_a: Side, side_b: Side) -> Pairing:
    """The sections of both that have most names in common, with or without what all their names start with."""
    best, most = Pairing("", "", {}, {}), (-1, 0)
    for section_a in side_a.sections:
        for section_b in side_b.sections:
            for a in _spellings(side_a.specs(section_a)):
                for b in _spellings(side_b.specs(section_b)):
                    common = len(a.keys() & b.keys()), -len(a) - len(b)
                    if common > most:
                        best, most = Pairing(section_a, section_b, a, b), common
    return best


def _spellings(specs: Mapping[str, TensorSpec]) -> Iterator[dict[str, Move]]:
    """A section's tensors under their own names, and without each dotted prefix that all names have."""
    prefix = ""
    while True:
        rest = {name: name.removeprefix(prefix) for name in specs}
        yield {short: _unchanged(name, specs[name]) for name, short in rest.items()}
        heads = {short.partition(".")[0] if "." in short else "" for short in rest.values()}
        if len(heads) != 1 or "" in heads:
            return
        prefix += f"{heads.pop()}."


def _unchanged(name: str, spec: TensorSpec) -> Move:
    return Move((name,), name, None, spec, _AS_IT_IS)
