"""The sentences about a plan that is not complete: each problem, what to do about it, and the refusal. Pure."""

from __future__ import annotations

from ckptconv.arguments import argument
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.unsupported import unsupported_network
from ckptconv.errors import UsageError, printable
from ckptconv.patterns import Pattern
from ckptconv.planning import problems
from ckptconv.planning.plan import Plan
from ckptconv.planning.problems import Problem
from ckptconv.text import section_label, some

_SHOWN = 3  # problems of a kind


def text_of(problem: Problem) -> str:
    """A sentence about a problem."""
    key = printable(problem.key)
    match problem:
        case problems.NoRule():
            return f"{key} ({problem.spec}): no rule explains it"
        case problems.NoEntry():
            return f"{key} ({problem.spec}): {problem.backbone.name} has no {printable(problem.entry)}"
        case problems.WrongShape():
            shape = list(problem.backbone.entries()[problem.entry])
            entry = f"{printable(problem.entry)} of {problem.backbone.name}"
            return f"{key}: shape {list(problem.spec.shape)}, but {entry} is {shape}"
        case problems.WrongDtype():
            entry = f"{printable(problem.entry)} of {problem.backbone.name}"
            return f"{key}: dtype {problem.spec.dtype}, but {entry} is floating point"
        case problems.UnsuitableOp():
            return f"{some(problem.sources)}: {problem.error}"
        case problems.Collision():
            return f"{key}: {printable(problem.target)} is already made from {printable(problem.other)}"
        case problems.PartsMissing():
            return f"{some(problem.sources)}: cannot become {problem.target} without {some(problem.missing)}"
        case problems.EntryMissing():
            entry = f"{problem.key} of {problem.backbone.name} ({list(problem.backbone.entries()[problem.key])})"
            return f"{entry}: missing, no tensor of the file becomes it"
        case problems.PartMissing():
            what = f"{problem.key} of {problem.backbone.name}: {problem.part.what}"
            if problem.truncated:
                return f"{what}, unlike other files of this layout: this file may be truncated"
            return f"{what}, so the network is not complete. {problem.backbone.unusual}"
        case problems.NoBackbone():
            kept = some(problem.kept, _SHOWN)
            return f"the kept tensors are not a known backbone: {kept}" if kept else "no tensor is kept"
        case problems.UnsupportedTarget():
            return _unsupported_target(problem.target, problem.backbone)
        case problems.NotReadable():
            return f"{key} is {problem.entry.what}, which cannot be read as a plain tensor"
        case problems.DropsEntry():
            return _undroppable(key, f"this is {problem.entry} of {problem.backbone.name}")
        case problems.DropsPart():
            return _undroppable(key, f"it is part of {printable(problem.part)}, and other tensors of it are kept")


def _unsupported_target(target: str, backbone: Backbone) -> str:
    targets = FAMILIES[backbone.family].targets
    start = f"{target} cannot hold {backbone.name}"
    if target not in targets:
        obstacle, others = f"a {backbone.family} can be written for {some(targets)}", []
    else:
        obstacle = backbone.obstacle(target)
        others = [argument("target", t) for t in targets if t != target and not backbone.obstacle(t)]
    if backbone.partial:
        return f"{start}: {obstacle}. {backbone.unusual}"
    return f"{start}: {obstacle} ({' or '.join(others)} can)" if others else f"{start}: {obstacle}"


def _undroppable(key: str, why: str) -> str:
    return f"{argument('drop')} cannot remove {key}: {why}: without it the network computes something else"


def _advice_of(problem: Problem) -> str:
    """What to do about a problem; '' where only the file could change."""
    match problem:
        case problems.NotReadable(key, entry, inside):
            return entry.advice if inside else entry.advice + _drop_advice(key)
        case problems.DropsPart(entry=entry) if entry is not None:
            return entry.advice
    return ""


def _drop_advice(name: str) -> str:
    """How to drop an entry that cannot be read; '' for a name that no pattern matches."""
    try:
        matched = Pattern(name).match(name) is not None
    except UsageError:
        matched = False
    return f" If it is not part of the backbone, drop it: {argument('drop', [name])}" if matched else ""


def advice(plan: Plan) -> str:
    """What to do about a plan's problems, a line each."""
    return "\n".join(dict.fromkeys(filter(None, map(_advice_of, plan.problems))))


def refusal(plan: Plan) -> str:
    """The problems of a plan as lines for people: the first few of each kind."""
    if plan.unsupported_target:
        return "\n".join(map(text_of, plan.problems))
    count = len(plan.problems)
    number = f"{count} problem{'s' * (count != 1)}"
    lines = [f"the rules of {plan.method} do not account for {section_label(plan.section)}: {number}"]
    named = [p.key for p in plan.problems if p.kind not in ("missing", "target")]
    shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys((*named, *(gone.source for gone in plan.dropped)))
    for move in plan.moves:
        shapes |= dict.fromkeys(move.sources) if move.op else {move.sources[0]: move.spec.shape}
    key, what = unsupported_network(shapes)
    lines += [f"  {printable(key)}: this is {what}"] if key else []
    for kind in dict.fromkeys(p.kind for p in plan.problems):
        shown, rest = _split([p for p in plan.problems if p.kind == kind])
        # the parts of another network that a network lacks are not cut off
        lines += [f"  {text_of(p)}" for p in shown if not (key and isinstance(p, problems.PartMissing) and p.truncated)]
        if rest:
            lines.append(f"  … and {len(rest)} more like these ({kind}): {some([p.key for p in rest], _SHOWN)}")
    return "\n".join(lines)


def _split(found: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    return found[:_SHOWN], found[_SHOWN:]
