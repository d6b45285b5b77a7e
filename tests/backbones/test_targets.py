"""Each network of the cases is loaded, strictly, into the real class of each target that is offered for it.

Three targets have no class here. ViTDet's is a project of MMDetection's repository, which no package holds:
tests/backbones/test_vit.py has its names. detectron2 is not installed: tests/backbones/test_resnet.py has its names.
`official` are the names of the authors' repositories, which the cases list.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from ckptconv.backbones import FAMILIES
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.eva import Eva
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import Backbone
from ckptconv.backbones.regnet import RegNetY
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.backbones.xcit import Xcit
from ckptconv.errors import IncompletePlanError
from ckptconv.patterns import Pattern
from ckptconv.planning.identify import choose, nearest
from ckptconv.planning.matching import apply_rules
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.rules import keep
from ckptconv.spec import DTYPES, TensorSpec
from tests.backbones import test_beit, test_convnext, test_swin, test_vit
from tests.support import pretrain
from tests.support.cases import by_name, cases


def _mmdet_resnet(member: ResNet) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv and torch.jit each say what will change in their next version
        import mmdet.models.backbones as theirs
    given = {"base_channels": member.planes, "stem_channels": member.stem_channels, "in_channels": member.in_channels}
    if member.groups == 1:
        return theirs.ResNet(depth=member.layers, **given)
    width = member.inner_channels // member.groups
    return theirs.ResNeXt(depth=member.layers, **given, groups=member.groups, base_width=width)


def _mmdet_swin(member: Swin) -> Any:
    return test_swin.mmdet_swin(member, in_channels=member.in_channels)


def _torchvision(member: ResNet) -> Any:
    """Its class, without the classifier, and with the stem of 3x3 that users give it for small images."""
    theirs = pretrain.module("torchvision.models.resnet")
    network = theirs.ResNet(
        theirs.Bottleneck if member.bottleneck else theirs.BasicBlock,
        list(member.depths),
        groups=member.groups,
        width_per_group=member.inner_channels // member.groups,
    )
    network.fc = nn.Identity()
    if member.stem_kernel == 3:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return network


def _mmpretrain(member: Any) -> Any:
    build = {VisionTransformer: test_vit.mmpretrain, Beit: test_beit.mmpretrain, ConvNeXt: test_convnext.mmpretrain}
    return build[type(member)](member)


def _timm(member: Backbone) -> Any:
    """What `create_model` makes with the name and the arguments that the file tells."""
    model = member.timm_model()
    assert model is not None
    arguments = {"num_classes": 0, "global_pool": "", **model.arguments}
    return pretrain.module("timm").create_model(model.name, **arguments)


def _transformers(member: Backbone) -> Any:
    """Its class, from the config that the file tells, and without a pooler, which pre-training does not train."""
    model = member.transformers_model()
    assert model is not None
    built = getattr(pretrain.transformers(), model.name)
    pooled = "add_pooling_layer" in inspect.signature(built).parameters
    return built(built.config_class(**model.config), **({"add_pooling_layer": False} if pooled else {}))


BUILD: Mapping[tuple[str, type], Callable[[Any], Any]] = {
    ("mmdet", ResNet): _mmdet_resnet,
    ("mmdet", Swin): _mmdet_swin,
    ("torchvision", ResNet): _torchvision,
    ("mmpretrain", VisionTransformer): _mmpretrain,
    ("mmpretrain", Beit): _mmpretrain,
    ("mmpretrain", ConvNeXt): _mmpretrain,
    **{
        ("timm", family): _timm
        for family in (VisionTransformer, Beit, ResNet, Swin, ConvNeXt, Hiera, Xcit, RegNetY, Eva)
    },
    **{("transformers", family): _transformers for family in (VisionTransformer, Beit, ResNet, Swin, ConvNeXt, Eva)},
}
NOT_HERE = {"detectron2", "vitdet", "official"}


def planned() -> dict[str, Plan]:
    """The plan of one case for each network and each target that has a class here and is offered for it."""
    plans: dict[str, Plan] = {}
    for case in cases():
        match = by_name(case) if case.held else nearest(case.sections, case.method, case.options)
        usual = match.plan.backbone  # perhaps no target's
        assert usual is not None
        for target in FAMILIES[usual.family].targets:
            label = f"{usual} for {target}"
            if target in NOT_HERE or label in plans or usual.obstacle(target):
                continue
            try:
                plans[label] = choose(case.sections, case.method, Options(strip_prefix=case.prefix, target=target)).plan
            except IncompletePlanError:  # of another layout's place there, which the families' own tests show
                continue
    return {
        f"{plan.backbone and plan.backbone.name} for {plan.target} ({n})": plan for n, plan in enumerate(plans.values())
    }


PLANS = planned()


def real(target: str, member: Backbone) -> nn.Module:
    """MMDetection's, MMPretrain's, timm's, torchvision's or transformers' own network, without numbers."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(
            torch, "linspace", lambda start, end, steps, **_: torch.zeros(steps, device="cpu")
        )  # .item() of each
        network: nn.Module = BUILD[target, type(member)](member)
    return network


@pytest.mark.mmdet
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # of mmpretrain, once a process
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
@pytest.mark.filterwarnings("ignore:Please import timm")
@pytest.mark.parametrize("which", PLANS)
def test_the_real_network_loads_what_is_written_and_lacks_nothing_more(which: str) -> None:
    plan = PLANS[which]
    assert plan.backbone is not None
    network = real(plan.target, plan.backbone)
    prefix = "backbone." if plan.target == "mmpretrain" or (plan.target, type(plan.backbone)) == ("mmdet", Swin) else ""
    assert all(move.target.startswith(prefix) for move in plan.moves)
    written = {move.target[len(prefix) :]: torch.empty(move.spec.shape, device="meta") for move in plan.moves}
    fresh = [Pattern(text) for text in plan.dialect.fresh]
    kept = {name: TensorSpec((), DTYPES["float32"]) for name in plan.optional_missing}
    absent = {move.target for move in apply_rules(plan.dialect.rules or [keep("{k...}", "{k...}")], kept).moves}
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if any(pattern.match(prefix + name) is not None for pattern in fresh) or prefix + name in absent
    }
    assert not own.keys() & written.keys()
    network.load_state_dict({**own, **written}, strict=True, assign=True)


def test_there_is_a_network_for_every_class() -> None:
    assert {(plan.target, type(plan.backbone)) for plan in PLANS.values()} == set(BUILD)


def test_every_target_has_a_class_here_or_is_named_as_one_without() -> None:
    assert {target for family in FAMILIES.values() for target in family.targets} == {t for t, _ in BUILD} | NOT_HERE
