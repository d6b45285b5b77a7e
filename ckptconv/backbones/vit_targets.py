"""What the plain vision transformer is for each target: why one cannot hold a member, its names there, timm's model.

MMDetection's ViTDet (`projects/ViTDet/vitdet/vit.py`) reads a file's section ``model``, uses the row of a class token
in `pos_embed` but no class token, and ends before the last norm. A LayerScale multiplies the output of the layer before
it, so the rows and biases of that layer hold it exactly. MMPretrain's `VisionTransformer` (1.2.0) holds everything but
registers.

timm's `VisionTransformer` (1.0.31, `timm/models/vision_transformer.py`) holds everything. It has no row for
the class token in `pos_embed` next to registers: `_convert_dinov2` adds that row to the class token. Its gated MLPs,
SwiGLUPacked, have `fc1` and `fc2` for DINOv2's `w12` and `w3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptconv.backbones import transformers_vits
from ckptconv.backbones.interface import CANONICAL, Dialect, TimmModel
from ckptconv.backbones.timm_models import closest
from ckptconv.backbones.vitdet import vitdet
from ckptconv.ops import add_row, take
from ckptconv.rules import Rule, keep

if TYPE_CHECKING:
    from ckptconv.backbones.vit import VisionTransformer

_SIGLIP = (1152, 1536)
"""vit_so400m_* and vit_giantopt_* of timm/models/vision_transformer.py. SigLIP's other widths are those of any ViT."""
_CLASSES = {"vitdet": "MMDetection's ViTDet", "mmpretrain": "MMPretrain's VisionTransformer"}

