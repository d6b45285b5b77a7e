"""What vision transformers are in Hugging Face transformers: why a class cannot hold a member, its names, its config.

Source of names and classes: `models/{vit,ijepa,dinov2,dinov2_with_registers,dinov3_vit,beit}/` of transformers 5.24.0.
The names are those of the classes' `state_dict()`, which version 5 changed. `from_pretrained` of version 5 reads these
names and those of version 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptconv.backbones.interface import Dialect, TransformersModel
from ckptconv.rules import Rule, drop, keep, split

if TYPE_CHECKING:
    from ckptconv.backbones.beit import Beit
    from ckptconv.backbones.eva import Eva
    from ckptconv.backbones.vit import VisionTransformer

_EPS = 1e-6  # timm's and the authors' for plain transformers; transformers' own default is 1e-12
_EPS_DINOV3 = 1e-5


def _of(block: str) -> tuple[str, str, str]:
    """The names of queries, keys and values in a block."""
    query, key, value = (f"{block}.attention.{part}_proj" for part in "qkv")
    return query, key, value


_EMBEDDINGS: tuple[Rule, ...] = (
    keep("cls_token", "embeddings.cls_token"),
    keep("pos_embed", "embeddings.position_embeddings"),
    keep("patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
    keep("norm.{p}", "layernorm.{p}"),
)
_LAYER: tuple[Rule, ...] = (
    keep("blocks.{i}.attn.proj.{p}", "layers.{i}.attention.o_proj.{p}"),
    keep("blocks.{i}.norm1.{p}", "layers.{i}.layernorm_before.{p}"),
    keep("blocks.{i}.norm2.{p}", "layers.{i}.layernorm_after.{p}"),
    keep("blocks.{i}.mlp.{layer}.{p}", "layers.{i}.mlp.{layer}.{p}"),
)
_VIT = Dialect(
    (
        *_EMBEDDINGS,
        split("blocks.{i}.attn.qkv.{p}", [f"{name}.{{p}}" for name in _of("layers.{i}")]),
        *_LAYER,
    )
)
_DINOV2_RULES: tuple[Rule, ...] = (
    *_EMBEDDINGS,
    keep("reg_token", "embeddings.register_tokens"),
    split("blocks.{i}.attn.qkv.{p}", [f"{name}.{{p}}" for name in _of("encoder.layer.{i}")]),
    keep("blocks.{i}.attn.proj.{p}", "encoder.layer.{i}.attention.o_proj.{p}"),
    keep("blocks.{i}.norm{n}.{p}", "encoder.layer.{i}.norm{n}.{p}"),
    keep("blocks.{i}.ls{n}.gamma", "encoder.layer.{i}.layer_scale{n}.lambda1"),
    split("blocks.{i}.mlp.w12.{p}", [f"encoder.layer.{{i}}.mlp.{part}_proj.{{p}}" for part in ("gate", "up")]),
    keep("blocks.{i}.mlp.w3.{p}", "encoder.layer.{i}.mlp.down_proj.{p}"),
    keep("blocks.{i}.mlp.{layer}.{p}", "encoder.layer.{i}.mlp.{layer}.{p}"),
)
_MASK_TOKEN = "embeddings.mask_token"
_DINOV2 = Dialect(_DINOV2_RULES)
_REGISTERS = Dialect(_DINOV2_RULES, fresh=(_MASK_TOKEN,))
PERIODS = drop(
    "rope.periods", "transformers computes the periods of rotary positions; other ones are in the file's metadata"
)
_DINOV3_RULES: tuple[Rule, ...] = (
    PERIODS,
    keep("cls_token", "embeddings.cls_token"),
    keep("reg_token", "embeddings.register_tokens"),
    keep("patch_embed.proj.{p}", "embeddings.patch_embeddings.{p}"),
    split("blocks.{i}.attn.qkv.weight", [f"{name}.weight" for name in _of("model.layer.{i}")]),
    keep("blocks.{i}.attn.q_bias", "model.layer.{i}.attention.q_proj.bias"),
    keep("blocks.{i}.attn.v_bias", "model.layer.{i}.attention.v_proj.bias"),
    keep("blocks.{i}.attn.proj.{p}", "model.layer.{i}.attention.o_proj.{p}"),
    keep("blocks.{i}.norm{n}.{p}", "model.layer.{i}.norm{n}.{p}"),
    keep("blocks.{i}.gamma_{n}", "model.layer.{i}.layer_scale{n}.lambda1"),
    keep("blocks.{i}.mlp.fc1_g.{p}", "model.layer.{i}.mlp.gate_proj.{p}"),
    keep("blocks.{i}.mlp.fc1_x.{p}", "model.layer.{i}.mlp.up_proj.{p}"),
    keep("blocks.{i}.mlp.fc1.{p}", "model.layer.{i}.mlp.up_proj.{p}"),
    keep("blocks.{i}.mlp.fc2.{p}", "model.layer.{i}.mlp.down_proj.{p}"),
    keep("norm.{p}", "norm.{p}"),
)
_INDEX = "transformers computes the relative position index"
_TABLE = "relative_position_bias_table"
_BEIT_RULES: tuple[Rule, ...] = (
    drop("rel_pos_bias.relative_position_index", _INDEX),
    drop("blocks.{i}.attn.relative_position_index", _INDEX),
    *_EMBEDDINGS,
    split("blocks.{i}.attn.qkv.weight", [f"{name}.weight" for name in _of("layers.{i}")]),
    keep("blocks.{i}.attn.q_bias", "layers.{i}.attention.q_proj.bias"),
    keep("blocks.{i}.attn.v_bias", "layers.{i}.attention.v_proj.bias"),
    keep(f"blocks.{{i}}.attn.{_TABLE}", f"layers.{{i}}.relative_position_bias.{_TABLE}"),
    keep(f"rel_pos_bias.{_TABLE}", f"shared_position_bias.{_TABLE}"),
    keep("blocks.{i}.gamma_{n}", "layers.{i}.lambda_{n}"),
    *_LAYER,
)


def _common(member: VisionTransformer | Eva | Beit, eps: float) -> dict[str, Any]:
    """Sizes that every config has."""
    return {
        "hidden_size": member.embed_dim,
        "num_hidden_layers": member.depth,
        "num_attention_heads": member.num_heads,
        "patch_size": member.patch_size,
        "num_channels": member.in_channels,
        "layer_norm_eps": eps,
    }


# -- ViT, I-JEPA, DINOv2 ---------------------------------------------------------------------------------------------


def _class_of(member: VisionTransformer) -> str:
    if member.num_registers:
        return "Dinov2WithRegistersModel"
    if member.layer_scale or member.swiglu:
        return "Dinov2Model"
    return "ViTModel" if member.class_token else "IJepaModel"


def unlike_vit(member: VisionTransformer) -> str:
    """Why the class for its parts cannot hold a ViT; '' if it can."""
    theirs = f"transformers' {_class_of(member)}"
    rows, wanted = member.prefix_positions, int(member.class_token)
    if not member.class_token and (member.num_registers or member.layer_scale or member.swiglu):
        return f"it has no class token, which {theirs} has"
    if rows != wanted:
        return f"its pos_embed has {rows or 'no'} row{'s' * (rows != 1)} before the patches; {theirs} has {wanted}"
    if not member.final_norm:
        return f"it has no norm after the last block, which {theirs} has"
    if member.grid_size is None:
        return f"its {member.positions} positions are not a square grid, which {theirs} needs"
    if (member.num_registers or member.swiglu) and not member.layer_scale:
        return f"it has no LayerScale, which {theirs} has"
    if member.layer_scale and _mlp_ratio(member) is None:
        return f"its MLPs are {member.hidden_dim} wide, and {theirs} derives their width from a whole number"
    return ""


def _mlp_ratio(member: VisionTransformer) -> int | None:
    """`mlp_ratio` of DINOv2's config, a whole number; None if no such number gives the width of the MLPs."""
    for ratio in range(1, 17):
        hidden = member.embed_dim * ratio
        if member.swiglu:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        if hidden == member.hidden_dim:
            return ratio
    return None


