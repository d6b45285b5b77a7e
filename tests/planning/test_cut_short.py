"""A file that lost a part of its network is refused, or what it holds is said to be no published network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from ckptconv.backbones.interface import Backbone
from ckptconv.errors import VerdictError
from ckptconv.methods import METHODS
from ckptconv.planning.identify import choose, rank
from ckptconv.planning.options import Options
from ckptconv.rules import keep
from ckptconv.spec import Section, TensorSpec
from tests.backbones.test_convnext import convnext
from tests.backbones.test_eva import DINOV3
from tests.backbones.test_resnet import resnet
from tests.backbones.test_swin import TINY as SWIN
from tests.backbones.test_vit import SMALL as VIT
from tests.support.cases import case
from tests.support.specs import state

Keep = Callable[[str], bool]


def left(network: Backbone, whole: Keep) -> dict[str, Section]:
    """A file with the entries of a network that are left, under the section that most methods look into."""
    return {"model": Section({n: spec for n, spec in state(network.entries()).items() if whole(n)}, {})}


def block(name: str, at: int) -> int:
    """The number at that segment of a name; -1 if there is none."""
    segments = name.split(".")
    return int(segments[at]) if len(segments) > at and segments[at].isdigit() else -1


CUT: Mapping[str, tuple[Backbone, Keep, str]] = {
    "a ViT's second half": (
        VIT,
        lambda n: not n.startswith("norm") and block(n, 1) < 6,
        (
            "norm.weight of ViT-384x6/16: it has no norm after the last block, unlike other files of this layout: this "
            "file may be truncated"
        ),
    ),
    "a ViT's third block": (VIT, lambda n: block(n, 1) != 2, "blocks.2.norm1.weight of ViT-S/16 ([384]): missing, "),
    "a ViT's last norm": (
        VIT,
        lambda n: not n.startswith("norm"),
        "norm.weight of ViT-S/16: it has no norm after the last ",
    ),
    "a ViT's patches": (VIT, lambda n: not n.startswith("patch"), "patch_embed.proj.weight of ViT-S/16 ([384, 3, 16, "),
    "a ViT's biases": (
        VIT,
        lambda n: not n.endswith("qkv.bias"),
        "blocks.0.attn.qkv.bias of ViT-S/16: its queries, keys and values have no bias, unlike other files",
    ),
    "a Swin's last stage": (
        SWIN,
        lambda n: not n.startswith(("layers.3", "layers.2.downsample", "norm")),
        "layers.3 of Swin-2-2-6, 96 channels, window 7: it has 3 of 4 stages, unlike other files of this layout",
    ),
    "a Swin's last blocks": (
        SWIN,
        lambda n: not n.startswith(("layers.3", "norm")),
        "it has no norm after the last block, unlike other files of this layout: this file may be truncated",
    ),
    "a Swin's second block": (
        SWIN,
        lambda n: not n.startswith("layers.2.blocks.1."),
        "layers.2.blocks.1.norm1.weight of",
    ),
    "a ConvNeXt's last stage": (
        convnext(),
        lambda n: not n.startswith(("stages.3", "norm")),
        "stages.3.0.gamma of ConvNeXt-T ([768]): missing, no tensor of the file becomes it",
    ),
    "a ConvNeXt's second block": (
        convnext(),
        lambda n: not n.startswith("stages.2.1."),
        "stages.2.1.gamma of ConvNeXt-T",
    ),
    "a ConvNeXt's end": (
        convnext(),
        lambda n: not n.startswith(("stages.3.2", "norm")),
        "norm.weight of ConvNeXt-3-3-9-2, 96-192-384-768 channels: it has no norm after the last block, ",
    ),
    "a ResNet's last block": (
        resnet(50),
        lambda n: not n.startswith("layer4.2"),
        (
            "mmdet cannot hold ResNet-3-4-6-2: MMDetection's ResNet has the depths 18, 34, 50, 101, 152 only. "
            "ResNet-3-4-6-2: no published ResNet of bottleneck blocks has 3-4-6-2 blocks (known: 1-1-1-1, 2-2-2-2, "
            "3-4-6-3, 3-4-23-3, 3-8-36-3, 3-24-36-3, 3-30-48-8); if the file is truncated, this is a part of a network"
        ),
    ),
    "a ResNet's third block": (
        resnet(50),
        lambda n: not n.startswith("layer3.2"),
        "layer3.2.conv1.weight of ResNet-50",
    ),
    "a ResNet's last stage": (resnet(50), lambda n: not n.startswith("layer4"), "layer4.0.conv1.weight of ResNet-50"),
}


@pytest.mark.parametrize("which", CUT)
def test_a_file_that_lost_a_part_is_refused_with_the_reason(which: str) -> None:
    network, whole, reason = CUT[which]
    with pytest.raises(VerdictError) as caught:
        choose(left(network, whole), "auto", Options())
    assert reason in caught.value.message
    assert "target" not in caught.value.hint
    ranked = rank(left(network, whole), METHODS, Options())
    assert [one.name for one, plan in ranked if plan.complete] == []


PARTS = {
    "ViT": (replace(VIT, depth=6), "no published ViT of width 384 has 6 blocks (known: 12, 36)"),
    "Swin": (
        replace(SWIN, depths=(2, 2, 4, 2)),
        "no published Swin of width 96 has 2-2-4-2 blocks (known: 2-2-6-2, 2-2-18-2, 2-2-30-2)",
    ),
    "ConvNeXt": (
        convnext(depths=(3, 3, 5, 3)),
        "no published ConvNeXt of width 96 has 3-3-5-3 blocks (known: 3-3-9-3, 3-3-27-3)",
    ),
    "one block": (replace(VIT, depth=1), "no published ViT of width 384 has 1 block (known: 12, 36)"),
    "another width": (
        replace(VIT, embed_dim=64, depth=2),
        "ckptconv knows no published ViT of width 64, so it cannot tell whether 2 blocks are all of them",
    ),
}


@pytest.mark.parametrize("which", PARTS)
def test_a_depth_that_nobody_publishes_is_said(which: str) -> None:
    network, said = PARTS[which]
    plan = choose(left(network, lambda _: True), "auto", Options()).plan
    assert plan.complete
    assert plan.backbone is not None
    assert plan.backbone.unusual == f"{network.name}: {said}; if the file is truncated, this is a part of a network"


@pytest.mark.parametrize("network", [VIT, SWIN, convnext(), resnet(18), resnet(152)], ids=lambda one: one.name)
def test_of_a_published_depth_nothing_is_said(network: Backbone) -> None:
    assert network.unusual == ""
    assert not network.partial


def test_a_layout_without_a_norm_takes_whole_networks_alone() -> None:
    """MaskFeat's files end without a norm: half a network would look like a small one."""
    own = case("maskfeat_vitb16")

    def cut(depth: int) -> dict[str, TensorSpec]:
        return {n: s for n, s in own.tensors.items() if not n.startswith("blocks.") or block(n, 1) < depth}

    assert choose({own.section: Section(cut(12), {})}, "maskfeat", Options()).plan.complete
    with pytest.raises(VerdictError) as caught:
        choose({own.section: Section(cut(6), {})}, "maskfeat", Options())
    assert (
        "norm.weight of ViT-768x6/16: it has no norm after the last block, so the network is not complete. "
        "ViT-768x6/16: no published ViT of width 768 has 6 blocks (known: 12); if the file is truncated, this is "
        "a part of a network"
    ) in caught.value.message


