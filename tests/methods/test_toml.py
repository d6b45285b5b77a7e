"""Methods written in TOML: what they become, what is refused in which words, and one from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptconv
from ckptconv.errors import UsageError
from ckptconv.methods import METHODS, toml
from ckptconv.methods.interface import Layout, Method, Pixels
from ckptconv.ops import concat, permute, reshape
from ckptconv.rules import drop, fuse, keep
from tests.support.cases import case

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
        toml.load(write(folder, text))
    assert type(caught.value) is UsageError
    assert caught.value.exit_code == 2
    return caught.value


# -- what it becomes --------------------------------------------------------------------------------------------------


def test_a_rule_file_is_a_method_as_any_other(tmp_path: Path) -> None:
    assert toml.load(write(tmp_path, EXAMPLE)) == Method(
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
    method = toml.load(write(tmp_path, 'name = "a-1_b"\nrules = [{keep = "{k...}", to = "{k...}"}]'))
    assert (method.name, method.title, method.pixels, method.guess) == ("a-1_b", "a-1_b", None, True)
    assert method.layouts[0].sections == ("state_dict", "model", "")


def test_the_example_in_the_module_is_one(tmp_path: Path) -> None:
    assert toml.__doc__ is not None
    text = toml.__doc__.partition("::\n")[2].replace("\n    ", "\n")
    method = toml.load(write(tmp_path, text))
    assert [type(r).__name__ for r in method.layouts[0].rules] == ["Keep", "Drop", "Fuse"]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ('{keep = "a", to = "b", op = "reshape(-1)"}', keep("a", "b", reshape(-1))),
        ('{keep = "a", to = "b", op = " reshape( 2 , -1 ) "}', keep("a", "b", reshape(2, -1))),
        ('{keep = "a", to = "b", op = "permute(1,0)"}', keep("a", "b", permute(1, 0))),
        ('{fuse = ["q", "k"], to = "qk", op = "concat(1)"}', fuse(["q", "k"], "qk", concat(1))),
    ],
)
def test_ops_are_written_as_in_python(tmp_path: Path, rule: str, wanted: object) -> None:
    assert toml.load(write(tmp_path, f'name = "x"\nrules = [{rule}]')).layouts[0].rules == (wanted,)


def test_pixels_are_rgb_unless_said_otherwise(tmp_path: Path) -> None:
    text = 'name = "x"\nrules = [{keep = "a", to = "a"}]\npixels = {mean = [1, 2, 3], std = [4, 5.5, 6]}'
    assert toml.load(write(tmp_path, text)).pixels == Pixels((1, 2, 3), (4, 5.5, 6), "RGB")


# -- what is refused --------------------------------------------------------------------------------------------------

NAME = 'name = "x"\n'
RULES = 'rules = [{keep = "a", to = "b"}]\n'
ONE_RULE = 'Write rules = [{keep = "encoder.{key...}", to = "{key...}"}].'
PARTS = "A rule has keep and to, drop and why, or fuse, to and op."
TEXT = "Patterns are text; fuse takes a list of them."
OPS = "Ops: concat(axis), permute(axis, …), reshape(length, …)."
PIXELS = 'Write pixels = {mean = [r, g, b], std = [r, g, b], order = "RGB"}.'
NAMES = "A name has letters, digits and - _ . +, and starts with a letter or a digit."
HELP = "See `ckptconv methods --help` for an example."

REFUSED = [
    (NAME + RULES + "rulez = []", "there is no entry 'rulez'", "Did you mean 'rules'?"),
    (
        NAME + RULES + "xyz = 1",
        "there is no entry 'xyz'",
        "Known: name, title, paper, repository, sections, rules, without, pixels.",
    ),
    ("name = 3\n" + RULES, "'name' is not a str", HELP),
    (NAME + 'rules = "x"', "'rules' is not a list", HELP),
    (NAME + RULES + 'pixels = "x"', "'pixels' is not a dict", HELP),
    (NAME + RULES + 'sections = ""', "'sections' is not a list", HELP),
    (RULES, "'name' must be a name, not ''", NAMES),
    ('name = ""\n' + RULES, "'name' must be a name, not ''", NAMES),
    ('name = "My Net"\n' + RULES, "'name' must be a name, not 'My Net'", NAMES),
    ('name = "-x"\n' + RULES, "'name' must be a name, not '-x'", NAMES),
    ('name = "auto"\n' + RULES, "'name' may not be 'auto'", "It asks to find the method. Choose another name."),
    (NAME, "there are no rules", ONE_RULE),
    (NAME + "rules = []", "there are no rules", ONE_RULE),
    (NAME + RULES + "sections = []", "'sections' must be a list of at least one of texts, not []", ""),
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
    (NAME + 'rules = [{keep = "a", to = "b", op = "reshape()"}]', "there is no op 'reshape()'", OPS),
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


def test_a_file_that_is_not_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, 'name = "x"\nrules = [\n')
    assert error.message.startswith(f"the rule file {tmp_path / 'rules.toml'} is not TOML: ")
    assert "line 3" in error.message or "end of document" in error.message
    assert error.hint == "See `ckptconv methods --help`."


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UsageError) as caught:
        toml.load(path)
    assert caught.value.message.startswith(f"the rule file {path} is not TOML: ")


@pytest.mark.parametrize("folder", [False, True], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, folder: bool) -> None:
    path = tmp_path if folder else tmp_path / "no.toml"
    with pytest.raises(UsageError) as caught:
        toml.load(path)
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
