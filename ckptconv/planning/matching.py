"""Applies rules to names: which tensors move, which are dropped, which no rule explains.

It knows the rule language, and no method, network or file. A plan uses it twice: on the names of a file, and on the
canonical names, to translate them into the target's dialect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ckptconv.ops import Op, OpError, compose
from ckptconv.planning.problems import DropsPart, NoRule, NotReadable, PartsMissing, Problem, UnsuitableOp
from ckptconv.rule_index import RuleIndex, Source
from ckptconv.rules import Drop, Keep, Rule, Split
from ckptconv.spec import DTYPES, Section, StateSpec, TensorSpec
from ckptconv.wrappers import COUNTERS, unwrapped, wrapped


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
    """A source entry that is left out; ``rule`` is None for an entry that is not a tensor, or outside the prefix."""

    source: str
    why: str
    rule: Rule | None = None


@dataclass
class Outcome:
    """What rules make of names, before the backbone is known; ``used`` are the indexes of the rules that matched."""

    moves: list[Move] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    used: set[int] = field(default_factory=set)


_NO_SPEC = TensorSpec((), DTYPES["float32"])  # of an entry of which only the name matters


def apply_rules(
    rules: Sequence[Rule] | RuleIndex, names: StateSpec, prefix: str = "", drops: Sequence[Drop] = ()
) -> Outcome:
    """Match each name once: the user's drops by the whole name, then the rules by what follows the prefix.

    Segments of wrappers around single blocks are removed before the rules see a name.
    """
    outcome = Outcome()
    parts: dict[tuple[int, str, tuple[str, ...]], dict[int, str]] = {}
    index = rules if isinstance(rules, RuleIndex) else RuleIndex(rules)
    matcher = _Matcher(index, names, prefix, drops)
    for key, answer in matcher.answers():
        if isinstance(answer, Dropped):
            outcome.dropped.append(answer)
            continue
        if answer is None:
            outcome.problems.append(NoRule(key, names[key]))
            continue
        (_, rule, number, position), captures = answer
        outcome.used.add(number)
        if isinstance(rule, Drop):
            outcome.dropped.append(Dropped(key, rule.why, rule))
        elif isinstance(rule, Keep):
            by = [matcher.full_name(other.fill(captures)) for other in rule.by]
            _move(outcome, (key, *by), rule.target.fill(captures), rule, rule.op, names)
        elif isinstance(rule, Split):
            by = [matcher.full_name(other.fill(captures)) for other in rule.by]
            for part, op in rule.parts:
                _move(outcome, (key, *by), part.fill(captures), rule, op, names)
        else:
            target = rule.target.fill(captures)
            group = parts.setdefault((number, target, tuple(captures[c] for c in sorted(captures))), {})
            group[position] = key
            if len(group) == len(rule.sources):
                _move(outcome, tuple(group[i] for i in range(len(group))), target, rule, rule.op, names)
    for (number, target, _), group in parts.items():
        missing = tuple(str(s) for i, s in enumerate(index.rules[number].sources) if i not in group)
        if missing:
            sources = tuple(group.values())
            outcome.problems.append(PartsMissing(sources[0], sources, target, missing))
    return outcome


def apply_to_others(
    index: RuleIndex,
    section: Section,
    prefix: str,
    drops: Sequence[Drop],
    only_inside: bool,
    network: Iterable[str],
) -> Outcome:
    """Apply rules to the entries that are not plain tensors: drop them, or report those that stand for tensors.

    ``only_inside``: the user chose a prefix, so entries outside it are dropped. ``network`` are names of the backbone:
    a hint does not offer to drop an entry that would become part of its modules.
    """
    outcome = Outcome()
    answers = dict(_Matcher(index, dict.fromkeys(section.unreadable, _NO_SPEC), prefix, ()).answers())
    modules = {name.partition(".")[0] for name in network}
    for name, kind in section.others.items():
        entry, answer = section.unreadable.get(name), answers.get(name)
        matched = answer if isinstance(answer, tuple) else None
        module = _target(*matched).partition(".")[0] if matched else ""
        accepted = next((d for d in drops if d.source.match(name) is not None), None)
        if accepted is not None and module in modules:
            outcome.problems.append(DropsPart(name, module, entry))
        elif accepted is not None:
            outcome.dropped.append(Dropped(name, accepted.why, accepted))
        elif isinstance(answer, Dropped) and only_inside:
            outcome.dropped.append(answer)
        elif matched is not None and isinstance(matched[0].rule, Drop):
            outcome.dropped.append(Dropped(name, matched[0].rule.why, matched[0].rule))
        elif entry is None or not (matched or entry.certain):
            outcome.dropped.append(Dropped(name, f"not a tensor: {kind}"))
        else:
            outcome.problems.append(NotReadable(name, entry, inside=module in modules))
    return outcome


def _target(source: Source, captures: Mapping[str, str]) -> str:
    rule = source.rule
    if isinstance(rule, Drop):
        return ""
    return (rule.kept[0] if isinstance(rule, Split) else rule.target).fill(captures)


def count_unexplained(
    index: RuleIndex, names: StateSpec, prefix: str = "", drops: Sequence[Drop] = (), most: int = 0
) -> int:
    """How many names `apply_rules` leaves unexplained. Stops above ``most``: most methods fail at the first name."""
    left = 0
    for name in _Matcher(index, names, prefix, drops).names():
        if index.source_of(name) is None:
            left += 1
            if left > most:
                break
    return left


class _Matcher:
    """Finds the rule for each name, in the order of the names."""

    def __init__(self, index: RuleIndex, names: StateSpec, prefix: str, drops: Sequence[Drop]) -> None:
        self._index, self._names, self._prefix, self._drops = index, names, prefix, drops

    @cached_property
    def _bare(self) -> dict[str, str]:
        if not wrapped("\n".join(self._names)):  # nearly always
            return {}
        left = (key for key in self._names if self._accepted(key) is None and key.startswith(self._prefix))
        inside = [key[len(self._prefix) :] for key in left]
        return unwrapped(inside, (s.text for r in self._index.rules for s in r.sources))

    @cached_property
    def _wrapped(self) -> dict[str, str]:
        return {short: name for name, short in self._bare.items()}

    def full_name(self, name: str) -> str:
        """The name in the file of a name that rules see."""
        return self._prefix + self._wrapped.get(name, name)

    def answers(self) -> Iterator[tuple[str, Dropped | tuple[Source, Mapping[str, str]] | None]]:
        """Each name with the pattern that matches it and its captures; None where no rule matches."""
        for key in self._names:
            accepted = self._accepted(key) if self._drops else None
            if accepted is not None:
                yield key, Dropped(key, accepted.why, accepted)
            elif not key.startswith(self._prefix):
                yield key, Dropped(key, COUNTERS.get(key.rpartition(".")[2], f"outside the prefix '{self._prefix}'"))
            else:
                name = key[len(self._prefix) :]
                yield key, self._index.match(self._bare.get(name, name))

    def names(self) -> Iterator[str]:
        """What rules see of each name that is neither dropped nor outside the prefix."""
        prefix, bare = self._prefix, self._bare
        for key in self._names:
            if key.startswith(prefix) and not (self._drops and self._accepted(key)):
                name = key[len(prefix) :]
                yield bare.get(name, name) if bare else name

    def _accepted(self, key: str) -> Drop | None:
        return next((d for d in self._drops if d.source.match(key) is not None), None)


def _move(outcome: Outcome, sources: tuple[str, ...], target: str, rule: Rule, op: Op | None, names: StateSpec) -> None:
    missing = tuple(s for s in sources if s not in names)
    if missing:
        outcome.problems.append(PartsMissing(sources[0], sources[:1], target, missing))
        return
    specs = [names[s] for s in sources]
    try:
        spec = op.spec(specs) if op else specs[0]
    except OpError as error:
        outcome.problems.append(UnsuitableOp(sources[0], sources, error.message))
        return
    outcome.moves.append(Move(sources, target, op, spec, rule))


def translate(moves: Sequence[Move], rules: Sequence[Rule]) -> Outcome:
    """The same moves in a dialect, whose ``rules`` are about their targets. A move keeps the rule of the file."""
    if not rules:
        return Outcome(moves=list(moves))
    by_target = {move.target: move for move in moves}
    translated = apply_rules(rules, {move.target: move.spec for move in moves})
    outcome = Outcome(used=translated.used)
    for move in translated.moves:
        parts = [by_target[name] for name in move.sources]
        sources = tuple(source for part in parts for source in part.sources)
        op = compose(move.op, [(part.op, len(part.sources)) for part in parts])
        outcome.moves.append(replace(move, sources=sources, op=op, rule=parts[0].rule))
    for dropped in translated.dropped:
        left = by_target[dropped.source]
        outcome.dropped += [replace(dropped, source=source, rule=left.rule) for source in left.sources]
    for problem in translated.problems:
        outcome.problems.append(replace(problem, key=by_target[problem.key].sources[0]))
    return outcome