def vit_dialect(member: VisionTransformer) -> Dialect:
    """The names of the class for its parts."""
    if member.num_registers:
        return _REGISTERS
    return _DINOV2 if member.layer_scale else _VIT


def vit_model(member: VisionTransformer) -> TransformersModel | None:
    """Its class and config; None where an obstacle says why, and where no one knows its heads."""
    if unlike_vit(member) or member.num_heads is None:
        return None
    name = _class_of(member)
    config = _common(member, _EPS)
    config |= {"image_size": (member.grid_size or 0) * member.patch_size, "qkv_bias": member.qkv_bias}
    if not member.layer_scale:
        return TransformersModel(name, {**config, "intermediate_size": member.hidden_dim})
    config |= {"mlp_ratio": _mlp_ratio(member), "use_swiglu_ffn": member.swiglu}
    own = {"num_register_tokens": member.num_registers} if member.num_registers else {"use_mask_token": False}
    return TransformersModel(name, {**config, **own})


# -- DINOv3 ----------------------------------------------------------------------------------------------------------


def unlike_dinov3(member: Eva) -> str:
    """Why DINOv3ViTModel cannot hold a network with rotary positions; '' if it can."""
    theirs = "transformers' DINOv3ViTModel"
    if member.positions or member.pre_norm:
        return f"{theirs} has rotary positions only, and it has a table of positions or a norm before its blocks"
    if not member.class_token:
        return f"it has no class token, which {theirs} has"
    if not member.layer_scale:
        return f"it has no LayerScale, which {theirs} has"
    if not member.final_norm:
        return f"it has no norm after the last block, which {theirs} has"
    if not member.fused or member.mlp == "packed" or member.mlp_norm:
        return f"its attention or its MLPs have another form than those of {theirs}"
    return ""


