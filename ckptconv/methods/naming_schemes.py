"""Naming schemes of libraries: they tell how a file is laid out, not how it was trained."""

from __future__ import annotations

from ckptconv.methods import naming_convnext, naming_dinov3, naming_resnet, naming_stages, naming_swin, naming_vit
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import drop, keep, under

_FLAT = ("", "state_dict", "model")
_SAVED = ("", "state_dict")

CONVNEXT = Method(
    name="convnext",
    title="ConvNeXt's names, as its authors write them",
    aliases=("convnext-v1", "convnext-v2"),
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

_RESNETS = (
    Layout(title="bare backbone", sections=_FLAT, rules=(keep("{key...}", "{key...}"),), families=("ResNet",)),
    Layout(
        title="network with a classifier",
        sections=_FLAT,
        rules=(drop("fc.{p...}", "the classifier"), keep("{key...}", "{key...}")),
        families=("ResNet",),
    ),
)
"""torchvision's names, which timm's ResNets have, too."""

TIMM = Method(
    name="timm",
    title="timm's names",
    aliases=("pytorch-image-models",),
    repository="huggingface/pytorch-image-models",
    layouts=(
        Layout(
            title="bare ViT",
            sections=_FLAT,
            rules=(keep("{key...}", "{key...}"),),
            families=("ViT",),
            without=("class_token",),
        ),
        Layout(
            title="ViT with a classifier",
            sections=_FLAT,
            rules=(*naming_vit.TIMM_HEAD, keep("{key...}", "{key...}")),
            families=("ViT",),
            without=("class_token",),
        ),
        Layout(  # SwiGLUPacked: DINOv2's giant, UNI 2, H-optimus, Virchow
            title="ViT with gated MLPs",
            sections=_FLAT,
            rules=(*naming_vit.TIMM_HEAD, *naming_vit.TIMM_GATED, keep("{key...}", "{key...}")),
            families=("ViT",),
            without=("class_token",),
        ),
        Layout(
            title="Hiera or XCiT",
            sections=_FLAT,
            rules=(drop("head.{p}", "the classifier"), _TIMM_HEAD, keep("{key...}", "{key...}")),
            families=("Hiera", "XCiT"),
        ),
        Layout(
            title="RegNetY",
            sections=_FLAT,
            rules=(*naming_stages.TIMM_REGNET, _TIMM_HEAD),
            families=("RegNetY",),
        ),
        Layout(  # timm/models/eva.py
            title="Eva: DINOv3, EVA-02 or Perception Encoder",
            sections=_FLAT,
            rules=(
                drop("head.{p}", "the classifier"),
                drop("fc_norm.{p}", "the norm after pooling", instead="norm"),
                drop("attn_pool.{p...}", "the attention pooling", instead="attention_pooling"),
                keep("{key...}", "{key...}"),
            ),
            families=("Eva",),
            without=("class_token", "norm"),
        ),
        Layout(  # older versions have the authors' names
            title="Swin, since version 0.9",
            sections=_FLAT,
            rules=(*naming_swin.TIMM_SWIN, _TIMM_HEAD),
            families=("Swin", "SwinV2"),
        ),
        Layout(title="ConvNeXt", sections=_FLAT, rules=(*naming_convnext.TIMM, _TIMM_HEAD), families=("ConvNeXt",)),
        Layout(
            title="ConvNeXt with 1x1 convolutions",
            sections=_FLAT,
            rules=(*naming_convnext.TIMM_CONVOLVED, _TIMM_HEAD),
            families=("ConvNeXt",),
        ),
        Layout(
            title="feature maps of a ConvNeXt (features_only)",
            sections=_FLAT,
            rules=naming_convnext.TIMM_FEATURES,
            families=("ConvNeXt",),
            without=("norm",),
        ),
        Layout(
            title="feature maps of a Swin (features_only)",
            without=("norm",),
            sections=_FLAT,
            rules=naming_swin.TIMM_SWIN_FEATURES,
            families=("Swin",),
        ),
        Layout(  # FeatureGetterNet, which removes the last norm, or FeatureHookNet
            title="feature maps of a ViT or ResNet (features_only)",
            without=("norm",),
            sections=_FLAT,
            rules=(keep("model.{key...}", "{key...}"), keep("body.{key...}", "{key...}")),
            families=("ViT", "ResNet"),
        ),
    ),
    pixels=None,
    converted=_RESNETS,
)


_CLASSIFIER = drop("classifier.{p}", "the classifier")
_MIM_DECODER = drop("decoder.{p...}", "the decoder of MAE or SimMIM")
_BEIT = (
    *under(("", "beit.", "data2vec_vision."), naming_vit.TRANSFORMERS_BEIT),
    *under(("", "beit."), naming_vit.TRANSFORMERS_BEIT_IN_MEMORY),
    _CLASSIFIER,
    drop("lm_head.{p}", "the prediction head"),
)
_CONVNEXT_BACKBONE_NORMS = (
    keep("hidden_states_norms.stage4.{p}", "norm.{p}"),
    drop("hidden_states_norms.{stage}.{p}", naming_swin.OUTPUT_NORM),
)

TRANSFORMERS = Method(
    name="transformers",
    title="Hugging Face transformers' names",
    aliases=("huggingface", "huggingface-transformers", "hf"),
    repository="huggingface/transformers",
    layouts=(
        Layout(title="backbone", sections=_SAVED, rules=naming_resnet.TRANSFORMERS, families=("ResNet",)),
        Layout(
            title="network with a classifier",
            sections=_SAVED,
            rules=(*under("resnet.", naming_resnet.TRANSFORMERS), drop("classifier.1.{p}", "the classifier")),
            families=("ResNet",),
        ),
        Layout(
            title="ViT, MAE, MSN or I-JEPA",
            without=("class_token",),
            sections=_SAVED,
            rules=(
                *under(("", "vit."), naming_vit.TRANSFORMERS_VIT),
                *under("ijepa.", naming_vit.TRANSFORMERS_IJEPA),
                drop("pooler.dense.{p}", "the pooler, which pre-training does not train"),
                _MIM_DECODER,
                _CLASSIFIER,
            ),
            families=("ViT",),
        ),
        Layout(
            title="DINOv2",
            sections=_SAVED,
            rules=(
                *under(("", "dinov2.", "dinov2_with_registers."), naming_vit.TRANSFORMERS_DINOV2),
                _CLASSIFIER,
            ),
            families=("ViT",),
        ),
        Layout(title="DINOv3", sections=_SAVED, rules=naming_dinov3.TRANSFORMERS_DINOV3, families=("Eva",)),
        Layout(
            title="DINOv3 with gated MLPs",
            sections=_SAVED,
            rules=naming_dinov3.TRANSFORMERS_DINOV3_GATED,
            families=("Eva",),
        ),
        Layout(
            title="BEiT or data2vec",
            without=("norm",),
            sections=_SAVED,
            rules=(*_BEIT, *under(("", "beit.", "data2vec_vision."), (keep("layernorm.{p}", "norm.{p}"),))),
            families=("BEiT",),
        ),
        Layout(  # without mean pooling the network has a norm, and the class with the head a second one
            title="BEiT with two norms",
            sections=_SAVED,
            rules=(
                *_BEIT,
                keep("beit.layernorm.{p}", "norm.{p}"),
                drop("layernorm.{p}", "the norm before the prediction head"),
            ),
            families=("BEiT",),
        ),
        Layout(
            title="Swin",
            sections=_SAVED,
            rules=(
                *under(("", "swin."), naming_swin.TRANSFORMERS_SWIN),
                drop("swin.embeddings.mask_token", "the mask token"),
                drop("hidden_states_norms.{stage}.{p}", naming_swin.OUTPUT_NORM),
                _MIM_DECODER,
                _CLASSIFIER,
            ),
            families=("Swin",),
        ),
        Layout(
            title="Swin V2",
            sections=_SAVED,
            rules=(
                *under(("", "swinv2."), naming_swin.TRANSFORMERS_SWIN_V2),
                drop("swinv2.embeddings.mask_token", "the mask token"),
                drop("hidden_states_norms.{stage}.{p}", naming_swin.OUTPUT_NORM),
                _MIM_DECODER,
                _CLASSIFIER,
            ),
            families=("SwinV2",),
        ),
        Layout(
            title="ConvNeXt",
            sections=_SAVED,
            rules=(
                *under(("", "convnext."), naming_convnext.TRANSFORMERS_V1),
                *_CONVNEXT_BACKBONE_NORMS,
                _CLASSIFIER,
            ),
            families=("ConvNeXt",),
        ),
        Layout(
            title="ConvNeXt V2",
            sections=_SAVED,
            rules=(
                *under(("", "convnextv2."), naming_convnext.TRANSFORMERS_V2),
                *_CONVNEXT_BACKBONE_NORMS,
                _CLASSIFIER,
            ),
            families=("ConvNeXt",),
        ),
        Layout(
            title="DINOv3's ConvNeXt",
            without=("norm",),
            sections=_SAVED,
            rules=naming_convnext.TRANSFORMERS_DINOV3,
            families=("ConvNeXt",),
        ),
    ),
    pixels=None,
)

DETECTRON2 = Method(
    name="detectron2",
    title="detectron2's names, as its converters write them",
    aliases=("d2",),
    repository="facebookresearch/detectron2",
    layouts=(
        Layout(  # a converter puts `stem.` before each name outside the stages, the head's too
            title="converted backbone",
            sections=("model",),
            rules=(
                *naming_resnet.DETECTRON2,
                drop("stem.fc.{p...}", "the head on the pooled features"),
                drop("backbone.fpn_{layer}.{p...}", "a feature pyramid"),
                drop("fpn_{layer}.{p...}", "a feature pyramid"),
                drop("box_head.{p...}", "the RoI head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=None,
)

TORCHVISION = Method(
    name="torchvision",
    title="torchvision's names",
    repository="pytorch/vision",
    layouts=(
        *_RESNETS,
        Layout(
            title="numbered children: nn.Sequential(*resnet.children())",
            sections=_FLAT,
            rules=(*naming_resnet.NUMBERED, drop("9.{p}", "the classifier")),
            families=("ResNet",),
        ),
        Layout(
            title="ViT",
            sections=_FLAT,
            rules=(*naming_vit.TORCHVISION_VIT, drop("heads.{p...}", "the classifier")),
            families=("ViT",),
        ),
        Layout(
            title="Swin",
            sections=_FLAT,
            rules=(*naming_swin.TORCHVISION_SWIN, drop("head.{p}", "the classifier")),
            families=("Swin",),
        ),
        Layout(
            title="Swin V2",
            sections=_FLAT,
            rules=(*naming_swin.TORCHVISION_SWIN_V2, drop("head.{p}", "the classifier")),
            families=("SwinV2",),
        ),
        Layout(
            title="ConvNeXt",
            without=("norm",),
            sections=_FLAT,
            rules=(*naming_convnext.TORCHVISION, drop("classifier.2.{p}", "the classifier")),
            families=("ConvNeXt",),
        ),
    ),
    pixels=None,
)

GENERIC = Method(
    name="generic",
    title="any network under a prefix that you name",
    layouts=(
        Layout(
            title="backbone under a prefix",
            sections=("state_dict", "model", ""),
            rules=(
                drop("fc.{p...}", "the head on the pooled features"),
                *naming_swin.SWIN_INDEX,
                *naming_swin.SWIN_MASK,
                keep("{key...}", "{key...}"),
            ),
        ),
    ),
    pixels=None,
    guess=False,
)
