"""Methods that were published with Swin Transformers, and the authors' own names of a Swin."""

from __future__ import annotations

from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.methods.naming_swin import SWIN_INDEX, SWIN_MASK
from ckptconv.rules import drop, keep, under

_FLAT = ("", "state_dict", "model")

_BARE = (*SWIN_INDEX, *SWIN_MASK, keep("{key...}", "{key...}"))

SWIN = Method(
    name="swin",
    title="Swin Transformer's own names",
    aliases=("swin-transformer",),
    repository="microsoft/Swin-Transformer",
    layouts=(
        Layout(title="bare backbone", sections=_FLAT, rules=_BARE, families=("Swin", "SwinV2")),
        Layout(
            title="network with a classifier",
            sections=_FLAT,
            rules=(drop("head.{p}", "the classifier"), *_BARE),
            families=("Swin", "SwinV2"),
        ),
    ),
    pixels=None,
)

MOBY = Method(
    name="moby",
    title="MoBY",
    aliases=("transformer-ssl",),
    paper="https://arxiv.org/abs/2105.04553",
    repository="SwinTransformer/Transformer-SSL",
    layouts=(
        Layout(  # utils.py evaluates the encoder
            title="training checkpoint",
            sections=("model",),
            rules=(
                *under("encoder.", (*SWIN_INDEX, *SWIN_MASK)),
                keep("encoder.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("projector.{p...}", "the projection head"),
                drop("projector_k.{p...}", "the key encoder's projection head: a momentum copy"),
                drop("predictor.{p...}", "the prediction head"),
                drop("queue1", "the queue of negatives of the first view"),
                drop("queue2", "the queue of negatives of the second view"),
                drop("queue_ptr", "the queue of negatives"),
            ),
            families=("Swin", "ViT"),  # models/build.py
        ),
    ),
    pixels=IMAGENET,
    releases=Published("moby"),
)

_ESVIT_HEADS = (
    drop("head.{p...}", "the projection head of the view-level task"),
    drop("head_dense.{p...}", "the projection head of the region-level task"),
)
_ESVIT_SWIN = (*_ESVIT_HEADS, *SWIN_INDEX, keep("{key...}", "{key...}"))
_ESVIT_RESNET = (*_ESVIT_HEADS, keep("backbone.backbone.{key...}", "{key...}"))

ESVIT = Method(
    name="esvit",
    title="EsViT, the teacher",
    aliases=("esvit-teacher",),
    paper="https://arxiv.org/abs/2106.09785",
    repository="microsoft/esvit",
    layouts=(
        Layout(  # the heads are in the network itself: main_esvit.py
            title="training checkpoint, teacher", sections=("teacher",), rules=_ESVIT_SWIN, families=("Swin",)
        ),
        Layout(  # wrapped twice, in ResNetWrapper and MultiCropWrapper: utils.py
            title="training checkpoint of a ResNet, teacher",
            sections=("teacher",),
            rules=_ESVIT_RESNET,
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("esvit"),
    eps=1e-6,  # get_cls_model of models/swin_transformer.py
)

ESVIT_STUDENT = Method(
    name="esvit-student",
    title="EsViT, the student",
    paper=ESVIT.paper,
    repository=ESVIT.repository,
    layouts=(
        Layout(title="training checkpoint, student", sections=("student",), rules=_ESVIT_SWIN, families=("Swin",)),
        Layout(
            title="training checkpoint of a ResNet, student",
            sections=("student",),
            rules=_ESVIT_RESNET,
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
    eps=ESVIT.eps,
)

_MASK_TOKEN = "the mask token"
SIMMIM = Method(
    name="simmim",
    title="SimMIM",
    paper="https://arxiv.org/abs/2111.09886",
    repository="microsoft/SimMIM",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                *under("encoder.", (*SWIN_INDEX, *SWIN_MASK)),
                drop("encoder.mask_token", _MASK_TOKEN),
                keep("encoder.{key...}", "{key...}"),
                drop("decoder.{p...}", "the decoder"),
            ),
            families=("Swin", "SwinV2", "BEiT"),  # models/vision_transformer.py is based on BEiT's
        ),
    ),
    pixels=IMAGENET,
    releases=Published("simmim"),
)

_MAE_DECODER = (
    drop("mask_token", _MASK_TOKEN),
    drop("decoder_pos_embed", "the decoder's position embedding"),
    drop("decoder_{part}.{p...}", "the decoder"),
)

GREENMIM = Method(
    name="greenmim",
    title="GreenMIM",
    paper="https://arxiv.org/abs/2205.13515",
    repository="LayneH/GreenMIM",
    layouts=(
        Layout(  # patch merging in the authors' order: modeling/green_swin_models.py
            title="training checkpoint",
            sections=("model",),
            rules=(
                *under("encoder.", SWIN_INDEX),
                keep("encoder.{key...}", "{key...}"),
                *_MAE_DECODER,
            ),
            families=("Swin",),
        ),
        Layout(
            title="backbone, as util/extract_backbone.py writes it",
            sections=("",),
            rules=(keep("{key...}", "{key...}"),),
            families=("Swin",),
        ),
    ),
    pixels=IMAGENET,
    eps=1e-6,  # modeling/model_factory.py
)

MIXMIM = Method(  # no detector takes its family: a plan for MMDetection is refused
    name="mixmim",
    title="MixMIM (MixMAE): a Swin without shifted windows, which MMDetection does not have",
    aliases=("mixmae",),
    paper="https://arxiv.org/abs/2205.13137",
    repository="Sense-X/MixMIM",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(*SWIN_INDEX, *_MAE_DECODER, keep("{key...}", "{key...}")),
            families=("MixMIM",),
        ),
    ),
    pixels=IMAGENET,
)
