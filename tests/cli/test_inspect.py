"""`ckptconv inspect SRC`: the answer first, then the tensors as a tree."""

from __future__ import annotations

import json
import re
import shlex
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv.cli import tensor_tree
from ckptconv.spec import DTYPES, TensorSpec
from tests.cli.test_cli import ckptconv
from tests.support import hollow

LAYOUTS = ("mae_vitb16_pretrain", "dino_vits16_full", "lightly_moco_resnet18_sequential")
SEGMENTS = st.sampled_from(["0", "1", "2", "7", "conv1", "conv2", "weight", "bias", "layer1", "layer10", "w12", "a"])
NAMES = st.lists(st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join), unique=True, max_size=25)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    return {layout: hollow.fill(layout, folder / f"{layout}.pth") for layout in LAYOUTS}


def leaves(branches):
    for branch in branches:
        yield from leaves(branch.below) if branch.below else [branch]


def expand(label):
    """Every name that a label stands for, as a shell expands braces."""
    parts = re.split(r"(\{[^{}]*\})", label)
    choices = [""]
    for part in parts:
        if not part.startswith("{"):
            choices = [one + part for one in choices]
            continue
        words = []
        for word in part[1:-1].split(","):
            low, dots, high = word.partition("..")
            words += map(str, range(int(low), int(high) + 1)) if dots else [word]
        choices = [one + word for one in choices for word in words]
    return set(choices)


@given(NAMES)
def test_every_tensor_is_in_one_leaf_whose_labels_stand_for_it(names):
    tree = tensor_tree.tree(names)
    assert sorted(chain.from_iterable(leaf.names for leaf in leaves(tree))) == sorted(names)

    def check(branches, above):
        for branch in branches:
            labels = {f"{start}.{label}" if start else label for start in above for label in expand(branch.label)}
            assert all(any(n == one or n.startswith(f"{one}.") for one in labels) for n in branch.names)
            if branch.below:
                assert branch.names
                assert set(branch.names) == set(chain.from_iterable(b.names for b in branch.below))
                check(branch.below, labels)

    check(tree, [""])


@pytest.mark.parametrize(
    ("segments", "label"),
    [
        (["layer1", "layer2", "layer3", "layer4"], "layer{1..4}"),
        (["0", "2"], "{0,2}"),
        (["0", "1", "2", "5", "7", "8", "9"], "{0..2,5,7..9}"),
        (["norm", "norm1"], "norm{,1}"),
        (["weight", "bias"], "{weight,bias}"),
        (["w12", "w3"], "w{3,12}"),
    ],
)
def test_braces(segments, label):
    assert tensor_tree.braces(segments) == label


def test_repeated_blocks_are_one_branch_with_their_sizes_as_bars():
    def spec(*shape):
        return TensorSpec(shape, DTYPES["float32"])

    block = {"conv1.weight": spec(4, 4), "conv2.weight": spec(4, 4), "bn1.weight": spec(4), "bn1.bias": spec(4)}
    specs = {f"layer{i}.{j}.{name}": one for i in (1, 2) for j in range(3) for name, one in block.items()}
    specs["fc.weight"] = spec(100, 4)
    assert tensor_tree.lines(specs) == [
        "   960 B ███      layer{1,2}.{0..2}",
        "   768 B ██▍        conv{1,2}.weight   12 x [4, 4]",
        "   192 B ▋          bn1.{weight,bias}  12 x [4]",
        "  1.6 kB █████    fc.weight            [100, 4]",
    ]
    assert tensor_tree.bar(1, 3, 8, ascii_only=True) == "###     "
    assert tensor_tree.bar(0, 3) == " " * 8


def test_the_answer_comes_first_and_its_command_converts(files, tmp_path):
    file = files["mae_vitb16_pretrain"]
    lines = ckptconv("inspect", file).stdout.splitlines()
    assert lines[0] == "what      ViT-B/16 of mae: MAE, training checkpoint, with decoder"
    assert lines[1] == (
        "sure      yes: mae explains all 254 entries of 'model', 150 kept and 104 dropped; no other method does"
    )
    convert = next(line for line in lines if line.startswith("convert"))
    command = convert.removeprefix("convert").split()
    assert command == ["ckptconv", "convert", str(file), "backbone.pth"]
    done = ckptconv(*shlex.split(" ".join(command[1:-1])), tmp_path / command[-1], "--dry-run")
    assert done.returncode == 0
    assert "ViT-B/16: 150/150" in done.stdout


def test_several_methods_that_agree_are_named(files):
    lines = ckptconv("inspect", files["dino_vits16_full"]).stdout.splitlines()
    assert lines[0] == "what      ViT-S/16, from 'teacher': training checkpoint, teacher"
    assert lines[1].startswith("sure      of the network: ibot, dino explain all 158 entries")
    assert "--strip-prefix module.backbone." in next(line for line in lines if line.startswith("copies"))


def test_a_converted_file_says_where_it_came_from_and_has_the_fingerprint_that_convert_printed(files, tmp_path):
    file = tmp_path / "r18.safetensors"
    receipt = json.loads(ckptconv("convert", files["lightly_moco_resnet18_sequential"], file, "--json").stdout)
    lines = ckptconv("inspect", file).stdout.splitlines()
    labels = [line[:9].strip() for line in lines]
    assert labels[:7] == ["what", "method", "source", "kept", "written", "proof", "next"]
    assert lines[0].startswith("what      ResNet-18, with the names of mmdet: written by ckptconv ")
    assert "lightly_moco_resnet18_sequential.pth (torch zip, " in lines[2]
    assert receipt["output"]["fingerprint"][:16] in lines[5]
    assert lines[6] == f"next      ckptconv emit-config {file} -o detector.py"
    data = json.loads(ckptconv("inspect", file, "--json").stdout)
    assert data["fingerprint"] == receipt["output"]["fingerprint"]
    assert data["converted"]["method"] == receipt["method"]["name"]
    assert data["converted"]["dropped"] == len(receipt["tensors"]["dropped"])


def test_a_raw_file_has_no_record_of_a_conversion(files):
    data = json.loads(ckptconv("inspect", files["mae_vitb16_pretrain"], "--json").stdout)
    assert (data["converted"], data["fingerprint"], data["ambiguous"]) == (None, None, False)
