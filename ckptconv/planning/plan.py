"""Names x rules x backbone -> Plan. The plan says where each tensor goes before any byte is read.

Pure: it sees names, shapes and element types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckptconv import backbones, fields
from ckptconv.arguments import argument, call
from ckptconv.backbones import FAMILIES, TARGETS, Backbone
from ckptconv.backbones.image_size import Size
from ckptconv.backbones.interface import CANONICAL, Dialect
from ckptconv.backbones.unsupported import stranger
from ckptconv.errors import IncompletePlanError, UsageError, printable
from ckptconv.methods.interface import Layout, Method
from ckptconv.ops import cast, compose, select_channels
from ckptconv.planning import droppable, matching
from ckptconv.planning.matching import Dropped, Move, Problem, match, match_others, spoken
from ckptconv.rules import Drop, Pattern, Rule, drop, keep
from ckptconv.spec import DTYPES, Section, TensorSpec
from ckptconv.text import place, some
from ckptconv.wrappers import wrapper_of

_ACCEPTED = "dropped on request"
_MOST_CHANNELS = 512
_CUT = "unlike in other files of this layout: this one may be cut short"


@dataclass(frozen=True)
class Options:
    """What a user may add: losses accepted by name, a prefix, a section, a target, and methods of their own.

    ``channels`` are those of an image that the network is to see, by their numbers from 1; () is all of them.
    """

    drops: tuple[str, ...] = ()
    prefix: str = ""
    section: str | None = None
    target: str | None = None
    methods: tuple[Method, ...] = ()
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        drops = fields.items("drops", self.drops, str, "texts")
        for pattern in drops:
            Pattern(pattern)
        methods = fields.items("methods", self.methods, Method, "Method")
        fields.once("methods", [method.name for method in methods])
        fields.keep(self, drops=drops, methods=methods)
        for field, value in (("prefix", self.prefix), ("section", self.section or ""), ("target", self.target or "")):
            if not isinstance(value, str):
                raise fields.refused(field, "a text", value)
        if self.target is not None and self.target not in TARGETS:
            raise UsageError(f"there is no target '{self.target}'", f"Targets: {', '.join(TARGETS)}.")
        if self.prefix and not self.prefix.endswith("."):
            raise UsageError(f"the prefix '{self.prefix}' has no dot at its end", f"Write '{self.prefix}.' instead.")
        if len(self.channels) > _MOST_CHANNELS or any(type(n) is not int or n < 1 for n in self.channels):
            raise UsageError(
                f"{argument('channels', self.channels)} makes no sense",
                f"Channels are numbered from 1, as bands are: {argument('channels', (4, 3, 2))} takes the fourth, the "
                "third, the second.",
                "channels",
            )


@dataclass(frozen=True)
class Resized:
    """A tensor of the target whose square of ``old`` x ``old`` patches or pixels became one of ``new`` x ``new``."""

    target: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"{self.target} from {self.old}x{self.old} to {self.new}x{self.new}"


@dataclass(frozen=True)
class Picked:
    """The channels that the kernel ``target`` keeps of its ``of``, by their numbers from 1, in this order."""

    target: str
    channels: tuple[int, ...]
    of: int

    def __str__(self) -> str:
        return f"{self.target} to {_listed(self.channels)} of {self.of}"


def _listed(numbers: Iterable[object]) -> str:
    return ",".join(map(str, numbers))


@dataclass(frozen=True)
class Plan:
    """Where every tensor of one section goes. Nothing is written unless `complete`.

    ``dialect`` is how the target names the network, ``prefix`` what was taken off the names before any rule was asked;
    ``tensors`` counts those of the section, ``entries`` all its names; ``absent`` are optional entries that nothing
    fills; ``idle_rules`` counts the rules and ``idle_drops`` lists the user's drops that matched nothing; ``resized``
    are the tensors whose places were asked to be others; ``losable`` are the names without which the plan would be
    complete and the network the same; ``picked`` is None where it keeps its channels.
    """

    method: str
    layout: str
    section: str
    target: str
    dialect: Dialect
    moves: tuple[Move, ...]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    backbone: Backbone | None
    absent: tuple[str, ...]
    idle_rules: int
    tensors: int
    entries: int
    prefix: str
    idle_drops: tuple[str, ...]
    resized: tuple[Resized, ...] = ()
    losable: tuple[str, ...] = ()
    picked: Picked | None = None

    @property
    def unusual(self) -> str:
        """That no published network is as deep as this one; '' if one is, or where there is no network."""
        return self.backbone.unusual if self.backbone else ""

    @property
    def complete(self) -> bool:
        return not self.problems

    def same_as(self, other: Plan) -> bool:
        """Whether both keep the same tensors under the same names."""
        mine, others = (
            {(m.sources, m.target, m.op) for m in plan.moves} | {((), plan.section, None)} for plan in (self, other)
        )
        return mine == others

    @property
    def misplaced(self) -> bool:
        """Whether every name is accounted for, and only the target cannot hold the network."""
        return bool(self.problems) and all(p.kind == "target" for p in self.problems)

    def require_complete(self, hint: str = "") -> Plan:
        """This plan, or IncompletePlanError that names the keys, with a hint."""
        if self.complete:
            return self
        hint = "\n".join(filter(None, (self.advice, hint)))
        raise IncompletePlanError(self.refusal, hint or f"See what the file holds: {call('inspect', 'SRC')}")

    @property
    def refusal(self) -> str:
        """The problems as lines for people: the first few of each kind."""
        if self.misplaced:
            return "\n".join(p.text for p in self.problems)
        kinds = {
            kind: [p for p in self.problems if p.kind == kind] for kind in dict.fromkeys(p.kind for p in self.problems)
        }
        count = len(self.problems)
        lines = [
            f"the rules of {self.method} do not account for {place(self.section)}: {count} problem{'s' * (count != 1)}"
        ]
        named = [p.key for p in self.problems if p.kind not in ("missing", "target")]
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys((*named, *(gone.source for gone in self.dropped)))
        for move in self.moves:
            shapes |= dict.fromkeys(move.sources) if move.op else {move.sources[0]: move.spec.shape}
        key, what = stranger(shapes)
        lines += [f"  {printable(key)}: this is {what}"] if key else []
        for kind, found in kinds.items():
            lines.extend(f"  {p.text}" for p in found[:3] if not (key and p.text.endswith(_CUT)))
            if len(found) > 3:
                lines.append(
                    f"  … and {len(found) - 3} more like these ({kind}): {some([p.key for p in found[3:]], 3)}"
                )
        return "\n".join(lines)

    @property
    def advice(self) -> str:
        """What its problems say of themselves to do, a line each."""
        return "\n".join(dict.fromkeys(p.advice for p in self.problems if p.advice))


def behind(names: Iterable[str], prefix: str) -> str | None:
    """The prefix as names have it: itself, or itself after what wraps all names. None if no name has it."""
    if not prefix:
        return ""
    names = list(names)
    starts = (prefix, wrapper_of(names) + prefix)
    return next((start for start in starts if any(name.startswith(start) for name in names)), None)


def taken_off(rules: Sequence[Rule], section: Section, options: Options) -> str:
    """What to take off every name before the rules are asked: the user's prefix, and what wraps all names behind it."""
    names: Collection[str] = section.tensors or section.unreadable
    start = behind(names, options.prefix)
    if start is None:
        heads = dict.fromkeys(".".join(n.split(".")[:2]) + "." for n in names if n.count(".") > 1)
        raise UsageError(f"no name starts with '{options.prefix}'", f"Prefixes there are: {some(map(repr, heads), 6)}.")
    wrapper = wrapper_of(n[len(start) :] for n in names if n.startswith(start)) if start else section.wrapper
    spelled_out = wrapper and any(s.prefix.startswith(wrapper) for r in rules for s in r.sources)
    return start if spelled_out else start + wrapper


