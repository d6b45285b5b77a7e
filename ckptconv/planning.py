"""Names x rules x backbone -> Plan. The plan says where each tensor goes before any byte is read.

Pure: it sees names, shapes and element types.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ckptconv import backbones
from ckptconv.backbones import TARGETS, Backbone
from ckptconv.errors import IncompletePlanError, UsageError, printable
from ckptconv.folding import place, some
from ckptconv.methods.interface import Layout, Method
from ckptconv.ops import Op, OpError, Then, cast
from ckptconv.rules import Drop, Fuse, Keep, Rule, drop
from ckptconv.spec import DTYPES, Section, StateSpec, TensorSpec

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) put before every name."""

ProblemKind = Literal["unexplained", "missing", "shape", "dtype", "collision", "parts", "backbone", "target"]


@dataclass(frozen=True)
class Move:
    """Source tensors, in order, that become one target tensor; ``op`` is None where only the name changes."""

    sources: tuple[str, ...]
    target: str
    op: Op | None
    spec: TensorSpec
    rule: Rule


@dataclass(frozen=True)
class Dropped:
    """A source entry that is left out; ``rule`` is None for what is no tensor, or outside the user's prefix."""

    source: str
    why: str
    rule: Rule | None = None


@dataclass(frozen=True)
class Problem:
    """Why a plan is not complete: one source key or one backbone entry, and a sentence about it."""

    kind: ProblemKind
    key: str
    text: str


@dataclass(frozen=True)
class Options:
    """What a user may add: losses accepted by name, a prefix, a section, a target, and methods of their own."""

    drops: tuple[str, ...] = ()
    prefix: str = ""
    section: str | None = None
    target: str = "mmdet"
    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(f"there is no target '{self.target}'", f"Targets: {', '.join(TARGETS)}.")
        if self.prefix and not self.prefix.endswith("."):
            raise UsageError(f"the prefix '{self.prefix}' has no dot at its end", f"Write '{self.prefix}.' instead.")


@dataclass(frozen=True)
class Plan:
    """Where every tensor of one section goes. Nothing is written unless `complete`.

    ``prefix`` was taken off the names before the rules were asked; ``absent`` are optional entries that nothing fills;
    ``idle_rules`` counts the rules and ``idle_drops`` lists the user's drops that matched nothing.
    """

    method: str
    layout: str
    section: str
    target: str
    moves: tuple[Move, ...]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    backbone: Backbone | None
    absent: tuple[str, ...]
    idle_rules: int
    tensors: int
    prefix: str
    idle_drops: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not self.problems

    def same_as(self, other: Plan) -> bool:
        """Whether both keep the same tensors under the same names."""
        mine, others = (
            {(m.sources, m.target, m.op) for m in plan.moves} | {((), plan.section, None)} for plan in (self, other)
        )
        return mine == others

    def require_complete(self, advice: str = "") -> Plan:
        """This plan, or IncompletePlanError that names the keys; ``advice`` goes first in its hint."""
        if self.complete:
            return self
        kinds = {
            kind: [p for p in self.problems if p.kind == kind] for kind in dict.fromkeys(p.kind for p in self.problems)
        }
        count = len(self.problems)
        lines = [
            f"the rules of {self.method} do not account for {place(self.section)}: {count} problem{'s' * (count != 1)}"
        ]
        for kind, found in kinds.items():
            lines.extend(f"  {p.text}" for p in found[:3])
            if len(found) > 3:
                lines.append(
                    f"  … and {len(found) - 3} more like these ({kind}): {some([p.key for p in found[3:]], 3)}"
                )
        hints = [advice] if advice else []
        unexplained = [p.key for p in kinds.get("unexplained", [])]
        if unexplained and self.backbone is not None:
            others = {s for m in self.moves for s in m.sources} | {d.source for d in self.dropped}
            options = _drop_options(unexplained, others - set(unexplained))
            hints.append(f"If these are no part of the backbone, accept the loss: {options}")
        elif not hints:
            hints.append("See what the file holds: ckptconv inspect FILE.")
        raise IncompletePlanError("\n".join(lines), "\n".join(hints))


def _drop_options(keys: Sequence[str], others: Iterable[str]) -> str:
    """The fewest --drop options that take these keys and none of the others."""
    others = set(others)
    patterns: dict[str, None] = {}
    for key in keys:
        segments = key.split(".")
        parents = (".".join(segments[:n]) + "." for n in range(1, len(segments)))
        own = next((p for p in parents if not any(o.startswith(p) for o in others)), None)
        patterns[f"{own}{{p...}}" if own else key] = None
    return " ".join(f"--drop '{p}'" for p in list(patterns)[:4]) + (" …" if len(patterns) > 4 else "")


def wrapper_of(names: Iterable[str]) -> str:
    """The wrappers that every name starts with, such as 'module.'; '' if none."""
    names = list(names)
    wrapper = ""
    while names:
        found = next((w for w in WRAPPERS if all(n.startswith(wrapper + w) for n in names)), None)
        if found is None:
            break
        wrapper += found
    return wrapper


def _prefix(rules: Sequence[Rule], names: StateSpec, options: Options) -> str:
    """What to take off every name before the rules are asked: the user's prefix, or what wraps all names."""
    wrapper = wrapper_of(names)
    if options.prefix:
        for prefix in (options.prefix, wrapper + options.prefix):
            if any(n.startswith(prefix) for n in names):
                return prefix
        heads = dict.fromkeys(".".join(n.split(".")[:2]) + "." for n in names if n.count(".") > 1)
        raise UsageError(f"no name starts with '{options.prefix}'", f"Prefixes there are: {some(map(repr, heads), 6)}.")
    spelled_out = wrapper and any(s.prefix.startswith(wrapper) for r in rules for s in r.sources)
    return "" if spelled_out else wrapper


