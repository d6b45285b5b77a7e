"""Rules applied to names: what moves, what is dropped, what nothing explains.

It knows the language, and no method, network or file. A plan uses it twice: on the names of a file, and on what became
of them, to speak the target's dialect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from ckptconv.arguments import argument
from ckptconv.errors import UsageError, printable
from ckptconv.ops import Op, OpError, compose
from ckptconv.patterns import Pattern
from ckptconv.rules import Drop, Fuse, Keep, Rule
from ckptconv.spec import DTYPES, Section, StateSpec, TensorSpec
from ckptconv.text import some
from ckptconv.wrappers import COUNTERS, unwrapped, wrapped

ProblemKind = Literal[
    "unexplained", "unreadable", "missing", "shape", "dtype", "collision", "parts", "backbone", "target", "drop"
]


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
    """Why a plan is not complete: one source key or one backbone entry, a sentence about it, and what would help."""

    kind: ProblemKind
    key: str
    text: str
    advice: str = ""


@dataclass
class Draft:
    """What rules make of names, before any backbone is asked."""

    moves: list[Move] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    used: set[int] = field(default_factory=set)


_NO_SPEC = TensorSpec((), DTYPES["float32"])  # of what only its name is asked for
_Way = tuple[Pattern, Rule, int, int]


class _Ways:
    """Patterns with their rules, in order; those that a name may match are found by its first and last segment."""

    def __init__(self, ways: Sequence[_Way]) -> None:
        self._ways = [(*way[0].ends, way) for way in ways]
        self._some: dict[tuple[str, str], list[_Way]] = {}

    def of(self, name: str) -> list[_Way]:
        """The ways that come into question for a name, in order."""
        ends = name.partition(".")[0], name.rpartition(".")[2]
        some = self._some.get(ends)
        if some is None:
            head, tail = ends
            some = [way for first, last, way in self._ways if first in (None, head) and last in (None, tail)]
            self._some[ends] = some
        return some


def match(rules: Sequence[Rule], names: StateSpec, prefix: str = "", drops: Sequence[Drop] = ()) -> Draft:
    """Match each name once: the user's drops by the whole name, then the rules by what follows the prefix.

    What wrapped single blocks is taken off before the rules are asked.
    """
    draft = Draft()
    parts: dict[tuple[int, str, tuple[str, ...]], dict[int, str]] = {}
    asked = _Asked(rules, names, prefix, drops)
    for key, answer in asked.answers():
        if isinstance(answer, Dropped):
            draft.dropped.append(answer)
            continue
        if answer is None:
            draft.problems.append(Problem("unexplained", key, f"{printable(key)} ({names[key]}): no rule explains it"))
            continue
        (_, rule, index, position), captures = answer
        draft.used.add(index)
        if isinstance(rule, Drop):
            draft.dropped.append(Dropped(key, rule.why, rule))
        elif isinstance(rule, Keep):
            by = [asked.whole(other.fill(captures)) for other in rule.by]
            _move(draft, (key, *by), rule.target.fill(captures), rule, names)
        else:
            target = rule.target.fill(captures)
            group = parts.setdefault((index, target, tuple(captures[c] for c in sorted(captures))), {})
            group[position] = key
            if len(group) == len(rule.sources):
                _move(draft, tuple(group[i] for i in range(len(group))), target, rule, names)
    for (index, target, _), group in parts.items():
        missing = [str(s) for i, s in enumerate(rules[index].sources) if i not in group]
        if missing:
            text = f"{some(group.values())}: cannot become {target} without {some(missing)}"
            draft.problems.append(Problem("parts", next(iter(group.values())), text))
    return draft


def match_others(
    rules: Sequence[Rule],
    section: Section,
    prefix: str,
    drops: Sequence[Drop],
    only_inside: bool,
    network: Iterable[str],
) -> Draft:
    """What becomes of the entries that are no plain tensors: dropped, or problems where they stand for tensors.

    ``only_inside`` says that what lies outside the prefix was given up by the user. ``network`` are names of the
    backbone: what would become a part of its modules is not offered to be dropped.
    """
    draft = Draft()
    answers = dict(_Asked(rules, dict.fromkeys(section.unreadable, _NO_SPEC), prefix, ()).answers())
    modules = {name.partition(".")[0] for name in network}
    for name, kind in section.others.items():
        what, answer, shown = section.unreadable.get(name), answers.get(name), printable(name)
        way = answer if isinstance(answer, tuple) else None
        module = _filled(*way).partition(".")[0] if way else ""
        accepted = next((d for d in drops if d.source.match(name) is not None), None)
        if accepted is not None and module in modules:
            text = f"{argument('drop')} cannot take {shown}: it belongs to {module}, of which other tensors are kept"
            draft.problems.append(Problem("drop", name, text, what.advice if what else ""))
        elif accepted is not None:
            draft.dropped.append(Dropped(name, accepted.why, accepted))
        elif isinstance(answer, Dropped) and only_inside:
            draft.dropped.append(answer)
        elif way is not None and isinstance(way[0][1], Drop):
            draft.dropped.append(Dropped(name, way[0][1].why, way[0][1]))
        elif what is None or not (way or what.certain):
            draft.dropped.append(Dropped(name, f"not a tensor: {kind}"))
        else:
            text = f"{shown} is {what.what}, which cannot be read as a plain tensor"
            way_out = "" if module in modules else _acceptance(name)
            draft.problems.append(Problem("unreadable", name, text, what.advice + way_out))
    return draft


def _acceptance(name: str) -> str:
    """How to give up an entry that cannot be read; '' for a name that no pattern matches."""
    try:
        matched = Pattern(name).match(name) is not None
    except UsageError:
        matched = False
    return f" If it is no part of the backbone, accept the loss: {argument('drop', [name])}" if matched else ""


def _filled(way: _Way, captures: Mapping[str, str]) -> str:
    return "" if isinstance(way[1], Drop) else way[1].target.fill(captures)


def unexplained(
    rules: Sequence[Rule], names: StateSpec, prefix: str = "", drops: Sequence[Drop] = (), most: int = 0
) -> int:
    """How many names `match` would find unexplained. Stops above ``most``: the rules of most methods fail at once."""
    left = 0
    for _, answer in _Asked(rules, names, prefix, drops).answers():
        left += answer is None
        if left > most:
            break
    return left


class _Asked:
    """Which rule takes each name, in the order of the names, one after another."""

    def __init__(self, rules: Sequence[Rule], names: StateSpec, prefix: str, drops: Sequence[Drop]) -> None:
        self._ways = _Ways([(s, r, i, p) for i, r in enumerate(rules) for p, s in enumerate(r.sources)])
        self._rules, self._names, self._prefix, self._drops = rules, names, prefix, drops

    @cached_property
    def _bare(self) -> dict[str, str]:
        if not wrapped("\n".join(self._names)):  # nearly always
            return {}
        left = (key for key in self._names if self._accepted(key) is None and key.startswith(self._prefix))
        inside = [key[len(self._prefix) :] for key in left]
        return unwrapped(inside, (s.text for r in self._rules for s in r.sources))

    @cached_property
    def _wrapped(self) -> dict[str, str]:
        return {short: name for name, short in self._bare.items()}

    def whole(self, name: str) -> str:
        """A name as rules have it, as the file has it."""
        return self._prefix + self._wrapped.get(name, name)

    def answers(self) -> Iterator[tuple[str, Dropped | tuple[_Way, Mapping[str, str]] | None]]:
        """Each name with the way that takes it and what it captures; None where no rule does."""
        for key in self._names:
            accepted = self._accepted(key) if self._drops else None
            if accepted is not None:
                yield key, Dropped(key, accepted.why, accepted)
            elif not key.startswith(self._prefix):
                yield key, Dropped(key, COUNTERS.get(key.rpartition(".")[2], f"outside the prefix '{self._prefix}'"))
            else:
                name = key[len(self._prefix) :]
                yield key, self._way(self._bare.get(name, name))

    def _accepted(self, key: str) -> Drop | None:
        return next((d for d in self._drops if d.source.match(key) is not None), None)

    def _way(self, name: str) -> tuple[_Way, Mapping[str, str]] | None:
        for way in self._ways.of(name):
            captures = way[0].match(name)
            if captures is not None:
                return way, captures
        return None


def _move(draft: Draft, sources: tuple[str, ...], target: str, rule: Keep | Fuse, names: StateSpec) -> None:
    missing = [s for s in sources if s not in names]
    if missing:
        text = f"{printable(sources[0])}: cannot become {target} without {some(missing)}"
        draft.problems.append(Problem("parts", sources[0], text))
        return
    specs = [names[s] for s in sources]
    try:
        spec = rule.op.spec(specs) if rule.op else specs[0]
    except OpError as error:
        draft.problems.append(Problem("shape", sources[0], f"{some(sources)}: {error.message}"))
        return
    draft.moves.append(Move(sources, target, rule.op, spec, rule))


def spoken(moves: Sequence[Move], rules: Sequence[Rule]) -> Draft:
    """The same moves in a dialect: ``rules`` speak of their targets. A move keeps the rule of the file's own names."""
    if not rules:
        return Draft(moves=list(moves))
    by_target = {move.target: move for move in moves}
    said = match(rules, {move.target: move.spec for move in moves})
    draft = Draft(used=said.used)
    for move in said.moves:
        parts = [by_target[name] for name in move.sources]
        sources = tuple(source for part in parts for source in part.sources)
        op = compose(move.op, [(part.op, len(part.sources)) for part in parts])
        draft.moves.append(replace(move, sources=sources, op=op, rule=parts[0].rule))
    for gone in said.dropped:
        draft.dropped += [replace(gone, source=source) for source in by_target[gone.source].sources]
    for problem in said.problems:
        draft.problems.append(replace(problem, key=by_target[problem.key].sources[0]))
    return draft
