"""Names of DINOv3's vision transformers: its authors' and those of transformers, in timm's."""

from __future__ import annotations

from ckptconv.ops import concat, scale
from ckptconv.rules import Rule, drop, fuse, keep, split, under

_SAME = tuple(
    keep(name, name)
    for name in (
        "cls_token",
        "patch_embed.proj.{p}",
        "blocks.{i}.norm1.{p}",
        "blocks.{i}.norm2.{p}",
        "blocks.{i}.attn.proj.{p}",
        "norm.{p}",
    )
)
_KEYS = "the bias of keys, which the layer's mask makes zero"
DINOV3_VIT_PLAIN: tuple[Rule, ...] = (
    drop("mask_token", "the mask token"),
    keep("storage_tokens", "reg_token"),
    keep("rope_embed.periods", "rope.periods"),
    split(  # the layer multiplies its bias by the mask: 0 for keys, NaN in a file from before the initialisation
        "blocks.{i}.attn.qkv.bias",
        ("blocks.{i}.attn.q_bias", "", "blocks.{i}.attn.v_bias"),
        why=_KEYS,
        op=scale(),
        by=["blocks.{i}.attn.qkv.bias_mask"],
    ),
    drop("blocks.{i}.attn.qkv.bias_mask", "multiplied into the biases"),
    keep("blocks.{i}.ls{n}.gamma", "blocks.{i}.gamma_{n}"),
    keep("blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
    keep("blocks.{i}.mlp.fc{n}.{p}", "blocks.{i}.mlp.fc{n}.{p}"),
    *_SAME,
)
DINOV3_VIT: tuple[Rule, ...] = (
    *DINOV3_VIT_PLAIN,
    keep("blocks.{i}.mlp.w1.{p}", "blocks.{i}.mlp.fc1_g.{p}"),
    keep("blocks.{i}.mlp.w2.{p}", "blocks.{i}.mlp.fc1_x.{p}"),
    keep("blocks.{i}.mlp.w3.{p}", "blocks.{i}.mlp.fc2.{p}"),
)
"""dinov3/models/vision_transformer.py, layers/attention.py (LinearKMaskedBias) and layers/ffn_layers.py."""

_TRANSFORMERS: tuple[Rule, ...] = (
    drop("embeddings.mask_token", "the mask token"),
    keep("embeddings.cls_token", "cls_token"),
    keep("embeddings.register_tokens", "reg_token"),
    keep("embeddings.patch_embeddings.{p}", "patch_embed.proj.{p}"),
    keep("norm.{p}", "norm.{p}"),
)
_LAYER: tuple[Rule, ...] = (
    keep("layer.{i}.norm{n}.{p}", "blocks.{i}.norm{n}.{p}"),
    fuse(tuple(f"layer.{{i}}.attention.{part}_proj.weight" for part in "qkv"), "blocks.{i}.attn.qkv.weight", concat(0)),
    keep("layer.{i}.attention.q_proj.bias", "blocks.{i}.attn.q_bias"),
    keep("layer.{i}.attention.v_proj.bias", "blocks.{i}.attn.v_bias"),
    keep("layer.{i}.attention.o_proj.{p}", "blocks.{i}.attn.proj.{p}"),
    keep("layer.{i}.layer_scale{n}.lambda1", "blocks.{i}.gamma_{n}"),
    keep("layer.{i}.mlp.down_proj.{p}", "blocks.{i}.mlp.fc2.{p}"),
)
_PLAIN = keep("layer.{i}.mlp.up_proj.{p}", "blocks.{i}.mlp.fc1.{p}")
_GATED = (
    keep("layer.{i}.mlp.gate_proj.{p}", "blocks.{i}.mlp.fc1_g.{p}"),
    keep("layer.{i}.mlp.up_proj.{p}", "blocks.{i}.mlp.fc1_x.{p}"),
)
TRANSFORMERS_DINOV3: tuple[Rule, ...] = (*_TRANSFORMERS, *under(("", "model."), (*_LAYER, _PLAIN)))
TRANSFORMERS_DINOV3_GATED: tuple[Rule, ...] = (*_TRANSFORMERS, *under(("", "model."), (*_LAYER, *_GATED)))
"""transformers/models/dinov3_vit/modeling_dinov3_vit.py: as saved, and with `model.` as modules of version 5."""
