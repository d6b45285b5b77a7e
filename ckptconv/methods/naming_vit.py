"""Rules that rows of several families share: a vision transformer's parts under names that are not timm's."""

from __future__ import annotations

from ckptconv.ops import concat
from ckptconv.rules import Rule, drop, fuse, keep

MMPRETRAIN_VIT: tuple[Rule, ...] = (
    drop("mask_token", "what stands for hidden patches"),
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
    keep("cls_token", "cls_token"),
    keep("pos_embed", "pos_embed"),
)
"""mmpretrain/models/backbones/vision_transformer.py, and what its self-supervised heirs add."""

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
_EMBEDDINGS = (
    drop("embeddings.mask_token", "what stands for hidden patches"),
    keep("embeddings.cls_token", "cls_token"),
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

TRANSFORMERS_VIT: tuple[Rule, ...] = (
    *_EMBEDDINGS,
    *_QKV,
    *_AROUND,
)
"""transformers/models/vit/modeling_vit.py, as files have the names; ViT-MAE, ViT-MSN and I-JEPA use them, too."""

TRANSFORMERS_BEIT: tuple[Rule, ...] = (
    keep("embeddings.cls_token", "cls_token"),
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
)
"""transformers/models/beit/modeling_beit.py and data2vec/modeling_data2vec_vision.py: keys have no bias."""

TRANSFORMERS_BEIT_SHARED = keep("encoder.relative_position_bias.{p}", "rel_pos_bias.{p}")
TRANSFORMERS_BEIT_OWN = keep("encoder.layer.{i}.attention.attention.relative_position_bias.{p}", "blocks.{i}.attn.{p}")
"""Relative positions of all blocks, as in pre-training, and of each, as in fine-tuning."""

TRANSFORMERS_DINOV2: tuple[Rule, ...] = (
    *_EMBEDDINGS,
    keep("embeddings.register_tokens", "reg_token"),
    *_QKV,
    keep("encoder.layer.{i}.norm1.{p}", "blocks.{i}.norm1.{p}"),
    keep("encoder.layer.{i}.norm2.{p}", "blocks.{i}.norm2.{p}"),
    keep("encoder.layer.{i}.layer_scale1.lambda1", "blocks.{i}.ls1.gamma"),
    keep("encoder.layer.{i}.layer_scale2.lambda1", "blocks.{i}.ls2.gamma"),
    keep("encoder.layer.{i}.mlp.weights_in.{p}", "blocks.{i}.mlp.w12.{p}"),
    keep("encoder.layer.{i}.mlp.weights_out.{p}", "blocks.{i}.mlp.w3.{p}"),
    keep("encoder.layer.{i}.mlp.{layer}.{p}", "blocks.{i}.mlp.{layer}.{p}"),
)
"""transformers/models/dinov2/modeling_dinov2.py, and dinov2_with_registers."""
