"""Methods written in TOML: what they become, what is refused in which words, and one from end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ckptconv
from ckptconv.backbones import FAMILIES
from ckptconv.backbones.interface import PARTS as PARTS_A_NETWORK_MAY_LACK
from ckptconv.errors import UsageError
from ckptconv.methods import METHODS, rule_file
from ckptconv.methods.interface import Layout, Method, Pixels, Release
from ckptconv.ops import (
    Composed,
    Concat,
    Op,
    add_row,
    cast,
    chain,
    chunk,
    concat,
    concat_with_zeros,
    permute,
    regroup,
    reshape,
    resize_grid,
    resize_patch,
    scale,
    select_channels,
    take,
    zeros,
)
from ckptconv.rules import Rule, drop, fuse, keep, split, under
from ckptconv.spec import DTYPES
from tests.support.cases import case

FLOAT32 = DTYPES["float32"]
EXAMPLE = """\
name = "mine"
title = "my own runs"
paper = "https://example.org/paper"
repository = "me/mine"
sections = ["weights.net"]
pixels = {mean = [127.5, 127.5, 127.5], std = [127.5, 127.5, 127.5], order = "BGR"}
rules = [
  {drop = "student.fc.{p}", why = "the classifier"},
  {keep = "student.stem.w", to = "conv1.weight", op = "permute(3, 2, 0, 1)"},
  {keep = "student.{key...}", to = "{key...}"},
  {drop = "teacher.{key...}", why = "the momentum copy"},
]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        rule_file.load(write(folder, text))
    assert type(caught.value) is UsageError
    assert caught.value.exit_code == 2
    return caught.value


# -- what it becomes --------------------------------------------------------------------------------------------------


