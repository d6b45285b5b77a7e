"""Which rule takes a name: the first of many that matches it, in time that hardly depends on how many there are.

Names of one network differ mostly in numbers of blocks, which captures take. So the answer for one name holds for all
that differ in such numbers only, and is kept.

Pure string work: it knows the rule language, and no method, network or file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ckptconv.patterns import CAPTURE, Pattern
from ckptconv.rules import Rule

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")  # a whole segment
_MOST_ANSWERS = 5_000  # that an index keeps


class Source(NamedTuple):
    """One source pattern of a rule: the rule, its number, and the position of the pattern among the rule's sources."""

    pattern: Pattern
    rule: Rule
    number: int
    position: int


class RuleIndex:
    """The source patterns of rules, in order: a name's first match is that of `Pattern.match` on one after another."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        sources = (Source(s, rule, i, p) for i, rule in enumerate(rules) for p, s in enumerate(rule.sources))
        self._sources = [(*source.pattern.ends, source) for source in sources]
        self._by_ends: dict[tuple[str, str], list[Source]] = {}
        self._answers: dict[str, Source | None] = {}
        self._numbers: frozenset[str] | None = frozenset(
            number for _, _, source in self._sources for number in _numbers_of(source.pattern)
        )
        if "" in self._numbers:
            self._numbers = None

    def source_of(self, name: str) -> Source | None:
        """The first pattern that matches a name; None if none does."""
        key = name
        if self._numbers is not None:
            without, numbers = _without_numbers(name)
            if self._numbers.isdisjoint(numbers):
                key = without
        try:
            return self._answers[key]
        except KeyError:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            found = next((s for s in self._candidates(name) if s.pattern.match(name) is not None), None)
            self._answers[key] = found
            return found

    def match(self, name: str) -> tuple[Source, Mapping[str, str]] | None:
        """The first pattern that matches a name, with its captures; None if none does."""
        source = self.source_of(name)
        captures = None if source is None else source.pattern.match(name)
        return None if source is None or captures is None else (source, captures)

    def _candidates(self, name: str) -> list[Source]:
        """The patterns that may match a name, in order: its first and last segment tell."""
        ends = name.partition(".")[0], name.rpartition(".")[2]
        candidates = self._by_ends.get(ends)
        if candidates is None:
            head, tail = ends
            candidates = [s for first, last, s in self._sources if first in (None, head) and last in (None, tail)]
            self._by_ends[ends] = candidates
        return candidates


def _numbers_of(pattern: Pattern) -> Iterator[str]:
    """The segments of a pattern that are numbers; '' too if a number is a part of one, next to a capture."""
    for segment in CAPTURE.sub("\1", pattern.text).split("."):
        whole, *parts = segment.split("\1")
        if not parts and _NUMBER.fullmatch(whole):
            yield whole
        elif any(_NUMBER.fullmatch(part) for part in (whole, *parts)):
            yield ""


@lru_cache(maxsize=1 << 14)
def _without_numbers(name: str) -> tuple[str, tuple[str, ...]]:
    """A text that two names have in common if they differ in segments that are numbers only, and these segments."""
    if "\0" in name:  # what stands for a number
        return f"\0\0{name}", ()
    numbers = tuple(_NUMBER.findall(name))
    return (_NUMBER.sub("\0", name), numbers) if numbers else (name, ())
