"""Rules that several methods share: a Swin under names that are not its authors', and its buffers."""

from __future__ import annotations

from ckptconv.ops import concat, regroup
from ckptconv.rules import Rule, drop, fuse, keep, split, under

_INDEX = "the relative position index; recomputed on load"
_MASK = "the attention mask of shifted windows; recomputed for each image size"

OUTPUT_NORM = "the norm of an earlier stage's output; a detector initialises its own"

SWIN_INDEX: tuple[Rule, ...] = (drop("layers.{s}.blocks.{b}.attn.relative_position_index", _INDEX),)
SWIN_MASK: tuple[Rule, ...] = (drop("layers.{s}.blocks.{b}.attn_mask", _MASK),)
"""The buffers of microsoft/Swin-Transformer that tell nothing. Some versions compute masks and save none."""

_TIMM_SWIN: tuple[Rule, ...] = (
    *(keep(f"layers.{s + 1}.downsample.{{key...}}", f"layers.{s}.downsample.{{key...}}") for s in range(3)),
    keep("layers.{s}.blocks.{key...}", "layers.{s}.blocks.{key...}"),
    keep("patch_embed.{key...}", "patch_embed.{key...}"),
)

TIMM_SWIN: tuple[Rule, ...] = (*SWIN_INDEX, *SWIN_MASK, *_TIMM_SWIN, keep("norm.{p}", "norm.{p}"))
"""timm/models/swin_transformer.py since 0.9: a stage begins with patch merging, in the authors' column order.
Version 0.9.2 saves the buffers, 0.9.16 does not."""

TIMM_SWIN_FEATURES: tuple[Rule, ...] = (
    drop("layers_{s}.blocks.{b}.attn.relative_position_index", _INDEX),
    drop("layers_{s}.blocks.{b}.attn_mask", _MASK),
    *(keep(f"layers_{s + 1}.downsample.{{key...}}", f"layers.{s}.downsample.{{key...}}") for s in range(3)),
    keep("layers_{s}.blocks.{key...}", "layers.{s}.blocks.{key...}"),
    keep("patch_embed.{key...}", "patch_embed.{key...}"),
    *under("model.", _TIMM_SWIN),
)
"""The same with features_only=True: timm/models/_features.py; see TIMM_FEATURES in naming_convnext."""

_ROWS_FIRST = (0, 2, 1, 3)

MM_SWIN: tuple[Rule, ...] = (
    drop("stages.{s}.blocks.{b}.attn.w_msa.relative_position_index", _INDEX),
    drop("stages.{s}.blocks.{b}.attn.attn_mask", _MASK),
    keep("patch_embed.projection.{p}", "patch_embed.proj.{p}"),
    keep("patch_embed.norm.{p}", "patch_embed.norm.{p}"),
    keep("stages.{s}.blocks.{b}.attn.w_msa.{key...}", "layers.{s}.blocks.{b}.attn.{key...}"),
    keep("stages.{s}.blocks.{b}.ffn.layers.0.0.{p}", "layers.{s}.blocks.{b}.mlp.fc1.{p}"),
    keep("stages.{s}.blocks.{b}.ffn.layers.1.{p}", "layers.{s}.blocks.{b}.mlp.fc2.{p}"),
    keep("stages.{s}.blocks.{b}.{norm}.{p}", "layers.{s}.blocks.{b}.{norm}.{p}"),
    keep("stages.{s}.downsample.reduction.{p}", "layers.{s}.downsample.reduction.{p}", regroup(1, _ROWS_FIRST, True)),
    keep("stages.{s}.downsample.norm.{p}", "layers.{s}.downsample.norm.{p}", regroup(0, _ROWS_FIRST, True)),
    keep("norm3.{p}", "norm.{p}"),
    drop("norm{stage}.{p}", OUTPUT_NORM),
)
"""mmpretrain/models/backbones/swin_transformer.py: nn.Unfold merges patches, and the output of the last stage has a
norm. Files of mmcls before version 3 of that class hold masks. mmdet's class has the same names, and a norm for each
output stage."""

_UNFOLDED = (
    keep("layers.{s}.downsample.reduction.{p}", "layers.{s}.downsample.reduction.{p}", regroup(1, _ROWS_FIRST, True)),
    keep("layers.{s}.downsample.norm.{p}", "layers.{s}.downsample.norm.{p}", regroup(0, _ROWS_FIRST, True)),
)
MM_MIXMIM: tuple[Rule, ...] = (
    *SWIN_INDEX,
    keep("patch_embed.projection.{p}", "patch_embed.proj.{p}"),
    keep("patch_embed.norm.{p}", "patch_embed.norm.{p}"),
    keep("absolute_pos_embed", "absolute_pos_embed"),
    keep("layers.{s}.blocks.{b}.attn.{key...}", "layers.{s}.blocks.{b}.attn.{key...}"),
    keep("layers.{s}.blocks.{b}.ln{n}.{p}", "layers.{s}.blocks.{b}.norm{n}.{p}"),
    keep("layers.{s}.blocks.{b}.ffn.layers.0.0.{p}", "layers.{s}.blocks.{b}.mlp.fc1.{p}"),
    keep("layers.{s}.blocks.{b}.ffn.layers.1.{p}", "layers.{s}.blocks.{b}.mlp.fc2.{p}"),
    *_UNFOLDED,
    keep("norm.{p}", "norm.{p}"),
)
"""mmpretrain/models/backbones/mixmim.py: the inverse of its tools/model_converters/mixmim_to_mmpretrain.py."""

