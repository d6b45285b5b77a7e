"""OpenMMLab's frameworks for self-supervised training: MMSelfSup, MMPretrain, MMClassification and OpenSelfSup."""

from __future__ import annotations

from ckptconv.methods import naming_convnext, naming_schemes, naming_vit
from ckptconv.methods.interface import Layout, Method
from ckptconv.methods.naming_swin import MM_MIXMIM, MM_SWIN
from ckptconv.rules import drop, keep, under

_MM_REST = (
    drop("neck.{key...}", "the neck: a projection head or a decoder"),
    drop("head.{key...}", "the pretext task's head"),
    drop("queue", "the queue of negatives"),
    drop("queue_ptr", "the queue of negatives"),
    drop("queue2", "the queue of dense negatives"),
    drop("queue2_ptr", "the queue of dense negatives"),
    drop("memory_bank.{key...}", "the memory bank of NPID and ODC"),
    drop("loss_weight", "the cluster weights of ODC and DeepCluster"),
    drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
    drop("encoder_q.{key...}", "the query encoder again, under a second name"),
    drop("target_net.{key...}", "the target network: a momentum copy"),
    drop("online_net.{key...}", "the online network again, under a second name"),
    drop("momentum_encoder.{key...}", "the momentum encoder: a copy"),
    drop("enc_dec_norms.{key...}", "the layers between SparK's encoder and decoder"),
    drop("enc_dec_projectors.{key...}", "the layers between SparK's encoder and decoder"),
    drop("mask_tokens.{key...}", "SparK's mask tokens"),
)

_MM_TARGETS = drop("target_generator.{p...}", "the target generator of MaskFeat, BEiT and CAE")

MMSELFSUP = Method(
    name="mmselfsup",
    title="MMSelfSup, MMPretrain and OpenSelfSup runs",
    aliases=(
        "mmpretrain",
        "openselfsup",
        "mmcls",
        "mmclassification",
        "simclr",
        "npid",
        "odc",
        "deepcluster",
        "relative-loc",
        "rotation-pred",
    ),
    repository="open-mmlab/mmselfsup",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("state_dict",),
            rules=(keep("backbone.{key...}", "{key...}"), *_MM_REST),
            families=("ResNet",),
        ),
        Layout(  # tools/model_converters/extract_backbone_weights.py and others remove `backbone.`
            title="training checkpoint or converted release of a ConvNeXt",
            sections=("state_dict", ""),
            rules=(*under(("backbone.", ""), naming_convnext.MMPRETRAIN), *_MM_REST),
            families=("ConvNeXt",),
            without=("norm",),
        ),
        Layout(
            title="training checkpoint of a Swin",
            sections=("state_dict", ""),
            rules=(
                *under(("backbone.", ""), MM_SWIN),
                *under(("backbone.", ""), (drop("mask_token", "the mask token"),)),
                drop("neck.{key...}", "the neck: SimMIM's decoder"),
                drop("head.{key...}", "the head: a classifier"),
            ),
            families=("Swin",),
            without=("norm",),
        ),
        Layout(
            title="training checkpoint of a MixMIM",
            sections=("state_dict", ""),
            rules=(
                *under(("backbone.", ""), MM_MIXMIM),
                drop("neck.{key...}", "the neck: a projection head or a decoder"),
            ),
            families=("MixMIM",),
        ),
        Layout(
            title="training checkpoint of a vision transformer",
            sections=("state_dict", ""),
            rules=(
                *under(("backbone.", ""), naming_vit.MMPRETRAIN_VIT),
                *_MM_REST,
                _MM_TARGETS,
            ),
            families=("ViT",),
        ),
        Layout(
            title="training checkpoint of a BEiT",
            sections=("state_dict", ""),
            rules=(
                *under(("backbone.", ""), naming_vit.MMPRETRAIN_BEIT),
                *_MM_REST,
                _MM_TARGETS,
                drop("teacher.{key...}", "CAE's target encoder: a copy"),
            ),
            families=("BEiT",),
        ),
    ),
    pixels=None,
    # tools/model_converters/: extract_backbone_weights.py writes torchvision's names of a ResNet, mmcls2timm.py timm's
    converted=(*naming_schemes.TORCHVISION.layouts, *naming_schemes.TIMM.layouts),
)