def test_a_rule_file_is_a_method_as_any_other(tmp_path: Path) -> None:
    assert rule_file.load(write(tmp_path, EXAMPLE)) == Method(
        name="mine",
        title="my own runs",
        paper="https://example.org/paper",
        repository="me/mine",
        pixels=Pixels((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "BGR"),
        layouts=(
            Layout(
                title="rule file",
                sections=("weights.net",),
                rules=(
                    drop("student.fc.{p}", "the classifier"),
                    keep("student.stem.w", "conv1.weight", permute(3, 2, 0, 1)),
                    keep("student.{key...}", "{key...}"),
                    drop("teacher.{key...}", "the momentum copy"),
                ),
            ),
        ),
    )


def test_a_name_and_one_rule_are_enough(tmp_path: Path) -> None:
    method = rule_file.load(write(tmp_path, 'name = "a-1_b"\nrules = [{keep = "{k...}", to = "{k...}"}]'))
    assert (method.name, method.title, method.pixels, method.guess) == ("a-1_b", "a-1_b", None, True)
    assert method.layouts[0].sections == ("state_dict", "model", "")


def test_the_example_in_the_module_is_one(tmp_path: Path) -> None:
    assert rule_file.__doc__ is not None
    text = rule_file.__doc__.partition("::\n")[2].replace("\n    ", "\n")
    method = rule_file.load(write(tmp_path, text))
    assert [type(r).__name__ for r in method.layouts[0].rules] == ["Keep", "Drop", "Fuse"]


def test_rules_under_prefixes_are_those_of_python(tmp_path: Path) -> None:
    text = """
        name = "x"
        rules = [
          {under = ["", "vit."], rules = [
            {drop = "head.{p}", why = "the head"},
            {under = "model.", rules = [{keep = "{k...}", to = "{k...}"}]},
          ]},
        ]
    """
    rules = (drop("head.{p}", "the head"), *under("model.", [keep("{k...}", "{k...}")]))
    assert rule_file.load(write(tmp_path, text)).layouts[0].rules == under(["", "vit."], rules)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ('{keep = "a", to = "b", op = "reshape(-1)"}', keep("a", "b", reshape(-1))),
        ('{keep = "a", to = "b", op = " reshape( 2 , -1 ) "}', keep("a", "b", reshape(2, -1))),
        ('{keep = "a", to = "b", op = "permute(1,0)"}', keep("a", "b", permute(1, 0))),
        ('{fuse = ["q", "k"], to = "qk", op = "concat(1)"}', fuse(["q", "k"], "qk", concat(1))),
        ('{fuse = ["q", "k"], to = "qk", op = "concat(axis=1)"}', fuse(["q", "k"], "qk", concat(1))),
        ('{fuse = ["q", "v"], to = "qkv", op = "concat_with_zeros()"}', fuse(["q", "v"], "qkv", concat_with_zeros())),
        ('{split = "qk", to = ["q", "k"]}', split("qk", ["q", "k"])),
        (
            '{split = "t", to = ["c", "r"], ops = ["take(0, 0, 1)", "zeros()"]}',
            split("t", ["c", "r"], ops=[take(0, 0, 1), zeros()]),
        ),
        ('{split = "qk", to = ["q", ""], axis = 1, why = "no use"}', split("qk", ["q", ""], 1, "no use")),
        ('{keep = "a", to = "b", op = "chunk(0, 1, 3)"}', keep("a", "b", chunk(0, 1, 3))),
        ('{keep = "a", to = "b", op = "reshape()"}', keep("a", "b", reshape())),
        (
            '{keep = "a", to = "b", op = "regroup(1, (0, 2, 1, 3), back=True)"}',
            keep("a", "b", regroup(1, (0, 2, 1, 3), True)),
        ),
        ('{keep = "a", to = "b", op = "select_channels([3, 2, 1])"}', keep("a", "b", select_channels((3, 2, 1)))),
        ('{keep = "a", to = "b", op = "resize_grid(1, 16)"}', keep("a", "b", resize_grid(1, 16))),
        (
            '{keep = "a", to = "b", op = "resize_grid(0, 9, \'bilinear\', antialias=True, offset=0.1)"}',
            keep("a", "b", resize_grid(0, 9, "bilinear", True, False, 0.1)),
        ),
        ('{keep = "a", to = "b", op = "resize_patch(14)"}', keep("a", "b", resize_patch(14))),
        ('{keep = "a", to = "b", op = "take(1, 1)"}', keep("a", "b", take(1, 1))),
        ('{keep = "a", to = "b", op = "take(0, 1, stop=3)"}', keep("a", "b", take(0, 1, 3))),
        ('{keep = "a", to = "b", op = "add_row(0)", by = ["c"]}', keep("a", "b", add_row(0), ["c"])),
        ("{keep = 'a', to = 'b', op = 'cast(\"float32\", \"float16\")'}", keep("a", "b", cast(FLOAT32, "float16"))),
        (
            '{keep = "a", to = "b", op = "chain(permute(1, 0), reshape(-1), reshape(2, -1))"}',
            keep("a", "b", chain(permute(1, 0), reshape(-1), reshape(2, -1))),
        ),
        ('{keep = "a.{p}", to = "b.{p}", op = "scale()", by = ["c.{p}"]}', keep("a.{p}", "b.{p}", scale(), ["c.{p}"])),
        ('{drop = "ln2.{p}", why = "a norm", instead = "norm"}', drop("ln2.{p}", "a norm", "norm")),
    ],
)
def test_ops_are_written_as_in_python(tmp_path: Path, rule: str, wanted: object) -> None:
    assert rule_file.load(write(tmp_path, f'name = "x"\nrules = [{rule}]')).layouts[0].rules == (wanted,)


def test_pixels_are_rgb_unless_said_otherwise(tmp_path: Path) -> None:
    text = 'name = "x"\nrules = [{keep = "a", to = "a"}]\npixels = {mean = [1, 2, 3], std = [4, 5.5, 6]}'
    assert rule_file.load(write(tmp_path, text)).pixels == Pixels((1, 2, 3), (4, 5.5, 6), "RGB")


# -- what is refused --------------------------------------------------------------------------------------------------

