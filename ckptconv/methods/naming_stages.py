"""Rules of networks that timm has and MMDetection does not have: XCiT, RegNetY and Hiera, from their authors' names."""

from __future__ import annotations

from ckptconv.rules import Rule, drop, keep, split

XCIT: tuple[Rule, ...] = (
    keep("pos_embeder.{key...}", "pos_embed.{key...}"),
    split("cls_attn_blocks.{i}.attn.qkv.{p}", [f"cls_attn_blocks.{{i}}.attn.{part}.{{p}}" for part in "qkv"]),
)
"""facebookresearch/xcit xcit.py: what timm names in another way."""

_SEER_BLOCK = {
    "proj": "downsample.conv",
    "bn": "downsample.bn",
    "f.a.0": "conv1.conv",
    "f.a.1": "conv1.bn",
    "f.b.0": "conv2.conv",
    "f.b.1": "conv2.bn",
    "f.se.excitation.0": "se.fc1",
    "f.se.excitation.2": "se.fc2",
    "f.c": "conv3.conv",
    "f.final_bn": "conv3.bn",
}
CLASSY_REGNET: tuple[Rule, ...] = (
    keep("conv1.stem.0.{p}", "stem.conv.{p}"),
    keep("conv1.stem.1.{p}", "stem.bn.{p}"),
    *(
        keep(f"res{stage + 1}.block{stage}-{{b}}.{theirs}.{{p}}", f"s{stage}.{{b}}.{own}.{{p}}")
        for stage in range(1, 5)
        for theirs, own in _SEER_BLOCK.items()
    ),
)
"""classy_vision/models/regnet.py and anynet.py, below the `_feature_blocks` of vissl/models/trunks/regnet.py."""

_MOST_BLOCKS = 17  # a stage, of all models of timm
TIMM_REGNET: tuple[Rule, ...] = (
    *(keep(f"{{s}}.b{n}.{{key...}}", f"{{s}}.{n - 1}.{{key...}}") for n in range(1, _MOST_BLOCKS + 1)),
    keep("stem.{key...}", "stem.{key...}"),
)
"""timm/models/regnet.py counts the blocks of a stage from 1."""

HIERA: tuple[Rule, ...] = (
    keep("encoder_norm.{p}", "head.norm.{p}"),
    keep("norm.{p}", "head.norm.{p}"),
    drop("head.projection.{p}", "the classifier"),
    drop("mask_token", "the mask token"),
    drop("decoder_pos_embed", "the decoder's position embedding"),
    drop("multi_scale_fusion_heads.{key...}", "the layers between encoder and decoder"),
    drop("decoder_{part}.{key...}", "the decoder"),
    keep("pos_embed", "pos_embed"),
    keep("patch_embed.{key...}", "patch_embed.{key...}"),
    keep("blocks.{key...}", "blocks.{key...}"),
)
"""facebookresearch/hiera hiera/hiera.py and hiera_mae.py: the decoder joins the maps of several stages."""
