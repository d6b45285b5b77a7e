"""Self-distillation of vision transformers: a student predicts the output of its momentum teacher."""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import DINO_RESAMPLING, IMAGENET, Layout, Method, Published
from ckptconv.methods.naming_swin import SWIN_INDEX
from ckptconv.rules import drop, keep, under

_IBOT_RULES = (
    *under("backbone.", SWIN_INDEX),
    keep("backbone.{key...}", "{key...}"),
    drop("head.{p...}", "the projection head"),
)

IBOT = Method(
    name="ibot",
    title="iBOT, the teacher",
    aliases=("ibot-teacher",),
    paper="https://arxiv.org/abs/2111.07832",
    repository="bytedance/ibot",
    layouts=(
        Layout(  # vitl_16_pt22k/checkpoint_student.pth is bare, all others are wrapped: capi/baselines/ibot_loader.py
            title="released backbone",
            sections=("state_dict", ""),
            rules=(*SWIN_INDEX, drop("masked_embed", "the mask token"), keep("{key...}", "{key...}")),
            families=("Swin", "ViT"),
        ),
        Layout(
            title="training checkpoint, teacher", sections=("teacher",), rules=_IBOT_RULES, families=("Swin", "ViT")
        ),
    ),
    pixels=IMAGENET,
    releases=Published("ibot"),
    eps=1e-6,  # models/swin_transformer.py and vision_transformer.py
    position_resampling=DINO_RESAMPLING,  # models/vision_transformer.py
    norm=False,  # evaluation/object_detection/mmcv_custom/register_backbone.py: `out_with_norm` of its detectors
)

IBOT_STUDENT = Method(
    name="ibot-student",
    title="iBOT, the student",
    paper=IBOT.paper,
    repository=IBOT.repository,
    layouts=(
        Layout(
            title="training checkpoint, student",
            sections=("student",),
            rules=(drop("backbone.masked_embed", "the mask token"), *_IBOT_RULES),
            families=("Swin", "ViT"),
        ),
    ),
    pixels=IMAGENET,
    guess=False,
    eps=IBOT.eps,
    position_resampling=DINO_RESAMPLING,
    norm=IBOT.norm,
)

HEADS = (drop("dino_head.{p...}", "the DINO projection head"), drop("ibot_head.{p...}", "the iBOT projection head"))
TEACHER_HEADS = (
    drop("teacher.dino_head.{p...}", "the teacher's DINO projection head"),
    drop("teacher.ibot_head.{p...}", "the teacher's iBOT projection head"),
)
STUDENT_HEADS = (
    drop("student.dino_head.{p...}", "the student's DINO projection head"),
    drop("student.ibot_head.{p...}", "the student's iBOT projection head"),
)
STUDENT = drop("student.{key...}", "the student")
TEACHER = drop("teacher.{key...}", "the teacher")
CENTRES = (
    drop("dino_loss.center", "the centre of the DINO outputs"),
    drop("ibot_patch_loss.center", "the centre of the iBOT outputs"),
)
FULL = ("model", "")
"""Sections of a full training checkpoint with all its networks: {'model': …, 'optimizer': …, 'iteration': …}."""

_MASK = drop("mask_token", "the mask token")
_DINOV2 = (
    _MASK,
    keep("register_tokens", "reg_token"),
)
_DINOV2_PLAIN = (*_DINOV2, keep("{key...}", "{key...}"))
_CHUNKS = (keep("blocks.{chunk}.{i}.{key...}", "blocks.{i}.{key...}"), keep("{key...}", "{key...}"))
"""block_chunks of the training configs: a block keeps its number in the network, and has none of its own in a chunk."""
_DINOV2_CHUNKS = (*_DINOV2, *_CHUNKS)

DINOV2 = Method(
    name="dinov2",
    title="DINOv2",
    aliases=("dinov2-teacher",),
    paper="https://arxiv.org/abs/2304.07193",
    repository="facebookresearch/dinov2",
    layouts=(
        Layout(
            title="released backbone",
            sections=("",),
            rules=_DINOV2_PLAIN,
            families=("ViT",),
        ),
        Layout(
            title="training checkpoint, teacher",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV2_PLAIN), *HEADS),
            families=("ViT",),
        ),
        Layout(
            title="training checkpoint, teacher with its blocks in chunks",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV2_CHUNKS), *HEADS),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, teacher",
            sections=FULL,
            rules=(*under("teacher.backbone.", _DINOV2_PLAIN), *TEACHER_HEADS, STUDENT, *CENTRES),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, teacher with its blocks in chunks",
            sections=FULL,
            rules=(*under("teacher.backbone.", _DINOV2_CHUNKS), *TEACHER_HEADS, STUDENT, *CENTRES),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("dinov2"),
    position_resampling=DINO_RESAMPLING,  # dinov2/hub/backbones.py
    position_resampling_with_registers=PositionResampling(
        antialias=True
    ),  # dinov2/configs/eval/vitl14_reg4_pretrain.yaml
    norm=True,  # get_intermediate_layers in dinov2/models/vision_transformer.py
)

DINOV2STUDENT = Method(
    name="dinov2-student",
    title="DINOv2, the student",
    paper=DINOV2.paper,
    repository=DINOV2.repository,
    layouts=(
        Layout(
            title="full training checkpoint, student",
            sections=FULL,
            rules=(*under("student.backbone.", _DINOV2_PLAIN), *STUDENT_HEADS, TEACHER, *CENTRES),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, student with its blocks in chunks",
            sections=FULL,
            rules=(*under("student.backbone.", _DINOV2_CHUNKS), *STUDENT_HEADS, TEACHER, *CENTRES),
            families=("ViT",),
        ),
    ),
    pixels=DINOV2.pixels,
    guess=False,
    position_resampling=DINOV2.position_resampling,
    position_resampling_with_registers=DINOV2.position_resampling_with_registers,
    norm=DINOV2.norm,
)

FRANCA = Method(
    name="franca",
    title="Franca",
    paper="https://arxiv.org/abs/2507.14137",
    repository="valeoai/Franca",
    layouts=(
        Layout(  # franca/hub/backbones.py
            title="released teacher with its blocks in chunks",
            sections=("teacher",),
            rules=(*under("backbone.", (_MASK, *_CHUNKS)), *HEADS),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("franca"),
    guess=False,  # DINOv2's training checkpoints have the same names
    position_resampling=DINO_RESAMPLING,  # franca/hub/backbones.py
    norm=True,  # get_intermediate_layers in franca/models/vision_transformer.py
)
