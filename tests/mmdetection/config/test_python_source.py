"""Python text of nested data: what it says when it is run, how it looks, and what does not have a literal."""

from __future__ import annotations

import ast
import contextlib
import enum
import io
import itertools
import keyword
import math
import tokenize

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptconv.mmdetection.config.python_source import WIDTH, Code, assignments, inline

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5))
NAMES = st.one_of(
    st.sampled_from(["type", "lr", "_scope_", "match", "x1"]), st.from_regex(r"[a-z_]{1,30}", fullmatch=True)
)
KEYS = st.one_of(
    NAMES,
    st.sampled_from(
        [*keyword.kwlist, *keyword.softkwlist, "__debug__", "self", "ﬁ", "K", "µ", "a-b", "", "1", "'", '"']
    ),
    st.text(max_size=8),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(),
    st.tuples(st.integers(), st.text(max_size=3)),
)


def trees(keys: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    values = st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=5),
            st.lists(inner, max_size=5).map(tuple),
            st.dictionaries(keys, inner, max_size=5),
            st.dictionaries(NAMES, inner, max_size=5),
        ),
        max_leaves=12,
    )
    return st.dictionaries(NAMES.filter(lambda name: not keyword.iskeyword(name)), values, max_size=5)


few = settings(max_examples=30, deadline=None)


def run(text: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(text, {}, names)
    return names


def alike(one: object, other: object) -> bool:
    """Equal in types, order, and the sign of zero; NaN is like NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(alike(a, c) and alike(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other


@few
@given(trees(KEYS))
@example({"x": {"ﬁ": 1}})  # an identifier that Python reads as 'fi'
@example({"x": {"__debug__": 1}})
@example({"x": {float("inf"): 1}})
@example({"x": {(float("nan"),): 1}})
@example({"x": [(1,), (), [], {}, {"class": (None,)}]})
def test_the_text_means_the_values(values):
    text = assignments(values)
    assert alike(run(text), values), text
    for name, value in values.items():
        assert alike(run(f"{name} = {inline(value)}"), {name: value})


@few
@given(trees(NAMES))
@example({"x": {"y": {"a": "x" * 83, "b": 1}}})
@example({"x": {"y": {"z": "x" * 80, "w": {"a": 1, "b": "x" * 74}}}})  # two brackets close behind a line of 99
def test_the_text_is_tidy(values):
    lines = assignments(values).split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert line == line.rstrip()
        assert len(line) <= WIDTH or not splits(line), line


def splits(line: str) -> bool:
    """Whether a line holds more than one thing, so that it could have been two: a comma with something behind it."""
    words: list[str] = []
    with contextlib.suppress(tokenize.TokenError):  # a bracket that closes on another line
        words.extend(token.string for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    return any(one == "," and other and other not in ")]}" for one, other in itertools.pairwise(words))


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), 1j, range(3), len, int, pytest, np.arange(3), frozenset(), Ellipsis, [{"deep": ({1},)}]],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_literal(value):
    culprit = "set" if isinstance(value, list) else type(value).__name__
    for write in (inline, lambda v: assignments({"x": v})):
        with pytest.raises(TypeError) as caught:
            write(value)
        assert str(caught.value) == f"a value of type {culprit} does not have a literal"


class Color(enum.IntEnum):
    RED = 1


class Name(str):
    def __repr__(self) -> str:
        return "print('run')"


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.float64(0.5), 0.5), (Color.RED, 1), (Name("bus"), "bus"), (np.float64("inf"), float("inf"))],
    ids=repr,
)
def test_kin_of_plain_values_are_written_as_plain_ones(value, plain):
    assert alike(run(assignments({"x": value, "y": [value]})), {"x": plain, "y": [plain]})


@pytest.mark.parametrize("name", ["a-b", "class", "", "1x", "ﬁ", "__debug__"])
def test_top_level_names_must_be_names(name):
    with pytest.raises((TypeError, ValueError)):
        assignments({name: 1})


def test_how_it_looks():
    values = {
        "short": {"type": "BN", "requires_grad": True},
        "_base_": ("a",),
        "long": {
            "depths": [100000 + i for i in range(12)],
            "pair": ({"type": "A" * 40}, {"type": "B" * 50}),
            "empty": {},
        },
        "code": Code("short"),
    }
    assert assignments(values, {("long", "empty"): "nothing", ("short",): "top", ("absent",): "unseen"}) == (
        "# top\n"
        "short = dict(type='BN', requires_grad=True)\n"
        "_base_ = ('a',)\n"
        "\n"
        "long = dict(\n"
        "    depths=[\n"
        "        100000,\n" + "".join(f"        {100000 + i},\n" for i in range(1, 11)) + "        100011],\n"
        "    pair=(\n"
        f"        dict(type='{'A' * 40}'),\n"
        f"        dict(type='{'B' * 50}')),\n"
        "    # nothing\n"
        "    empty=dict())\n"
        "code = short\n"
    )


@few
@given(
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"], include_characters="\n\t\r"), max_size=300),
    st.integers(0, 3),
)
def test_comments_stand_where_asked_and_nowhere_else(note, depth):
    values: dict[str, object] = {"model": {"a": {"b": {"c": 1}}}}
    path = ("model", "a", "b", "c")[: depth + 1]
    text = assignments(values, {path: note})
    tree = ast.parse(text)
    assert run(text) == values
    assert len(tree.body) == 1
    lines = text.split("\n")
    comments = [i for i, line in enumerate(lines) if line.lstrip().startswith("#")]
    assert " ".join(lines[i].strip().removeprefix("#") for i in comments).split() == note.split()
    if comments:
        assert comments == list(range(comments[0], comments[-1] + 1))
        assert lines[comments[-1] + 1].strip().startswith(path[-1])
        assert all(len(lines[i]) <= WIDTH for i in comments)