_HF = "encoder.layers.{s}.blocks.{b}."
_OWN = "layers.{s}.blocks.{b}."
_TRANSFORMERS: tuple[Rule, ...] = (
    drop(f"{_HF}attention.self.relative_position_index", _INDEX),
    keep("embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    keep("embeddings.norm.{p}", "patch_embed.norm.{p}"),
    keep(f"{_HF}attention.output.dense.{{p}}", f"{_OWN}attn.proj.{{p}}"),
    keep(f"{_HF}layernorm_before.{{p}}", f"{_OWN}norm1.{{p}}"),
    keep(f"{_HF}layernorm_after.{{p}}", f"{_OWN}norm2.{{p}}"),
    keep(f"{_HF}intermediate.dense.{{p}}", f"{_OWN}mlp.fc1.{{p}}"),
    keep(f"{_HF}output.dense.{{p}}", f"{_OWN}mlp.fc2.{{p}}"),
    keep("encoder.layers.{s}.downsample.{key...}", "layers.{s}.downsample.{key...}"),
    keep("layernorm.{p}", "norm.{p}"),
)

_SELF = tuple(f"{_HF}attention.self.{part}" for part in ("query", "key", "value"))

TRANSFORMERS_SWIN: tuple[Rule, ...] = (
    *_TRANSFORMERS,
    fuse(tuple(f"{part}.{{p}}" for part in _SELF), f"{_OWN}attn.qkv.{{p}}", concat(0)),
    keep(f"{_HF}attention.self.relative_position_bias_table", f"{_OWN}attn.relative_position_bias_table"),
    fuse(tuple(f"{_HF}attention.{part}_proj.{{p}}" for part in "qkv"), f"{_OWN}attn.qkv.{{p}}", concat(0)),
    keep(f"{_HF}attention.relative_position_bias.{{p}}", f"{_OWN}attn.{{p}}"),
    keep(f"{_HF}attention.o_proj.{{p}}", f"{_OWN}attn.proj.{{p}}"),
    keep(f"{_HF}mlp.{{layer}}.{{p}}", f"{_OWN}mlp.{{layer}}.{{p}}"),
)
"""transformers/models/swin/modeling_swin.py, as saved and as modules of version 5: patch merging in the authors'
order. Older files hold the indices."""

TRANSFORMERS_SWIN_V2: tuple[Rule, ...] = (
    *_TRANSFORMERS,
    fuse(tuple(f"{part}.weight" for part in _SELF), f"{_OWN}attn.qkv.weight", concat(0)),
    keep(f"{_HF}attention.self.query.bias", f"{_OWN}attn.q_bias"),
    keep(f"{_HF}attention.self.value.bias", f"{_OWN}attn.v_bias"),
    keep(f"{_HF}attention.self.{{scale_or_table}}", f"{_OWN}attn.{{scale_or_table}}"),
    keep(f"{_HF}attention.self.continuous_position_bias_mlp.{{n}}.{{p}}", f"{_OWN}attn.cpb_mlp.{{n}}.{{p}}"),
)
"""transformers/models/swinv2/modeling_swinv2.py."""

TORCHVISION_SWIN: tuple[Rule, ...] = (
    drop("features.{index}.{b}.attn.relative_position_index", _INDEX),
    keep("features.0.0.{p}", "patch_embed.proj.{p}"),
    keep("features.0.2.{p}", "patch_embed.norm.{p}"),
    *(
        rule
        for s in range(4)
        for rule in (
            keep(f"features.{2 * s + 1}.{{b}}.mlp.0.{{p}}", f"layers.{s}.blocks.{{b}}.mlp.fc1.{{p}}"),
            keep(f"features.{2 * s + 1}.{{b}}.mlp.3.{{p}}", f"layers.{s}.blocks.{{b}}.mlp.fc2.{{p}}"),
            keep(f"features.{2 * s + 1}.{{b}}.attn.{{key...}}", f"layers.{s}.blocks.{{b}}.attn.{{key...}}"),
            keep(f"features.{2 * s + 1}.{{b}}.norm{{n}}.{{p}}", f"layers.{s}.blocks.{{b}}.norm{{n}}.{{p}}"),
        )
    ),
    *(keep(f"features.{2 * s + 2}.{{layer}}.{{p}}", f"layers.{s}.downsample.{{layer}}.{{p}}") for s in range(3)),
    keep("norm.{p}", "norm.{p}"),
)
"""torchvision/models/swin_transformer.py: stages and patch merging alternate, in the authors' column order."""

TORCHVISION_SWIN_V2: tuple[Rule, ...] = (
    *(
        split(
            f"features.{2 * s + 1}.{{b}}.attn.qkv.bias",
            [f"layers.{s}.blocks.{{b}}.attn.q_bias", "", f"layers.{s}.blocks.{{b}}.attn.v_bias"],
            why="the key's bias, which torchvision sets to zero in each forward pass",
        )
        for s in range(4)
    ),
    *TORCHVISION_SWIN,
)
"""The same, swin_v2_*: ShiftedWindowAttentionV2."""
