"""Contrastive methods with a query and a key encoder: MoCo, and others for regions and pixels."""

from __future__ import annotations

from ckptconv.methods import naming_schemes
from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.rules import drop, keep

MOCO = Method(
    name="moco",
    title="MoCo v1 and v2",
    aliases=("moco-v1", "moco-v2", "momentum-contrast"),
    paper="https://arxiv.org/abs/1911.05722",
    repository="facebookresearch/moco",
    layouts=(
        Layout(  # main_lincls.py evaluates the query encoder
            title="training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("encoder_q.fc.{p...}", "the query encoder's projection head"),
                keep("encoder_q.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("queue", "the queue of negatives"),
                drop("queue_ptr", "the queue of negatives"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("moco"),
    converted=naming_schemes.DETECTRON2.layouts,  # detection/convert-pretrain-to-detectron2.py
)

MOCOV3 = Method(
    name="mocov3",
    title="MoCo v3",
    paper="https://arxiv.org/abs/2104.02057",
    repository="facebookresearch/moco-v3",
    layouts=(
        Layout(  # main_lincls.py evaluates base_encoder
            title="training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("base_encoder.fc.{p...}", "the base encoder's projection head"),
                drop("base_encoder.head.{p...}", "the base encoder's projection head (ViT)"),
                keep("base_encoder.{key...}", "{key...}"),
                drop("momentum_encoder.{key...}", "the momentum encoder: a copy"),
                drop("predictor.{key...}", "the prediction head"),
            ),
            families=("ResNet", "ViT"),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("mocov3"),
    num_heads=12,  # of a ViT-S, too, which usually has 6: vits.py
    converted=naming_schemes.TIMM.layouts,  # convert_to_deit.py
)

DENSECL = Method(
    name="densecl",
    title="DenseCL",
    paper="https://arxiv.org/abs/2011.09157",
    repository="WXinlong/DenseCL",
    layouts=(
        Layout(  # openselfsup's MoCo holds encoder_q = Sequential(backbone, neck), so the backbone is saved twice
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("encoder_q.0.{key...}", "the query backbone again, under a second name"),
                drop("encoder_q.1.{key...}", "the query encoder's neck: two projection heads"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("queue", "the queue of negatives"),
                drop("queue_ptr", "the queue of negatives"),
                drop("queue2", "the queue of dense negatives"),
                drop("queue2_ptr", "the queue of dense negatives"),
            ),
            families=("ResNet",),
        ),
        Layout(
            title="released backbone",
            sections=("state_dict",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
)

PIXPRO = Method(
    name="pixpro",
    title="PixPro",
    paper="https://arxiv.org/abs/2011.10043",
    repository="zdaxie/PixPro",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=(
                keep("encoder.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("projector.{key...}", "the pixel projection head"),
                drop("projector_k.{key...}", "the key encoder's pixel projection head"),
                drop("value_transform.{key...}", "the pixel propagation module"),
                drop("projector_instance.{key...}", "the instance projection head"),
                drop("projector_instance_k.{key...}", "the key encoder's instance projection head"),
                drop("predictor.{key...}", "the instance prediction head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    converted=naming_schemes.DETECTRON2.layouts,  # transfer/detection/convert_pretrain_to_d2.py
)

RESIM = Method(
    name="resim",
    title="ReSim",
    paper="https://arxiv.org/abs/2103.12902",
    repository="Tete-Xiao/ReSim",
    layouts=(
        Layout(  # MoCo's, with a feature pyramid in each encoder: moco/models.py
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                drop("encoder_q.fc.{p...}", "the query encoder's projection head"),
                drop("encoder_q.fpn_{layer}.{p...}", "the query encoder's feature pyramid"),
                keep("encoder_q.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("queue", "the queue of negatives"),
                drop("queue_ptr", "the queue of negatives"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("resim"),
    converted=naming_schemes.DETECTRON2.layouts,  # detection/convert-pretrain-to-detectron2.py
)

INSLOC = Method(
    name="insloc",
    title="InsLoc",
    aliases=("instance-loc", "instance-localization"),
    paper="https://arxiv.org/abs/2102.08318",
    repository="limbo0000/InstanceLoc",
    layouts=(
        Layout(  # with C4 the last stage is the shared RoI head: transfer/detection/convert_pretrained.py
            title="training checkpoint, FPN or C4",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                keep("roi_head.shared_head.layer4.{key...}", "layer4.{key...}"),
                drop("roi_head.bbox_head.{p...}", "the RoI head"),
                drop("neck.{p...}", "the feature pyramid"),
                drop("backbone_k.{key...}", "the key backbone: a momentum copy"),
                drop("neck_k.{p...}", "the key encoder's feature pyramid: a momentum copy"),
                drop("roi_head_k.{p...}", "the key encoder's RoI head: a momentum copy"),
                drop("queue", "the queue of negatives"),
                drop("queues", "the queues of negatives, one per level"),
                drop("queue_ptr", "the queue of negatives"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    converted=naming_schemes.DETECTRON2.layouts,  # transfer/detection/convert_pretrained.py
)

_PYCONTRAST_RULES = (
    keep("encoder.{key...}", "{key...}"),
    drop("head.{p...}", "the projection head"),
    drop("head_jig.{p...}", "the projection head of the jigsaw branch"),
)

PYCONTRAST = Method(
    name="pycontrast",
    title="InfoMin, and InsDis, MoCo and PIRL of PyContrast",
    aliases=("infomin", "insdis", "pirl"),
    paper="https://arxiv.org/abs/2005.10243",
    repository="HobbitLong/PyContrast",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("model",),
            rules=_PYCONTRAST_RULES,
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    converted=naming_schemes.DETECTRON2.layouts,  # pycontrast/detection/convert_pretrained.py
)

PYCONTRAST_EMA = Method(
    name="pycontrast-ema",
    title="InfoMin and MoCo of PyContrast, the momentum encoder",
    paper=PYCONTRAST.paper,
    repository=PYCONTRAST.repository,
    layouts=(
        Layout(
            title="training checkpoint, momentum encoder",
            sections=("model_ema",),
            rules=_PYCONTRAST_RULES,
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
    converted=naming_schemes.DETECTRON2.layouts,  # the same, --ema
)

CMC = Method(
    name="cmc",
    title="CMC of PyContrast: the encoder of lightness (L of Lab), for one-channel images",
    paper="https://arxiv.org/abs/1906.05849",
    repository="HobbitLong/PyContrast",
    layouts=(
        Layout(
            title="training checkpoint, lightness",
            sections=("model",),
            rules=(
                keep("encoder1.{key...}", "{key...}"),
                drop("encoder2.{key...}", "the encoder of the colour channels"),
                drop("head1.{p...}", "the projection head of the lightness encoder"),
                drop("head2.{p...}", "the projection head of the colour encoder"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=None,
)

DETCO = Method(
    name="detco",
    title="DetCo",
    paper="https://arxiv.org/abs/2102.04803",
    repository="xieenze/DetCo",
    layouts=(
        Layout(  # as benchmarks/detection/convert-pretrain-to-detectron2.py reads it; a `.pkl` file of torch
            title="released backbone",
            sections=("state_dict",),
            rules=(keep("{key...}", "{key...}"),),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    converted=naming_schemes.DETECTRON2.layouts,  # benchmarks/detection/convert-pretrain-to-detectron2.py
)
