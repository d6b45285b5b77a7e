"""Frameworks that train many methods: their names tell how a file is laid out, not how it was trained.

MMSelfSup and its relatives are in `openmmlab`, lightly-train in `lightly_train`.
"""

from __future__ import annotations

from ckptconv.methods import naming_convnext, naming_schemes, naming_vit
from ckptconv.methods.interface import Layout, Method, Published
from ckptconv.methods.naming_resnet import NUMBERED
from ckptconv.methods.naming_swin import SWIN_INDEX, SWIN_MASK, TIMM_SWIN
from ckptconv.rules import Rule, drop, keep, under

_LIGHTLY_VIT = (
    drop("mask_token", "the mask token"),
    drop("vit.head.{p}", "timm's classifier, never used"),
    keep("vit.{key...}", "{key...}"),
)
_LIGHTLY_LOSS = (
    drop("criterion.{key...}", "the state of the loss"),
    drop("{part}_criterion.{key...}", "the state of a part of the loss"),
    drop("online_classifier.{key...}", "the online classifier, for monitoring"),
)
_LIGHTLY_REST = (
    drop("{twin}_backbone.{key...}", "another copy of the backbone (key, student, teacher or anchor)"),
    drop("backbone_momentum.{key...}", "the momentum copy of the backbone"),
    drop("projection_head.{key...}", "the projection head"),
    drop("projection_head_{twin}.{key...}", "a copy of the projection head"),
    drop("{twin}_projection_head.{key...}", "a copy of the projection head"),
    drop("prediction_head.{key...}", "the prediction head"),
    drop("prototypes.{key...}", "the prototypes"),
    *_LIGHTLY_LOSS,
)

_LIGHTLY_WORKER: tuple[
    Rule, ...
] = (  # lightly/models/resnet.py, up to version 1.2: a 3x3 stem, and `shortcut` for `downsample`
    drop("0.{p}", "the norm of the input image"),
    keep("1.{p}", "conv1.{p}"),
    keep("2.{p}", "bn1.{p}"),
    *(
        rule
        for s in range(1, 5)
        for rule in (
            keep(f"{s + 2}.{{b}}.shortcut.{{p...}}", f"layer{s}.{{b}}.downsample.{{p...}}"),
            keep(f"{s + 2}.{{key...}}", f"layer{s}.{{key...}}"),
        )
    ),
    drop("7.{p}", "the convolution that computes the embedding"),
)