NAME = 'name = "x"\n'
RULES = 'rules = [{keep = "a", to = "b"}]\n'
ONE_RULE = 'Write rules = [{keep = "encoder.{key...}", to = "{key...}"}].'
PARTS = "A rule has keep and to, drop and why, fuse, to and op, split and to, or under and rules."
TEXT = "Patterns are text; fuse, by, and the to of a split take a list of them."
OPS = (
    "Ops: concat(axis), chunk(axis, index, of), take(axis, start, stop), permute(axis, …), reshape(length, …), "
    "regroup(axis, order, back), scale(), concat_with_zeros(), add_row(row), select_channels(numbers), "
    "cast(from, to), resize_grid(tokens, side, …), resize_patch(side), zeros(), chain(op, op, …)."
)
PIXELS = 'Write pixels = {mean = [r, g, b], std = [r, g, b], order = "RGB"}.'
PARTS_OF_NETWORKS = " or ".join(map(repr, PARTS_A_NETWORK_MAY_LACK))
NAMES = "A name has letters, digits and - _ . +, and starts with a letter or a digit."
HELP = "See how to write one: ckptconv guide rules"
KNOWN = (
    "Known: name, title, aliases, paper, repository, pixels, guess, num_heads, eps, num_registers, "
    "position_resampling, position_resampling_with_registers, norm, releases, "
    "sections, families, without, rules, layouts, converted."
)
LAYOUT = '[[layouts]]\ntitle = "x"\n'

