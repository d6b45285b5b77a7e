"""Self-distillation of vision transformers: a student predicts the output of its momentum teacher."""

from __future__ import annotations

from ckptconv.backbones.interface import PositionResampling
from ckptconv.methods.interface import DINO_RESAMPLING, IMAGENET, Layout, Method, Published
from ckptconv.methods.naming_swin import SWIN_INDEX
from ckptconv.ops import concat, scale
from ckptconv.rules import drop, fuse, keep, under

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
)

_HEADS = (drop("dino_head.{p...}", "the DINO projection head"), drop("ibot_head.{p...}", "the iBOT projection head"))
_TEACHER_HEADS = (
    drop("teacher.dino_head.{p...}", "the teacher's DINO projection head"),
    drop("teacher.ibot_head.{p...}", "the teacher's iBOT projection head"),
)
_STUDENT_HEADS = (
    drop("student.dino_head.{p...}", "the student's DINO projection head"),
    drop("student.ibot_head.{p...}", "the student's iBOT projection head"),
)
_STUDENT = drop("student.{key...}", "the student")
_TEACHER = drop("teacher.{key...}", "the teacher")
_CENTRES = (
    drop("dino_loss.center", "the centre of the DINO outputs"),
    drop("ibot_patch_loss.center", "the centre of the iBOT outputs"),
)
_FULL = ("model", "")
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
            rules=(*under("backbone.", _DINOV2_PLAIN), *_HEADS),
            families=("ViT",),
        ),
        Layout(
            title="training checkpoint, teacher with its blocks in chunks",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV2_CHUNKS), *_HEADS),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, teacher",
            sections=_FULL,
            rules=(*under("teacher.backbone.", _DINOV2_PLAIN), *_TEACHER_HEADS, _STUDENT, *_CENTRES),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, teacher with its blocks in chunks",
            sections=_FULL,
            rules=(*under("teacher.backbone.", _DINOV2_CHUNKS), *_TEACHER_HEADS, _STUDENT, *_CENTRES),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("dinov2"),
    position_resampling=DINO_RESAMPLING,  # dinov2/hub/backbones.py
    position_resampling_with_registers=PositionResampling(
        antialias=True
    ),  # dinov2/configs/eval/vitl14_reg4_pretrain.yaml
)

DINOV2_STUDENT = Method(
    name="dinov2-student",
    title="DINOv2, the student",
    paper=DINOV2.paper,
    repository=DINOV2.repository,
    layouts=(
        Layout(
            title="full training checkpoint, student",
            sections=_FULL,
            rules=(*under("student.backbone.", _DINOV2_PLAIN), *_STUDENT_HEADS, _TEACHER, *_CENTRES),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint, student with its blocks in chunks",
            sections=_FULL,
            rules=(*under("student.backbone.", _DINOV2_CHUNKS), *_STUDENT_HEADS, _TEACHER, *_CENTRES),
            families=("ViT",),
        ),
    ),
    pixels=DINOV2.pixels,
    guess=False,
    position_resampling=DINOV2.position_resampling,
    position_resampling_with_registers=DINOV2.position_resampling_with_registers,
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
            rules=(*under("backbone.", (_MASK, *_CHUNKS)), *_HEADS),
            families=("ViT",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("franca"),
    guess=False,  # DINOv2's training checkpoints have the same names
    position_resampling=DINO_RESAMPLING,  # franca/hub/backbones.py
)

_AGAIN = "the last norm again, under a second name"
_DINOV3 = (
    drop("mask_token", "the mask token"),
    drop("local_cls_norm.{p}", "a norm used in training only"),
    keep("storage_tokens", "reg_token"),
    keep("rope_embed.periods", "rope.periods"),
    keep(  # the layer multiplies its bias by the mask: 0 for keys, NaN in a file from before the initialisation
        "blocks.{i}.attn.qkv.bias", "blocks.{i}.attn.qkv.bias", scale(), by=["blocks.{i}.attn.qkv.bias_mask"]
    ),
    drop("blocks.{i}.attn.qkv.bias_mask", "multiplied into qkv.bias"),
    fuse(("blocks.{i}.mlp.w1.{p}", "blocks.{i}.mlp.w2.{p}"), "blocks.{i}.mlp.w12.{p}", concat(0)),
    keep("{key...}", "{key...}"),
)

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
        Layout(title="released ViT", sections=("",), rules=_DINOV3, families=("ViT",)),
        Layout(
            title="training checkpoint of a ViT, teacher",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV3), *_HEADS),
            families=("ViT",),
        ),
        Layout(title="released ConvNeXt", sections=("",), rules=_DINOV3_CONVNEXT, families=("ConvNeXt",)),
        Layout(
            title="training checkpoint of a ConvNeXt, teacher",
            sections=("teacher",),
            rules=(*under("backbone.", _DINOV3_CONVNEXT), *_HEADS),
            families=("ConvNeXt",),
        ),
        Layout(  # train.py evaluates model_ema; it equals the teacher, unless the run distils
            title="full training checkpoint of a ViT, moving average of the student",
            sections=_FULL,
            rules=(
                *under("model_ema.backbone.", _DINOV3),
                *_EMA_HEADS,
                _DISTILLED_FROM,
                _STUDENT,
                _GRAM,
                *_CENTRES,
            ),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint of a ConvNeXt, teacher",
            sections=_FULL,
            rules=(
                *under("teacher.backbone.", _DINOV3_CONVNEXT),
                *_TEACHER_HEADS,
                _EMA,
                _STUDENT,
                *_CENTRES,
            ),
            families=("ConvNeXt",),
        ),
        Layout(  # configs/train/distillation_convnext: the teacher is a ViT, saved or not
            title="full training checkpoint of a distilled ConvNeXt, moving average of the student",
            sections=_FULL,
            rules=(
                *under("model_ema.backbone.", _DINOV3_CONVNEXT),
                *_EMA_HEADS,
                _DISTILLED_FROM,
                _STUDENT,
                *_CENTRES,
            ),
            families=("ConvNeXt",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("dinov3"),
)

DINOV3_STUDENT = Method(
    name="dinov3-student",
    title="DINOv3, the student",
    paper=DINOV3.paper,
    repository=DINOV3.repository,
    layouts=(
        Layout(
            title="full training checkpoint of a ViT, student",
            sections=_FULL,
            rules=(*under("student.backbone.", _DINOV3), *_STUDENT_HEADS, _TEACHER, _EMA, _GRAM, *_CENTRES),
            families=("ViT",),
        ),
        Layout(
            title="full training checkpoint of a ConvNeXt, student",
            sections=_FULL,
            rules=(*under("student.backbone.", _DINOV3_CONVNEXT), *_STUDENT_HEADS, _TEACHER, _EMA, *_CENTRES),
            families=("ConvNeXt",),
        ),
    ),
    pixels=DINOV3.pixels,
    guess=False,
)
