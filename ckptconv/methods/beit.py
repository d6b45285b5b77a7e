"""Masked image modelling with networks of the BEiT family: BEiT, BEiT v2, data2vec, EVA and CAE.

BEiT of ImageNet-22k, data2vec and EVA normalise their images in different ways, and their files have the same names:
`auto` finds `beit-names`, which does not say how.
"""

from __future__ import annotations

from ckptconv.methods.interface import CLIP, DINO_RESAMPLING, HALF, IMAGENET, MAE_RESAMPLING, Layout, Method, Published
from ckptconv.rules import drop, keep

_MASK = drop("mask_token", "the mask token")
_SECTIONS = ("model", "module", "state_dict", "")
_PRETRAINED = (
    Layout(
        title="pre-trained network",
        sections=_SECTIONS,
        rules=(_MASK, drop("lm_head.{p}", "the prediction head"), keep("{key...}", "{key...}")),
        families=("BEiT",),
        without=("layer_scale",),
    ),
)

BEIT_NAMES = Method(
    name="beit-names",
    title="BEiT's names, normalisation unknown: see beit, beit-1k, data2vec and eva",
    repository="microsoft/unilm",
    layouts=(
        *_PRETRAINED,
        Layout(  # beit/modeling_finetune.py, and timm's: with mean pooling the last norm comes after the pooling
            title="network with a classifier",
            sections=_SECTIONS,
            rules=(
                drop("head.{p}", "the classifier"),
                drop("fc_norm.{p}", "the norm after pooling"),
                keep("{key...}", "{key...}"),
            ),
            families=("BEiT",),
            without=("layer_scale", "norm"),
        ),
    ),
    pixels=None,
    norm=False,  # all of these methods agree
)

BEIT = Method(
    name="beit",
    title="BEiT of ImageNet-22k",
    aliases=("beit-22k", "beit-v1"),
    paper="https://arxiv.org/abs/2106.08254",
    repository="microsoft/unilm",
    layouts=_PRETRAINED,
    pixels=HALF,  # README.md of beit/: mean 0.5 and std 0.5, except on ImageNet-1k
    releases=Published("beit"),
    guess=False,  # data2vec's files have the same names
    position_resampling=MAE_RESAMPLING,  # beit/run_class_finetuning.py
    norm=False,  # beit/semantic_segmentation/backbone/beit.py
)

BEIT_1K = Method(
    name="beit-1k",
    title="BEiT of ImageNet-1k",
    paper=BEIT.paper,
    repository=BEIT.repository,
    layouts=_PRETRAINED,
    pixels=IMAGENET,
    releases=Published("beit-1k"),
    guess=False,  # the files of ImageNet-22k have the same names
    position_resampling=MAE_RESAMPLING,
    norm=False,
)

BEITV2 = Method(
    name="beitv2",
    title="BEiT v2",
    aliases=("beit2",),
    paper="https://arxiv.org/abs/2208.06366",
    repository="microsoft/unilm",
    layouts=(
        Layout(  # cls_pt_layers are blocks for the pretext task only: beit2/modeling_pretrain.py
            title="pre-trained network with its layers for the class token",
            sections=_SECTIONS,
            rules=(
                _MASK,
                drop("lm_head.{p}", "the prediction head"),
                drop("cls_pt_{part}.{p...}", "the layers that pre-train the class token"),
                keep("{key...}", "{key...}"),
            ),
            families=("BEiT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("beitv2"),
    position_resampling=DINO_RESAMPLING,  # beit2/modeling_pretrain.py
    norm=False,  # beit2/semantic_segmentation/backbone/beit.py
)

DATA2VEC = Method(
    name="data2vec",
    title="data2vec's vision transformers",
    aliases=("data2vec-vision",),
    paper="https://arxiv.org/abs/2202.03555",
    repository="facebookresearch/data2vec_vision",
    layouts=_PRETRAINED,
    pixels=IMAGENET,
    releases=Published("data2vec"),
    guess=False,  # BEiT's files have the same names
    position_resampling=MAE_RESAMPLING,  # beit/run_class_finetuning.py
    norm=False,  # beit/semantic_segmentation/backbone/beit.py
)

EVA = Method(
    name="eva",
    title="EVA-01",
    aliases=("eva-01", "eva1"),
    paper="https://arxiv.org/abs/2211.07636",
    repository="baaivision/EVA",
    layouts=_PRETRAINED,  # EVA-01/eva/modeling_pretrain.py: absolute positions, no LayerScale
    pixels=CLIP,
    releases=Published("eva"),
    guess=False,  # BEiT's files have the same names
    num_heads=16,
    position_resampling=MAE_RESAMPLING,  # EVA-01/eva/run_class_finetuning.py
    norm=False,  # EVA-01/det/detectron2/modeling/backbone/vit.py
)

CAE = Method(
    name="cae",
    title="CAE",
    aliases=("context-autoencoder",),
    paper="https://arxiv.org/abs/2202.03026",
    repository="Atten4Vis/CAE",
    layouts=(
        Layout(  # lxtGH/CAE has a neck where Atten4Vis/CAE has a regressor and a decoder: models/modeling_cae.py
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("encoder.{key...}", "{key...}"),
                _MASK,
                drop("rd_pos_embed", "the position embedding of the regressor and the decoder"),
                drop("pretext_neck.{p...}", "the regressor and the decoder"),
                drop("regresser.{p...}", "the regressor"),
                drop("decoder.{p...}", "the decoder"),
                drop("encoder_to_{layer}.{p}", "the layer between encoder and decoder"),
                drop("alignment_encoder.{p...}", "the target encoder: a copy"),
            ),
            families=("BEiT",),
        ),
    ),
    pixels=IMAGENET,
    position_resampling=DINO_RESAMPLING,  # downstream_tasks/detection/models/vision_transformer.py
    norm=False,  # downstream_tasks/detection/…/register_backbone.py
)
