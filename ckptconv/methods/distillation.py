"""Distillation from several networks into one: C-RADIO.

It is timm's VisionTransformer with a stem of its own: NVlabs/RADIO radio/vit_patch_generator.py, enable_cpe_support.py.
"""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import CLIP, Layout, Method, Published
from ckptconv.ops import chain, reshape, take, zeros
from ckptconv.rules import drop, keep, split, under

_TOKENS = "patch_generator.cls_token.token"
_CLASS_TOKEN = chain(take(0, 0, 1), reshape(1, 1, -1))
_SHARED = (
    split(  # as timm's `_convert_radio`: patches of 16 pixels, and no bias
        "patch_generator.embedder.weight",
        ["patch_embed.proj.weight", "patch_embed.proj.bias"],
        ops=[reshape(0, 3, 16, 16), zeros()],
    ),
    keep("patch_generator.pos_embed", "pos_embed"),
    keep("blocks.{i}.ls{n}.grandma", "blocks.{i}.ls{n}.gamma"),
    keep("blocks.{key...}", "blocks.{key...}"),
)
_V3 = (  # a class token for each of 3 teachers, and 5 registers: timm has all but the first as registers
    *_SHARED,
    split(_TOKENS, ["cls_token", "reg_token"], ops=[_CLASS_TOKEN, chain(take(0, 1), reshape(1, 7, -1))]),
)
_V4 = (  # 10 tokens: timm's vit_*_radio_v4
    *_SHARED,
    split(_TOKENS, ["cls_token", "reg_token"], ops=[_CLASS_TOKEN, chain(take(0, 1), reshape(1, 9, -1))]),
)
_HUB = (
    drop("radio_model.input_conditioner.{p}", "the normalisation of images"),
    drop("radio_model.summary_idxs", "which class tokens are summaries"),
    drop("radio_model.adaptors.{key...}", "the heads for the teachers"),
    drop("adaptors.{key...}", "the heads for the teachers"),
)
_TORCH_HUB = (
    drop("input_conditioner.{p}", "the normalisation of images"),
    drop("_heads.{key...}", "the heads for the teachers"),
    drop("_feature_projections.{key...}", "the heads for the teachers"),
)
_SECTIONS = ("state_dict_ema", "state_dict")  # hubconf.py

RADIO = Method(
    name="radio",
    title="C-RADIO, version 3 and 4",
    aliases=("c-radio",),
    paper="https://arxiv.org/abs/2601.17237",
    repository="NVlabs/RADIO",
    layouts=(
        Layout(
            title="version 3, of the Hugging Face hub",
            sections=("",),
            rules=(*under("radio_model.model.", _V3), *_HUB),
            families=("ViT",),
            without=("norm",),
        ),
        Layout(
            title="version 4, of the Hugging Face hub",
            sections=("",),
            rules=(*under("radio_model.model.", _V4), *_HUB),
            families=("ViT",),
            without=("norm",),
        ),
        Layout(
            title="version 3, of torch.hub",
            sections=_SECTIONS,
            rules=(*under("base_model.", _V3), *_TORCH_HUB),
            families=("ViT",),
            without=("norm",),
        ),
        Layout(
            title="version 4, of torch.hub",
            sections=_SECTIONS,
            rules=(*under("base_model.", _V4), *_TORCH_HUB),
            families=("ViT",),
            without=("norm",),
        ),
    ),
    releases=Published("radio"),
    pixels=CLIP,  # radio/input_conditioner.py
    position_resampling=PositionResampling("bilinear", square=True),  # radio/vit_patch_generator.py
)
