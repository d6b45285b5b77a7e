"""The index finds for each name what asking one pattern after another finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptconv.methods import METHODS
from ckptconv.ops import concat
from ckptconv.patterns import Pattern
from ckptconv.rule_index import RuleIndex
from ckptconv.rules import Rule, drop, fuse, keep
from ckptconv.wrappers import wrapper_of
from tests.support.cases import Case, cases

MANY = settings(deadline=None, derandomize=True, max_examples=300)


def one_after_another(rules: Sequence[Rule], name: str) -> tuple[int, int, Mapping[str, str]] | None:
    """The oracle: the number of the rule, the position of its source, and the captures."""
    for number, rule in enumerate(rules):
        for position, source in enumerate(rule.sources):
            captures = source.match(name)
            if captures is not None:
                return number, position, captures
    return None


def indexed(index: RuleIndex, name: str) -> tuple[int, int, Mapping[str, str]] | None:
    found = index.match(name)
    assert (index.source_of(name) is None) == (found is None)
    if found is None:
        return None
    source, captures = found
    assert source.pattern == index.rules[source.number].sources[source.position]
    return source.number, source.position, captures


_words = st.sampled_from(["a", "b", "a1", "w", "0", "1", "2", "10", "\0", "\1", "٣"])  # the last is a digit of Arabic
_segments = st.one_of(
    _words,
    st.sampled_from(["{x}", "{y}", "a{x}", "1{x}", "{y}0", "\0{x}", "b{y}w", "\1{x}"]),
)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    segments = draw(st.lists(_segments, min_size=1, max_size=4))
    if draw(st.booleans()):
        segments.insert(draw(st.integers(0, len(segments))), "{rest...}")
    text = ".".join(segments)
    for name in "xy":  # each capture once
        first, *others = text.split(f"{{{name}}}")
        text = f"{{{name}}}".join([first, "2".join(others)]) if others else first
    return text


_rules = st.lists(
    st.one_of(
        patterns().map(lambda text: drop(text, "why")),
        patterns().map(lambda text: keep(text, "target")),
        patterns().map(lambda text: fuse([f"q.{text}", text], "target", concat(0))),
    ),
    min_size=1,
    max_size=6,
)
_names = st.lists(st.one_of(_words, st.just("")), min_size=1, max_size=5).map(".".join)


@MANY
@given(_rules, st.lists(_names, min_size=1, max_size=12))
@example([drop("a.{x}", "why")], ["a.\0", "a.1", "a.2", "a."])
@example([drop("a.\0.0", "why"), drop("a.{x}.{y}", "why")], ["a.1.0", "a.\0.0", "a.\0.1", "a.1.1"])
@example([drop("a.1{x}", "why"), drop("a.{x}", "why")], ["a.20", "a.10", "a.1"])
@example([drop("a.1", "why"), drop("a.{x}", "why")], ["a.1", "a.2", "a.3", "a.1"])
@example([drop("a.{x}.{y}", "why")], ["a.\0.", "a.1.2", "a.1.x"])
def test_the_index_finds_what_one_pattern_after_another_finds(rules: list[Rule], names: list[str]) -> None:
    index = RuleIndex(rules)
    for name in (*names, *names):
        assert indexed(index, name) == one_after_another(rules, name), name


def test_drawn_patterns_are_patterns() -> None:
    """A control: what is drawn matches some of what is drawn, with numbers that tell and numbers that do not."""
    rules = [drop("a.1.{x}", "why"), keep("a.{x}.w", "target")]
    index = RuleIndex(rules)
    assert [indexed(index, name) for name in ("a.1.w", "a.2.w", "a.3.w", "a.3.b")] == [
        (0, 0, {"x": "w"}),
        (1, 0, {"x": "2"}),
        (1, 0, {"x": "3"}),
        None,
    ]


def bare(case: Case) -> list[str]:
    """The names of a case, as rules see them."""
    wrapper = wrapper_of(case.tensors)
    return [name.removeprefix(wrapper) for name in case.tensors]


def test_each_layout_takes_the_names_of_real_files_as_one_pattern_after_another_does() -> None:
    """A part of the names of its own files, and a part of another method's."""
    own = {case.method: case for case in cases()}
    for method, other in zip(METHODS, reversed(METHODS), strict=True):
        files = [own[one.name] for one in (method, other) if one.name in own]
        names, taken = [name for case in files for name in bare(case)[::7]], 0
        for layout in method.layouts:
            for name in names:
                expected = one_after_another(layout.rules, name)
                assert indexed(layout.index, name) == expected
                taken += expected is not None
        assert taken or method.name not in own


def test_an_index_that_was_asked_for_many_names_is_right_about_the_next() -> None:
    index = RuleIndex([keep("a.{x}.w", "{x}"), keep("b.{rest...}", "{rest}")])
    for i in range(12_000):
        assert index.source_of(f"c{i}.w") is None
    assert indexed(index, "a.7.w") == (0, 0, {"x": "7"})
    assert len(index._answers) < 12_000


def test_a_pattern_is_asked_once_for_names_that_differ_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost, in questions and not in seconds."""
    asked = 0
    match = Pattern.match

    def counted(self: Pattern, key: str) -> dict[str, str] | None:
        nonlocal asked
        asked += 1
        return match(self, key)

    monkeypatch.setattr(Pattern, "match", counted)
    index = RuleIndex([keep(f"blocks.{{i}}.part{n}.{{p}}", f"{n}.{{i}}.{{p}}") for n in range(10)])
    for i in range(1_000):
        assert index.source_of(f"blocks.{i}.part9.weight") is not None
    assert asked == 10
