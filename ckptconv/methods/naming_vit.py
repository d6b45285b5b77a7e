"""Rules that several methods share: a vision transformer under names that are not timm's."""

from __future__ import annotations

from ckptconv.ops import concat
from ckptconv.rules import Rule, drop, fuse, keep

MMPRETRAIN_VIT: tuple[Rule, ...] = (
    drop("mask_token", "the mask token"),
    keep("patch_embed.projection.{p}", "patch_embed.proj.{p}"),
    keep("layers.{i}.ln1.{p}", "blocks.{i}.norm1.{p}"),
    keep("layers.{i}.ln2.{p}", "blocks.{i}.norm2.{p}"),
    keep("layers.{i}.attn.gamma1.weight", "blocks.{i}.ls1.gamma"),
    keep("layers.{i}.ffn.gamma2.weight", "blocks.{i}.ls2.gamma"),
    keep("layers.{i}.attn.{layer}.{p}", "blocks.{i}.attn.{layer}.{p}"),
    keep("layers.{i}.ffn.layers.0.0.{p}", "blocks.{i}.mlp.fc1.{p}"),
    keep("layers.{i}.ffn.layers.1.{p}", "blocks.{i}.mlp.fc2.{p}"),
    keep("layers.{i}.ffn.{gate}.{p}", "blocks.{i}.mlp.{gate}.{p}"),
    keep("ln1.{p}", "norm.{p}"),
    drop("ln2.{p}", "the norm after pooling", instead="norm"),
    keep("cls_token", "cls_token"),
    keep("pos_embed", "pos_embed"),
)
"""mmpretrain/models/backbones/vision_transformer.py, and what its self-supervised subclasses add."""

MMPRETRAIN_BEIT: tuple[Rule, ...] = (
    *MMPRETRAIN_VIT,
    keep("layers.{i}.attn.{p}", "blocks.{i}.attn.{p}"),
    keep("layers.{i}.{p}", "blocks.{i}.{p}"),
    keep("rel_pos_bias.{p}", "rel_pos_bias.{p}"),
)
"""mmpretrain/models/backbones/beit.py."""

_QKV = (
    fuse(
        tuple(f"encoder.layer.{{i}}.attention.attention.{part}.{{p}}" for part in ("query", "key", "value")),
        "blocks.{i}.attn.qkv.{p}",
        concat(0),
    ),
    keep("encoder.layer.{i}.attention.output.dense.{p}", "blocks.{i}.attn.proj.{p}"),
)

