"""The ResNet family against MMDetection's own classes, and what is said of files that are nearly a ResNet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from ckptconv.backbones import FAMILIES, TARGETS
from ckptconv.backbones.interface import described
from ckptconv.backbones.resnet import ResNet, read
from ckptconv.methods.naming_schemes import TORCHVISION
from ckptconv.planning.identify import choose
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support.cases import case
from tests.support.specs import state

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def resnet(depth: int, width: int = 64, groups: int = 1, base_width: int = 0) -> ResNet:
    """``base_width``: channels a group in the first stage, as in 'ResNeXt-50 32x4d'."""
    return ResNet(
        depths=BLOCKS[depth],
        bottleneck=depth >= 50,
        stem_channels=width,
        planes=width,
        inner_channels=groups * base_width or width,
        groups=groups,
        stem_kernel=7,
        in_channels=3,
    )


def plan_of(names: Mapping[str, TensorSpec], target: str = "mmdet") -> Plan:
    return make_plan(TORCHVISION, TORCHVISION.layouts[0], "", Section(names, {}), Options(target=target))


# -- MMDetection's word ------------------------------------------------------------------------------------------------


def mmdet_state(kind: str, **arguments: Any) -> list[tuple[str, tuple[int, ...]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv and torch.jit each say what will change in their next version
        import mmdet.models.backbones as backbones
        import torch

    with torch.device("meta"):
        network = getattr(backbones, kind)(**arguments)
    return [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]


@pytest.mark.mmdet
@pytest.mark.parametrize("width", [64, 128, 256, 320])
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_entries_are_those_of_mmdet_resnet(depth: int, width: int) -> None:
    real = mmdet_state("ResNet", depth=depth, base_channels=width, stem_channels=width)
    assert list(resnet(depth, width).entries().items()) == real


@pytest.mark.mmdet
@pytest.mark.parametrize(("depth", "groups", "base_width"), [(50, 32, 4), (101, 32, 4), (101, 64, 4), (152, 32, 8)])
def test_entries_are_those_of_mmdet_resnext(depth: int, groups: int, base_width: int) -> None:
    real = mmdet_state("ResNeXt", depth=depth, groups=groups, base_width=base_width)
    assert list(resnet(depth, 64, groups, base_width).entries().items()) == real


@pytest.mark.mmdet
def test_the_depths_said_to_have_no_place_have_none() -> None:
    for depth in (18, 34, 50, 101, 152):
        assert resnet(depth).obstacle("mmdet") == ""
    with pytest.raises(KeyError, match="invalid depth 200"):
        mmdet_state("ResNet", depth=200)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (resnet(18), "ResNet-18"),
        (resnet(34), "ResNet-34"),
        (resnet(50), "ResNet-50"),
        (resnet(200), "ResNet-200"),
        (resnet(50, 128), "ResNet-50, width x2"),
        (resnet(50, 96), "ResNet-50, width x1.5"),
        (resnet(50, 64, 32, 4), "ResNeXt-50 32x4d"),
        (resnet(101, 64, 64, 4), "ResNeXt-101 64x4d"),
        (resnet(152, 64, 32, 8), "ResNeXt-152 32x8d"),
        (replace(resnet(50), inner_channels=128), "ResNet-50, inner width x2"),
        (replace(resnet(50), depths=(1, 2, 3, 4)), "ResNet-1-2-3-4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_name(member: ResNet, name: str) -> None:
    assert member.name == name


def test_it_is_described_in_plain_values() -> None:
    assert described(resnet(101, 64, 32, 8)) == {
        "family": "ResNet",
        "depths": [3, 4, 23, 3],
        "bottleneck": True,
        "stem_channels": 64,
        "planes": 64,
        "inner_channels": 256,
        "groups": 32,
        "stem_kernel": 7,
        "in_channels": 3,
        "layers": 101,
    }


def test_resnet_50_has_318_entries_of_which_53_are_optional() -> None:
    member = resnet(50)
    assert len(member.entries()) == 318
    optional = [name for name in member.entries() if member.optional(name)]
    assert len(optional) == 53
    assert {name.rpartition(".")[2] for name in optional} == {"num_batches_tracked"}


def test_targets() -> None:
    assert {name: family.targets for name, family in FAMILIES.items()} == {
        "ResNet": ("mmdet", "torchvision", "timm", "detectron2", "transformers", "official"),
        "Eva": ("timm", "transformers"),
        "Swin": ("mmdet", "timm", "transformers", "official"),
        "SwinV2": ("timm", "transformers", "official"),
        "MixMIM": ("mmdet", "official"),
        "ViT": ("timm", "vitdet", "mmpretrain", "transformers"),
        "BEiT": ("timm", "mmpretrain", "vitdet", "transformers", "official"),
        "ConvNeXt": ("mmpretrain", "timm", "transformers", "official"),
        "Hiera": ("timm",),
        "XCiT": ("timm",),
        "RegNetY": ("timm",),
    }
    assert set(TARGETS) == {target for family in FAMILIES.values() for target in family.targets}


def test_detectron2s_names_are_those_that_a_converter_to_it_writes() -> None:
    """The case's names are of MoCo's convert-pretrain-to-detectron2.py; detectron2 itself is not installed."""
    written = case("detectron2_moco_r50")
    plan = choose(written.sections, "detectron2", Options(target="detectron2")).plan
    kept = {source for sources in written.kept.values() for source in sources}
    assert {move.target: move.sources for move in plan.moves} == {name: (name,) for name in kept}
    assert all(move.op is None for move in plan.moves)
    assert plan.dialect.section == "model"


# -- reading back ------------------------------------------------------------------------------------------------------


@st.composite
def members(draw: st.DrawFn) -> ResNet:
    count = st.integers(1, 5)
    bottleneck = draw(st.booleans())
    planes = draw(st.integers(1, 80))
    groups = draw(st.sampled_from([1, 2, 3, 32])) if bottleneck else 1
    inner = groups * draw(st.integers(1, 12)) if groups > 1 else planes
    if bottleneck and groups == 1 and draw(st.booleans()):
        inner = draw(st.integers(1, 200))
    return ResNet(
        depths=(draw(count), draw(count), draw(count), draw(count)),
        bottleneck=bottleneck,
        stem_channels=draw(st.integers(1, 300)),
        planes=planes,
        inner_channels=inner,
        groups=groups,
        stem_kernel=draw(st.sampled_from([3, 5, 7])),
        in_channels=draw(st.sampled_from([1, 2, 3, 4])),
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["cls_token", "blocks.0.attn.qkv.weight", "norm.weight"],
        ["layers.0.blocks.0.attn.qkv.weight", "layers.0.downsample.reduction.weight"],
        ["features.0.weight", "classifier.1.weight"],
        ["conv1.weight", "bn1.weight"],
    ],
    ids=["empty", "ViT", "Swin", "AlexNet", "a stem alone"],
)
def test_read_gives_none_for_names_of_no_resnet(names: list[str]) -> None:
    assert read({name: TensorSpec((64, 3, 7, 7), DTYPES["float32"]) for name in names}) is None


# -- one thing wrong ---------------------------------------------------------------------------------------------------

NEAR = {m.name: state(m.entries()) for m in (resnet(18), resnet(34), resnet(50), resnet(50, 64, 32, 4))}


def test_counters_may_be_absent_and_are_named() -> None:
    names = {k: v for k, v in NEAR["ResNet-50"].items() if not k.endswith(".num_batches_tracked")}
    plan = plan_of(names)
    assert plan.complete
    assert len(plan.optional_missing) == 53
    assert set(names) | set(plan.optional_missing) == set(NEAR["ResNet-50"])


def test_a_stage_that_was_cut_off_is_missing() -> None:
    names = {k: v for k, v in NEAR["ResNet-50"].items() if not k.startswith("layer4.")}
    plan = plan_of(names)
    assert plan.backbone is not None
    assert plan.backbone.name == "ResNet-50"
    assert {p.kind for p in plan.problems} == {"missing"}
    gone = set(NEAR["ResNet-50"]) - set(names)
    assert {p.key for p in plan.problems} == {k for k in gone if not k.endswith(".num_batches_tracked")}


# -- networks that MMDetection has no place for ------------------------------------------------------------------------

NO_PLACE = {
    "R200": (
        resnet(200),
        "MMDetection's ResNet has the depths 18, 34, 50, 101, 152 only",
    ),
    "no name": (
        replace(resnet(50), depths=(3, 3, 9, 3)),
        "MMDetection's ResNet has the depths 18, 34, 50, 101, 152 only",
    ),
    "3x3 stem": (
        replace(resnet(18), stem_kernel=3),
        (
            "its stem is 3x3, for small images; MMDetection's ResNet has a 7x7 stem, which would start from "
            "random weights"
        ),
    ),
    "wide_resnet50_2": (
        replace(resnet(50), inner_channels=128),
        "MMDetection's ResNet has no wider inner convolutions without groups (torchvision's wide_resnet)",
    ),
}


@pytest.mark.parametrize("which", NO_PLACE)
def test_an_obstacle_is_the_only_problem_for_mmdet_and_none_for_torchvision(which: str) -> None:
    member, why = NO_PLACE[which]
    assert member.obstacle("mmdet") == why
    assert member.obstacle("torchvision") == ""
    assert bool(member.obstacle("timm")) == (member.stem_kernel != 7)
    (problem,) = plan_of(state(member.entries())).problems
    assert problem.kind == "target"
    others = [
        f"`target='{name}'`"
        for name in ("torchvision", "timm", "detectron2", "transformers", "official")
        if not member.obstacle(name)
    ]
    way_out = f". {member.unusual}" if member.partial else f" ({' or '.join(others)} can)"
    assert text_of(problem) == f"mmdet cannot hold {member.name}: {why}{way_out}"
    assert plan_of(state(member.entries()), "torchvision").complete


@pytest.mark.mmdet
def test_a_bottleneck_wider_inside_is_truly_no_mmdet_resnet() -> None:
    wide = replace(resnet(50), inner_channels=128).entries()
    assert wide["layer1.0.conv2.weight"] == (128, 128, 3, 3)
    for arguments in ({}, {"base_channels": 128}, {"base_channels": 128, "stem_channels": 128}):
        assert dict(mmdet_state("ResNet", depth=50, **arguments)) != dict(wide)


def test_torchvisions_class_has_one_width_and_takes_colours() -> None:
    """What it does not load is written in the same names for the class that its authors trained: official."""
    wide, grey = resnet(200, 128), replace(resnet(50), in_channels=1)
    assert wide.obstacle("torchvision") == (
        "its stem has 128 channels and its first stage 128, and torchvision's ResNet always has 64"
    )
    assert grey.obstacle("torchvision") == "its stem takes 1 channel, and torchvision's ResNet always takes 3"
    for member in (wide, grey):
        assert plan_of(state(member.entries()), "official").complete
        assert not plan_of(state(member.entries()), "torchvision").complete
