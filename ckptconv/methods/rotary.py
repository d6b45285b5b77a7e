"""EVA-02 and Perception Encoder: transformers with rotary positions beside a table of positions."""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import CLIP, HALF, MAE_RESAMPLING, Layout, Method, Published
from ckptconv.ops import chain, permute, reshape
from ckptconv.rules import drop, keep, under

_ROPE = "the tables of rotary positions, which depend on the grid alone"
_EVA02 = (
    drop("mask_token", "the mask token"),
    drop("lm_head.{p}", "the prediction head"),
    drop("rope.{table}", _ROPE),
    drop("blocks.{i}.attn.rope.{table}", _ROPE),
    keep("blocks.{i}.mlp.w12.{p}", "blocks.{i}.mlp.fc1.{p}"),
    keep("blocks.{i}.mlp.w1.{p}", "blocks.{i}.mlp.fc1_g.{p}"),
    keep("blocks.{i}.mlp.w2.{p}", "blocks.{i}.mlp.fc1_x.{p}"),
    keep("blocks.{i}.mlp.w3.{p}", "blocks.{i}.mlp.fc2.{p}"),
    keep("blocks.{i}.mlp.ffn_ln.{p}", "blocks.{i}.mlp.norm.{p}"),
    keep("cls_token", "cls_token"),
    keep("pos_embed", "pos_embed"),
    keep("patch_embed.proj.{p}", "patch_embed.proj.{p}"),
    keep("blocks.{i}.norm1.{p}", "blocks.{i}.norm1.{p}"),
    keep("blocks.{i}.norm2.{p}", "blocks.{i}.norm2.{p}"),
    keep("blocks.{i}.attn.proj.{p}", "blocks.{i}.attn.proj.{p}"),
    keep("norm.{p}", "norm.{p}"),
)

EVA02 = Method(
    name="eva02",
    title="EVA-02",
    paper="https://arxiv.org/abs/2303.11331",
    repository="baaivision/EVA",
    layouts=(
        Layout(  # EVA-02/asuka/modeling_pretrain.py; DeepSpeed saves the section
            title="pre-trained network, base or large: queries, keys and values apart",
            sections=("module", "model", ""),
            rules=(
                *_EVA02,
                keep("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q_proj.bias"),
                keep("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v_proj.bias"),
                keep("blocks.{i}.attn.{part}_proj.{p}", "blocks.{i}.attn.{part}_proj.{p}"),
            ),
            families=("Eva",),
        ),
        Layout(
            title="pre-trained network, tiny or small: one layer for queries, keys and values",
            sections=("module", "model", ""),
            rules=(
                *_EVA02,
                keep("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q_bias"),
                keep("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v_bias"),
                keep("blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
            ),
            families=("Eva",),
        ),
    ),
    releases=Published("eva02"),
    pixels=CLIP,  # EVA-02/asuka/datasets.py, where run_eva02_pretraining.py is not told otherwise
    position_resampling=MAE_RESAMPLING,  # EVA-02/asuka/run_class_finetuning.py
    norm=False,  # EVA-02/det/detectron2/modeling/backbone/vit.py
)

_BLOCK = "transformer.resblocks.{i}."
_PE = (
    keep("class_embedding", "cls_token", reshape(1, 1, -1)),
    keep("positional_embedding", "pos_embed", chain(reshape(0, 1, -1), permute(1, 0, 2))),
    keep("conv1.weight", "patch_embed.proj.weight"),
    keep("ln_pre.{p}", "norm_pre.{p}"),
    keep(f"{_BLOCK}attn.in_proj_{{p}}", "blocks.{i}.attn.qkv.{p}"),
    keep(f"{_BLOCK}attn.out_proj.{{p}}", "blocks.{i}.attn.proj.{p}"),
    keep(f"{_BLOCK}ln_{{n}}.{{p}}", "blocks.{i}.norm{n}.{p}"),
    keep(f"{_BLOCK}mlp.c_fc.{{p}}", "blocks.{i}.mlp.fc1.{p}"),
    keep(f"{_BLOCK}mlp.c_proj.{{p}}", "blocks.{i}.mlp.fc2.{p}"),
)
_SECTIONS = ("", "state_dict", "weights")
_WITHOUT = ("class_token", "norm")

PE = Method(
    name="pe",
    title="Perception Encoder",
    aliases=("perception-encoder", "pe-core", "pe-spatial", "pe-lang"),
    paper="https://arxiv.org/abs/2504.13181",
    repository="facebookresearch/perception_models",
    layouts=(
        Layout(  # core/vision_encoder/pe.py, CLIP
            title="image and text encoders (PE-Core)",
            sections=_SECTIONS,
            rules=(
                *under("visual.", _PE),
                keep("visual.ln_post.{p}", "norm.{p}"),
                drop("visual.proj", "the projection into the space of texts"),
                drop("visual.attn_pool.{p...}", "the attention pooling", instead="attention_pooling"),
                drop("transformer.{p...}", "the text encoder"),
                drop("token_embedding.{p}", "the text encoder"),
                drop("positional_embedding", "the text encoder"),
                drop("ln_final.{p}", "the text encoder"),
                drop("text_projection", "the text encoder"),
                drop("logit_scale", "the temperature of the contrastive loss"),
            ),
            families=("Eva",),
            without=_WITHOUT,
        ),
        Layout(
            title="image encoder (PE-Spatial, PE-Lang)",
            sections=_SECTIONS,
            rules=(*_PE, keep(f"{_BLOCK}ls_{{n}}.gamma", "blocks.{i}.gamma_{n}")),
            families=("Eva",),
            without=_WITHOUT,
        ),
    ),
    releases=Published("pe"),
    pixels=HALF,  # core/vision_encoder/transforms.py
    eps=1e-5,  # core/vision_encoder/pe.py
    position_resampling=PositionResampling("bilinear"),  # core/vision_encoder/pe.py, _sample_abs_posemb
    norm=False,  # apps/detection/detectron2_pe/modeling/backbone/pev1_det.py
)
