"""Networks of timm's own, as its users save them: what is built of them has the same parts, or they are refused.

Names and shapes do not tell all that a network computes. Each of these is one whose names another network has, or for
which timm takes no notice of an argument.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ckptconv.errors import CkptconvError
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import pretrain

SAME = {
    "vit_base_patch16_reg4_gap_256": 12,  # no LayerScale; the published model of this size has one
    "vit_so150m_patch16_reg4_gap_256": 2,  # rows for registers, and no class token
    "vit_giant_patch16_lingbot": 2,  # heads of 64 channels, where a Perception Encoder of this width has 96
    "eva_giant_patch14_clip_224": 2,
}
"""Models, and how many of their blocks are built: all where a published model has that many."""
_NOT_ROTARY = "it has a last norm and no attention pooling, like the ViT of a CLIP, which has no rotary positions"
_SIGLIP = "a ViT of this width without a class token is SigLIP's, whose MLPs compute GELU by the hyperbolic tangent"
REFUSED = {
    "vit_base_patch16_clip_224": _NOT_ROTARY,
    "vit_base_patch16_clip_quickgelu_224": _NOT_ROTARY,
    "vit_so400m_patch14_siglip_gap_224": _SIGLIP,
    "vit_giantopt_patch16_siglip_gap_256": _SIGLIP,
    "vit_medium_patch16_rope_reg1_gap_256": "it has no class token, unlike DINOv3",
    "eva02_enormous_patch14_clip_224": "whose blocks normalise their outputs and not their inputs",
}


def made(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = pretrain.module("timm").create_model(name, **arguments)
    return model


def planned(model: nn.Module) -> Plan:
    names = {name: TensorSpec(tuple(value.shape), DTYPES["float32"]) for name, value in model.state_dict().items()}
    return choose({"": Section(names, {})}, "auto", Options(target="timm")).plan


def parts(model: nn.Module) -> dict[str, tuple[str, dict[str, Any]]]:
    """The class of each module, and what of it no tensor tells."""
    facts = ("num_heads", "head_dim", "scale", "eps", "approximate", "rotate_half", "num_prefix_tokens", "stride")
    return {
        name: (type(module).__name__, {fact: vars(module)[fact] for fact in facts if fact in vars(module)})
        for name, module in model.named_modules()
        if name.split(".")[0] not in ("head", "fc_norm", "head_drop")
    }


@pytest.mark.mmdet
@pytest.mark.parametrize("name", SAME)
def test_what_is_built_has_the_parts_of_timms_own(name: str) -> None:
    theirs = made(name, depth=SAME[name])
    model = planned(theirs).backbone.timm_model()  # type: ignore[union-attr]
    assert model is not None
    ours = made(model.name, **{"num_classes": 0, "global_pool": "", **model.arguments})
    assert parts(ours) == parts(theirs)


@pytest.mark.mmdet
@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_looks_like_another_is_refused(name: str) -> None:
    with pytest.raises(CkptconvError) as caught:
        planned(made(name, depth=64 if name.startswith("eva02") else 2))
    assert REFUSED[name] in caught.value.message
