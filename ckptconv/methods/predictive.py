"""Prediction of what masked parts of an image are as features: MSN, I-JEPA."""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.rules import drop, keep

MSN = Method(
    name="msn",
    title="MSN, the target encoder",
    paper="https://arxiv.org/abs/2204.07141",
    repository="facebookresearch/msn",
    layouts=(
        Layout(
            title="training checkpoint, target encoder",
            sections=("target_encoder",),
            rules=(drop("fc.{p...}", "the projection head"), keep("{key...}", "{key...}")),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("msn"),
    position_resampling=PositionResampling(),  # interpolate_pos_encoding in src/deit.py
    norm=True,  # forward_features there
)

IJEPA = Method(
    name="ijepa",
    title="I-JEPA, the target encoder",
    aliases=("jepa",),
    paper="https://arxiv.org/abs/2301.08243",
    repository="facebookresearch/ijepa",
    layouts=(
        Layout(
            title="training checkpoint, target encoder",
            sections=("target_encoder",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ViT",),
            without=("class_token",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("ijepa"),  # interpolate_pos_encoding takes the first patch for a class token: states nothing
    norm=True,  # src/models/vision_transformer.py
)

IJEPA_ENCODER = Method(
    name="ijepa-encoder",
    title="I-JEPA, the context encoder, which timm's models are",
    paper=IJEPA.paper,
    repository=IJEPA.repository,
    layouts=(
        Layout(
            title="training checkpoint, context encoder",
            sections=("encoder",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ViT",),
            without=("class_token",),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
    norm=IJEPA.norm,
)