@pytest.mark.parametrize(
    "name", ["mmpretrain_vit_tiny_pooled", "mmpretrain_beit_vitb16_pooled", "timm_vit_tiny_pooled"]
)
def test_a_norm_of_what_is_pooled_is_there_in_place_of_the_last_norm(name: str) -> None:
    own = case(name)
    cut = {n: s for n, s in own.tensors.items() if "fc_norm." not in n and not n.startswith(("backbone.ln2.", "ln2."))}
    assert choose(own.sections, own.method, Options()).plan.complete
    with pytest.raises(VerdictError, match="it has no norm after the last block"):
        choose({own.section: Section(cut, {})}, own.method, Options())


def test_rules_of_a_callers_own_say_nothing_of_parts() -> None:
    rules = [keep("{key...}", "{key...}")]
    assert choose(left(replace(VIT, final_norm=False), lambda _: True), rules, Options()).plan.complete
    with pytest.raises(VerdictError, match="so the network is not complete"):
        choose(left(replace(VIT, final_norm=False, depth=6), lambda _: True), rules, Options())


def test_rotary_networks_may_have_no_biases_and_have_a_class_token() -> None:
    assert replace(DINOV3, qkv_bias=False).missing_parts == ()  # as the one of seven billion parameters
    assert [part.part for part in replace(DINOV3, class_token=False).missing_parts] == ["class_token"]


def test_what_a_layout_is_without_is_a_part_that_there_is() -> None:
    stated = {part for one in METHODS for layout in one.layouts for part in layout.without}
    assert stated == {"class_token", "layer_scale", "norm"}
