"""timm's plain transformers: their names and sizes, and what timm's own filters make of official files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptconv
from ckptconv.backbones import beit, beit_targets, vit, vit_targets
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.interface import Backbone, TimmModel
from ckptconv.backbones.timm_models import closest
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.conversion.converted import Converted
from ckptconv.formats import open_checkpoint
from tests.backbones import test_beit, test_vit
from tests.support import pretrain
from tests.support.specs import state

Tensors = dict[str, torch.Tensor]
TOY, TOY_HEADS = test_vit.TOY, test_vit.TOY_HEADS


def build(model: TimmModel, **more: Any) -> Any:
    """timm's network without a classifier and without pooling."""
    arguments = {"num_classes": 0, "global_pool": "", **model.arguments, **more}
    return pretrain.module("timm").create_model(model.name, **arguments)


def shapes(network: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


# -- the tables of published models ------------------------------------------------------------------------------------

PLAIN = {**vit_targets._MODELS, **vit_targets._GATED_MODELS}


def canonical(names: Mapping[str, tuple[int, ...]], gated: bool) -> dict[str, tuple[int, ...]]:
    if not gated:
        return dict(names)
    return {k.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3."): v for k, v in names.items()}


@pytest.mark.mmdet
@pytest.mark.parametrize("name", PLAIN)
def test_a_published_vit_is_what_timm_builds_under_its_name(name: str) -> None:
    with torch.device("meta"):
        network = build(TimmModel(name))
    member = vit.read(state(canonical(shapes(network), name in vit_targets._GATED_MODELS)))
    assert member is not None
    assert member.num_heads == network.blocks[0].attn.num_heads
    assert member.timm_model() == TimmModel(name)


@pytest.mark.mmdet
@pytest.mark.parametrize("name", [*beit_targets._BEIT_MODELS, *beit_targets._EVA_MODELS])
def test_a_published_beit_is_what_timm_builds_under_its_name(name: str) -> None:
    with torch.device("meta"):
        network = build(TimmModel(name))
    member = beit.read(state(shapes(network)))
    assert member is not None
    assert member.num_heads == network.blocks[0].attn.num_heads
    assert member.timm_model() == TimmModel(name)


EVA_G = {"embed_dim": 1408, "depth": 40, "hidden_dim": 6144, "patch_size": 14, "grid_size": 16, "num_heads": 16}
NAMED = {
    "its published size": (test_vit.SMALL, "vit_small_patch16_224", {}),
    "DINOv2": (test_vit.DINOV2, "vit_small_patch14_dinov2", {}),
    "with registers": (test_vit.REGISTERS, "vit_small_patch14_reg4_dinov2", {}),
    "all places": (
        replace(test_vit.REGISTERS, prefix_positions=5),
        "vit_small_patch14_dinov2",
        {"reg_tokens": 4},
    ),
    "gated": (test_vit.DINOV2_G, "vit_giant_patch14_dinov2", {}),
    "I-JEPA": (test_vit.IJEPA, "vit_huge_patch14_gap_224", {}),
    "no last norm": (test_vit.NO_NORM, "vit_base_patch16_224", {"final_norm": False}),
    "no bias": (test_vit.NO_BIAS, "vit_small_patch16_224", {"qkv_bias": False}),
    "other images": (
        replace(test_vit.BASE, positions=24**2, in_channels=4),
        "vit_base_patch16_224",
        {"img_size": 384, "in_chans": 4},
    ),
    "another size": (
        TOY,
        "vit_base_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 1, "mlp_ratio": 2.0},
    ),
    "another size, gated": (
        replace(test_vit.SMALL, swiglu=True, layer_scale=True, hidden_dim=1024),
        "vit_giant_patch14_dinov2",
        {
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 384,
            "depth": 12,
            "num_heads": 6,
        },
    ),
    "BEiT of pre-training": (
        test_beit.PRETRAINED,
        "beit_base_patch16_224",
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    ),
    "BEiT of fine-tuning": (test_beit.FINETUNED, "beit_base_patch16_224", {}),
    "BEiT that pools": (replace(test_beit.FINETUNED, final_norm=False), "beit_base_patch16_224", {"use_fc_norm": True}),
    "BEiT without tables": (
        test_beit.ABSOLUTE,
        "eva_giant_patch14_224",
        {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    ),
    "EVA": (replace(test_beit.ABSOLUTE, **EVA_G), "eva_giant_patch14_224", {}),
}


@pytest.mark.parametrize("which", NAMED)
def test_a_network_is_the_nearest_published_model_and_its_differences(which: str) -> None:
    member, name, arguments = NAMED[which]
    assert member.timm_model() == TimmModel(name, arguments)


def test_a_ratio_gives_the_length_once_its_fraction_is_cut_off() -> None:
    own = {"embed_dim": 64, "depth": 1, "hidden": 256}
    for width in range(1, 200):
        for hidden in range(1, 400):
            arguments = closest({"embed_dim": width, "depth": 1, "hidden": hidden}, {"a": own}, "a").arguments
            assert int(width * arguments.get("mlp_ratio", 4.0)) == hidden


@pytest.mark.parametrize("member", [replace(test_vit.REGISTERS, prefix_positions=3)])
def test_what_timm_does_not_hold_has_no_model(member: VisionTransformer) -> None:
    assert member.obstacle("timm")
    assert member.timm_model() is None


def test_positions_that_are_no_square_have_no_model() -> None:
    """timm would take them: nobody knows the sides of the image."""
    assert replace(test_vit.SMALL, positions=200).timm_model() is None


# -- timm's filters of official files ----------------------------------------------------------------------------------


def official(member: Backbone) -> Tensors:
    return test_vit.numbers(member) if isinstance(member, VisionTransformer) else test_beit.numbers(member)  # type: ignore[arg-type]


def dinov2(at: Tensors) -> Tensors:
    names = {"reg_token": "register_tokens"}
    return {names.get(name, name): tensor for name, tensor in at.items()} | {"mask_token": torch.zeros(1, 64)}


def ijepa(at: Tensors) -> Any:
    wrapped = {f"module.{name}": tensor for name, tensor in at.items()}
    return {"encoder": wrapped, "predictor": {}, "target_encoder": wrapped}


def masked(at: Tensors) -> Any:
    return {"model": at | {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.ones(9, 64)}}


def radio(at: Tensors) -> Tensors:
    """One class token and seven registers, without a bias in the stem."""
    prefix = "radio_model.model."
    stem = {
        "patch_generator.embedder.weight": at["patch_embed.proj.weight"].flatten(1),
        "patch_generator.cls_token.token": torch.cat([at["cls_token"], at["reg_token"]], 1)[0],
        "patch_generator.pos_embed": at["pos_embed"],
    }
    blocks = {k.replace(".gamma", ".grandma"): v for k, v in at.items() if k.startswith("blocks.")}
    rest = {"radio_model.summary_idxs": torch.zeros(2, dtype=torch.int64)}
    return {prefix + name: tensor for name, tensor in (stem | blocks).items()} | rest


_SHARED = test_beit.TOY
_OWN = replace(_SHARED, shared_relative_positions=False, own_relative_positions=True)
_REGISTERS = replace(TOY, layer_scale=True, num_registers=4)
FILES: Mapping[str, tuple[Backbone, str, Callable[[Tensors], Any]]] = {
    "DINO": (TOY, "dino", dict),
    "MAE": (TOY, "mae", lambda at: {"model": at}),
    "DINOv2": (replace(TOY, layer_scale=True), "dinov2", dinov2),
    "DINOv2 with registers": (_REGISTERS, "dinov2", dinov2),
    "DINOv2, SwiGLU": (replace(TOY, layer_scale=True, swiglu=True, hidden_dim=40), "dinov2", dinov2),
    "DINOv2, SwiGLU, registers": (replace(_REGISTERS, swiglu=True), "dinov2", dinov2),
    "I-JEPA": (replace(TOY, class_token=False, prefix_positions=0), "ijepa", ijepa),
    "BEiT": (_SHARED, "beit", lambda at: {"module": at}),
    "BEiT, own tables": (_OWN, "beit", lambda at: {"model": at}),
    "EVA": (replace(test_beit.TOY_CAE, layer_scale=False, num_heads=16), "eva", masked),
}
FILES = {
    **FILES,
    "C-RADIO": (
        replace(
            TOY,
            patch_size=16,
            positions=4,
            prefix_positions=0,
            num_registers=7,
            layer_scale=True,
            final_norm=False,
        ),
        "radio",
        radio,
    ),
}
HEAD = ("fc_norm.", "head.", "lm_head.", "mask_token")


def filtered(content: Any, network: Any) -> Tensors:
    """What the filter of the network's module makes of a file, as `pretrained=True` applies it."""
    made: Tensors = pretrain.module(type(network).__module__).checkpoint_filter_fn(content, network)
    return {name: tensor for name, tensor in made.items() if not name.startswith(HEAD)}


@pytest.mark.mmdet
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("which", FILES)
def test_the_output_is_what_timms_own_filter_makes_of_the_file(which: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Name by name and bit by bit, and timm's network loads it with strict=True."""
    member, method, save = FILES[which]
    at = {name: t.to(dtype) if t.is_floating_point() else t for name, t in official(member).items()}
    torch.save(save(at), tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, target="timm")
    made = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    model = member.timm_model()
    assert model is not None
    network = build(model)
    wanted = filtered(save(dict(at)), network)
    if which == "EVA":  # timm moves the last norm behind the pooling, and so drops it for a detector
        wanted |= {name: at[name] for name in ("norm.weight", "norm.bias")}
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) and made[name].dtype == dtype for name in made)
    network.load_state_dict(made, strict=True)


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.mmdet
@pytest.mark.parametrize("which", [which for which in FILES if which != "C-RADIO"])
def test_timm_computes_what_the_source_computes(which: str, tmp_path: Path) -> None:
    member, method, save = FILES[which]
    at = official(member)
    torch.save(save(at), tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, target="timm")
    model = member.timm_model()
    assert model is not None
    heads = member.num_heads if isinstance(member, Beit) else TOY_HEADS
    network = build(model, num_heads=heads).eval()
    network.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"], strict=True)
    images = test_vit.images()
    with torch.inference_mode():
        if isinstance(member, Beit):
            wanted = test_beit.forward(at, images, member)
        else:
            wanted = test_vit.forward(at, images, TOY_HEADS)
        assert (network.forward_features(images) - wanted).abs().max() < 1e-5


# -- what the file says ------------------------------------------------------------------------------------------------

DINO = {"mode": "bicubic", "antialias": False, "align_corners": False, "offset": 0.1, "square": False}
REGISTERS = {"mode": "bicubic", "antialias": True, "align_corners": False, "offset": 0.0, "square": False}


def said(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(torch.load(path, weights_only=True)["meta"]["ckptconv"])
    return found


@pytest.mark.parametrize(
    ("which", "resampling", "norm"),
    [
        ("DINOv2", DINO, True),
        ("DINOv2 with registers", REGISTERS, True),
        ("MAE", DINO | {"offset": 0.0}, False),
        ("BEiT", None, False),
        ("C-RADIO", DINO | {"mode": "bilinear", "offset": 0.0, "square": True}, None),  # it has no last norm
    ],
)
def test_a_file_says_timms_model_and_what_the_methods_own_code_does(
    which: str, resampling: object, norm: bool | None, tmp_path: Path
) -> None:
    member, method, save = FILES[which]
    torch.save(save(official(member)), tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, target="timm")
    model = member.timm_model()
    assert model is not None
    assert said(tmp_path / "out.pth")["timm"] == {"name": model.name, "arguments": model.arguments}
    assert said(tmp_path / "out.pth")["backbone"].get("position_resampling") == resampling
    assert said(tmp_path / "out.pth")["backbone"].get("norm") is norm
    with open_checkpoint(tmp_path / "out.pth") as checkpoint:
        converted = Converted.read(checkpoint)
    assert converted.origin is not None
    assert converted.origin.timm == model
    assert converted.backbone is not None
    assert converted.backbone.timm_model() == model


@pytest.mark.parametrize(("method", "norm"), [("auto", None), ("dino", True), ("ibot", False), ("timm", None)])
def test_methods_with_the_same_names_that_take_different_maps_leave_the_choice_open(
    method: str, norm: bool | None, tmp_path: Path
) -> None:
    torch.save(official(TOY), tmp_path / "source.pth")
    receipt = ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", method, target="timm")
    assert {"dino", "ibot"} <= {receipt.method.name, *receipt.also} or method != "auto"
    assert said(tmp_path / "out.pth")["backbone"].get("norm") is norm


def test_the_heads_that_a_method_states_are_timms_too(tmp_path: Path) -> None:
    """MoCo v3's ViT-S has 12 heads, timm's 6."""
    at = test_vit.numbers(replace(TOY, embed_dim=384, depth=12, hidden_dim=1536))
    torch.save({"state_dict": {f"module.base_encoder.{k}": v for k, v in at.items()}}, tmp_path / "source.pth")
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", "mocov3", target="timm")
    model = said(tmp_path / "out.pth")["timm"]
    assert model == {"name": "vit_small_patch8_224", "arguments": {"img_size": 32, "num_heads": 12}}
    ckptconv.convert(tmp_path / "source.pth", tmp_path / "out.pth", "mocov3", target="vitdet", force=True)
    assert "timm" not in said(tmp_path / "out.pth")