LIGHTLY = Method(
    name="lightly",
    title="lightly's benchmarks and examples",
    aliases=("lightly-ssl", "simclr", "nnclr"),
    repository="lightly-ai/lightly",
    layouts=(
        Layout(
            title="benchmark: torchvision's ResNet as it is",
            sections=("state_dict",),
            rules=(keep("backbone.{key...}", "{key...}"), *_LIGHTLY_REST),
            families=("ResNet",),
        ),
        Layout(
            title="example: nn.Sequential(*list(resnet.children())[:-1])",
            sections=("state_dict",),
            rules=(*under("backbone.", NUMBERED), *_LIGHTLY_REST),
            families=("ResNet",),
        ),
        Layout(  # benchmarks/imagenet/vitb16: timm's ViT has a classifier; in DINO, backbone is the teacher
            title="benchmark: timm's ViT",
            sections=("state_dict",),
            rules=(
                *under("backbone.", _LIGHTLY_VIT),
                *_LIGHTLY_REST,
                drop("decoder_embed.{p}", "the layer between MAE's encoder and decoder"),
                drop("decoder.{p...}", "MAE's decoder"),
            ),
            families=("ViT",),
        ),
        Layout(
            title="benchmark: timm's ViT, student and teacher only",
            sections=("state_dict",),
            rules=(
                *under("teacher_backbone.", _LIGHTLY_VIT),
                drop("student_backbone.{key...}", "the student of iBOT, DINOv2 and CAPI"),
                drop("teacher_{part}.{p...}", "a head of the teacher"),
                drop("student_{part}.{p...}", "a head of the student"),
                *_LIGHTLY_LOSS,
            ),
            families=("ViT",),
        ),
        Layout(  # in MSN, backbone is the target; older examples have no `vit.`
            title="example: torchvision's ViT",
            sections=("state_dict",),
            rules=(
                *under(("backbone.vit.", "backbone."), naming_vit.TORCHVISION_VIT),
                drop("backbone.vit.heads.{p...}", "torchvision's classifier, never used"),
                drop("backbone.mask_token", "the mask token"),
                drop("mask_token", "the mask token"),
                drop("decoder.{p...}", "the decoder of MAE or SimMIM"),
                *_LIGHTLY_REST,
            ),
            families=("ViT",),
        ),
        Layout(
            title="worker: lightly's own ResNet for small images",
            sections=("state_dict",),
            rules=(
                *under("model.backbone.", _LIGHTLY_WORKER),
                drop("model.projection_head.{p...}", "the projection head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=None,
    # its tutorials save the backbone only
    converted=(*naming_schemes.TORCHVISION.layouts, *naming_schemes.TIMM.layouts),
)

_SOLO_HEADS = (  # a method's modules are next to the backbone, whose fc is nn.Identity: solo/methods/
    drop("classifier.{p}", "the online classifier, for monitoring"),
    drop("momentum_classifier.{p}", "the online classifier on the momentum backbone"),
    drop("projector.{p...}", "the projection head"),
    drop("momentum_projector.{p...}", "the momentum projection head: a copy"),
    drop("predictor.{p...}", "the prediction head"),
    drop("predictor2.{p...}", "All4One's second prediction head"),
    drop("transformer_encoder.{p...}", "All4One's transformer over nearest neighbours"),
    drop("pos_enc.{p...}", "the position encoding of All4One's transformer"),
    drop("head.{p...}", "DINO's projection head"),
    drop("momentum_head.{p...}", "DINO's momentum projection head: a copy"),
    drop("dino_loss_func.center", "the centre of the teacher's outputs"),
    drop("queue", "the queue of earlier features"),
    drop("queue_{what}", "the queue's pointer, labels or indices"),
)
_SOLO_REST = (
    *_SOLO_HEADS,
    drop("momentum_backbone.{key...}", "the momentum backbone: a copy"),
    drop("prototypes.{p...}", "the prototypes of SwAV and DeepCluster-v2"),
    drop("local_memory_{what}", "the memory bank of DeepCluster-v2"),
)
_SOLO_ONLINE = (*_SOLO_HEADS, drop("backbone.{key...}", "the online backbone"))
_OLD_SWIN = (*SWIN_INDEX, *SWIN_MASK, keep("{key...}", "{key...}"))

SOLO_LEARN = Method(
    name="solo-learn",
    title="solo-learn's runs",
    aliases=(
        "solo",
        "simclr",
        "nnclr",
        "nnbyol",
        "nnsiam",
        "mocov2plus",
        "ressl",
        "supcon",
        "wmse",
        "vibcreg",
        "all4one",
        "deepcluster",
        "deepcluster-v2",
    ),
    repository="vturrisi/solo-learn",
    layouts=(
        Layout(
            title="Lightning checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                *_SOLO_REST,
                drop("decoder.{p...}", "MAE's decoder"),
            ),
            families=("ResNet", "ViT"),
        ),
        Layout(  # solo/backbones/convnext/default.py is timm's
            title="Lightning checkpoint of a ConvNeXt",
            sections=("state_dict",),
            rules=(*under("backbone.", naming_convnext.TIMM_V1), *_SOLO_REST),
            families=("ConvNeXt",),
        ),
        Layout(
            title="Lightning checkpoint of a Swin with timm's names before version 0.9",
            sections=("state_dict",),
            rules=(*under("backbone.", _OLD_SWIN), *_SOLO_REST),
            families=("Swin",),
        ),
        Layout(
            title="Lightning checkpoint of a Swin with timm's names since version 0.9",
            sections=("state_dict",),
            rules=(*under("backbone.", TIMM_SWIN), *_SOLO_REST),
            families=("Swin",),
        ),
    ),
    pixels=None,
    converted=naming_schemes.DETECTRON2.layouts,  # downstream/object_detection/convert_model_to_detectron2.py
)

SOLO_LEARN_MOMENTUM = Method(
    name="solo-learn-momentum",
    title="solo-learn's runs, the momentum backbone",
    repository=SOLO_LEARN.repository,
    layouts=(
        Layout(
            title="Lightning checkpoint",
            sections=("state_dict",),
            rules=(keep("momentum_backbone.{key...}", "{key...}"), *_SOLO_ONLINE),
            families=("ResNet", "ViT"),
        ),
        Layout(
            title="Lightning checkpoint of a ConvNeXt",
            sections=("state_dict",),
            rules=(*under("momentum_backbone.", naming_convnext.TIMM_V1), *_SOLO_ONLINE),
            families=("ConvNeXt",),
        ),
        Layout(
            title="Lightning checkpoint of a Swin with timm's names before version 0.9",
            sections=("state_dict",),
            rules=(*under("momentum_backbone.", _OLD_SWIN), *_SOLO_ONLINE),
            families=("Swin",),
        ),
        Layout(
            title="Lightning checkpoint of a Swin with timm's names since version 0.9",
            sections=("state_dict",),
            rules=(*under("momentum_backbone.", TIMM_SWIN), *_SOLO_ONLINE),
            families=("Swin",),
        ),
    ),
    pixels=None,
    guess=False,
)


BOLTS = Method(
    name="bolts",
    title="Lightning Bolts' SimCLR, BYOL, SimSiam, MoCo and SwAV",
    aliases=("lightning-bolts", "pl-bolts", "simclr"),
    repository="Lightning-Universe/lightning-bolts",
    layouts=(
        Layout(
            title="SimCLR",
            sections=("state_dict",),
            rules=(
                drop("encoder.fc.{p}", "a classifier that is never trained"),
                keep("encoder.{key...}", "{key...}"),
                drop("projection.{p...}", "the projection head"),
                drop("non_linear_evaluator.{p...}", "the online classifier, for monitoring"),
            ),
            families=("ResNet",),
        ),
        Layout(
            title="BYOL or SimSiam",
            sections=("state_dict",),
            rules=(
                keep("online_network.encoder.{key...}", "{key...}"),
                drop("online_network.projector.{p...}", "the projection head"),
                drop("target_network.{key...}", "the target network: a copy"),
                drop("predictor.{p...}", "the prediction head"),
            ),
            families=("ResNet",),
        ),
        Layout(
            title="MoCo",
            sections=("state_dict",),
            rules=(
                drop("encoder_q.fc.{p...}", "the query encoder's projection head"),
                keep("encoder_q.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("head_q.{p...}", "the query encoder's projection head"),
                drop("head_k.{p...}", "the key encoder's projection head"),
                drop("queue.{p}", "the queue of negatives"),
                drop("queue", "the queue of negatives (version 0.5 and older)"),
                drop("queue_ptr", "the queue of negatives (version 0.5 and older)"),
                drop("val_queue.{p}", "the queue of negatives for validation"),
                drop("val_queue", "the queue of negatives for validation (version 0.5 and older)"),
                drop("val_queue_ptr", "the queue of negatives for validation (version 0.5 and older)"),
            ),
            families=("ResNet",),
        ),
        Layout(
            title="SwAV",
            sections=("state_dict",),
            rules=(
                drop("model.projection_head.{p...}", "the projection head"),
                drop("model.prototypes.{p...}", "the prototypes"),
                keep("model.{key...}", "{key...}"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=None,
    releases=Published("bolts"),
)
