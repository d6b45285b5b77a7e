"""The rule language: what matches what, what is refused when it is written down, and what can be undone."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv import rules
from ckptconv.errors import UsageError
from ckptconv.methods.interface import Layout, Method
from ckptconv.ops import chain, chunk, concat, permute, reshape, scale, take
from ckptconv.patterns import RuleError
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.rules import Keep, Rule, drop, fuse, keep, split, under
from ckptconv.spec import DTYPES, Section, TensorSpec

MANY = settings(deadline=None, derandomize=True, max_examples=300)


def apply(names: Sequence[str], *given_rules: Rule, shape: tuple[int, ...] = (4,)) -> Plan:
    """The plan of these rules for vectors of these names. No backbone comes of them: only moves and drops are asked."""
    section = Section(dict.fromkeys(names, TensorSpec(shape, DTYPES["float32"])), {})
    layout = Layout(given_rules, ("",))
    return make_plan(Method("test", "test", (layout,)), layout, "", section)


def moved(names: Sequence[str], *given_rules: Rule) -> dict[tuple[str, ...], str]:
    return {m.sources: m.target for m in apply(names, *given_rules).moves}


# -- matching ----------------------------------------------------------------------------------------------------------


segments = st.sampled_from(["a", "b", "ab", "w", "a1", "{x}", "a{x}", "{x}w"])
patterns = st.builds(
    lambda parts, many: ".".join("{m...}" if many == i else p.replace("x", f"x{i}") for i, p in enumerate(parts)),
    st.lists(segments, min_size=1, max_size=4),
    st.integers(0, 6),
)
names = st.lists(st.sampled_from(["a", "b", "ab", "w", "a1", "aw"]), min_size=1, max_size=5).map(".".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(texts=st.lists(patterns, min_size=1, max_size=6, unique=True), keys=st.lists(names, min_size=1, unique=True))
def test_the_first_pattern_that_matches_wins_however_it_is_found(texts: list[str], keys: list[str]) -> None:
    """The oracle asks every pattern in order, by a regular expression."""
    plan = apply(keys, *(drop(text, f"{i}") for i, text in enumerate(texts)))
    wanted = {}
    for key in keys:
        for i, text in enumerate(texts):
            regex = re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(text).replace(r"\{m\.\.\.\}", r"[^.]+(\.[^.]+)*"))
            if re.fullmatch(regex, key):
                wanted[key] = str(i)
                break
    assert {gone.source: gone.why for gone in plan.dropped} == wanted


# -- one pass ----------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_wins() -> None:
    plan = apply(
        ["encoder.fc.weight", "encoder.conv1.weight"],
        drop("encoder.fc.{p...}", "the head"),
        keep("encoder.{key...}", "{key...}"),
        keep("{key...}", "again.{key...}"),
    )
    assert [(m.sources, m.target) for m in plan.moves] == [(("encoder.conv1.weight",), "conv1.weight")]
    assert [(d.source, d.why) for d in plan.dropped] == [("encoder.fc.weight", "the head")]
    assert plan.unused_rules == 1


def test_the_other_order_gives_the_other_answer() -> None:
    names = ["encoder.fc.weight"]
    kept_first = [keep("encoder.{key...}", "{key...}"), drop("encoder.fc.{p...}", "the head")]
    assert moved(names, *kept_first) == {("encoder.fc.weight",): "fc.weight"}
    assert moved(names, *reversed(kept_first)) == {}


def test_the_output_of_a_rule_is_never_matched_again() -> None:
    chain = (keep("a.{x}", "b.{x}"), keep("b.{x}", "c.{x}"))
    assert moved(["a.w", "b.w"], *chain) == {("a.w",): "b.w", ("b.w",): "c.w"}
    swap = (keep("left.{x}", "right.{x}"), keep("right.{x}", "left.{x}"))
    assert moved(["left.w", "right.w"], *swap) == {("left.w",): "right.w", ("right.w",): "left.w"}


def test_a_name_that_no_rule_matches_is_reported_and_not_guessed() -> None:
    plan = apply(["encoder.w", "encoder_k.w"], keep("encoder.{x}", "{x}"))
    first = plan.problems[0]
    assert (first.kind, first.key) == ("unexplained", "encoder_k.w")
    assert text_of(first) == "encoder_k.w (float32 [4]): no rule explains it"


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "key", "name"),
    [
        ("encoder.{key...}", "{key...}", "encoder.a.b", "a.b"),
        ("encoder.{key...}", "net.{key...}.x", "encoder.a.b", "net.a.b.x"),
        ("layer{n}.{rest...}", "stages.{n}.{rest...}", "layer4.0.bn1.bias", "stages.4.0.bn1.bias"),
        ("{a}.{b}", "{b}.{a}", "x.y", "y.x"),
        ("{a}.{b}", "{a}", "x.y", "x"),
        ("{a}", "{a}.{a}", "x", "x.x"),
        ("queue", "negatives", "queue", "negatives"),
    ],
)
def test_captures_are_carried_by_name(source: str, target: str, key: str, name: str) -> None:
    assert keep(source, target).target_of(key) == name


def test_target_of_a_name_that_does_not_match_is_none() -> None:
    assert keep("a.{x}", "{x}").target_of("b.c") is None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (keep("a.{x...}", "{x...}"), "keep a.{x...} -> {x...}"),
        (keep("a", "b", permute(3, 2, 0, 1)), "keep a -> b (permute(3, 2, 0, 1))"),
        (drop("head.{p}", "the head"), "drop head.{p} (the head)"),
        (fuse(["q.{p}", "k.{p}"], "qk.{p}", concat(0)), "fuse q.{p} + k.{p} -> qk.{p} (concat(axis=0))"),
        (split("kv.{p}", ["k.{p}", "v.{p}"]), "split kv.{p} -> k.{p} + v.{p} (axis=0)"),
        (split("kv", ["", "v"], 1, why="unused"), "split kv -> nothing + v (axis=1, unused)"),
    ],
    ids=str,
)
def test_a_rule_says_itself(rule: Rule, text: str) -> None:
    assert str(rule) == text


# -- under -------------------------------------------------------------------------------------------------------------


def test_under_puts_a_prefix_before_every_source_and_no_target() -> None:
    lifted = under(
        "net.",
        [keep("a.{x}", "{x}", reshape(-1)), drop("b", "no use"), fuse(["q.{x}", "k.{x}"], "qk.{x}", concat(0))],
    )
    assert lifted == (
        keep("net.a.{x}", "{x}", reshape(-1)),
        drop("net.b", "no use"),
        fuse(["net.q.{x}", "net.k.{x}"], "qk.{x}", concat(0)),
    )


def test_under_takes_several_prefixes_and_the_empty_one() -> None:
    rules = [keep("c", "c"), drop("d", "no part of it")]
    assert under(("", "a.", "b."), rules) == (*rules, *under("a.", rules), *under("b.", rules))
    assert under((), rules) == ()


def test_under_nests() -> None:
    assert under("a.", under("b.", [keep("c", "c")])) == under("a.b.", [keep("c", "c")])


# -- fuse --------------------------------------------------------------------------------------------------------------

QKV = fuse(["{b...}.query.{p}", "{b...}.key.{p}", "{b...}.value.{p}"], "{b...}.qkv.{p}", concat(0))


def test_the_parts_of_a_fuse_are_joined_by_their_captures_in_the_order_of_the_rule() -> None:
    names = [f"layer.{i}.{part}.{p}" for part in ("value", "query", "key") for i in (1, 0) for p in ("weight", "bias")]
    assert moved(names, QKV) == {
        (f"layer.{i}.query.{p}", f"layer.{i}.key.{p}", f"layer.{i}.value.{p}"): f"layer.{i}.qkv.{p}"
        for i in (0, 1)
        for p in ("weight", "bias")
    }


def test_a_part_that_is_not_there_is_a_problem_and_no_move() -> None:
    plan = apply(["layer.0.query.weight", "layer.0.value.weight", "layer.1.key.weight"], QKV)
    assert plan.moves == ()
    assert [(p.kind, p.key, text_of(p)) for p in plan.problems if p.kind == "parts"] == [
        (
            "parts",
            "layer.0.query.weight",
            "layer.0.query.weight, layer.0.value.weight: cannot become layer.0.qkv.weight without {b...}.key.{p}",
        ),
        (
            "parts",
            "layer.1.key.weight",
            "layer.1.key.weight: cannot become layer.1.qkv.weight without {b...}.query.{p}, {b...}.value.{p}",
        ),
    ]


# -- split -------------------------------------------------------------------------------------------------------------

KEYLESS = split("{b...}.qkv.{p}", ["{b...}.q_{p}", "", "{b...}.v_{p}"], why="the key's bias changes nothing")


def test_the_parts_of_a_split_go_to_their_own_names() -> None:
    plan = apply(["a.qkv.bias"], split("{b}.qkv.{p}", ["{b}.q.{p}", "{b}.k.{p}", "{b}.v.{p}"]), shape=(6,))
    assert [(m.sources, m.target, m.op, m.spec.shape) for m in plan.moves] == [
        (("a.qkv.bias",), f"a.{part}.bias", chunk(0, i, 3), (2,)) for i, part in enumerate("qkv")
    ]


def test_a_part_of_a_split_may_be_left_out_for_a_reason() -> None:
    plan = apply(["net.a.qkv.bias"], *under("net.", [KEYLESS]), shape=(6,))
    assert [(m.target, m.op) for m in plan.moves] == [("a.q_bias", chunk(0, 0, 3)), ("a.v_bias", chunk(0, 2, 3))]


def test_an_op_changes_the_tensor_before_each_part_is_made_of_it() -> None:
    parts = [take(0, 0, 1), chain(take(0, 1), reshape(-1, 1))]
    rule = split("{b}.token", ["{b}.cls", "{b}.reg"], ops=parts, op=scale(), by=["{b}.gamma"])
    plan = apply(["a.token", "a.gamma"], rule, drop("{b}.gamma", "multiplied into the tokens"))
    assert [(m.sources, m.target, m.spec.shape) for m in plan.moves] == [
        (("a.token", "a.gamma"), "a.cls", (1,)),
        (("a.token", "a.gamma"), "a.reg", (3, 1)),
    ]
    token, gamma = np.arange(4.0), np.full(4, 2.0)
    made = [m.op.apply([token, gamma]) for m in plan.moves if m.op is not None]
    assert [one.tolist() for one in made] == [[0], [[2], [4], [6]]]


def test_a_tensor_that_has_no_equal_parts_is_a_problem() -> None:
    plan = apply(["a.qkv.bias"], KEYLESS, shape=(4,))
    assert plan.moves == ()
    assert {text_of(p) for p in plan.problems if p.kind == "shape"} == {
        f"a.qkv.bias: chunk(axis=0, index={i}, of=3) does not suit float32 [4]" for i in (0, 2)
    }


# -- by ----------------------------------------------------------------------------------------------------------------

FOLDED = (
    keep("block.{i}.proj.{p}", "block.{i}.proj.{p}", scale(), by=["block.{i}.gamma"]),
    drop("block.{i}.gamma", "folded into proj"),
)


def test_a_rule_may_read_tensors_that_other_rules_take() -> None:
    plan = apply(["block.0.proj.w", "block.0.gamma", "block.1.gamma", "block.1.proj.w", "block.1.proj.b"], *FOLDED)
    assert {m.target: m.sources for m in plan.moves} == {
        f"block.{i}.proj.{p}": (f"block.{i}.proj.{p}", f"block.{i}.gamma") for i, p in ((0, "w"), (1, "w"), (1, "b"))
    }
    assert {d.source for d in plan.dropped} == {"block.0.gamma", "block.1.gamma"}


def test_what_a_rule_reads_must_be_there() -> None:
    plan = apply(["block.0.proj.w", "block.1.gamma"], *FOLDED)
    assert plan.moves == ()
    assert [(p.kind, p.key, text_of(p)) for p in plan.problems if p.kind == "parts"] == [
        ("parts", "block.0.proj.w", "block.0.proj.w: cannot become block.0.proj.w without block.0.gamma")
    ]


def test_what_a_rule_reads_is_under_the_same_prefix() -> None:
    names = ["net.block.0.proj.w", "net.block.0.gamma"]
    plan = apply(names, *under("net.", FOLDED))
    assert [m.sources for m in plan.moves] == [tuple(names)]


# -- refused when written down -----------------------------------------------------------------------------------------

REFUSED: list[tuple[Callable[[], object], str, str]] = [
    (lambda: keep("", "x"), "a pattern may not be empty", "{key...} matches every name."),
    (
        lambda: keep("a.{i}", "a.{i}", scale(), by=["b.{j}"]),
        "the target 'b.{j}' uses {j}, which 'a.{i}' does not capture",
        "Captures are carried by name.",
    ),
    (
        lambda: keep("a.{i}", "a.{i}", by=["b.{i}"]),
        "'a.{i}' is changed by b.{i}, but no op says how",
        "Give an op of several.",
    ),
    (lambda: drop("a.{x", "why"), "the pattern 'a.{x' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: drop("a.x}", "why"), "the pattern 'a.x}' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: drop("{}", "why"), "the pattern '{}' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: drop("{1}", "why"), "the pattern '{1}' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: drop("{x..}", "why"), "the pattern '{x..}' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: keep("a", "{x"), "the pattern '{x' has a stray brace", "Captures are written {x} or {x...}."),
    (
        lambda: drop("{x}.{x}", "why"),
        "the pattern '{x}.{x}' names a capture twice",
        "Give each capture its own name.",
    ),
    (
        lambda: drop("{x...}.{y...}", "why"),
        "the pattern '{x...}.{y...}' has two '...' captures",
        "Only one may span segments.",
    ),
    (
        lambda: drop("a{x...}", "why"),
        "in the pattern 'a{x...}', {x...} is not a whole segment",
        "Write it between dots: 'encoder.{rest...}'.",
    ),
    (
        lambda: drop("{x...}_b.c", "why"),
        "in the pattern '{x...}_b.c', {x...} is not a whole segment",
        "Write it between dots: 'encoder.{rest...}'.",
    ),
    (
        lambda: drop("layer{a}{b}", "why"),
        "the pattern 'layer{a}{b}' has two captures in one segment",
        "Put a dot between them: names are cut there.",
    ),
    (
        lambda: drop("layer{a}{b...}", "why"),
        "the pattern 'layer{a}{b...}' has two captures in one segment",
        "Put a dot between them: names are cut there.",
    ),
    (
        lambda: drop("{a}_{b}.x", "why"),
        "the pattern '{a}_{b}.x' has two captures in one segment",
        "Put a dot between them: names are cut there.",
    ),
    (lambda: keep("a", ""), "'a' is kept under an empty name", "Name the target."),
    (
        lambda: keep("a.{x}", "{y}"),
        "the target '{y}' uses {y}, which 'a.{x}' does not capture",
        "Captures are carried by name.",
    ),
    (lambda: keep("a", "b", concat(0)), "'a' is one tensor, but concat(axis=0) takes several", "Use fuse()."),
    (lambda: drop("a", ""), "'a' is dropped without a reason", "Say why: drop(pattern, why)."),
    (lambda: drop("a", "  "), "'a' is dropped without a reason", "Say why: drop(pattern, why)."),
    (lambda: fuse(["a"], "b", concat(0)), "'b' is fused from fewer than two tensors", "Use keep() for one."),
    (lambda: fuse([], "b", concat(0)), "'b' is fused from fewer than two tensors", "Use keep() for one."),
    (
        lambda: fuse(["q.{x}", "k.{y}"], "qk", concat(0)),
        "the sources of 'qk' carry different captures",
        "Each source of a fuse() must carry the same ones, so that the parts can be joined.",
    ),
    (
        lambda: fuse(["q.{x}", "k.{x}"], "qk.{z}", concat(0)),
        "the target 'qk.{z}' uses {z}, which 'q.{x}' does not capture",
        "Captures are carried by name.",
    ),
    (
        lambda: fuse(["q", "k"], "qk", permute(1, 0)),
        "permute(1, 0) takes one tensor, not 2",
        "Use an op such as concat(axis).",
    ),
    (lambda: split("a", ["b"]), "'a' is split into fewer than two parts", "Use keep() for one."),
    (
        lambda: split("a", ["b", ""]),
        "'a' is split, and a part is left out without a reason",
        "Say why: split(pattern, targets, why=reason).",
    ),
    (
        lambda: split("a", ["b", "c"], why="no use"),
        "'a' is split into parts that are all kept, and has a reason to leave one out",
        "Give '' as the target of that part.",
    ),
    (
        lambda: split("a.{x}", ["b", "{y}"]),
        "the target '{y}' uses {y}, which 'a.{x}' does not capture",
        "Captures are carried by name.",
    ),
    (
        lambda: under("{x}.", [keep("a", "a")]),
        "the prefix '{x}.' has a brace",
        "A prefix is plain text that ends with a dot.",
    ),
    (
        lambda: keep("a.{x}", "b").inverse(),
        "'keep a.{x} -> b' cannot be inverted",
        "Both sides must carry the same captures, without an op.",
    ),
    (
        lambda: keep("a.{x}", "{x}", reshape(-1)).inverse(),
        "'keep a.{x} -> {x} (reshape(-1))' cannot be inverted",
        "Both sides must carry the same captures, without an op.",
    ),
]


@pytest.mark.parametrize(("make", "message", "hint"), REFUSED, ids=[r[1] for r in REFUSED])
def test_a_wrong_rule_is_refused_in_these_words(make: Callable[[], object], message: str, hint: str) -> None:
    with pytest.raises(RuleError) as caught:
        make()
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


# -- inverting a rename ------------------------------------------------------------------------------------------------

_letters = st.text("abn1_-", min_size=1, max_size=3)
_values = st.text("abn12_-", min_size=1, max_size=4)


@st.composite
def renames(draw: st.DrawFn, careless: bool = False) -> tuple[Keep, str]:
    """A rename and a name it matches: captures and letters on both sides, captures in any order on the right.

    The target of a ``careless`` one joins captures in one segment, and writes `{x}` for `{x...}`, here and there.
    """
    names = [f"c{i}" for i in range(draw(st.integers(0, 3)))]
    spanning = draw(st.sampled_from([*names, None]))
    edge = st.one_of(st.just(""), _letters)

    def side(order: Sequence[str], loose: bool) -> str:
        segments: list[str] = []
        for name in order:
            if name == spanning and not (loose and draw(st.booleans())):
                segment = f"{{{name}...}}"
            else:
                segment = f"{draw(edge)}{{{name}}}{draw(edge)}"
            if loose and segments and draw(st.booleans()):
                segments[-1] += segment
            else:
                segments.append(segment)
            segments.extend(draw(st.lists(_letters, max_size=1)))
        return ".".join(segments) or draw(_letters)

    source, target = side(names, False), side(draw(st.permutations(names)), careless)
    key = source
    for name in names:
        values = st.lists(_values, min_size=1, max_size=3).map(".".join) if name == spanning else _values
        value = draw(values)
        key = key.replace(f"{{{name}...}}", value).replace(f"{{{name}}}", value)
    return keep(source, target), key


@MANY
@given(renames())
def test_a_rename_with_the_same_captures_on_both_sides_can_be_undone(pair: tuple[Keep, str]) -> None:
    rule, key = pair
    assert rule.invertible
    renamed = rule.target_of(key)
    assert renamed is not None
    assert rule.inverse().target_of(renamed) == key


@MANY
@given(renames(careless=True))
def test_an_invertible_rule_can_be_inverted(pair: tuple[Keep, str]) -> None:
    rule, key = pair
    renamed = rule.target_of(key)
    assert renamed is not None
    if rule.invertible:
        assert rule.inverse().target_of(renamed) == key


@pytest.mark.parametrize(
    "rule",
    [
        keep("a.{x}.{y}", "{x}"),
        keep("a.{x}", "b"),
        keep("a.{x}", "{x}", permute(1, 0)),
        keep("a.{x...}", "{x}"),
        keep("a.{x}", "{x...}"),
        keep("{a}.{b}", "{b}y{a}"),
        keep("{x}", "{x}.{x}"),
        keep("a.{x...}", "b{x...}"),
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_inverted_says_so(rule: Keep) -> None:
    assert not rule.invertible
    with pytest.raises(RuleError, match="cannot be inverted"):
        rule.inverse()


def test_the_doctests_of_the_module_run() -> None:
    result = doctest.testmod(rules)
    assert result.attempted >= 3
    assert result.failed == 0
