"""timm's models of its class `Eva` (1.0.31, `timm/models/eva.py`): which one a network is, and in what it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptconv.backbones.interface import TimmModel
from ckptconv.backbones.timm_models import closest

if TYPE_CHECKING:
    from ckptconv.backbones.eva import Eva

_TI, _S, _B, _L = (192, 12, 3, 768), (384, 12, 6, 1536), (768, 12, 12, 3072), (1024, 24, 16, 4096)
_H, _7B = (1280, 32, 20, 5120), (4096, 40, 32, 8192)
_G = (1536, 50, 16, 8960)
_ANY_IMAGE = 224
"""DINOv3's models take images of any size."""

_COMMON: Mapping[str, Any] = {
    "img_size": 224,
    "in_chans": 3,
    "class_token": True,
    "num_reg_tokens": 0,
    "qkv_bias": True,
    "qkv_fused": True,
    "layer_scale": False,
    "swiglu_mlp": False,
    "scale_mlp": False,
    "use_post_transformer_norm": True,
}
_DINOV3 = {"patch_size": 16, "num_reg_tokens": 4, "layer_scale": True}
_GATED = {"swiglu_mlp": True}
_APART = {**_GATED, "qkv_fused": False, "scale_mlp": True}
_CORE = {"rope_grid_offset": 1.0}
_SPATIAL = {"rope_grid_offset": 1.0, "use_post_transformer_norm": False}
_SPATIAL_G = {"rope_grid_offset": 0.0, "use_post_transformer_norm": False, "class_token": False, "layer_scale": True}


def _model(size: tuple[int, int, int, int], **more: Any) -> Mapping[str, Any]:
    return {**_COMMON, **dict(zip(("embed_dim", "depth", "num_heads", "hidden"), size, strict=True)), **more}


_DINOV3_MODELS: Mapping[str, Mapping[str, Any]] = {
    "vit_tiny_patch16_dinov3_qkvb": _model(_TI, **_DINOV3),
    "vit_small_patch16_dinov3_qkvb": _model(_S, **_DINOV3),
    "vit_small_patch16_dinov3": _model(_S, **_DINOV3, qkv_bias=False),
    "vit_small_plus_patch16_dinov3_qkvb": _model(_S, **_DINOV3, **_GATED),
    "vit_small_plus_patch16_dinov3": _model(_S, **_DINOV3, **_GATED, qkv_bias=False),
    "vit_base_patch16_dinov3_qkvb": _model(_B, **_DINOV3),
    "vit_base_patch16_dinov3": _model(_B, **_DINOV3, qkv_bias=False),
    "vit_large_patch16_dinov3_qkvb": _model(_L, **_DINOV3),
    "vit_large_patch16_dinov3": _model(_L, **_DINOV3, qkv_bias=False),
    "vit_huge_plus_patch16_dinov3_qkvb": _model(_H, **_DINOV3, **_GATED),
    "vit_huge_plus_patch16_dinov3": _model(_H, **_DINOV3, **_GATED, qkv_bias=False),
    "vit_giant_patch16_lingbot": _model((1536, 40, 24, 4096), **_DINOV3, **_GATED, qkv_bias=False),
    "vit_7b_patch16_dinov3": _model(_7B, **_DINOV3, **_GATED, qkv_bias=False),
}
_EVA02_MODELS: Mapping[str, Mapping[str, Any]] = {
    "eva02_tiny_patch14_224": _model((192, 12, 3, 512), patch_size=14, **_GATED),
    "eva02_small_patch14_224": _model((384, 12, 6, 1024), patch_size=14, **_GATED),
    "eva02_base_patch14_224": _model((768, 12, 12, 2048), patch_size=14, **_APART),
    "eva02_large_patch14_224": _model((1024, 24, 16, 2730), patch_size=14, **_APART),
}
_PE_MODELS: Mapping[str, Mapping[str, Any]] = {
    "vit_pe_core_tiny_patch16_384": _model(_TI, patch_size=16, img_size=384, **_CORE),
    "vit_pe_core_small_patch16_384": _model(_S, patch_size=16, img_size=384, **_CORE),
    "vit_pe_core_base_patch16_224": _model(_B, patch_size=16, **_CORE),
    "vit_pe_core_large_patch14_336": _model(_L, patch_size=14, img_size=336, **_CORE),
    "vit_pe_core_gigantic_patch14_448": _model(
        _G, patch_size=14, img_size=448, rope_grid_offset=0.0, class_token=False
    ),
    "vit_pe_lang_large_patch14_448": _model(
        (1024, 23, 16, 4096), patch_size=14, img_size=448, **_SPATIAL, layer_scale=True
    ),
    "vit_pe_lang_gigantic_patch14_448": _model((1536, 47, 16, 8960), patch_size=14, img_size=448, **_SPATIAL_G),
    "vit_pe_spatial_tiny_patch16_512": _model(_TI, patch_size=16, img_size=512, **_SPATIAL),
    "vit_pe_spatial_small_patch16_512": _model(_S, patch_size=16, img_size=512, **_SPATIAL),
    "vit_pe_spatial_base_patch16_512": _model(_B, patch_size=16, img_size=512, **_SPATIAL),
    "vit_pe_spatial_large_patch14_448": _model(_L, patch_size=14, img_size=448, **_SPATIAL),
    "vit_pe_spatial_gigantic_patch14_448": _model(_G, patch_size=14, img_size=448, **_SPATIAL_G),
}


