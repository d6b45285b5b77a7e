"""Of every family: the member is found again, and one thing wrong in a file is one problem that names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv.backbones.interface import Backbone
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.planning.problems import Problem
from ckptconv.spec import DTYPES, TensorSpec
from tests.backbones import test_beit as beit
from tests.backbones import test_convnext as convnext
from tests.backbones import test_eva as eva
from tests.backbones import test_resnet as resnet
from tests.backbones import test_swin as swin
from tests.backbones import test_vit as vit
from tests.support.specs import SLOW, state

Names = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Family:
    """``extras``: names that no member has. ``parts``: tensors that are a part of their own, which a member may lack.

    ``unnamed``: tensors that alone tell of a size; without them the member cannot be named.
    """

    members: st.SearchStrategy[Any]
    read: Callable[[Names], Backbone | None]
    near: Mapping[str, Names]
    plan_of: Callable[[Names], Plan]
    extras: tuple[str, ...]
    parts: frozenset[str] = frozenset()
    unnamed: frozenset[str] = frozenset()

    def problems(self, names: Names) -> list[Problem]:
        """What is wrong with a file of these names, whatever target may hold the network."""
        return [problem for problem in self.plan_of(names).problems if problem.kind != "target"]

    def draw(self, data: st.DataObject) -> tuple[Names, str, str]:
        """A network's names, one of them, and what the network is called."""
        names = self.near[data.draw(st.sampled_from(sorted(self.near)))]
        member = self.read(names)
        assert member is not None
        needed = [key for key in names if not member.optional(key) and key not in self.parts]
        return names, data.draw(st.sampled_from(needed)), member.name


FAMILIES = {
    "ResNet": Family(
        resnet.members(),
        resnet.read,
        resnet.NEAR,
        resnet.plan_of,
        (
            "fc.weight",
            "extra",
            "layer2",
            "layer1.x",
            "layer1.0.conv9.weight",
            "layer2.0.downsample.2.weight",
            "layer4.9.bn1.bias",
            "layer5.0.conv1.weight",
        ),
    ),
    "Swin": Family(
        swin.members(),
        swin.read_either,
        swin.NEAR,
        swin.plan_of,
        (
            "head.weight",
            "extra",
            "layers.0",
            "layers.0.blocks.0.attn.logit_scale",
            "layers.1.blocks.0.attn.qkv2.weight",
            "layers.1.blocks.9999.norm1.weight",
            "layers.3.downsample.reduction.weight",
            "layers.5.blocks.0.norm1.weight",
        ),
    ),
    "ViT": Family(
        vit.members(),
        vit.read,
        vit.NEAR,
        vit.plan_of,
        ("fc.weight", "head.weight", "blocks.0.attn.k_norm.weight", "blocks.99.norm1.bias", "mask_token"),
        parts=frozenset({"reg_token"}),
        unnamed=frozenset({"pos_embed", "patch_embed.proj.weight"}),
    ),
    "BEiT": Family(
        beit.members(),
        beit.read,
        beit.NEAR,
        beit.plan_of,
        ("fc.weight", "extra", "blocks.0.attn.qkv.bias", "blocks.99.norm1.bias", "blocks.0.norm1"),
        parts=frozenset({"pos_embed"}),
        unnamed=frozenset({"patch_embed.proj.weight"}),
    ),
    "Eva": Family(
        eva.members(),
        eva.read,
        eva.NEAR,
        eva.plan_of,
        (
            "fc.weight",
            "extra",
            "blocks.0.attn.k_norm.weight",
            "blocks.0.attn.qkv.bias2",
            "blocks.99.norm1.bias",
            "blocks.0.norm1",
        ),
        parts=frozenset({"cls_token", "pos_embed", "reg_token"}),
        unnamed=frozenset({"patch_embed.proj.weight"}),
    ),
    "ConvNeXt": Family(
        convnext.members(),
        convnext.read,
        convnext.NEAR,
        convnext.plan_of,
        (
            "extra",
            "norms.3.weight",
            "stages.0",
            "stages.0.x",
            "stages.4.0.norm.weight",
            "stages.1.9.norm.bias",
            "stages.2.0.norm2.weight",
            "downsample_layers.4.0.weight",
            "downsample_layers.0.2.weight",
            "norm0.weight",
        ),
    ),
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each_family
@SLOW
@given(st.data(), st.randoms(use_true_random=False))
def test_read_finds_the_very_member_in_whatever_order_its_names_stand(
    family: Family, data: st.DataObject, random: Any
) -> None:
    member = data.draw(family.members)
    names = list(state(member.entries()).items())
    assert family.read(dict(names)) == member
    random.shuffle(names)
    assert family.read(dict(names)) == member


@each_family
@SLOW
@given(st.data())
def test_one_missing_key_is_one_problem_that_names_it(family: Family, data: st.DataObject) -> None:
    names, key, name = family.draw(data)
    (problem,) = family.problems({k: v for k, v in names.items() if k != key})
    assert (problem.kind, problem.key) == ("missing", key)
    if key not in family.unnamed:
        assert (
            text_of(problem) == f"{key} of {name} ({list(names[key].shape)}): missing, no tensor of the file becomes it"
        )


@each_family
@SLOW
@given(st.data())
def test_one_extra_key_is_one_problem_that_names_it(family: Family, data: st.DataObject) -> None:
    names, _, name = family.draw(data)
    extra = data.draw(st.sampled_from(family.extras))
    (problem,) = family.problems({**names, extra: TensorSpec((7, 5), DTYPES["float32"])})
    assert (problem.kind, problem.key) == ("unexplained", extra)
    assert text_of(problem) == f"{extra} (float32 [7, 5]): {name} has no {extra}"


@each_family
@SLOW
@given(st.data(), st.sampled_from(["longer", "another axis"]))
def test_one_wrong_shape_is_one_problem_that_names_it(family: Family, data: st.DataObject, how: str) -> None:
    names, key, name = family.draw(data)
    right = names[key]
    wrong = (right.shape[0] + 1, *right.shape[1:]) if how == "longer" else (*right.shape, 1)
    (problem,) = family.problems({**names, key: TensorSpec(wrong, right.dtype)})
    assert (problem.kind, problem.key) == ("shape", key)
    assert text_of(problem) == f"{key}: shape {list(wrong)}, but {key} of {name} is {list(right.shape)}"


@each_family
@SLOW
@given(st.data(), st.sampled_from(["int64", "uint8", "bool"]))
def test_one_tensor_of_whole_numbers_is_one_problem_that_names_it(
    family: Family, data: st.DataObject, dtype: str
) -> None:
    names, key, name = family.draw(data)
    (problem,) = family.problems({**names, key: TensorSpec(names[key].shape, DTYPES[dtype])})
    assert (problem.kind, problem.key) == ("dtype", key)
    assert text_of(problem) == f"{key}: dtype {dtype}, but {key} of {name} is floating point"