_MMPRETRAIN: tuple[Rule, ...] = (
    keep("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    keep("blocks.{i}.norm1.{p}", "backbone.layers.{i}.ln1.{p}"),
    keep("blocks.{i}.norm2.{p}", "backbone.layers.{i}.ln2.{p}"),
    keep("blocks.{i}.mlp.fc1.{p}", "backbone.layers.{i}.ffn.layers.0.0.{p}"),
    keep("blocks.{i}.mlp.fc2.{p}", "backbone.layers.{i}.ffn.layers.1.{p}"),
    keep("blocks.{i}.mlp.{gate}.{p}", "backbone.layers.{i}.ffn.{gate}.{p}"),
    keep("blocks.{i}.ls1.gamma", "backbone.layers.{i}.attn.gamma1.weight"),
    keep("blocks.{i}.ls2.gamma", "backbone.layers.{i}.ffn.gamma2.weight"),
    keep("blocks.{i}.attn.{layer}.{p}", "backbone.layers.{i}.attn.{layer}.{p}"),
    keep("norm.{p}", "backbone.ln1.{p}"),
    keep("{token}", "backbone.{token}"),
)

_ROW_ADDED: tuple[Rule, ...] = (
    keep("cls_token", "cls_token", add_row(0), by=["pos_embed"]),
    keep("pos_embed", "pos_embed", take(1, 1)),
)
_GATED: tuple[Rule, ...] = (
    keep("blocks.{i}.mlp.w12.{p}", "blocks.{i}.mlp.fc1.{p}"),
    keep("blocks.{i}.mlp.w3.{p}", "blocks.{i}.mlp.fc2.{p}"),
)


def dialect(member: VisionTransformer, target: str) -> Dialect:
    """How a target names it."""
    if target == "vitdet":
        return vitdet((("attn.proj", "ls1.gamma"), ("mlp.fc2", "ls2.gamma")) if member.layer_scale else ())
    if target == "mmpretrain":
        return Dialect(_MMPRETRAIN)
    if target == "transformers":
        return transformers_vits.vit_dialect(member)
    rules = (_ROW_ADDED if _has_row_to_add(member) else ()) + (_GATED if member.swiglu else ())
    return Dialect((*rules, keep("{key...}", "{key...}"))) if rules else CANONICAL


def obstacle(member: VisionTransformer, target: str) -> str:
    """Why a target cannot hold it, and what works instead; '' if it can."""
    if not member.class_token and not member.num_registers and member.embed_dim in _SIGLIP:
        return (
            "a ViT of this width without a class token is SigLIP's, whose MLPs compute GELU by the hyperbolic tangent "
            "in some files, and no tensor tells in which"
        )
    if target == "timm":
        return _unlike_timm(member)
    if target == "transformers":
        return transformers_vits.unlike_vit(member)
    theirs = _CLASSES[target]
    if member.num_registers:
        return (
            f"{theirs} has no registers, and without its {member.num_registers} it computes something else: "
            "use the release without registers, if there is one"
        )
    if member.grid_size is None:
        return f"its {member.positions} positions are not a square grid, which {theirs} needs"
    if target == "vitdet":
        if member.swiglu:
            return f"its MLPs are gated (SwiGLU), and {theirs}'s are not"
        if member.prefix_positions > 1:
            return f"its pos_embed has {_rows(member)} before the patches; {theirs} takes one or none"
        return ""
    if member.prefix_positions != member.class_token:
        return f"its pos_embed has {_rows(member)} before the patches; {theirs} needs one for each class token"
    if member.swiglu and member.hidden_dim % 8:
        return f"its gated MLPs are {member.hidden_dim} wide, and the width in {theirs} is a multiple of 8"
    return ""


def _rows(member: VisionTransformer) -> str:
    """How many rows of `pos_embed` come before the patches, in words."""
    return f"{member.prefix_positions or 'no'} row{'s' * (member.prefix_positions != 1)}"


def _has_row_to_add(member: VisionTransformer) -> bool:
    """Whether `pos_embed` has a row for the class token, and none for the registers."""
    return member.class_token and member.num_registers > 0 and member.prefix_positions == 1


def _unlike_timm(member: VisionTransformer) -> str:
    """Why timm 1.0.31 does not hold it; '' if it does."""
    tokens = member.class_token + member.num_registers
    if member.prefix_positions not in (0, tokens) and not _has_row_to_add(member):
        return (
            f"its pos_embed has {_rows(member)} before the patches; timm's class needs {tokens} or none, and ckptconv "
            "does not convert between them"
        )
    return ""


# -- timm's models: timm/models/vision_transformer.py ------------------------------------------------------------------

_PLAIN: Mapping[str, Any] = {
    "img_size": 224,
    "in_chans": 3,
    "qkv_bias": True,
    "layer_scale": False,
    "class_token": True,
    "no_embed_class": False,
    "reg_tokens": 0,
    "final_norm": True,
}
_TI, _S, _B, _L = (192, 12, 3, 768), (384, 12, 6, 1536), (768, 12, 12, 3072), (1024, 24, 16, 4096)
_H, _G, _SO = (1280, 32, 16, 5120), (1408, 40, 16, 6144), (1152, 27, 16, 4304)
_GATED_G = (1536, 40, 24, 8192)
_NO_TOKEN = {"class_token": False}
_DINOV2 = {"img_size": 518, "layer_scale": True}
_REG4 = {**_DINOV2, "reg_tokens": 4, "no_embed_class": True}
_TIPS = {"img_size": 448, "layer_scale": True, "reg_tokens": 1, "no_embed_class": True}
_RADIO = {"img_size": 512, "reg_tokens": 7, "no_embed_class": True, "final_norm": False}


def _model(size: tuple[int, int, int, int], patch: int, **more: Any) -> Mapping[str, Any]:
    sizes = dict(zip(("embed_dim", "depth", "num_heads", "hidden"), size, strict=True))
    return {**_PLAIN, **sizes, "patch_size": patch, **more}


_MODELS: Mapping[str, Mapping[str, Any]] = {
    "vit_base_patch16_224": _model(_B, 16),
    "vit_base_patch8_224": _model(_B, 8),
    "vit_base_patch32_224": _model(_B, 32),
    "vit_tiny_patch16_224": _model(_TI, 16),
    "vit_small_patch16_224": _model(_S, 16),
    "vit_small_patch8_224": _model(_S, 8),
    "vit_small_patch32_224": _model(_S, 32),
    "vit_large_patch16_224": _model(_L, 16),
    "vit_large_patch14_224": _model(_L, 14),
    "vit_large_patch32_224": _model(_L, 32),
    "vit_huge_patch14_224": _model(_H, 14),
    "vit_giant_patch14_224": _model(_G, 14),
    "vit_gigantic_patch14_224": _model((1664, 48, 16, 8192), 14),
    "vit_huge_patch14_gap_224": _model(_H, 14, **_NO_TOKEN),
    "vit_huge_patch16_gap_448": _model(_H, 16, img_size=448, **_NO_TOKEN),
    "vit_giant_patch16_gap_224": _model(_G, 16, **_NO_TOKEN),
    "vit_small_patch14_dinov2": _model(_S, 14, **_DINOV2),
    "vit_base_patch14_dinov2": _model(_B, 14, **_DINOV2),
    "vit_large_patch14_dinov2": _model(_L, 14, **_DINOV2),
    "vit_small_patch14_reg4_dinov2": _model(_S, 14, **_REG4),
    "vit_base_patch14_reg4_dinov2": _model(_B, 14, **_REG4),
    "vit_large_patch14_reg4_dinov2": _model(_L, 14, **_REG4),
    "vit_base_patch14_reg1_tipsv2": _model(_B, 14, **_TIPS),
    "vit_large_patch14_reg1_tipsv2": _model(_L, 14, **_TIPS),
    "vit_so400m_patch14_reg1_tipsv2": _model(_SO, 14, **_TIPS),
    "vit_base_patch16_radio_v3": _model(_B, 16, **_RADIO, layer_scale=True),
    "vit_large_patch16_radio_v3": _model(_L, 16, **_RADIO, layer_scale=True),
    "vit_huge_patch16_radio_v3": _model(_H, 16, **_RADIO),
    "vit_giant_patch16_radio_v3": _model((1536, 40, 24, 6144), 16, **_RADIO),
    "vit_so400m_patch16_radio_v4": _model(_SO, 16, **{**_RADIO, "reg_tokens": 9}),
    "vit_huge_patch16_radio_v4": _model(_H, 16, **{**_RADIO, "reg_tokens": 9}),
}
_GATED_MODELS: Mapping[str, Mapping[str, Any]] = {
    "vit_giant_patch14_dinov2": _model(_GATED_G, 14, **_DINOV2),
    "vit_giant_patch14_reg4_dinov2": _model(_GATED_G, 14, **_REG4),
    "vit_giant_patch14_reg1_tipsv2": _model(_GATED_G, 14, **_TIPS),
}


def timm_model(member: VisionTransformer) -> TimmModel | None:
    """Timm's model; None where an obstacle says why, and where no one knows its heads or the sides of its grid."""
    if obstacle(member, "timm") or member.grid_size is None or member.num_heads is None:
        return None
    prefix = member.class_token + member.num_registers
    wanted = {
        "img_size": member.grid_size * member.patch_size,
        "patch_size": member.patch_size,
        "in_chans": member.in_channels,
        "embed_dim": member.embed_dim,
        "depth": member.depth,
        "num_heads": member.num_heads,
        "hidden": member.hidden_dim * (2 if member.swiglu else 1),
        "qkv_bias": member.qkv_bias,
        "layer_scale": member.layer_scale,
        "class_token": member.class_token,
        "no_embed_class": prefix > 0 and member.prefix_positions != prefix,
        "reg_tokens": member.num_registers,
        "final_norm": member.final_norm,
    }
    if member.swiglu:
        return closest(wanted, _GATED_MODELS, "vit_giant_patch14_dinov2")
    return closest(wanted, _MODELS, "vit_base_patch16_224")
