"""Learning rates by depth, against timm's own groups and ViTDet's formula."""

from __future__ import annotations

import re

import pytest
import torch

from tests.mmdetection.modules.networks import NETWORKS, built, made
from tests.support import pretrain

UNDECAYED = {
    "vit": {"cls_token", "pos_embed"},
    "dinov2": {"cls_token", "pos_embed", "reg_token"},
    "dinov3": {"cls_token", "reg_token"},
    "eva02": {"cls_token", "pos_embed"},
    "beit": {"cls_token", *(f"blocks.{i}.attn.relative_position_bias_table" for i in range(2))},
    "hiera": {"pos_embed"},
}
"""Parameters of more than one dimension that do not decay."""


def groups(model, rate: float = 0.7, **more) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, with 1 and 0.1 for the usual ones."""
    import mmdet.engine  # noqa: F401 (registers)
    from mmengine.optim import build_optim_wrapper

    from ckptconv.mmdetection import modules  # noqa: F401 (registers)

    wrapper = build_optim_wrapper(
        model,
        {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1},
            "constructor": "LayerDecayOptimWrapperConstructor",
            "paramwise_cfg": {"decay_rate": rate, **more},
        },
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("kind", NETWORKS)
def test_groups_are_those_of_timm_one_layer_below_the_head(kind):
    """timm gives the last layer, here the one that the maps are from, the whole rate. A detector's heads have it."""
    backbone = made(kind)
    ours = groups(backbone)
    of_timm = pretrain.module("timm.optim").param_groups_layer_decay(backbone.model, layer_decay=0.7)
    scales = {id(one): group["lr_scale"] for group in of_timm for one in group["params"]}
    theirs = {name: scales[id(one)] for name, one in backbone.named_parameters() if one.requires_grad}
    assert ours.keys() == theirs.keys()
    if kind == "xcit":  # timm groups its norm with blocks on the class token, which no map depends on
        theirs = {name: scale for name, scale in theirs.items() if not name.startswith("norm.")}
    top = max(theirs.values())
    for name, scale in theirs.items():
        assert ours[name][0] == pytest.approx(0.7 * scale / top), name


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_does_not_decay(kind):
    backbone = made(kind)
    shapes = {name: one.dim() for name, one in backbone.named_parameters()}
    found = {name for name, (_, decay) in groups(backbone).items() if decay == 0}
    assert {name for name in found if shapes[name] == 1} == {name for name in groups(backbone) if shapes[name] == 1}
    tables = {name for name in found if shapes[name] > 1}
    if kind == "swinv2":
        assert tables
        assert all(re.search(r"\.(cpb_mlp\.|logit_scale)", name) for name in tables)
    elif kind == "xcit":
        assert all(name.startswith("pos_embed.") for name in tables)
    else:
        assert tables == UNDECAYED.get(kind, set())


def test_rates_are_those_of_vitdet():
    """MMDetection's class for ViTDet and detectron2's `get_vit_lr_decay_rate`: embeddings are layer 0, a block i layer
    i + 1, and a rate is decay ** (depth + 1 - layer). Only the last norm, which ViTDet does not use, differs."""
    rates = {name: rate for name, (rate, _) in groups(built("vit")).items()}
    for name, rate in rates.items():
        block = re.match(r"backbone\.blocks\.(\d+)\.", name)
        layer = int(block[1]) + 1 if block else 0 if re.search("embed|token", name) else 5
        if name.startswith("backbone.norm."):
            layer = 4
        assert rate == pytest.approx(0.7 ** (5 - layer)), name


def test_the_rest_of_the_detector_learns_at_the_whole_rate():
    found = groups(built("hiera"))
    rest = {name: both for name, both in found.items() if not name.startswith("backbone.")}
    assert {rate for rate, _ in rest.values()} == {1.0}
    assert {decay for name, (_, decay) in rest.items() if name.endswith(".bias")} == {0.0}
    assert {decay for name, (_, decay) in rest.items() if name.endswith("conv.weight")} == {0.1}


def test_later_stages_learn_faster():
    rates = {name: rate for name, (rate, _) in groups(made("convnext")).items()}
    order = [rates[f"stages.{i}.blocks.0.mlp.fc1.weight"] for i in range(4)]
    assert order == sorted(order)
    assert rates["stem.0.weight"] < order[0]


def test_frozen_parameters_are_in_no_group_and_change_no_rate():
    whole, half = groups(made("vit")), groups(made("vit", frozen=2))
    assert half == {name: whole[name] for name in half}
    assert {name.split(".")[1] for name in half if name.startswith("blocks.")} == {"2", "3"}


def test_an_earlier_map_counts_from_its_own_block():
    rates = {name: rate for name, (rate, _) in groups(made("vit", out_indices=(1,))).items()}
    assert rates["blocks.1.mlp.fc1.weight"] == pytest.approx(0.7)
    assert "blocks.2.mlp.fc1.weight" not in rates


@pytest.mark.parametrize("rate", [None, 0, 1.5, True, "half"])
def test_rates_that_are_none(rate):
    sentence = f"paramwise_cfg['decay_rate'] is a number above 0 and up to 1: not {rate!r}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        groups(made("resnet"), rate)


def test_other_settings_and_other_models_are_refused():
    with pytest.raises(ValueError, match="paramwise_cfg has 'num_layers': LayerDecayOptimWrapperConstructor takes"):
        groups(made("resnet"), num_layers=12)
    sentence = "LayerDecayOptimWrapperConstructor needs a TimmBackbone, and the model has none"
    with pytest.raises(ValueError, match=sentence):
        groups(torch.nn.Linear(2, 2))
