"""Names that networks have on model hubs: they tell how a network is written down, not how it was trained."""

from __future__ import annotations

from ckptconv.methods import naming
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import drop, keep, under

_FLAT = ("", "state_dict", "model")

TIMM = Method(
    name="timm",
    title="timm's names",
    repository="huggingface/pytorch-image-models",
    layouts=(
        Layout(title="bare backbone", sections=_FLAT, rules=(keep("{key...}", "{key...}"),), families=("ViT",)),
        Layout(
            title="network with a classifier",
            sections=_FLAT,
            rules=(drop("head.{p}", "the classifier"), keep("{key...}", "{key...}")),
            families=("ViT",),
        ),
    ),
    pixels=None,
)

TRANSFORMERS = Method(
    name="transformers",
    title="Hugging Face transformers' names",
    repository="huggingface/transformers",
    layouts=(
        Layout(title="backbone", sections=("", "state_dict"), rules=naming.TRANSFORMERS),
        Layout(
            title="network with a classifier",
            sections=("", "state_dict"),
            rules=(*under("resnet.", naming.TRANSFORMERS), drop("classifier.1.{p}", "the classifier")),
        ),
        Layout(
            title="ViT, I-JEPA or MSN",
            sections=("", "state_dict"),
            rules=(*naming.TRANSFORMERS_VIT, drop("pooler.dense.{p}", "the pooler, which no pre-training trains")),
            families=("ViT",),
        ),
        Layout(
            title="ViT or MAE with a head",
            sections=("", "state_dict"),
            rules=(
                *under("vit.", naming.TRANSFORMERS_VIT),
                drop("decoder.{p...}", "MAE's decoder"),
                drop("classifier.{p}", "the classifier"),
            ),
            families=("ViT",),
        ),
        Layout(
            title="DINOv2",
            sections=("", "state_dict"),
            rules=naming.TRANSFORMERS_DINOV2,
            families=("ViT",),
        ),
        Layout(
            title="DINOv2 with a classifier",
            sections=("", "state_dict"),
            rules=(*under("dinov2.", naming.TRANSFORMERS_DINOV2), drop("classifier.{p}", "the classifier")),
            families=("ViT",),
        ),
    ),
    pixels=None,
)

METHODS = (TIMM, TRANSFORMERS)
