"""A backbone for target timm -> the arguments of `TimmBackbone`, its channels per stage, its optimizer. Pure; no torch.

Sources of the recipes: `fine_tuning` for plain transformers; `configs/swin` of mmdet 3.3.0 for those of stages, and for
the learning rate of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.backbones import Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import Hyperparameters, TimmModel, described
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.xcit import Xcit
from ckptconv.mmdetection.config.fine_tuning import FineTuning, fine_tuning
from ckptconv.mmdetection.config.network import Network, TrainingRecipe

MODULES = "ckptconv.mmdetection.modules"
FIXED_SIZE = 1024
"""The side of the images, in pixels, for a network that takes one size only: that of ViTDet's recipe."""

_CONVOLUTIONAL = ("ResNet", "RegNetY", "SK-ResNet")
_ADAMW: Mapping[str, Any] = {"type": "AdamW", "betas": (0.9, 0.999)}


def timm_network(
    backbone: Backbone, stated: Hyperparameters, said: TimmModel | None = None, method: str = ""
) -> Network | None:
    """How MMDetection builds this backbone from a file for timm; None if no class of timm is this network.

    ``said`` is what the file says of it, for what its tensors do not tell: the windows of a Swin V2. ``method`` is
    whose detectors are looked up for the recipe.
    """
    model = backbone.timm_model() or said
    if model is None:
        return None
    arguments: dict[str, Any] = {"type": "TimmBackbone", "name": model.name}
    if model.arguments:
        arguments["arguments"] = dict(model.arguments)
    if stated.norm is False or isinstance(
        backbone, Xcit
    ):  # its last norm is the class token's: xcit's detection/backbone/xcit.py has none
        arguments["norm"] = False
    if stated.eps is not None:
        arguments["norm_eps"] = stated.eps
    if stated.position_resampling is not None:
        arguments["position_resampling"] = dict(vars(stated.position_resampling))
    if stated.rope_periods is not None:
        arguments["rope_periods"] = list(stated.rope_periods)
    tables = isinstance(backbone, Beit) and backbone.has_tables  # timm's Beit; without them it is timm's Eva
    fixed = tables or isinstance(backbone, Hiera)  # neither class has `dynamic_img_size`
    if fixed:
        arguments["image_size"] = (FIXED_SIZE, FIXED_SIZE)
    width, facts = backbone.token_dim, described(backbone)
    convolutional = backbone.family in _CONVOLUTIONAL
    if convolutional:
        training = None
    elif width:
        row, whose = fine_tuning(method, backbone.family, width, _whole(facts["depth"]))
        arguments["drop_path_rate"] = row.drop_path_rate
        training = _plain(row, whose)
    else:
        training = _of_stages(arguments)
    return Network(
        arguments,
        (width,) * 4 if width else _stage_channels(backbone),
        batch_norm=False,
        imports=(MODULES,),
        training=training,
        stride=_whole(facts["patch_size"]) if width else 0,
        pyramid=bool(width),
        depth=_whole(facts["depth"]) if width else 0,
        sync_bn=convolutional,
        fixed_size=FIXED_SIZE if fixed else 0,
        windows=bool(width) and not tables and not isinstance(backbone, Xcit),
    )


def _plain(row: FineTuning, whose: str) -> TrainingRecipe:
    """ViTDet's recipe with the values of this row."""
    return TrainingRecipe(
        lr=0.0001,  # for 16 images, as configs/swin; ViTDet has it for 64: new heads would learn too slowly
        optimizer={**_ADAMW, "weight_decay": row.weight_decay},
        wrapper={"constructor": "LayerDecayOptimWrapperConstructor", "paramwise_cfg": {"decay_rate": row.layer_decay}},
        warmup=250,
        source="projects/ViTDet/configs, with the rate of its Swins",
        decays=whose,
    )


def _of_stages(arguments: dict[str, Any]) -> TrainingRecipe:
    """The recipe of MMDetection's Swin for transformers of stages."""
    arguments["drop_path_rate"] = 0.2
    return TrainingRecipe(
        lr=0.0001,
        optimizer={**_ADAMW, "weight_decay": 0.05},
        wrapper={"constructor": "LayerDecayOptimWrapperConstructor", "paramwise_cfg": {"decay_rate": 1.0}},
        warmup=1000,
        source="configs/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
    )


def _stage_channels(backbone: Backbone) -> tuple[int, ...]:
    """The channels of the maps of strides 4, 8, 16 and 32."""
    if isinstance(backbone, ResNet):
        return tuple(backbone.planes * (4 if backbone.bottleneck else 1) << stage for stage in range(4))
    facts = described(backbone)
    widths = facts.get("embed_dims")
    return tuple(widths) if isinstance(widths, list) else tuple(_whole(facts["embed_dim"]) << i for i in range(4))


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
