"""What --drop may take: names beside the network, and none of the network's own, in any family and under any prefix."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ckptconv.methods import METHODS
from ckptconv.methods.interface import Layout
from ckptconv.planning.identify import choose, nearest
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.matching import apply_rules
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.planning.user_drops import blocks_of
from ckptconv.spec import DTYPES, Section, TensorSpec
from ckptconv.text import fold
from tests.support.cases import Case, case, cases

FOREIGN = TensorSpec((5,), DTYPES["float32"])
BY_NAME = {m.name: m for m in METHODS}


UNTOLD = (
    ("dinov2_vits", "register_tokens"),
    ("transformers_dinov2_vits", "register_tokens"),
    ("lightly_train_dinov2_vits14", "register_tokens"),
    ("transformers_data2vec_vits16_classifier_unpooled", "position_embeddings"),
    ("transformers_data2vec_vits16_classifier_unpooled", "relative_position_bias_table"),
    ("vicregl_convnext_t_full", "gamma"),
    ("timm_vit_small_reg4", "_token"),
    ("timm_vitg14_reg4", "_token"),
    ("tips_vit", "register_tokens"),
    ("dinov3_vit", "attn.qkv.bias"),
    ("eupe_vit", "attn.qkv.bias"),
    ("lightly_train_dinov3_vit", "attn.qkv.bias"),
    ("lightly_train_dino_vits16", "attn.qkv.bias"),
    ("lightly_train_distillationv3_vits16", "attn.qkv.bias"),
    ("pe_spatial_g14", "ls_*.gamma"),
    ("pe_core_b16", "class_embedding"),
)
"""What nobody misses in a file that lost it: the same network is published without registers, timm's without a class
token (gap), DINOv3's 7B without biases, Perception
Encoder's core without LayerScale, BEiTs with positions of patches or between them, VICRegL's
ConvNeXts without layer scale."""


def whole(own: Case) -> Plan:
    return (choose if own.held else nearest)(own.sections, own.method, own.options).plan


def one_of_each_network() -> list[Case]:
    """A case for each method and family."""
    found = {(own.method, own.backbone[:6], own.section): own for own in cases()}
    return list(found.values())


def layout_of(own: Case, plan: Plan) -> Layout:
    (layout,) = (found for found in BY_NAME[own.method].layouts if found.title == plan.layout)
    return layout


def planned(own: Case, tensors: Mapping[str, TensorSpec], plan: Plan, drops: tuple[str, ...] = ()) -> Plan:
    """What the layout that explains a case makes of other tensors."""
    options = Options(drop=drops, strip_prefix=own.prefix, target=own.target)
    return make_plan(BY_NAME[own.method], layout_of(own, plan), own.section, Section(tensors, {}), options)


@pytest.mark.parametrize("own", one_of_each_network(), ids=str)
def test_a_name_inside_a_block_or_stage_is_neither_offered_nor_dropped(own: Case) -> None:
    plan = whole(own)
    assert plan.backbone is not None
    blocks = blocks_of(plan.backbone, apply_rules(layout_of(own, plan).rules, own.tensors, plan.prefix).moves)
    assert len(blocks) > 3
    for block in (blocks[0], blocks[-1]):
        foreign = f"{block}inner_attn_ln.weight"
        tensors = {**own.tensors, foreign: FOREIGN}
        assert planned(own, tensors, plan).droppable_names == ()
        dropped = planned(own, tensors, plan, (foreign,))
        (problem,) = [p for p in dropped.problems if p.kind == "drop"]
        assert problem.key == foreign
        text = f"`drop` cannot remove {foreign}: it is part of {block[:-1]}, and other tensors of it are kept: "
        assert text_of(problem) == f"{text}without it the network computes something else"


@pytest.mark.parametrize("own", [own for own in one_of_each_network() if "-50" not in own.backbone], ids=str)
def test_no_part_of_the_network_is_dropped_but_what_every_network_makes_itself(own: Case) -> None:
    plan = whole(own)
    assert plan.backbone is not None
    sources = [source for move in plan.moves for source in move.sources]
    optional = {s for t, names in own.kept.items() for s in names if plan.backbone.optional(t)}
    for line, names in fold(sources).items():
        if optional.isdisjoint(names):
            refused = planned(own, own.tensors, plan, tuple(names))
            assert {p.kind for p in refused.problems} & {"drop", "missing", "parts", "backbone"}, line
            assert refused.droppable_names == ()
            without = {name: spec for name, spec in own.tensors.items() if name not in names}
            cut = planned(own, without, plan)
            assert cut.droppable_names == ()
            if not any(own.name.startswith(case) and line.endswith(end) for case, end in UNTOLD):
                assert {p.kind for p in cut.problems} - {"target"}, line


LAYERS = {  # a name in a layer outside of the blocks, by the case
    "torchvision_r18": ("conv1", "weight_mask"),
    "moco_v2_r50": ("module.encoder_q.bn1", "weight_extra"),
    "timm_vit_tiny": ("patch_embed.proj", "lora_A.default.weight"),
    "timm_swint": ("patch_embed.norm", "scale"),
}


@pytest.mark.parametrize("which", LAYERS)
def test_a_name_inside_a_layer_is_neither_offered_nor_dropped(which: str) -> None:
    own, (layer, rest) = case(which), LAYERS[which]
    foreign = f"{layer}.{rest}"
    plan, tensors = whole(own), {**own.tensors, foreign: FOREIGN}
    assert planned(own, tensors, plan).droppable_names == ()
    (problem,) = [p for p in planned(own, tensors, plan, (foreign,)).problems if p.kind == "drop"]
    assert text_of(problem).startswith(
        f"`drop` cannot remove {foreign}: it is part of {layer}, and other tensors of it are kept"
    )


@pytest.mark.parametrize(
    ("name", "shape", "offered"),
    [
        ("register_tokens", (1, 4, 192), False),
        ("dist_token", (1, 1, 192), False),
        ("pos_embed_win", (1, 192, 8, 8), False),
        ("temporal_embed", (1, 8, 192), False),
        ("norm_pre.weight", (192,), False),
        ("projector.bias", (7,), True),
        ("mask_token", (1, 1, 192), True),
        ("decoder_pos_embed", (1, 197, 128), True),
        ("predictor.pos_embed", (1, 196, 192), True),
        ("projector.weight", (7, 192), True),
    ],
)
def test_what_joins_the_tokens_is_not_offered_to_be_dropped(name: str, shape: tuple[int, ...], offered: bool) -> None:
    """A ViT without its registers or its second positions is another network; who knows better may drop them."""
    own = case("timm_vit_tiny")
    plan, tensors = whole(own), {**own.tensors, name: TensorSpec(shape, DTYPES["float32"])}
    assert planned(own, tensors, plan).droppable_names == ((name,) if offered else ())
    assert planned(own, tensors, plan, (name,)).complete