@dataclass
class _Draft:
    """What the rules make of the names, before the backbone is asked."""

    moves: list[Move]
    dropped: list[Dropped]
    problems: list[Problem]
    used: set[int]


def _apply(rules: Sequence[Rule], names: StateSpec, prefix: str, drops: Sequence[Drop]) -> _Draft:
    """Match each name once: the user's drops by the whole name, then the rules by what follows the prefix."""
    draft = _Draft([], [], [], set())
    parts: dict[tuple[int, str, tuple[str, ...]], dict[int, str]] = {}
    ways = [(s, r, i, p) for i, r in enumerate(rules) for p, s in enumerate(r.sources)]
    for key in names:
        accepted = next((d for d in drops if d.source.match(key) is not None), None)
        if accepted is not None:
            draft.dropped.append(Dropped(key, accepted.why, accepted))
            continue
        if not key.startswith(prefix):
            draft.dropped.append(Dropped(key, f"outside the prefix '{prefix}'"))
            continue
        name = key[len(prefix) :]
        for pattern, rule, index, position in ways:
            captures = pattern.match(name)
            if captures is None:
                continue
            draft.used.add(index)
            if isinstance(rule, Drop):
                draft.dropped.append(Dropped(key, rule.why, rule))
            elif isinstance(rule, Keep):
                _move(draft, (key,), rule.target.fill(captures), rule, names)
            else:
                target = rule.target.fill(captures)
                group = parts.setdefault((index, target, tuple(captures[c] for c in sorted(captures))), {})
                group[position] = key
                if len(group) == len(rule.sources):
                    _move(draft, tuple(group[i] for i in range(len(group))), target, rule, names)
            break
        else:
            draft.problems.append(Problem("unexplained", key, f"{printable(key)} ({names[key]}): no rule explains it"))
    for (index, target, _), group in parts.items():
        missing = [str(s) for i, s in enumerate(rules[index].sources) if i not in group]
        if missing:
            text = f"{some(group.values())}: cannot become {target} without {some(missing)}"
            draft.problems.append(Problem("parts", next(iter(group.values())), text))
    return draft


def _move(draft: _Draft, sources: tuple[str, ...], target: str, rule: Keep | Fuse, names: StateSpec) -> None:
    specs = [names[s] for s in sources]
    try:
        spec = rule.op.spec(specs) if rule.op else specs[0]
    except OpError as error:
        draft.problems.append(Problem("shape", sources[0], f"{some(sources)}: {error.message}"))
        return
    draft.moves.append(Move(sources, target, rule.op, spec, rule))


def _against(backbone: Backbone, moves: Sequence[Move], for_target: str) -> tuple[list[Problem], list[str]]:
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
    obstacle = backbone.obstacle(for_target)
    if obstacle:
        text = f"{backbone.name} has no place in {for_target}: {obstacle} (--target torchvision writes it all the same)"
        problems.append(Problem("target", backbone.name, text))
    return problems, [name for name in empty if backbone.optional(name)]


def make_plan(method: Method, layout: Layout, path: str, section: Section, options: Options | None = None) -> Plan:
    """The plan of one layout for the section at ``path``, complete or not. Raises UsageError for unusable options."""
    options = options or Options()
    names = section.tensors
    prefix = _prefix(layout.rules, names, options)
    drops = [drop(pattern, "accepted by --drop") for pattern in options.drops]
    draft = _apply(layout.rules, names, prefix, drops)
    problems, absent = list(draft.problems), list[str]()
    backbone = backbones.read({m.target: m.spec for m in draft.moves})
    if backbone is None:
        kept = [m.sources[0] for m in draft.moves]
        text = f"what is kept is no backbone known here: {some(kept, 3)}" if kept else "nothing is kept"
        problems.append(Problem("backbone", kept[0] if kept else "", text))
    else:
        found, absent = _against(backbone, draft.moves, options.target)
        problems += found
    dropped = [*draft.dropped, *(Dropped(k, f"not a tensor: {kind}") for k, kind in section.others.items())]
    return Plan(
        method=method.name,
        layout=layout.title,
        section=path,
        target=options.target,
        moves=tuple(draft.moves),
        dropped=tuple(dropped),
        problems=tuple(problems),
        backbone=backbone,
        absent=tuple(absent),
        idle_rules=len(layout.rules) - len(draft.used),
        tensors=len(names),
        prefix=prefix,
        idle_drops=tuple(d.source.text for d in drops if all(gone.rule is not d for gone in draft.dropped)),
    )


def cast_plan(plan: Plan, dtype: str) -> Plan:
    """The plan with every floating tensor rounded to ``dtype``. Raises UsageError for a type that cannot be cast."""
    cast(DTYPES["float32"], dtype)  # refuses an unknown type even where nothing needs casting
    moves = []
    for move in plan.moves:
        if move.spec.dtype.is_float and move.spec.dtype.name != dtype:
            op = cast(move.spec.dtype, dtype)
            move = replace(move, op=Then(move.op, op) if move.op else op, spec=op.spec([move.spec]))
        moves.append(move)
    return replace(plan, moves=tuple(moves))
