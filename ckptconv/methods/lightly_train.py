"""lightly-train's checkpoints and exports: an embedding model holds a wrapper, and that holds the network.

Source: lightly-ai/lightly-train `_methods/` and `_models/`, which has `embedding_model.py` and one wrapper per library.
A wrapper keeps its network as `_model`, or torchvision's layers before the pooling as `_features`. An export with
`part="model"` has the library's own names; with `part="wrapped_model"`, those of the wrapper.
"""

from __future__ import annotations

from ckptconv.methods import naming_convnext
from ckptconv.methods.interface import Layout, Method
from ckptconv.methods.naming_dinov3 import DINOV3_VIT
from ckptconv.rules import drop, keep, under

_SECTIONS = ("state_dict", "")
_DINOV2 = (
    drop("_model.mask_token", "the mask token"),
    keep("_model.register_tokens", "reg_token"),
    keep("_model.{key...}", "{key...}"),
)
_NETWORK = (  # torchvision's ResNet; timm's ResNet or ViT; a DINOv2
    keep("_features.{key...}", "{key...}"),
    drop("_model.head.{p}", "timm's classifier, never used"),
    drop("_model.fc.{p}", "timm's classifier, never used"),
    *_DINOV2,
)
_CONVNEXT = (  # torchvision's without its last norm, DINOv3's or timm's
    *(rule.under("_") for rule in naming_convnext.TORCHVISION_FEATURES),
    drop("_model.head.fc.{p}", "timm's classifier, never used"),
    drop("_model.norms.3.{p}", "the last norm again, under a second name"),
    keep("_model.norm.{p}", "norm.{p}"),
    *under("_model.", (*naming_convnext.TIMM_V1, *naming_convnext.TRUNK)),
)
_DINOV3 = under("_model.", DINOV3_VIT)
_DINOV3S = (
    *_DINOV3,
    *under("wrapped_model.", _DINOV3),
    *(rule.under("{copy}.wrapped_model.") for rule in _DINOV3),
)
_RESNETS_AND_VITS = (
    *_NETWORK,
    *under("wrapped_model.", _NETWORK),
    *(rule.under("{copy}.wrapped_model.") for rule in _NETWORK),
    *under("teacher_embedding_model_wrapper.", _DINOV2),
    keep("query_encoder.embedding_model.wrapped_model._features.{key...}", "{key...}"),
)
_CONVNEXTS = (
    *_CONVNEXT,
    *under("wrapped_model.", _CONVNEXT),
    *(rule.under("{copy}.wrapped_model.") for rule in _CONVNEXT),
)
_STUDENT_LAST = (
    drop("student_embedding_model.{key...}", "the student; the teacher is its moving average"),
    drop("student_embedding_model_wrapper.{key...}", "the student; the teacher is its moving average"),
    drop("embedding_model_momentum.{key...}", "the momentum copy of the embedding model"),
    drop("key_encoder.{key...}", "the key encoder: a momentum copy"),
)
_REST = (
    drop("embed_head.{p}", "the embedding layer"),
    drop("projection_head.{p...}", "the projection head"),
    drop("projection_head_momentum.{p...}", "the projection head: a momentum copy"),
    drop("prediction_head.{p...}", "the prediction head"),
    drop("query_encoder.{part}_projection_head.{p...}", "a projection head"),
    drop("{part}_head.{p...}", "a head of the teacher or the student"),
    drop("criterion.{p...}", "the state of the loss"),
    drop("{part}_criterion.{p...}", "the state of a part of the loss"),
    drop("{part}_loss.center", "the centre of the teacher's outputs"),
    drop("memory_bank.{p}", "the memory bank of negatives"),
)
_DISTILLED = (
    drop("student_projection_head.{p...}", "the student's projection head"),
    drop("student_projection_head_{part}.{p...}", "a projection head of the student"),
    drop("teacher_queue", "the queue of teacher features"),
)

LIGHTLY_TRAIN = Method(
    name="lightly-train",
    title="lightly-train's checkpoints, and its exports of wrapped and embedding models",
    repository="lightly-ai/lightly-train",
    layouts=(
        Layout(
            title="checkpoint, or exported wrapped or embedding model",
            sections=_SECTIONS,
            rules=(*_STUDENT_LAST, *_REST, *_RESNETS_AND_VITS),
            families=("ResNet", "ViT"),
        ),
        Layout(
            title="checkpoint, or exported wrapped or embedding model, of a ConvNeXt",
            sections=_SECTIONS,
            rules=(*_STUDENT_LAST, *_REST, *_CONVNEXTS),
            families=("ConvNeXt",),
            without=("norm",),
        ),
        Layout(
            title="checkpoint, or exported wrapped or embedding model, of a DINOv3 ViT",
            sections=_SECTIONS,
            rules=(*_STUDENT_LAST, *_REST, *_DINOV3S),
            families=("Eva",),
        ),
        Layout(
            title="checkpoint of a distillation: the student",
            sections=_SECTIONS,
            rules=(*_DISTILLED, *_RESNETS_AND_VITS),
            families=("ResNet", "ViT"),
        ),
        Layout(
            title="checkpoint of a distillation: the student, a DINOv3 ViT",
            sections=_SECTIONS,
            rules=(*_DISTILLED, *_DINOV3S),
            families=("Eva",),
        ),
        Layout(
            title="checkpoint of a distillation: the student, a ConvNeXt",
            sections=_SECTIONS,
            rules=(*_DISTILLED, *_CONVNEXTS),
            families=("ConvNeXt",),
            without=("norm",),
        ),
    ),
    pixels=None,
)
