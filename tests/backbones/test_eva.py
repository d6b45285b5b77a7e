"""timm's `Eva`: what becomes of DINOv3's numbers, and which model of timm a network is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file

import ckptconv
from ckptconv.backbones.eva import Eva, read
from ckptconv.backbones.interface import PARTS, TimmModel
from ckptconv.conversion import provenance
from ckptconv.errors import IncompletePlanError, UnidentifiedError, UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.methods.naming_schemes import TIMM
from ckptconv.planning.make_plan import make_plan
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.spec import DTYPES, Section, TensorSpec
from tests.support import official, pretrain
from tests.support.specs import state

DINOV3 = Eva(384, 12, 1536, 16, num_registers=4)
MEMBERS = (
    DINOV3,
    replace(DINOV3, mlp="apart", rope_periods=16),
    replace(DINOV3, qkv_bias=False),
    Eva(192, 12, 512, 14, positions=256, mlp="packed", layer_scale=False),
    Eva(768, 12, 2048, 14, positions=256, mlp="apart", mlp_norm=True, fused=False, layer_scale=False),
    Eva(768, 12, 3072, 16, positions=196, pre_norm=True, layer_scale=False),
    Eva(1536, 50, 8960, 14, positions=1024, pre_norm=True, class_token=False, final_norm=False),
)
(TIMMS,) = (layout for layout in TIMM.layouts if layout.families == ("Eva",))
NEAR = {
    f"{one.name}, {one.mlp}": state(one.entries())
    for one in (
        replace(DINOV3, depth=2),
        replace(DINOV3, depth=3, mlp="apart", qkv_bias=False),
        *(replace(one, depth=2) for one in MEMBERS[3:6]),
    )
}


def plan_of(names: Mapping[str, TensorSpec]) -> Plan:
    return make_plan(TIMM, replace(TIMMS, without=PARTS), "", Section(names, {}), Options(target="timm"))


@st.composite
def members(draw: st.DrawFn) -> Eva:
    kind, positions = draw(st.sampled_from(["DINOv3", "EVA-02", "PE"])), draw(st.integers(2, 30)) ** 2
    common = {
        "embed_dim": draw(st.integers(2, 300)),
        "depth": draw(st.integers(1, 5)),
        "hidden_dim": draw(st.integers(2, 1200)),
        "patch_size": draw(st.integers(1, 32)),
        "in_channels": draw(st.integers(1, 6)),
        "layer_scale": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "final_norm": draw(st.booleans()),
    }
    if kind == "DINOv3":
        periods, mlp = draw(st.integers(0, 32)), draw(st.sampled_from(["plain", "packed", "apart"]))
        return Eva(**common, num_registers=draw(st.integers(0 if periods else 1, 8)), mlp=mlp, rope_periods=periods)
    if kind == "EVA-02":
        mlp, fused = draw(st.sampled_from(["packed", "apart"])), draw(st.booleans())
        return Eva(**common, positions=positions, mlp=mlp, mlp_norm=draw(st.booleans()), fused=fused)
    return Eva(**common, positions=positions, pre_norm=True, class_token=draw(st.booleans()))


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_a_network_is_read_back_from_its_shapes(member: Eva) -> None:
    assert read({n: TensorSpec(shape, DTYPES["float32"]) for n, shape in member.entries().items()}) == member


@pytest.mark.parametrize(
    ("member", "model"),
    [
        (DINOV3, TimmModel("vit_small_patch16_dinov3_qkvb")),
        (replace(DINOV3, qkv_bias=False), TimmModel("vit_small_patch16_dinov3")),
        (replace(DINOV3, mlp="apart"), TimmModel("vit_small_plus_patch16_dinov3_qkvb")),
        (
            Eva(1024, 24, 4096, 16, num_registers=4, mlp="apart"),
            TimmModel("vit_large_patch16_dinov3_qkvb", {"swiglu_mlp": True, "swiglu_align_to": 8}),
        ),
        (Eva(4096, 40, 8192, 16, num_registers=4, mlp="apart", qkv_bias=False), TimmModel("vit_7b_patch16_dinov3")),
        (MEMBERS[3], TimmModel("eva02_tiny_patch14_224")),
        (MEMBERS[4], TimmModel("eva02_base_patch14_224")),
        (MEMBERS[5], TimmModel("vit_pe_core_base_patch16_224", {"ref_feat_shape": None})),
        (MEMBERS[6], TimmModel("vit_pe_spatial_gigantic_patch14_448", {"ref_feat_shape": None})),
    ],
    ids=lambda value: value.name,
)
def test_a_published_size_is_timm_s_own_model(member: Eva, model: TimmModel) -> None:
    assert member.timm_model() == model


def test_timm_has_no_dinov3_without_layer_scale() -> None:
    member = replace(DINOV3, layer_scale=False)
    assert member.obstacle("timm") == "it has no LayerScale, which all of timm's models of DINOv3 have"
    assert member.timm_model() is None


@pytest.mark.mmdet
@pytest.mark.parametrize(
    "name", ["dinov3_vit", "dinov3_vit_7b_form", "dinov3_vit_swiglu", "eva02_apart", "eva02_packed"]
)
def test_the_file_is_what_timm_s_own_filter_makes_of_the_official_one(name: str, tmp_path: Path) -> None:
    network = official.network(name)
    source = network.write(tmp_path)
    ckptconv.convert(source, tmp_path / "out.safetensors", network.method, target="timm")
    ours = load_file(tmp_path / "out.safetensors")
    member = ckptconv.plan(source, network.method).backbone
    assert member is not None
    model = member.timm_model()
    assert model is not None
    timm = pretrain.module("timm")
    built = timm.create_model(model.name, num_classes=0, **{"global_pool": "", **model.arguments})
    theirs = timm.models.eva.checkpoint_filter_fn(network.checkpoint(), built)
    theirs = {key.replace("fc_norm.", "norm."): value for key, value in theirs.items()}  # for its own fine-tuning
    assert ours.keys() == theirs.keys() == built.state_dict().keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_periods_that_timm_does_not_compute_are_in_the_file_s_metadata(tmp_path: Path) -> None:
    for name, own in (("dinov3_vit", False), ("dinov3_vit_bf16_periods", True)):
        network = official.network(name)
        ckptconv.convert(network.write(tmp_path), tmp_path / "out.pth", "dinov3", force=True)
        with open_checkpoint(tmp_path / "out.pth") as checkpoint:
            said = provenance.origin(checkpoint)
        assert said is not None
        held = tuple(network.checkpoint()["rope_embed.periods"].tolist())
        assert said.hyperparameters.rope_periods == (held if own else None)
        assert said.hyperparameters.eps == 1e-5


def dinov3(folder: Path, mask: float) -> Path:
    network = official.network("dinov3_vit")
    checkpoint = network.checkpoint()
    for name, value in checkpoint.items():
        if name.endswith("bias_mask"):
            value.fill_(mask)
    return network.write(folder, checkpoint)


def test_a_mask_of_dinov3_that_was_never_set_is_refused(tmp_path: Path) -> None:
    """The buffer is made full of NaN: dinov3/layers/attention.py."""
    with pytest.raises(UnreadableError, match="has NaN or infinite values"):
        ckptconv.convert(dinov3(tmp_path, math.nan), tmp_path / "out.pth", "dinov3")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("target", ["vitdet", "mmpretrain"])
def test_dinov3_is_refused_where_positions_are_added(target: str, tmp_path: Path) -> None:
    source = dinov3(tmp_path, 1.0)
    with pytest.raises(IncompletePlanError, match="Eva can be written for"):
        ckptconv.convert(source, tmp_path / "out.pth", "dinov3", target=target)  # type: ignore[arg-type]
    with pytest.raises(UnidentifiedError):
        ckptconv.plan(source, target=target)  # type: ignore[arg-type]
