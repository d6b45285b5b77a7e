"""Namings that many people's files have: they tell how a file is laid out, not how it was trained."""

from __future__ import annotations

from ckptconv.methods import naming, naming_convnext
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import drop, keep

_FLAT = ("", "state_dict", "model")

CONVNEXT = Method(
    name="convnext",
    title="ConvNeXt's names, as its authors write them",
    repository="facebookresearch/ConvNeXt",
    layouts=(
        Layout(
            title="bare or with a classifier",
            sections=_FLAT,
            rules=(drop("head.{p}", "the classifier"), keep("{key...}", "{key...}")),
            families=("ConvNeXt",),
        ),
    ),
    pixels=None,
)

_TIMM_HEAD = drop("head.fc.{p}", "the classifier")

TIMM = Method(
    name="timm",
    title="timm's names",
    repository="huggingface/pytorch-image-models",
    layouts=(
        Layout(title="bare ViT", sections=_FLAT, rules=(keep("{key...}", "{key...}"),), families=("ViT",)),
        Layout(
            title="ViT with a classifier",
            sections=_FLAT,
            rules=(drop("head.{p}", "the classifier"), keep("{key...}", "{key...}")),
            families=("ViT",),
        ),
        Layout(  # older versions have the authors' names
            title="Swin, since version 0.9",
            sections=_FLAT,
            rules=(*naming.TIMM_SWIN, drop("head.fc.{p}", "the classifier")),
            families=("Swin",),
        ),
        Layout(title="ConvNeXt", sections=_FLAT, rules=(*naming_convnext.TIMM, _TIMM_HEAD)),
        Layout(
            title="ConvNeXt with 1x1 convolutions", sections=_FLAT, rules=(*naming_convnext.TIMM_CONVOLVED, _TIMM_HEAD)
        ),
    ),
    pixels=None,
)

DETECTRON2 = Method(
    name="detectron2",
    title="detectron2's names, as its converters write them",
    repository="facebookresearch/detectron2",
    layouts=(
        Layout(  # a converter puts `stem.` before whatever is in no stage, the head too
            title="converted backbone",
            sections=("model",),
            rules=(
                *naming.DETECTRON2,
                drop("stem.fc.{p...}", "the head after the pooled features"),
                drop("backbone.fpn_{layer}.{p...}", "a feature pyramid"),
            ),
        ),
    ),
    pixels=None,
)

METHODS = (CONVNEXT, TIMM, DETECTRON2)