def _ways(backbone: Backbone, target: str) -> tuple[str, ...]:
    """The other targets that hold a network."""
    return tuple(t for t in FAMILIES[backbone.family].targets if t != target and not backbone.obstacle(t))


def _lacking(backbone: Backbone, layout: Layout, dropped: Iterable[Dropped]) -> Iterator[Problem]:
    """What a whole network would have: parts that the layout's files have, or any where nobody trains such a depth."""
    without = {*layout.without, *(d.rule.instead for d in dropped if isinstance(d.rule, Drop))}
    for lack in backbone.lacks:
        start = f"{lack.entry} of {backbone.name}: {lack.what}"
        if lack.part not in without:
            yield Problem("missing", lack.entry, f"{start}, {_CUT}")
        elif lack.part in ("norm", "stages") and backbone.partial:
            yield Problem("missing", lack.entry, f"{start}, and it is no whole network. {backbone.unusual}")


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
    targets = FAMILIES[backbone.family].targets
    known = for_target in targets
    obstacle = backbone.obstacle(for_target) if known else f"a {backbone.family} can be written for {some(targets)}"
    if obstacle:
        ways = _ways(backbone, for_target) if known and not backbone.partial else ()
        way_out = f" ({' or '.join(argument('target', way) for way in ways)} writes it all the same)" if ways else ""
        way_out += f". {backbone.unusual}" if backbone.partial else ""
        text = f"{backbone.name} has no place in {for_target}: {obstacle}{way_out}"
        problems.append(Problem("target", backbone.name, text))
    return problems, [name for name in empty if backbone.optional(name)]


def unexplained(layout: Layout, section: Section, options: Options, most: int = 0) -> int:
    """How many names of a section no rule of the layout explains; more than ``most`` if there are more.

    No plan is complete that leaves one, and this is cheaper than a plan. Raises UsageError for unusable options.
    """
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drops]
    return matching.unexplained(layout.rules, names, prefix, drops, most)