REFUSED = [
    (NAME + RULES + "rulez = []", "there is no entry 'rulez'", "Did you mean 'rules'?"),
    (
        NAME + RULES + "xyz = 1",
        "there is no entry 'xyz'",
        KNOWN,
    ),
    ("name = 3\n" + RULES, "'name' must be a name, not 3", NAMES),
    (NAME + 'rules = "x"', "'rules' must be a list of rules, not 'x'", ONE_RULE),
    (NAME + RULES + 'pixels = "x"', "'pixels' is not understood", PIXELS),
    (NAME + RULES + 'sections = ""', "'sections' must be a list of texts, not ''", "Put it into a list: ['']."),
    # the fields that a literal has, too, in the words of Method, Layout and Release
    (NAME + RULES + "num_heads = 0", "'num_heads' must be a whole number, 1 or more, not 0", ""),
    (NAME + RULES + 'eps = "small"', "'eps' must be a number above 0, not 'small'", ""),
    (NAME + RULES + 'guess = "no"', "'guess' must be True or False, not 'no'", ""),
    (NAME + RULES + 'aliases = "y"', "'aliases' must be a list of texts, not 'y'", "Put it into a list: ['y']."),
    (NAME + RULES + 'aliases = ["X"]', "'aliases' has 'x' twice", "Leave out one of them."),
    (NAME + RULES + 'without = ["wings"]', f"'without' must be {PARTS_OF_NETWORKS}, not 'wings'", ""),
    (
        NAME + RULES + 'families = ["Resnet"]',
        "'families': there is no network family 'Resnet'",
        "Did you mean ResNet or RegNetY?",
    ),
    (NAME + RULES + "releases = 3", "'releases' must be a list of tables, not 3", "Write [[releases]] before each."),
    (NAME + RULES + '[[releases]]\nurl = "x"', "'name' must be a name, not ''", NAMES),
    (NAME + RULES + '[[releases]]\nname = "r"', "'url' must be a text that is not empty, not ''", ""),
    (NAME + RULES + '[[releases]]\nlicense = "MIT"', "there is no entry 'license'", "Did you mean 'licence'?"),
    (NAME + "layouts = []", "'layouts' must be a non-empty list of Layout, not []", ""),
    (NAME + 'layouts = ["x"]', "'layouts' must be a list of tables, not ['x']", "Write [[layouts]] before each."),
    (NAME + LAYOUT, "there are no rules", ONE_RULE),
    (NAME + RULES + LAYOUT + RULES, "'rules' stands next to 'layouts'", "Put it into one of the layouts."),
    (NAME + LAYOUT + RULES + "rulez = []", "there is no entry 'rulez'", "Did you mean 'rules'?"),
    (NAME + LAYOUT + RULES + LAYOUT + RULES, "'layouts' has 'x' twice", "Leave out one of them."),
    (
        NAME + 'rules = [{under = "a", rules = [{keep = "b", to = "b"}]}]',
        "the prefix 'a' has no dot at its end",
        "Write 'a.' instead.",
    ),
    (
        NAME + 'rules = [{drop = "a", why = "b", instead = "wings"}, {keep = "c", to = "c"}]',
        f"'instead' must be {PARTS_OF_NETWORKS}, not 'wings'",
        "",
    ),
    (
        NAME + 'rules = [{keep = "a", to = "b", by = "c", op = "scale()"}]',
        "the rule {'keep': 'a', 'to': 'b', 'by': 'c', 'op': 'scale()'} is not understood",
        TEXT,
    ),
    (
        NAME + 'rules = [{keep = "a", to = "b", by = ["c"]}]',
        "'a' is changed by c, but no op says how",
        "Give an op of several.",
    ),
    (
        NAME + 'rules = [{keep = "a", to = "b", op = "permute(1, 1)"}]',
        "'axes' must be the numbers 0 to 1 in some order, not (1, 1)",
        "",
    ),
    (
        NAME + 'rules = [{keep = "a", to = "b", op = "chain(reshape(1), 2)"}]',
        "chain() takes ops, not 2",
        "Write chain(permute(1, 0), reshape(-1)).",
    ),
    (
        NAME + "rules = [{keep = 'a', to = 'b', op = 'cast(\"float32\", \"half\")'}]",
        "there is no element type 'half'",
        "Types that can be cast to: float16, bfloat16, float32, float64.",
    ),
    (RULES, "'name' must be a name, not ''", NAMES),
    ('name = ""\n' + RULES, "'name' must be a name, not ''", NAMES),
    ('name = "My Net"\n' + RULES, "'name' must be a name, not 'My Net'", NAMES),
    ('name = "-x"\n' + RULES, "'name' must be a name, not '-x'", NAMES),
    ('name = "auto"\n' + RULES, "'name' may not be 'auto'", "It asks to find the method. Choose another name."),
    (NAME, "there are no rules", ONE_RULE),
    (NAME + "rules = []", "there are no rules", ONE_RULE),
    (NAME + RULES + "sections = []", "'sections' must be a non-empty list of texts, not []", ""),
    (NAME + RULES + "sections = [1]", "'sections' must be a list of texts, not [1]", ""),
    (NAME + RULES + "pixels = {}", "'pixels' is not understood", PIXELS),
    (NAME + RULES + "pixels = {mean = [1, 2], std = [1, 2]}", "'mean' must be three numbers, not [1, 2]", ""),
    (
        NAME + RULES + 'pixels = {mean = ["a", 2, 3], std = [1, 2, 3]}',
        "'mean' must be three numbers, not ['a', 2, 3]",
        "",
    ),
    (NAME + RULES + "pixels = {mean = 1, std = [1, 2, 3]}", "'mean' must be three numbers, not 1", ""),
    (
        NAME + RULES + 'pixels = {mean = [1, 2, 3], std = [1, 2, 3], order = "GRB"}',
        "'order' must be 'RGB' or 'BGR', not 'GRB'",
        "",
    ),
    (
        NAME + RULES + "pixels = {mean = [1, 2, 3], std = [1, 2, 3], oder = 'BGR'}",
        "'pixels' is not understood",
        PIXELS,
    ),
    (NAME + "rules = [3]", "the rule 3 is not understood", PARTS),
    (NAME + "rules = [{}]", "the rule {} is not understood", PARTS),
    (NAME + 'rules = [{to = "a"}]', "the rule {'to': 'a'} is not understood", PARTS),
    (
        NAME + 'rules = [{keep = "a", drop = "a"}]',
        "the rule {'keep': 'a', 'drop': 'a'} is not understood",
        PARTS,
    ),
    (
        NAME + 'rules = [{keep = "a", into = "b"}]',
        "the rule {'keep': 'a', 'into': 'b'} is not understood",
        PARTS,
    ),
    (NAME + "rules = [{keep = 1, to = 'b'}]", "the rule {'keep': 1, 'to': 'b'} is not understood", TEXT),
    (
        NAME + "rules = [{fuse = 'a', to = 'b', op = 'concat(0)'}]",
        "the rule {'fuse': 'a', 'to': 'b', 'op': 'concat(0)'} is not understood",
        TEXT,
    ),
    (
        NAME + "rules = [{fuse = ['a', 1], to = 'b', op = 'concat(0)'}]",
        "the rule {'fuse': ['a', 1], 'to': 'b', 'op': 'concat(0)'} is not understood",
        TEXT,
    ),
    (
        NAME + 'rules = [{keep = "a"}]',
        "the rule {'keep': 'a'} does not say what the tensor becomes",
        'Add to = "name".',
    ),
    (
        NAME + "rules = [{fuse = ['a', 'b'], to = 'c'}]",
        "the rule {'fuse': ['a', 'b'], 'to': 'c'} does not say how the parts become one",
        'Add op = "concat(0)".',
    ),
    (NAME + 'rules = [{keep = "a", to = "b", op = "transpose(1, 0)"}]', "there is no op 'transpose(1, 0)'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "reshape"}]', "there is no op 'reshape'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "concat()"}]', "there is no op 'concat()'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "print(1)"}]', "there is no op 'print(1)'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "ops.concat(1)"}]', "there is no op 'ops.concat(1)'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "reshape(*(1, 2))"}]', "there is no op 'reshape(*(1, 2))'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "scale(**{})"}]', "there is no op 'scale(**{})'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "1"}]', "there is no op '1'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = ""}]', "there is no op ''", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "reshape(x)"}]', "there is no op 'reshape(x)'", OPS),
    (NAME + 'rules = [{keep = "a", to = "b", op = "reshape(1), 2"}]', "there is no op 'reshape(1), 2'", OPS),
    (NAME + "rules = [{fuse = ['a', 'b'], to = 'c', op = 'concat(0, 1)'}]", "there is no op 'concat(0, 1)'", OPS),
    # what the language itself refuses comes through in its own words
    (NAME + 'rules = [{drop = "a"}]', "'a' is dropped without a reason", "Say why: drop(pattern, why)."),
    (
        NAME + 'rules = [{keep = "a.{x", to = "b"}]',
        "the pattern 'a.{x' has a stray brace",
        "Captures are written {x} or {x...}.",
    ),
    (
        NAME + 'rules = [{keep = "a.{x}", to = "{y}"}]',
        "the target '{y}' uses {y}, which 'a.{x}' does not capture",
        "Captures are carried by name.",
    ),
    (
        NAME + "rules = [{keep = 'a', to = 'b', op = 'concat(0)'}]",
        "'a' is one tensor, but concat(axis=0) takes several",
        "Use fuse().",
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), REFUSED, ids=[r[1] for r in REFUSED])
def test_a_mistake_is_refused_in_these_words(tmp_path: Path, text: str, message: str, hint: str) -> None:
    error = refused(tmp_path, text)
    assert error.message == f"in the rule file {tmp_path / 'rules.toml'}: {message}"
    assert error.hint == hint


