"""DINOv3, and EUPE, which was made with its code: vision transformers with rotary positions, and ConvNeXts."""

from __future__ import annotations

from dataclasses import replace

from ckptconv.methods.interface import IMAGENET, Layout, Method, Pixels, Published
from ckptconv.methods.naming_dinov3 import DINOV3_VIT, DINOV3_VIT_PLAIN
from ckptconv.methods.teachers import (
    CENTRES,
    FULL,
    HEADS,
    STUDENT,
    STUDENT_HEADS,
    TEACHER,
    TEACHER_HEADS,
)
from ckptconv.rules import drop, keep, under

_AGAIN = "the last norm again, under a second name"
_VIT = (drop("local_cls_norm.{p}", "a norm used in training only"), *DINOV3_VIT)
_DINOV3_CONVNEXT = (drop("norms.3.{p}", _AGAIN), keep("{key...}", "{key...}"))
"""models/convnext.py registers its norm twice."""
_EMA = drop("model_ema.{key...}", "the moving average of the student: the same as the teacher, unless the run distils")
_EMA_HEADS = (
    drop("model_ema.dino_head.{p...}", "the moving average's DINO projection head"),
    drop("model_ema.ibot_head.{p...}", "the moving average's iBOT projection head"),
)
_DISTILLED_FROM = drop("teacher.{key...}", "the teacher: the moving average again, or the model that was distilled")
_GRAM = drop("gram_teacher.{key...}", "the frozen teacher of the Gram loss")

DINOV3 = Method(
    name="dinov3",
    title="DINOv3",
    aliases=("dinov3-teacher",),
    paper="https://arxiv.org/abs/2508.10104",
    repository="facebookresearch/dinov3",
    layouts=(
        Layout(
            title="released ViT",
            sections=("",),
            rules=_VIT,
            families=("Eva",),
        ),
        Layout(
            title="training checkpoint of a ViT, teacher",
            sections=("teacher",),
            rules=(*under("backbone.", _VIT), *HEADS),
            families=("Eva",),
        ),
        Layout(title="released ConvNeXt", sections=("",), rules=_DINOV3_CONVNEXT, families=("ConvNeXt",)),
        Layout(
            title="training checkpoint of a ConvNeXt, teacher",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV3_CONVNEXT), *HEADS),
            families=("ConvNeXt",),
        ),
        Layout(  # train.py evaluates model_ema; it equals the teacher, unless the run distils
            title="full training checkpoint of a ViT, moving average of the student",
            sections=FULL,
            rules=(
                *under("model_ema.backbone.", _VIT),
                *_EMA_HEADS,
                _DISTILLED_FROM,
                STUDENT,
                _GRAM,
                *CENTRES,
            ),
            families=("Eva",),
        ),
        Layout(
            title="full training checkpoint of a ConvNeXt, teacher",
            sections=FULL,
            rules=(
                *under("teacher.backbone.", _DINOV3_CONVNEXT),
                *TEACHER_HEADS,
                _EMA,
                STUDENT,
                *CENTRES,
            ),
            families=("ConvNeXt",),
        ),
        Layout(  # configs/train/distillation_convnext: the teacher is a ViT, saved or not
            title="full training checkpoint of a distilled ConvNeXt, moving average of the student",
            sections=FULL,
            rules=(
                *under("model_ema.backbone.", _DINOV3_CONVNEXT),
                *_EMA_HEADS,
                _DISTILLED_FROM,
                STUDENT,
                *CENTRES,
            ),
            families=("ConvNeXt",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("dinov3"),
    eps=1e-5,  # "layernormbf16" of the released ViTs: models/vision_transformer.py
    norm=True,  # eval/detection/models/backbone.py
)

DINOV3SAT493M = replace(
    DINOV3,
    name="dinov3-sat493m",
    title="DINOv3, trained on satellite images (SAT-493M)",
    aliases=("dinov3-sat",),
    pixels=Pixels((109.65, 104.805, 75.48), (54.315, 39.78, 36.465)),  # README.md, "Image transforms"
    releases=Published("dinov3-sat493m"),
    guess=False,  # the names are DINOv3's, and no tensor tells the images
)

DINOV3STUDENT = Method(
    name="dinov3-student",
    title="DINOv3, the student",
    paper=DINOV3.paper,
    repository=DINOV3.repository,
    layouts=(
        Layout(
            title="full training checkpoint of a ViT, student",
            sections=FULL,
            rules=(*under("student.backbone.", _VIT), *STUDENT_HEADS, TEACHER, _EMA, _GRAM, *CENTRES),
            families=("Eva",),
        ),
        Layout(
            title="full training checkpoint of a ConvNeXt, student",
            sections=FULL,
            rules=(*under("student.backbone.", _DINOV3_CONVNEXT), *STUDENT_HEADS, TEACHER, _EMA, *CENTRES),
            families=("ConvNeXt",),
        ),
    ),
    pixels=DINOV3.pixels,
    guess=False,
    eps=DINOV3.eps,
    norm=DINOV3.norm,
)

EUPE = Method(
    name="eupe",
    title="EUPE",
    paper="https://arxiv.org/abs/2603.22387",
    repository="facebookresearch/EUPE",
    layouts=(
        Layout(
            title="released ViT",
            sections=("",),
            rules=(drop("projectors.{p...}", "the projection heads for the teachers"), *DINOV3_VIT_PLAIN),
            families=("Eva",),
        ),
        Layout(
            title="released ConvNeXt",
            sections=("",),
            rules=(drop("projectors.{p...}", "the projection heads for the teachers"), *_DINOV3_CONVNEXT),
            families=("ConvNeXt",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("eupe"),
    eps=1e-5,  # eupe/models/vision_transformer.py, as DINOv3's
    norm=True,  # get_intermediate_layers there
    guess=False,  # DINOv3's files have the same names
)