def make_plan(method: Method, layout: Layout, path: str, section: Section, options: Options | None = None) -> Plan:
    """The plan of one layout for the section at ``path``, complete or not. Raises UsageError for unusable options."""
    options = options or Options()
    names = section.tensors
    prefix = taken_off(layout.rules, section, options)
    drops = [drop(pattern, _ACCEPTED) for pattern in options.drops]
    draft = match(layout.rules, names, prefix, drops)
    problems = [*droppable.forbidden(layout, names, prefix, drops, draft), *draft.problems]
    absent, losable, moves, dialect = list[str](), tuple[str, ...](), draft.moves, CANONICAL
    dropped, target = list(draft.dropped), options.target or ""
    picked: Picked | None = None
    backbone = backbones.read({m.target: m.spec for m in moves}, layout.families)
    if backbone is None:
        kept = [m.sources[0] for m in draft.moves]
        text = f"what is kept is no backbone known here: {some(kept, 3)}" if kept else "nothing is kept"
        problems.append(Problem("backbone", kept[0] if kept else "", text))
    else:
        target = target or FAMILIES[backbone.family].targets[0]
        if options.channels and not problems:
            backbone, moves, picked = _pick(backbone, moves, options.channels)
        found, absent = _against(backbone, moves, target)
        problems += found
        problems += _lacking(backbone, layout, dropped)
        losable = droppable.losable(backbone, layout, names, moves, problems)
        if not problems:
            dialect = backbone.dialect(target)
            said = spoken(moves, dialect.rules)
            moves, dropped, problems = said.moves, dropped + said.dropped, said.problems
            if picked is not None:
                picked = replace(picked, target=spoken_name(dialect, picked.target))
    network = (*(backbone.entries() if backbone else ()), *(move.target for move in draft.moves))
    others = match_others(layout.rules, section, prefix, drops, bool(options.prefix), network)
    dropped, problems = dropped + others.dropped, others.problems + problems
    return Plan(
        method=method.name,
        layout=layout.title,
        section=path,
        target=target,
        dialect=dialect,
        moves=tuple(moves),
        dropped=tuple(dropped),
        problems=tuple(problems),
        backbone=backbone,
        absent=tuple(absent),
        idle_rules=len(layout.rules) - len(draft.used),
        tensors=len(names),
        entries=section.entries,
        prefix=prefix,
        idle_drops=tuple(d.source.text for d in drops if all(gone.rule is not d for gone in dropped)),
        losable=losable,
        picked=picked,
    )


def _pick(
    backbone: Any, moves: Sequence[Move], channels: tuple[int, ...]
) -> tuple[Backbone, list[Move], Picked | None]:
    """The network for these channels of its images, and its moves. Raises UsageError for channels that it has not."""
    stem, had = FAMILIES[backbone.family].stem, backbone.in_channels
    if stem not in {move.target for move in moves}:
        return backbone, list(moves), None
    asked = argument("channels", channels)
    if max(channels) > had:
        raise UsageError(f"{asked}: {backbone.name} takes {had} channel{'s' * (had != 1)}", "They are numbered from 1.")
    if channels == tuple(range(1, had + 1)):
        raise UsageError(f"{asked} changes nothing: these are the channels of {backbone.name} already", "Leave it out.")
    op, changed = select_channels(channels), []
    for move in moves:
        if move.target == stem and len(move.spec.shape) > 1 and move.spec.shape[1] == had:
            whole = compose(op, [(move.op, len(move.sources))])
            move = replace(move, op=whole, spec=op.spec([move.spec]))
        changed.append(move)
    return replace(backbone, in_channels=len(channels)), changed, Picked(stem, channels, had)


def spoken_name(dialect: Dialect, name: str) -> str:
    """What a dialect calls one tensor of the network, one that it keeps."""
    rules = dialect.rules or [keep("{key...}", "{key...}")]
    (named,) = match(rules, {name: TensorSpec((), DTYPES["float32"])}).moves
    return named.target


def resize_plan(plan: Plan, size: Size) -> Plan:
    """The plan for images or patches of another size. Raises UsageError where no tensor changes with it."""
    assert plan.backbone is not None
    resize = FAMILIES[plan.backbone.family].resize
    if resize is None:
        raise UsageError(
            f"{size.asked} changes nothing: {plan.backbone.name} has no table of positions and no patches to resize",
            "Leave it out: it takes images of any size.",
        )
    backbone, changes = resize(plan.backbone, size)
    moves, resized = {move.target: move for move in plan.moves}, []
    for change in changes:
        move = moves[spoken_name(plan.dialect, change.name)]
        op = compose(change.op, [(move.op, len(move.sources))])
        moves[move.target] = replace(move, op=op, spec=change.op.spec([move.spec]))
        resized.append(Resized(move.target, change.old, change.new))
    return replace(plan, backbone=backbone, moves=tuple(moves.values()), resized=tuple(resized))


def cast_plan(plan: Plan, dtype: str) -> Plan:
    """The plan with every floating tensor rounded to ``dtype``. Raises UsageError for a type that cannot be cast."""
    cast(DTYPES["float32"], dtype)  # refuses an unknown type even where nothing needs casting
    moves = []
    for move in plan.moves:
        if move.spec.dtype.is_float and move.spec.dtype.name != dtype:
            rounded = cast(move.spec.dtype, dtype)
            op = compose(rounded, [(move.op, len(move.sources))])
            move = replace(move, op=op, spec=rounded.spec([move.spec]))
        moves.append(move)
    return replace(plan, moves=tuple(moves))