HOSTILE = (
    *("(" * 499, "[" * 499, f"{'-' * 498}1", "concat(" * 70, f"reshape({'1' * 491})", "reshape(1)" * 100),
    *("concat(0\\u0000)", "scale()()", "__import__('os')", "scale().__class__()", "(lambda: scale())()"),
    *("[scale()][0]", "f'{scale()}'", "scale() or scale()", "(op := scale())", "chain(*[scale()])"),
    *("reshape(1 if 1 else 2)", "reshape(-9999999999)", "reshape(0xfffffffff)", "resize_patch(2 ** 99)"),
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_text_of_an_op_is_parsed_and_never_evaluated(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, f'{NAME}rules = [{{keep = "a", to = "b", op = "{text}"}}]')
    assert error.message.startswith(f"in the rule file {tmp_path / 'rules.toml'}: there is no op '")
    assert error.hint == OPS


def test_a_file_that_is_not_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, 'name = "x"\nrules = [\n')
    assert error.message.startswith(f"the rule file {tmp_path / 'rules.toml'} is not TOML: ")
    assert "line 3" in error.message or "end of document" in error.message
    assert error.hint == HELP


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UsageError) as caught:
        rule_file.load(path)
    assert caught.value.message.startswith(f"the rule file {path} is not TOML: ")


