"""Parameters and calls in texts: written as Python, found again, and spelled by the command line as options."""

from __future__ import annotations

import ast
import doctest
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv import arguments
from ckptconv.arguments import Argument, Call, argument, call, name_files, rewrite
from ckptconv.cli.spelling import spell

TEXT = st.text(max_size=20)
VALUES = st.one_of(
    TEXT,
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(TEXT, max_size=3),
    st.tuples(st.integers(), st.integers()),
    st.dictionaries(TEXT, st.integers(), max_size=2),
)


def found(text: str) -> list[Argument | Call]:
    """What a text names, in its order."""
    seen: list[Argument | Call] = []

    def note(one: Argument | Call) -> str:
        seen.append(one)
        return ""

    rewrite(text, note)
    return seen


@given(before=TEXT, value=VALUES, after=TEXT)
def test_what_is_written_is_found_again_in_any_sentence(before: str, value: object, after: str) -> None:
    text = f"{before.replace('`', '')}: {argument('drop', value)} {after}"
    assert found(text)[0] == Argument("drop", value)
    assert text.count("`", len(before)) - after.count("`") == 2


@given(source=TEXT, key=TEXT, value=VALUES.filter(lambda value: value != ()))
def test_calls_are_python(source: str, key: str, value: object) -> None:
    text = call("explain", source, key, method=None, channels=(), drop=value)
    (node,) = ast.parse(text.strip("`")).body
    assert isinstance(node, ast.Expr)
    assert isinstance(node.value, ast.Call)
    assert ast.unparse(node.value.func) == "ckptconv.explain"
    assert [ast.literal_eval(one) for one in node.value.args] == [source, key]
    assert {one.arg: ast.literal_eval(one.value) for one in node.value.keywords} == {"drop": value}
    assert found(text) == [Call("explain", (source, key), {"drop": value})]


@pytest.mark.parametrize(
    "text",
    [
        "see `ckptconv methods`",
        "a `tick",
        "`rm -r x`",
        "`a=b`",
        "`a=1, b=2`",
        "`weights_only=True`",
        "`ckptconv.convert(open('x'))`",
        "`ckptconv.x`",
        "`ckptconv.convert(1, nothing=2)`",
        "`ckptconv.f(`",
        "`a=" + "[" * 500 + "`",
    ],
)
def test_other_backticks_stay_as_they_are(text: str) -> None:
    assert found(text) in ([], [Argument("weights_only", True)], [Call("convert", (1,), {"nothing": 2})])
    assert spell(text) == text


def test_a_tick_of_a_file_s_name_hides_no_argument() -> None:
    text = f"we`ird.pth: {argument('image_size', 225)} is not a multiple of 16"
    assert spell(text) == "we`ird.pth: --image-size 225 is not a multiple of 16"


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        (argument("image_size"), "--image-size"),
        (argument("image_size", 224), "--image-size 224"),
        (argument("force", True), "--force"),
        (argument("guard", False), "--no-guard"),
        (argument("drop", ["head.{x...}", "a b"]), "--drop 'head.{x...}' --drop 'a b'"),
        (argument("channels", (4, 3, 2)), "--channels 4,3,2"),
        (argument("source"), "SRC"),
        (call("inspect", "SRC"), "ckptconv inspect SRC"),
        (
            call("convert", "SRC", "DST", method="moco_v2", section="", drop=["fc.weight"]),
            "ckptconv convert --selfsup moco_v2 --section '' --drop fc.weight SRC DST",
        ),
        (call("convert", Path("a\nb.pth"), "o.pth"), "ckptconv convert $'a\\x0ab.pth' o.pth"),
    ],
)
def test_the_command_line_spells_them_as_options(text: str, typed: str) -> None:
    assert spell(f"so: {text}.") == f"so: {typed}."


def test_the_caller_s_files_are_put_into_calls_of_the_source_alone() -> None:
    hint = f"{call('convert', 'SRC', 'DST', target='timm')} or {call('inspect', 'SRC')}; {call('convert', 'x', 'DST')}"
    named = name_files(hint, "we `are.pth", "DST.pth", "own.toml")
    assert spell(named) == (
        "ckptconv convert --target timm --rules own.toml 'we `are.pth' DST.pth or "
        "ckptconv inspect --rules own.toml 'we `are.pth'; ckptconv convert x DST"
    )
    assert shlex.split(spell(name_files(call("convert", "SRC", "DST"), "a b"))) == ["ckptconv", "convert", "a b", "DST"]


def test_the_doctests_of_the_module_run() -> None:
    result = doctest.testmod(arguments)
    assert result.attempted
    assert not result.failed
