"""What the public dataclasses refuse where it is written, in which words; and what they take and keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptconv
from ckptconv import Fetching, Layout, Licence, Method, Pixels, Release, fields
from ckptconv.backbones import FAMILIES, TARGETS
from ckptconv.backbones.image_size import Size
from ckptconv.errors import CkptconvError, UsageError
from ckptconv.methods import METHODS, rule_file
from ckptconv.ops import add_row, concat, permute, regroup, reshape, resize_grid, resize_patch, take
from ckptconv.patterns import Pattern, Template
from ckptconv.planning.options import Options
from ckptconv.remap import remap_state_dict
from ckptconv.rules import Drop, Fuse, Keep, drop, fuse, keep, under

RULE = keep("{k...}", "{k...}")
THREE = (1.0, 2.0, 3.0)
FILE = "https://example.org/file.pth"


def layout(**said: Any) -> Layout:
    return Layout(**{"rules": (RULE,), "sections": ("",), **said})


def method(**said: Any) -> Method:
    return Method(**{"name": "mine", "title": "my own", "layouts": (layout(),), **said})


def release(**said: Any) -> Release:
    return Release(**{"name": "mine_r50", "url": FILE, **said})


def pixels(**said: Any) -> Pixels:
    return Pixels(**{"mean": THREE, "std": THREE, **said})


NAMES = "A name has letters, digits and - _ . +, and starts with a letter or a digit."
PATHS = "Write 'model.encoder' for one mapping, 'model...' for everything below it, '' for the top level."
RULES = "Rules are made with keep, drop, fuse and split; a star puts those of under(…) into the list."
MADE = "Rules are made with keep, drop, fuse and split."
OPS = "Ops are made with the functions of ckptconv.ops."
TWICE = "Leave out one of them."
QUOTES = "Write it in quotes."
ADDRESS = "an address such as https://example.org/file.pth"

Refused = tuple[Callable[[], object], str, str]

NAMES_REFUSED: list[Refused] = [
    (lambda bad=bad, make=make: make(name=bad), f"'name' must be a name, not {bad!r}", NAMES)
    for make in (method, release)
    for bad in ("", "my net", "-x", ".x", "größe", "a/b", "a\n", "x" * 101, 3, None)
    if not (isinstance(bad, str) and len(bad) > 70)
]

REFUSED: list[Refused] = [
    *NAMES_REFUSED,
    (lambda: method(name="auto"), "'name' may not be 'auto'", "It asks to find the method. Choose another name."),
    (lambda: method(name="AUTO"), "'name' may not be 'AUTO'", "It asks to find the method. Choose another name."),
    (lambda: method(name="Au-to"), "'name' may not be 'Au-to'", "It asks to find the method. Choose another name."),
    (lambda: method(aliases="m"), "'aliases' must be a list of texts, not 'm'", "Put it into a list: ['m']."),
    (lambda: method(aliases=["my own"]), "'aliases' must be a name, not 'my own'", NAMES),
    (lambda: method(aliases=("my-own", "my_Own")), "'aliases' has 'myown' twice", TWICE),
    (lambda: method(aliases=("MINE",)), "'aliases' has 'mine' twice", TWICE),
    (lambda: method(title=" "), "'title' must be a text that is not empty, not ' '", ""),
    (lambda: method(title=None), "'title' must be one line of text, not None", ""),
    (lambda: method(title="a\nb"), "'title' must be one line of text, not 'a\\nb'", ""),
    (lambda: method(title="\x1b[2J"), "'title' must be one line of text, not '\\x1b[2J'", ""),
    (lambda: method(layouts=()), "'layouts' must be a non-empty list of Layout, not []", ""),
    (lambda: method(layouts=(RULE,)), f"'layouts' must be a list of Layout, not {str([RULE])[:78]} …", ""),
    (lambda: method(layouts="x"), "'layouts' must be a list of Layout, not 'x'", ""),
    (lambda: method(layouts=(layout(), layout())), "'layouts' has 'checkpoint' twice", TWICE),
    (lambda: method(paper="arXiv:1911.05722"), f"'paper' must be {ADDRESS}, not 'arXiv:1911.05722'", ""),
    (
        lambda: method(repository="https://github.com/me/mine"),
        "'repository' must be OWNER/NAME on GitHub, not 'https://github.com/me/mine'",
        "",
    ),
    (lambda: method(repository=7), "'repository' must be one line of text, not 7", ""),
    (lambda: method(pixels=(THREE, THREE)), f"'pixels' must be Pixels or None, not {(THREE, THREE)}", ""),
    (lambda: method(pixels="RGB"), "'pixels' must be Pixels or None, not 'RGB'", ""),
    (lambda: method(releases=release()), f"'releases' must be a list of Release, not {str(release())[:78]} …", ""),
    (lambda: method(releases=[release(), release()]), "'releases' has 'mine_r50' twice", TWICE),
    (lambda: method(guess=1), "'guess' must be True or False, not 1", ""),
    (lambda: method(num_heads=0), "'num_heads' must be a whole number, 1 or more, not 0", ""),
    (lambda: method(num_heads=6.0), "'num_heads' must be a whole number, 1 or more, not 6.0", ""),
    (lambda: method(num_heads=True), "'num_heads' must be a whole number, 1 or more, not True", ""),
    (lambda: method(num_heads="6"), "'num_heads' must be a whole number, 1 or more, not '6'", ""),
    (lambda: method(eps=0), "'eps' must be a number above 0, not 0", ""),
    (lambda: method(eps=-1e-6), "'eps' must be a number above 0, not -1e-06", ""),
    (lambda: method(eps=math.nan), "'eps' must be a number above 0, not nan", ""),
    (lambda: method(eps=math.inf), "'eps' must be a number above 0, not inf", ""),
    (lambda: method(eps="1e-6"), "'eps' must be a number above 0, not '1e-6'", ""),
    # layouts
    (lambda: layout(rules=()), "'rules' must be a non-empty list of rules, not []", RULES),
    (lambda: layout(rules=RULE), f"'rules' must be a list of rules, not {str(repr(RULE))[:78]} …", RULES),
    (lambda: layout(rules="keep"), "'rules' must be a list of rules, not 'keep'", RULES),
    (lambda: layout(rules=(("a", "b"),)), "'rules' must be a list of rules, not [('a', 'b')]", RULES),
    (
        lambda: layout(rules=(RULE, drop("{other...}", "no"))),
        "'rules' has two rules for '{other...}'",
        "The first takes every name. Leave out the other.",
    ),
    (
        lambda: layout(sections="state_dict"),
        "'sections' must be a list of texts, not 'state_dict'",
        "Put it into a list: ['state_dict'].",
    ),
    (lambda: layout(sections=()), "'sections' must be a non-empty list of texts, not []", ""),
    (lambda: layout(sections=None), "'sections' must be a list of texts, not None", ""),
    (lambda: layout(sections={"a"}), "'sections' must be a list of texts, not {'a'}", ""),
    (lambda: layout(sections=("", 3)), "'sections' must be a list of texts, not ['', 3]", ""),
    (lambda: layout(sections=("model", "model")), "'sections' has 'model' twice", TWICE),
    *(
        (lambda path=path: layout(sections=(path,)), f"'sections' has {path!r}, which is not a path", PATHS)
        for path in (".", "model.", ".model", "a..b", "a....", " model", "model ", "a\tb", "....")
    ),
    (
        lambda: layout(families=("Resnet",)),
        "'families': there is no network family 'Resnet'",
        "Did you mean ResNet or RegNetY?",
    ),
    (
        lambda: layout(families="ResNet"),
        "'families' must be a list of texts, not 'ResNet'",
        "Put it into a list: ['ResNet'].",
    ),
    (lambda: layout(families=["ViT", "ViT"]), "'families' has 'ViT' twice", TWICE),
    (lambda: layout(title=""), "'title' must be a text that is not empty, not ''", ""),
    # pixels
    (lambda: pixels(mean=(1, 2)), "'mean' must be three numbers, not (1, 2)", ""),
    (lambda: pixels(mean=(1, 2, 3, 4)), "'mean' must be three numbers, not (1, 2, 3, 4)", ""),
    (lambda: pixels(mean=0.5), "'mean' must be three numbers, not 0.5", ""),
    (lambda: pixels(mean="123"), "'mean' must be three numbers, not '123'", ""),
    (lambda: pixels(mean=(1, 2, math.nan)), "'mean' must be three numbers, not (1, 2, nan)", ""),
    (lambda: pixels(mean=(1, 2, 10**400)), None, ""),  # type: ignore[list-item]
    (lambda: pixels(std=(1, 2, math.inf)), "'std' must be three numbers, not (1, 2, inf)", ""),
    (lambda: pixels(std=(1, 2, "3")), "'std' must be three numbers, not (1, 2, '3')", ""),
    (lambda: pixels(std=(1, 2, True)), "'std' must be three numbers, not (1, 2, True)", ""),
    (lambda: pixels(std=(1, 0, 3)), "'std' must be three numbers above 0, not (1.0, 0.0, 3.0)", ""),
    (lambda: pixels(std=(1, -2, 3)), "'std' must be three numbers above 0, not (1.0, -2.0, 3.0)", ""),
    (lambda: pixels(order="GRB"), "'order' must be 'RGB' or 'BGR', not 'GRB'", ""),
    (lambda: pixels(order="rgb"), "'order' must be 'RGB' or 'BGR', not 'rgb'", ""),
    (lambda: pixels(order=None), "'order' must be 'RGB' or 'BGR', not None", ""),
    # releases
    (lambda: release(url=""), "'url' must be a text that is not empty, not ''", ""),
    *(
        (lambda bad=bad: release(url=bad), f"'url' must be {ADDRESS}, not {bad!r}", "")
        for bad in (
            "example.org/file.pth",
            "ftp://example.org/file.pth",
            "https://example.org",
            "https://example.org/",
            "https://me:secret@example.org/file.pth",
            "https://evil\\@example.org/file.pth",
            "https://example.org/a file.pth",
            "https://exämple.org/file.pth",
            "file:///etc/passwd",
        )
    ),
    (
        lambda: release(url="https://example.org/a\nb"),
        "'url' must be one line of text, not 'https://example.org/a\\nb'",
        "",
    ),
    (lambda: release(md5="b2517"), "'md5' must be 6 to 32 hexadecimal digits in lower case, not 'b2517'", ""),
    (lambda: release(md5="B251726A"), "'md5' must be 6 to 32 hexadecimal digits in lower case, not 'B251726A'", ""),
    (lambda: release(md5="b251726g"), "'md5' must be 6 to 32 hexadecimal digits in lower case, not 'b251726g'", ""),
    (lambda: release(md5="0" * 33), f"'md5' must be 6 to 32 hexadecimal digits in lower case, not '{'0' * 33}'", ""),
    (lambda: release(sha256=123456), "'sha256' must be 6 to 64 hexadecimal digits in lower case, not 123456", ""),
    (lambda: release(backbone=None), "'backbone' must be one line of text, not None", ""),
    (lambda: release(restrictions="a\nb"), "'restrictions' must be one line of text, not 'a\\nb'", ""),
    (lambda: release(login="example.org"), f"'login' must be {ADDRESS}, not 'example.org'", ""),
    (lambda: release(login="https://example.org//"), f"'login' must be {ADDRESS}, not 'https://example.org//'", ""),
    (lambda: release(licence_url=3), "'licence_url' must be one line of text, not 3", ""),
    (lambda: Licence(""), "'name' must be a text that is not empty, not ''", ""),
    (lambda: Licence("MIT", "LICENSE"), f"'url' must be {ADDRESS}, not 'LICENSE'", ""),
    (lambda: Licence("MIT", restrictions="\x1b[2J"), "'restrictions' must be one line of text, not '\\x1b[2J'", ""),
    # rules
    (lambda: Pattern(3), "a pattern must be a text, not 3", QUOTES),  # type: ignore[arg-type]
    (lambda: Template(None), "a target must be a text, not None", QUOTES),  # type: ignore[arg-type]
    (lambda: Template("{x"), "the pattern '{x' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: Keep("a", Template("b")), "'source' must be Pattern, not 'a'", MADE),  # type: ignore[arg-type]
    (lambda: Keep(Pattern("a"), "b"), "'target' must be Template, not 'b'", MADE),  # type: ignore[arg-type]
    (lambda: Drop("a", "why"), "'source' must be Pattern, not 'a'", MADE),  # type: ignore[arg-type]
    (
        lambda: Fuse("ab", Template("c"), concat(0)),  # type: ignore[arg-type]
        "'sources' must be a list of Pattern, not 'ab'",
        "",
    ),
    (
        lambda: keep("a", "b", "permute(1, 0)"),  # type: ignore[arg-type]
        "'op' must be Op, not 'permute(1, 0)'",
        OPS,
    ),
    (lambda: fuse(["a", "b"], "c", None), "'op' must be Op, not None", OPS),  # type: ignore[arg-type]
    (lambda: fuse("ab", "c", concat(0)), "'sources' must be a list of texts, not 'ab'", "Put it into a list: ['ab']."),
    (lambda: fuse(["a", "a"], "c", concat(0)), "'sources' has 'a' twice", TWICE),
    (lambda: keep("a", "b", by="gamma"), "'by' must be a list of texts, not 'gamma'", "Put it into a list: ['gamma']."),
    (lambda: drop("a", None), "the reason of a drop must be a text, not None", QUOTES),  # type: ignore[arg-type]
    (lambda: under("net", [RULE]), "the prefix 'net' has no dot at its end", "Write 'net.' instead."),
    (
        lambda: under("net.", RULE),  # type: ignore[arg-type]
        "what is under 'net.' must be a list of rules, not 'keep {k...} -> {k...}'",
        "Put it into a list.",
    ),
    # ops
    (lambda: concat(-1), "'axis' must be a whole number, 0 or more, not -1", ""),
    (lambda: concat("0"), "'axis' must be a whole number, 0 or more, not '0'", ""),  # type: ignore[arg-type]
    (lambda: permute(1, 1), "'axes' must be the numbers 0 to 1 in some order, not (1, 1)", ""),
    (lambda: permute(0, -1), "'axes' must be the numbers 0 to 1 in some order, not (0, -1)", ""),
    (lambda: permute(1, 2, 3), "'axes' must be the numbers 0 to 2 in some order, not (1, 2, 3)", ""),
    (lambda: reshape(2, -2), "'shape' must be a whole number, -1 or more, not -2", ""),
    (lambda: reshape(-1, -1), "reshape(-1, -1) leaves more than one length open", "Only one may be -1."),
    (lambda: regroup(0, (1, 1)), "'order' must be the numbers 0 to 1 in some order, not (1, 1)", ""),
    (lambda: add_row(-1), "'row' must be a whole number, 0 or more, not -1", ""),
    (lambda: take(-1, 0), "'axis' must be a whole number, 0 or more, not -1", ""),
    (lambda: take(0, -1), "'start' must be a whole number, 0 or more, not -1", ""),
    (lambda: take(0, 2, 2), "'stop' must be a whole number, 3 or more, not 2", ""),
    (lambda: regroup(-1, (1, 0)), "'axis' must be a whole number, 0 or more, not -1", ""),
    (lambda: resize_grid(-1, 7), "'tokens' must be a whole number, 0 or more, not -1", ""),
    (lambda: resize_grid(1, 0), "'side' must be a whole number, 1 or more, not 0", ""),
    (lambda: resize_patch(0), "'side' must be a whole number, 1 or more, not 0", ""),
    # what a user asks for
    (lambda: Options(drop="fc"), "'drop' must be a list of texts, not 'fc'", ""),  # type: ignore[arg-type]
    (lambda: Options(drop=("fc.{x",)), "the pattern 'fc.{x' has a stray brace", "Captures are written {x} or {x...}."),
    (lambda: Options(strip_prefix=None), "'strip_prefix' must be a text, not None", ""),  # type: ignore[arg-type]
    (lambda: Options(section=3), "'section' must be a text, not 3", ""),  # type: ignore[arg-type]
    (lambda: Options(target=("mmdet",)), "'target' must be a text, not ('mmdet',)", ""),  # type: ignore[arg-type]
    (lambda: Options(methods=("mine",)), "'methods' must be a list of Method, not ['mine']", ""),  # type: ignore[arg-type]
    (lambda: Options(methods=(method(), method())), "'methods' has 'mine' twice", TWICE),
    (lambda: Size("224"), "'image' must be a whole number of pixels, not '224'", ""),  # type: ignore[arg-type]
    (lambda: Size(patch=True), "'patch' must be a whole number of pixels, not True", ""),
    (lambda: Fetching(whole="yes"), "'whole' must be True or False, not 'yes'", ""),  # type: ignore[arg-type]
    (lambda: Fetching(cache_dir=3), "'cache_dir' must be a path, not 3", ""),  # type: ignore[arg-type]
    (lambda: Fetching(progress="bar"), "'progress' must be a function, not 'bar'", ""),  # type: ignore[arg-type]
    (
        lambda: ckptconv.convert("a.pth", "b.pth", drop="fc.{p}"),
        "'drop' must be a list of texts, not 'fc.{p}'",
        "Put it into a list: ['fc.{p}'].",
    ),
    (
        lambda: ckptconv.plan("a.pth", drop="fc"),
        "'drop' must be a list of texts, not 'fc'",
        "Put it into a list: ['fc'].",
    ),
    (
        lambda: ckptconv.explain("a.pth", "fc", drop="fc"),
        "'drop' must be a list of texts, not 'fc'",
        "Put it into a list: ['fc'].",
    ),
    (
        lambda: remap_state_dict({}, drop="fc"),
        "'drop' must be a list of texts, not 'fc'",
        "Put it into a list: ['fc'].",
    ),
]


@pytest.mark.parametrize(("make", "message", "hint"), REFUSED, ids=[str(r[1]) for r in REFUSED])
def test_what_makes_no_sense_is_refused_where_it_is_written(
    make: Callable[[], object], message: str, hint: str
) -> None:
    with pytest.raises(CkptconvError) as caught:
        make()
    assert isinstance(caught.value, UsageError)
    assert message is None or caught.value.message == message
    assert caught.value.hint == hint
    assert str(caught.value).replace("\n", "").isprintable()


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(UsageError) as caught:
        method(name="x" * 101)
    assert caught.value.message == f"'name' must be a name, not '{'x' * 77} …"


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_lists_become_tuples_and_everything_stays_hashable() -> None:
    made = method(
        layouts=[layout(rules=[RULE], sections=["state_dict", ""], families=["ResNet"])], releases=[release()]
    )
    assert made == method(layouts=(layout(sections=("state_dict", ""), families=("ResNet",)),), releases=(release(),))
    assert {made: 1, pixels(mean=[1, 2, 3]): 2, Options(drop=["a"], methods=[made]): 3}  # type: ignore[arg-type]
    assert hash(Fuse([Pattern("a"), Pattern("b")], Template("c"), concat(0)))  # type: ignore[arg-type]


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    made = Pixels(tuple(np.float32([1, 2, 3])), list(torch.tensor([4.0, 5.0, 6.0])))  # type: ignore[arg-type]
    assert (made.mean, made.std) == ((1, 2, 3), (4, 5, 6))
    assert {type(n) for n in (*made.mean, *made.std)} == {float}
    assert type(method(num_heads=np.int64(6)).num_heads) is int
    assert type(method(eps=np.float64(1e-6)).eps) is float


@pytest.mark.parametrize(
    "path", ["", "...", "state_dict", "a.b.0", "experiment_state...", "res_net50/~/conv", "with space", "a'", "größe"]
)
def test_a_path_of_a_section_is_taken(path: str) -> None:
    assert layout(sections=(path,)).sections == (path,)


def test_names_of_every_kind_have_one_grammar() -> None:
    names = [m.name for m in METHODS] + [r.name for m in METHODS for r in m.releases] + [*FAMILIES, *TARGETS]
    assert [name for name in names if not fields.is_name(name)] == []
    assert fields.is_name("ijepa_IN1K-vit.h.14-300e")


# -- the same in TOML and in Python -----------------------------------------------------------------------------------

NAME, RULE_LINE = 'name = "x"\n', 'rules = [{keep = "a", to = "b"}]\n'


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ('name = "my net"\n' + RULE_LINE, lambda: method(name="my net")),
        ('name = "auto"\n' + RULE_LINE, lambda: method(name="auto")),
        (NAME + RULE_LINE + 'title = ""', lambda: method(title="")),
        (NAME + RULE_LINE + 'paper = "a b"', lambda: method(paper="a b")),
        (NAME + RULE_LINE + 'repository = "mine"', lambda: method(repository="mine")),
        (NAME + RULE_LINE + "sections = []", lambda: layout(sections=())),
        (NAME + RULE_LINE + 'sections = ["a."]', lambda: layout(sections=("a.",))),
        (NAME + RULE_LINE + "sections = ['a', 'a']", lambda: layout(sections=("a", "a"))),
        (NAME + RULE_LINE + "pixels = {mean = [1, 2], std = [1, 2, 3]}", lambda: pixels(mean=[1, 2])),
        (NAME + RULE_LINE + "pixels = {mean = [1, 2, 3], std = [1, 2, 0]}", lambda: pixels(std=[1, 2, 0])),
        (
            NAME + "rules = [{keep = 'a', to = 'b'}, {drop = 'a', why = 'no'}]",
            lambda: layout(rules=(keep("a", "b"), drop("a", "no"))),
        ),
        (NAME + "rules = [{keep = 'a', to = 'b', op = 'permute(1, 1)'}]", lambda: permute(1, 1)),
        (NAME + "rules = [{fuse = ['a', 'a'], to = 'b', op = 'concat(0)'}]", lambda: fuse(["a", "a"], "b", concat(0))),
    ],
)
def test_a_rule_file_is_refused_in_the_words_of_python(tmp_path: Path, text: str, python: Callable[[], object]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as written:
        rule_file.load(path)
    with pytest.raises(UsageError) as called:
        python()
    assert written.value.message == f"in the rule file {path}: {called.value.message}"
    assert written.value.hint == called.value.hint


def test_rules_alone_are_taken_whatever_the_paths_in_the_file_look_like() -> None:
    state = {f"net.{n}": torch.ones(1) for n in ("w", "b")}
    rules = [keep("net.{k}", "{k}")]
    for key in ("", "a.", "\x1b[2J"):
        with pytest.raises(ckptconv.CkptconvError) as caught:
            remap_state_dict({key: state}, rules)
        assert not isinstance(caught.value, UsageError)  # about the names, not about how the rules were written