@pytest.mark.parametrize("folder", [False, True], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, folder: bool) -> None:
    path = tmp_path if folder else tmp_path / "no.toml"
    with pytest.raises(UsageError) as caught:
        rule_file.load(path)
    reason = "Is a directory" if folder else "No such file or directory"
    assert caught.value.message == f"the rule file {path} cannot be read: {reason}"
    assert caught.value.hint == "Give a TOML file."


def test_the_name_of_a_built_in_method_is_taken(tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.pth"
    torch.save({"w": torch.ones(1)}, checkpoint)
    for taken in METHODS:
        with pytest.raises(UsageError) as caught:
            ckptconv.plan(checkpoint, rules=write(tmp_path, f'name = "{taken.name}"\n{RULES}'))
        assert caught.value.message == f"the name '{taken.name}' is a built-in method's"
        assert caught.value.hint == "Give your own method another name."


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_built_in_method_is_written_and_read_back(tmp_path: Path, method: Method) -> None:
    assert rule_file.load(write(tmp_path, rule_file.to_toml(method))) == method


LINES = st.text(max_size=9).map(lambda text: "".join(filter(str.isprintable, text)) + "'\"\\")
NUMBERS = st.floats(1e-9, 1e9)
ONE = st.one_of(
    st.permutations(range(3)).map(lambda axes: permute(*axes)),
    st.lists(st.integers(0, 9), max_size=4).map(lambda shape: reshape(*shape)),
    st.builds(regroup, st.integers(0, 3), st.permutations(range(4)), st.booleans()),
    st.lists(st.integers(1, 4), min_size=1).map(select_channels),
    st.builds(cast, st.just(FLOAT32), st.sampled_from(["float16", "bfloat16", "float64"])),
    st.builds(
        resize_grid,
        st.integers(0, 5),
        st.integers(1, 40),
        st.sampled_from(["bicubic", "bilinear"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0.0, 0.1]),
    ),
    st.builds(resize_patch, st.integers(1, 40)),
    st.builds(chunk, st.integers(0, 2), st.integers(0, 1), st.integers(2, 4)),
    st.builds(take, st.integers(0, 3), st.integers(0, 4), st.none() | st.integers(5, 9)),
)
OPS_OF_ONE = st.lists(ONE, min_size=1, max_size=4).map(lambda ops: chain(*ops))
OPS_OF_SEVERAL = st.one_of(
    st.builds(concat, st.integers(0, 3)),
    st.builds(concat_with_zeros),
    st.builds(scale),
    st.builds(add_row, st.integers(0, 9)),
)
WHY = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9).filter(str.strip)