def dinov3_dialect(member: Eva) -> Dialect:
    """The names of DINOv3ViTModel."""
    no_registers = () if member.num_registers else ("embeddings.register_tokens",)  # its class has none, as a tensor
    return Dialect(_DINOV3_RULES, fresh=(_MASK_TOKEN, *no_registers))


def dinov3_model(member: Eva) -> TransformersModel | None:
    """DINOv3ViTModel and its config; None where an obstacle says why, and where no one knows its heads."""
    if unlike_dinov3(member) or member.num_heads is None:
        return None
    gated = member.mlp == "apart"
    config = _common(member, _EPS_DINOV3)
    config |= {
        "intermediate_size": member.hidden_dim,
        "num_register_tokens": member.num_registers,
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "query_bias": member.qkv_bias,
        "key_bias": False,
        "value_bias": member.qkv_bias,
    }
    return TransformersModel("DINOv3ViTModel", config)


# -- BEiT ------------------------------------------------------------------------------------------------------------


def unlike_beit(member: Beit) -> str:
    """Why BeitModel cannot hold a BEiT; '' if it can."""
    return "" if member.qv_bias else "its queries and values have no bias, and those of transformers' BeitModel have"


def beit_dialect(member: Beit) -> Dialect:
    """The names of BeitModel, which has a norm after pooling where it has none after the last block."""
    return Dialect(_BEIT_RULES, fresh=() if member.final_norm else ("pooler.layernorm.{p}",))


def beit_model(member: Beit) -> TransformersModel | None:
    """BeitModel and its config; None where an obstacle says why, and where no one knows its heads."""
    if unlike_beit(member) or member.num_heads is None:
        return None
    config = _common(member, _EPS)
    config |= {
        "intermediate_size": member.hidden_dim,
        "image_size": member.grid_size * member.patch_size,
        "use_absolute_position_embeddings": member.absolute_positions,
        "use_shared_relative_position_bias": member.shared_relative_positions,
        "use_relative_position_bias": member.own_relative_positions,
        "layer_scale_init_value": 0.1 if member.layer_scale else 0.0,  # any number makes a LayerScale
        "use_mean_pooling": not member.final_norm,
    }
    return TransformersModel("BeitModel", config)
