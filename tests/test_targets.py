"""Each network of the cases, built in its real target, holds what is written for it, and else what is named."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.interface import Backbone
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.errors import IncompletePlanError
from ckptconv.identify import choose
from ckptconv.planning import Options, Plan
from ckptconv.rules import Pattern
from tests import test_backbones, test_beit, test_convnext, test_swin, test_vit
from tests.cases import cases

CLASSES = {"mmdet": (ResNet, Swin), "mmpretrain": (VisionTransformer, Beit, ConvNeXt)}
"""Targets whose classes are installed here; ViTDet's is a project, of which tests/test_vit.py has the names."""


def planned() -> dict[str, Plan]:
    """The plan of one case for each network and target."""
    plans: dict[str, Plan] = {}
    for case, target in product(cases(), CLASSES):
        try:
            plan = choose(case.sections, case.method, Options(prefix=case.prefix, target=target)).plan
        except IncompletePlanError:  # it has no place there, which the families' own tests show
            continue
        if isinstance(plan.backbone, CLASSES.get(plan.target, ())):
            plans.setdefault(f"{plan.backbone.name} for {plan.target}", plan)
    return plans


PLANS = planned()


def resnet(member: ResNet) -> dict[str, tuple[int, ...]]:
    said: dict[str, Any] = dict(member.settings())
    arguments = {"depth": said["depth"], "base_channels": said["base_channels"], "stem_channels": said["stem_channels"]}
    groups = said["groups"]
    if groups > 1:
        return dict(test_backbones.mmdet_state("ResNeXt", **arguments, groups=groups, base_width=said["base_width"]))
    return dict(test_backbones.mmdet_state("ResNet", **arguments))


def _of_mmpretrain(member: Backbone) -> Any:
    if isinstance(member, VisionTransformer):
        return test_vit.mmpretrain(member)
    if isinstance(member, Beit):
        return test_beit.mmpretrain(member)
    assert isinstance(member, ConvNeXt)
    return test_convnext.mmpretrain(member)


def real(member: Backbone) -> dict[str, tuple[int, ...]]:
    """Names and shapes that MMDetection's or MMPretrain's own class has for this network."""
    if isinstance(member, ResNet):
        return resnet(member)
    if isinstance(member, Swin):  # reads numbers of its own while it is built, so not on meta
        network = test_swin.mmdet_swin(member)
    else:
        with torch.device("meta"):
            network = _of_mmpretrain(member)
    return {f"backbone.{name}": tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.mmdet
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # of mmpretrain, once a process
@pytest.mark.parametrize("which", PLANS)
def test_the_real_network_holds_what_is_written_and_nothing_more(which: str) -> None:
    plan = PLANS[which]
    assert plan.backbone is not None
    network = real(plan.backbone)
    written = {move.target: move.spec.shape for move in plan.moves}
    fresh = [Pattern(text) for text in plan.dialect.fresh]
    left = {name for name in network if name not in written and not any(p.match(name) for p in fresh)}
    assert {name: network.get(name) for name in written} == written
    assert left <= set(plan.absent)


def test_there_is_a_network_for_every_class() -> None:
    assert {type(plan.backbone) for plan in PLANS.values()} == {kind for kinds in CLASSES.values() for kind in kinds}