@st.composite
def a_rule(draw: st.DrawFn, number: int) -> Rule:
    """A rule for names of its own, so that no other rule takes them."""
    kind = draw(st.sampled_from(["keep", "by", "drop", "fuse", "split"]))
    name = f"{number}{draw(LINES).translate(dict.fromkeys(map(ord, '{}.'), '-'))}"
    if kind == "drop":
        return drop(f"{name}.{{p}}", draw(WHY), draw(st.sampled_from(["", *PARTS_A_NETWORK_MAY_LACK])))
    if kind == "fuse":
        return fuse([f"{name}.a.{{p...}}", f"{name}.b.{{p...}}"], f"{name}.{{p...}}", draw(OPS_OF_SEVERAL))
    if kind == "split":
        return split(f"{name}.{{p}}", [f"{name}.a.{{p}}", ""], draw(st.integers(0, 2)), draw(WHY))
    if kind == "by":
        return keep(name, f"{name}.b", draw(OPS_OF_SEVERAL), [f"{name}.c", f"{name}.d"])
    return keep(f"{name}.{{k...}}", "{k...}", draw(st.none() | OPS_OF_ONE))


LAYOUTS = st.builds(
    Layout,
    rules=st.integers(1, 4).flatmap(lambda n: st.tuples(*map(a_rule, range(n)))),
    sections=st.lists(st.sampled_from(["", "model", "a.b", "a...", "..."]), min_size=1, unique=True),
    title=LINES,
    families=st.lists(st.sampled_from(sorted(FAMILIES)), unique=True),
    without=st.lists(st.sampled_from(PARTS_A_NETWORK_MAY_LACK), unique=True),
)
THREE = st.tuples(NUMBERS, NUMBERS, NUMBERS)
WRITTEN = st.builds(
    Method,
    name=st.from_regex(r"[a-z][a-z0-9+._-]{3}", fullmatch=True).filter(lambda name: name != "auto"),
    title=LINES,
    layouts=st.lists(LAYOUTS, min_size=1, max_size=3, unique_by=lambda layout: layout.title),
    paper=st.sampled_from(["", "https://arxiv.org/abs/1911.05722"]),
    repository=st.sampled_from(["", "me/mine"]),
    pixels=st.none() | st.builds(Pixels, THREE, THREE, st.sampled_from(["RGB", "BGR"])),
    releases=st.lists(
        st.builds(
            Release,
            name=st.sampled_from(["a", "b", "c"]),
            url=st.just("https://example.org/a.pth"),
            md5=st.sampled_from(["", "0123456789"]),
            licence=st.just("") | LINES,
        ),
        unique_by=lambda release: release.name,
    ),
    guess=st.booleans(),
    num_heads=st.none() | st.integers(1, 99),
    eps=st.none() | NUMBERS,
    aliases=st.lists(st.sampled_from(["one", "two-2", "Three"]), unique=True),
    converted=st.lists(LAYOUTS, max_size=2),
)


@given(WRITTEN)
def test_any_method_is_written_and_read_back(tmp_path_factory: pytest.TempPathFactory, method: Method) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert rule_file.load(write(folder, rule_file.to_toml(method))) == method


class Own(Op):
    """An op that another package brings."""


@pytest.mark.parametrize("op", [Own(), Composed(Concat(0), (None, None), (1, 1)), chain(permute(1, 0), Own())])
def test_an_op_without_a_name_in_toml_is_refused(op: Op) -> None:
    method = Method("x", "x", (Layout((keep("a", "b", op),), ("",)),))
    with pytest.raises(UsageError) as caught:
        rule_file.to_toml(method)
    assert caught.value.message.startswith("the op '")
    assert caught.value.message.endswith("' has no name in a rule file")
    assert caught.value.hint == "Write that method in Python."


def test_a_template_of_a_built_in_method_has_a_free_name_and_one_of_one_s_own_is_whole() -> None:
    (moco,) = (m for m in METHODS if m.name == "moco")
    lines = rule_file.template(moco).splitlines()
    assert lines[:3] == [
        "# A copy of the built-in method moco, without its aliases and releases.",
        'name = "my-moco"',
        'title = "MoCo v1 and v2"',
    ]
    assert not [line for line in lines if line.startswith(("aliases", "releases"))]
    own = Method("mine", "mine", moco.layouts, aliases=("m",))
    assert rule_file.template(own) == rule_file.to_toml(own)