def obstacle(member: Eva) -> str:
    """Why timm's class cannot hold it; '' if it can."""
    if member.positions and member.grid_size is None:
        return f"its {member.positions} positions are not a square grid, which timm's models have"
    if not member.positions and not member.layer_scale:
        return "it has no LayerScale, which all of timm's models of DINOv3 have"
    if not member.positions and not member.class_token:
        return "it has no class token, unlike DINOv3: timm's own such networks have other rotary positions"
    return ""


def timm_model(member: Eva) -> TimmModel | None:
    """Timm's model; None where an obstacle says why, and where no one knows its heads."""
    if obstacle(member) or member.num_heads is None:
        return None
    wanted: dict[str, Any] = {
        "img_size": (member.grid_size or 0) * member.patch_size or _ANY_IMAGE,
        "patch_size": member.patch_size,
        "in_chans": member.in_channels,
        "embed_dim": member.embed_dim,
        "depth": member.depth,
        "num_heads": member.num_heads,
        "hidden": member.hidden_dim,
        "class_token": member.class_token,
        "num_reg_tokens": member.num_registers,
        "qkv_bias": member.qkv_bias,
        "qkv_fused": member.fused,
        "layer_scale": member.layer_scale,
        "swiglu_mlp": member.mlp != "plain",
        "scale_mlp": member.mlp_norm,
        "use_post_transformer_norm": member.final_norm,
    }
    if member.pre_norm:
        # core/vision_encoder/pe.py: the class token is the first place of the grid, and places are not scaled to the
        # size of the pre-training, as timm does
        wanted["rope_grid_offset"] = float(member.class_token)
        models = {name: own for name, own in _PE_MODELS.items() if member.layer_scale or not own["layer_scale"]}
        model = closest(wanted, models, _base(wanted, models))
        return TimmModel(model.name, {**model.arguments, "ref_feat_shape": None})
    if member.positions:
        model = closest(wanted, _EVA02_MODELS, _base(wanted, _EVA02_MODELS))
        align = 1 if member.mlp == "apart" and not member.mlp_norm else None
    else:
        model = closest(wanted, _DINOV3_MODELS, _base(wanted, _DINOV3_MODELS))
        align = _alignment(member, model.name)
    return model if align is None else TimmModel(model.name, {**model.arguments, "swiglu_align_to": align})


def _base(wanted: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> str:
    """The model of another size that differs least in its parts."""
    parts = (
        *("qkv_bias", "qkv_fused", "layer_scale", "swiglu_mlp", "scale_mlp", "class_token"),
        *("use_post_transformer_norm", "patch_size"),
    )
    return min(models, key=lambda name: sum(models[name][key] != wanted[key] for key in parts))


def _alignment(member: Eva, name: str) -> int | None:
    """What timm's SwiGLU rounds its width up to, where the model's own number does not suit; None where it does."""
    gated = _DINOV3_MODELS[name]["swiglu_mlp"]
    own = (64 if name == "vit_7b_patch16_dinov3" else 8) if gated else 0
    if member.mlp == "apart":
        return None if own and member.hidden_dim % own == 0 else 8 if member.hidden_dim % 8 == 0 else 1
    return 0 if member.mlp == "packed" and own else None