_TOKENS = (
    drop("embeddings.mask_token", "the mask token"),
    keep("embeddings.cls_token", "cls_token"),
)
_EMBEDDINGS = (
    keep("embeddings.position_embeddings", "pos_embed"),
    keep("embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    keep("layernorm.{p}", "norm.{p}"),
)

_AROUND = (
    keep("encoder.layer.{i}.layernorm_before.{p}", "blocks.{i}.norm1.{p}"),
    keep("encoder.layer.{i}.layernorm_after.{p}", "blocks.{i}.norm2.{p}"),
    keep("encoder.layer.{i}.intermediate.dense.{p}", "blocks.{i}.mlp.fc1.{p}"),
    keep("encoder.layer.{i}.output.dense.{p}", "blocks.{i}.mlp.fc2.{p}"),
)

_AROUND_IN_MEMORY = (
    keep("layers.{i}.attention.o_proj.{p}", "blocks.{i}.attn.proj.{p}"),
    keep("layers.{i}.layernorm_before.{p}", "blocks.{i}.norm1.{p}"),
    keep("layers.{i}.layernorm_after.{p}", "blocks.{i}.norm2.{p}"),
    keep("layers.{i}.mlp.{layer}.{p}", "blocks.{i}.mlp.{layer}.{p}"),
)

TRANSFORMERS_IJEPA: tuple[Rule, ...] = (
    *_EMBEDDINGS,
    *_QKV,
    *_AROUND,
    fuse(tuple(f"layers.{{i}}.attention.{part}_proj.{{p}}" for part in "qkv"), "blocks.{i}.attn.qkv.{p}", concat(0)),
    *_AROUND_IN_MEMORY,
)
"""transformers/models/ijepa/modeling_ijepa.py: a ViT without a class token.

Files have the names of version 4, in which version 5 saves: transformers/conversion_mapping.py. Its modules have other
ones, which are in a file that holds their `state_dict()`.
"""

TRANSFORMERS_VIT: tuple[Rule, ...] = (*_TOKENS, *TRANSFORMERS_IJEPA)
"""transformers/models/vit/modeling_vit.py; vit_mae and vit_msn use the names, too."""

TRANSFORMERS_BEIT: tuple[Rule, ...] = (
    *_TOKENS,
    keep("embeddings.position_embeddings", "pos_embed"),
    keep("embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    fuse(
        tuple(f"encoder.layer.{{i}}.attention.attention.{part}.weight" for part in ("query", "key", "value")),
        "blocks.{i}.attn.qkv.weight",
        concat(0),
    ),
    keep("encoder.layer.{i}.attention.attention.query.bias", "blocks.{i}.attn.q_bias"),
    keep("encoder.layer.{i}.attention.attention.value.bias", "blocks.{i}.attn.v_bias"),
    keep("encoder.layer.{i}.attention.output.dense.{p}", "blocks.{i}.attn.proj.{p}"),
    *_AROUND,
    keep("encoder.layer.{i}.lambda_{n}", "blocks.{i}.gamma_{n}"),
    keep("encoder.relative_position_bias.{p}", "rel_pos_bias.{p}"),
    keep("encoder.layer.{i}.attention.attention.relative_position_bias.{p}", "blocks.{i}.attn.{p}"),
    drop("pooler.layernorm.{p}", "the norm after pooling"),
)
"""transformers/models/beit/modeling_beit.py and data2vec/modeling_data2vec_vision.py: keys have no bias, and relative
positions are of all blocks, as in pre-training, or of each, as in fine-tuning."""

TRANSFORMERS_BEIT_IN_MEMORY: tuple[Rule, ...] = (
    fuse(
        tuple(f"layers.{{i}}.attention.{part}_proj.weight" for part in "qkv"), "blocks.{i}.attn.qkv.weight", concat(0)
    ),
    keep("layers.{i}.attention.q_proj.bias", "blocks.{i}.attn.q_bias"),
    keep("layers.{i}.attention.v_proj.bias", "blocks.{i}.attn.v_bias"),
    *_AROUND_IN_MEMORY,
    keep("layers.{i}.lambda_{n}", "blocks.{i}.gamma_{n}"),
    keep("shared_position_bias.{p}", "rel_pos_bias.{p}"),
    keep("layers.{i}.relative_position_bias.{p}", "blocks.{i}.attn.{p}"),
)
"""What BEiT's modules call the same in version 5; data2vec's have the old names."""

TRANSFORMERS_DINOV2: tuple[Rule, ...] = (
    *_TOKENS,
    *_EMBEDDINGS,
    keep("embeddings.register_tokens", "reg_token"),
    *_QKV,
    keep("encoder.layer.{i}.norm1.{p}", "blocks.{i}.norm1.{p}"),
    keep("encoder.layer.{i}.norm2.{p}", "blocks.{i}.norm2.{p}"),
    keep("encoder.layer.{i}.layer_scale1.lambda1", "blocks.{i}.ls1.gamma"),
    keep("encoder.layer.{i}.layer_scale2.lambda1", "blocks.{i}.ls2.gamma"),
    keep("encoder.layer.{i}.mlp.weights_in.{p}", "blocks.{i}.mlp.w12.{p}"),
    keep("encoder.layer.{i}.mlp.weights_out.{p}", "blocks.{i}.mlp.w3.{p}"),
    fuse(
        tuple(f"encoder.layer.{{i}}.attention.{part}_proj.{{p}}" for part in "qkv"),
        "blocks.{i}.attn.qkv.{p}",
        concat(0),
    ),
    keep("encoder.layer.{i}.attention.o_proj.{p}", "blocks.{i}.attn.proj.{p}"),
    fuse(
        tuple(f"encoder.layer.{{i}}.mlp.{part}_proj.{{p}}" for part in ("gate", "up")),
        "blocks.{i}.mlp.w12.{p}",
        concat(0),
    ),
    keep("encoder.layer.{i}.mlp.down_proj.{p}", "blocks.{i}.mlp.w3.{p}"),
    keep("encoder.layer.{i}.mlp.{layer}.{p}", "blocks.{i}.mlp.{layer}.{p}"),
)
"""transformers/models/dinov2/modeling_dinov2.py, and dinov2_with_registers: as saved, and as modules of version 5."""

_TORCHVISION_BLOCK = "encoder.layers.encoder_layer_{i}"
TORCHVISION_VIT: tuple[Rule, ...] = (
    keep("class_token", "cls_token"),
    keep("conv_proj.{p}", "patch_embed.proj.{p}"),
    keep("encoder.pos_embedding", "pos_embed"),
    keep(f"{_TORCHVISION_BLOCK}.ln_{{n}}.{{p}}", "blocks.{i}.norm{n}.{p}"),
    keep(f"{_TORCHVISION_BLOCK}.self_attention.in_proj_{{p}}", "blocks.{i}.attn.qkv.{p}"),
    keep(f"{_TORCHVISION_BLOCK}.self_attention.out_proj.{{p}}", "blocks.{i}.attn.proj.{p}"),
    keep(f"{_TORCHVISION_BLOCK}.mlp.0.{{p}}", "blocks.{i}.mlp.fc1.{p}"),
    keep(f"{_TORCHVISION_BLOCK}.mlp.3.{{p}}", "blocks.{i}.mlp.fc2.{p}"),
    keep(f"{_TORCHVISION_BLOCK}.mlp.linear_{{n}}.{{p}}", "blocks.{i}.mlp.fc{n}.{p}"),
    keep("encoder.ln.{p}", "norm.{p}"),
)
"""torchvision/models/vision_transformer.py; older files name the layers of an MLP."""

TIMM_HEAD: tuple[Rule, ...] = (
    drop("head.{p}", "the classifier"),
    drop("fc_norm.{p}", "the norm after pooling", instead="norm"),
)
TIMM_GATED: tuple[Rule, ...] = (
    keep("blocks.{i}.mlp.fc1.{p}", "blocks.{i}.mlp.w12.{p}"),
    keep("blocks.{i}.mlp.fc2.{p}", "blocks.{i}.mlp.w3.{p}"),
)
"""timm/layers/mlp.py, SwiGLUPacked."""
