"""What a BEiT is for each target: why one cannot hold a member, its names there, timm's model.

MMPretrain's `BEiTViT` (1.2.0) holds shared relative positions or those of each block. A BEiT without either is a plain
ViT whose keys' bias is zero: MMDetection's ViTDet holds it, and timm's Eva.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptconv.backbones import transformers_vits
from ckptconv.backbones.interface import CANONICAL, Dialect, TimmModel
from ckptconv.backbones.timm_models import closest
from ckptconv.backbones.vitdet import vitdet
from ckptconv.ops import concat_with_zeros
from ckptconv.rules import Rule, drop, fuse, keep

if TYPE_CHECKING:
    from ckptconv.backbones.beit import Beit

_POST_NORM = (1792, 64)  # timm's eva02_enormous_patch14_clip_224: its names are those of a network with other norms
_INDEX = "relative_position_index"

_QKV_BIAS = (
    fuse(("blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias"), "blocks.{i}.attn.qkv.bias", concat_with_zeros()),
)
_TIMM: tuple[Rule, ...] = (
    drop(f"rel_pos_bias.{_INDEX}", "timm computes it"),
    drop(f"blocks.{{i}}.attn.{_INDEX}", "timm computes it"),
    keep("{key...}", "{key...}"),
)
_FC_NORM = ("fc_norm.{p}",)
"""timm's Beit has a norm after pooling where it has none after the last block."""
_MMPRETRAIN: tuple[Rule, ...] = (
    keep("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    keep("blocks.{i}.norm1.{p}", "backbone.layers.{i}.ln1.{p}"),
    keep("blocks.{i}.norm2.{p}", "backbone.layers.{i}.ln2.{p}"),
    keep("blocks.{i}.mlp.fc1.{p}", "backbone.layers.{i}.ffn.layers.0.0.{p}"),
    keep("blocks.{i}.mlp.fc2.{p}", "backbone.layers.{i}.ffn.layers.1.{p}"),
    keep("blocks.{i}.{key...}", "backbone.layers.{i}.{key...}"),
    keep("norm.{p}", "backbone.ln1.{p}"),
    keep("{key...}", "backbone.{key...}"),
)


def obstacle(member: Beit, target: str) -> str:
    """Why a target cannot hold it, and what works instead; '' if it can."""
    if target != "official" and (member.embed_dim, member.depth) == _POST_NORM:
        return "it is EVA-02-CLIP's largest, whose blocks normalise their outputs and not their inputs"
    if target in ("official", "timm"):
        return ""
    if target == "transformers":
        return transformers_vits.unlike_beit(member)
    if target == "vitdet":
        if member.shared_relative_positions or member.own_relative_positions:
            return "its attention has relative position biases, which MMDetection's ViTDet does not have"
        return "" if member.absolute_positions else "it has no positions"
    if member.shared_relative_positions and member.own_relative_positions:
        return "it has both shared and own relative positions, and MMPretrain's BEiTViT has one or the other"
    return ""


def dialect(member: Beit, target: str) -> Dialect:
    """How a target names it."""
    if target == "vitdet":
        scales = (("attn.proj", "gamma_1"), ("mlp.fc2", "gamma_2"))
        return vitdet(scales if member.layer_scale else (), _QKV_BIAS if member.qv_bias else ())
    if target == "timm":
        return Dialect(_TIMM, fresh=() if member.final_norm or not member.has_tables else _FC_NORM)
    if target == "transformers":
        return transformers_vits.beit_dialect(member)
    return Dialect(_MMPRETRAIN) if target == "mmpretrain" else CANONICAL


# -- timm's models: timm/models/beit.py and eva.py ---------------------------------------------------------------------

_B, _L, _G = (768, 12, 12, 3072), (1024, 24, 16, 4096), (1408, 40, 16, 6144)


def _model(size: tuple[int, int, int, int], patch: int, **more: Any) -> Mapping[str, Any]:
    sizes = dict(zip(("embed_dim", "depth", "num_heads", "hidden"), size, strict=True))
    return {"img_size": 224, "in_chans": 3, "qkv_bias": True, **sizes, "patch_size": patch, **more}


_TABLES = {
    "layer_scale": True,
    "use_abs_pos_emb": False,
    "use_rel_pos_bias": True,
    "use_shared_rel_pos_bias": False,
    "use_fc_norm": None,
}
_NO_TABLES = {"layer_scale": False, "use_abs_pos_emb": True, "use_post_transformer_norm": None}
_BEIT_MODELS: Mapping[str, Mapping[str, Any]] = {
    "beit_base_patch16_224": _model(_B, 16, **_TABLES),
    "beit_large_patch16_224": _model(_L, 16, **_TABLES),
}
_EVA_MODELS: Mapping[str, Mapping[str, Any]] = {"eva_giant_patch14_224": _model(_G, 14, **_NO_TABLES)}


def timm_model(member: Beit) -> TimmModel | None:
    """Timm's Beit, whose tables are for images of one size; without tables its Eva, which takes images of any.

    None where no one knows its heads.
    """
    if member.num_heads is None:
        return None
    wanted: dict[str, Any] = {
        "img_size": member.grid_size * member.patch_size,
        "patch_size": member.patch_size,
        "in_chans": member.in_channels,
        "embed_dim": member.embed_dim,
        "depth": member.depth,
        "num_heads": member.num_heads,
        "hidden": member.hidden_dim,
        "qkv_bias": member.qv_bias,
        "layer_scale": member.layer_scale,
        "use_abs_pos_emb": member.absolute_positions,
    }
    if not member.has_tables:
        wanted["use_post_transformer_norm"] = None if member.final_norm else False
        return closest(wanted, _EVA_MODELS, "eva_giant_patch14_224")
    wanted |= {
        "use_rel_pos_bias": member.own_relative_positions,
        "use_shared_rel_pos_bias": member.shared_relative_positions,
        "use_fc_norm": None if member.final_norm else True,
    }
    return closest(wanted, _BEIT_MODELS, "beit_base_patch16_224")