# -- from end to end --------------------------------------------------------------------------------------------------


def small_network() -> dict[str, torch.Tensor]:
    """A ResNet-18 of 4 channels, by way of the real one's names."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, spec in case("torchvision_r18").tensors.items():
        shape = [n if n in (1, 3, 7) else n // 16 for n in spec.shape]
        state[name] = torch.randn(shape, generator=generator) if spec.shape else torch.tensor(7)
    return state


@pytest.mark.parametrize("selfsup", ["auto", "mine"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_rule_file_converts_a_file_that_nobody_else_explains(tmp_path: Path, selfsup: str, suffix: str) -> None:
    network = small_network()
    source = {f"student.{name}": tensor for name, tensor in network.items()}
    source["student.stem.w"] = source.pop("student.conv1.weight").permute(2, 3, 1, 0)
    source |= {f"teacher.{name}": -tensor for name, tensor in network.items()}
    source |= {"student.fc.weight": torch.ones(3, 32), "student.fc.bias": torch.ones(3)}
    torch.save({"weights": {"net": source, "epoch": 7}}, tmp_path / "run.pth")
    target = tmp_path / f"backbone.{suffix}"
    rules = write(tmp_path, EXAMPLE)
    assert EXAMPLE.count("\n") == 12

    with pytest.raises(ckptconv.CkptconvError):
        ckptconv.convert(tmp_path / "run.pth", target)
    receipt = ckptconv.convert(tmp_path / "run.pth", target, selfsup, rules=rules)

    assert (receipt.method.name, receipt.method_named) == ("mine", selfsup == "mine")
    assert receipt.proved == len(network)
    if suffix == "pth":
        written = torch.load(target, weights_only=True)["state_dict"]
    else:
        from safetensors.torch import load_file

        written = load_file(target)
    assert set(written) == set(network)
    assert all(torch.equal(written[name], network[name]) for name in network)


def test_a_built_in_method_is_printed_and_its_copy_converts_alike(tmp_path: Path) -> None:
    """What `methods NAME --toml` prints is what --rules takes."""
    network = small_network()
    source = {f"module.encoder_q.{name}": tensor for name, tensor in network.items() if not name.startswith("fc.")}
    source |= {name.replace("_q.", "_k."): -tensor for name, tensor in source.items()}
    source |= {"module.encoder_q.fc.weight": torch.ones(3, 32), "module.queue": torch.ones(2, 2)}
    torch.save({"state_dict": source, "arch": "resnet18"}, tmp_path / "run.pth")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ckptconv", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    printed = run("methods", "MoCo v2", "--toml")
    assert (printed.returncode, printed.stderr) == (0, "")
    write(tmp_path, printed.stdout)
    written = []
    for method, more in (("moco", ()), ("my-moco", ("--rules", "rules.toml"))):
        done = run("convert", "run.pth", f"{method}.pth", "--selfsup", method, *more)
        assert done.returncode == 0, done.stderr
        written.append(torch.load(tmp_path / f"{method}.pth", weights_only=True)["state_dict"])
    built_in, own = written
    assert set(built_in) == set(own) == {name for name in network if not name.startswith("fc.")}
    assert all(torch.equal(own[name], tensor) for name, tensor in built_in.items())


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ((), "--toml prints one method, in TOML", "Give its name: ckptconv methods moco --toml"),
        (
            ("moco", "--fits", "x.pth"),
            "--toml prints one method, in TOML",
            "Give its name: ckptconv methods moco --toml",
        ),
        (
            ("npid",),
            "several methods have that name: mmselfsup, vissl",
            "Name one: ckptconv methods mmselfsup --toml",
        ),
    ],
)
def test_toml_is_of_one_method(words: tuple[str, ...], error: str, hint: str) -> None:
    command = [sys.executable, "-m", "ckptconv", "methods", "--toml", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {error}\nhint: {hint}\n")
