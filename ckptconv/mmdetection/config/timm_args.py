"""A backbone for target timm -> the arguments of `TimmBackbone`, its channels per stage, its optimizer. Pure; no torch.

Sources of the recipes: detectron2's `projects/ViTDet/configs/COCO` (AdamW 1e-4 for 64 images, weight decay 0.1; layer
decay 0.7, 0.8, 0.9 and drop path 0.1, 0.4, 0.5 for ViT-B, -L, -H of MAE), which EVA-02's detectors repeat;
`configs/swin` of mmdet 3.3.0 for transformers of stages.
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
from ckptconv.mmdetection.config.network import Network, TrainingRecipe

MODULES = "ckptconv.mmdetection.modules"
FIXED_SIZE = 1024
"""The side of the images, in pixels, for a network that takes one size only: that of ViTDet's recipe."""

_CONVOLUTIONAL = ("ResNet", "RegNetY", "SK-ResNet")
_BY_DEPTH = ((12, 0.7, 0.1), (24, 0.8, 0.4))
_DEEPEST = (0.9, 0.5)
_ADAMW: Mapping[str, Any] = {"type": "AdamW", "betas": (0.9, 0.999)}


def timm_network(backbone: Backbone, stated: Hyperparameters, said: TimmModel | None = None) -> Network | None:
    """How MMDetection builds this backbone from a file for timm; None if no class of timm is this network.

    ``said`` is what the file says of it, for what its tensors do not tell: the windows of a Swin V2.
    """
    model = backbone.timm_model() or said
    if model is None:
        return None
    arguments: dict[str, Any] = {"type": "TimmBackbone", "name": model.name}
    heads = {} if stated.num_heads is None or backbone.token_dim is None else {"num_heads": stated.num_heads}
    if own := {**model.arguments, **heads}:
        arguments["arguments"] = own
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
        training = _plain(arguments, _whole(facts["depth"]))
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


def _plain(arguments: dict[str, Any], depth: int) -> TrainingRecipe:
    """ViTDet's recipe for a transformer of this depth; its drop path goes into the arguments."""
    decay, drop_path = next((row[1:] for row in _BY_DEPTH if depth <= row[0]), _DEEPEST)
    arguments["drop_path_rate"] = drop_path
    return TrainingRecipe(
        lr=0.0001,  # for 16 images, as configs/swin; ViTDet has it for 64: new heads would learn too slowly
        optimizer={**_ADAMW, "weight_decay": 0.1},
        wrapper={"constructor": "LayerDecayOptimWrapperConstructor", "paramwise_cfg": {"decay_rate": decay}},
        warmup=250,
        source="projects/ViTDet/configs, with the rate of its Swins",
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
