"""A backbone -> the arguments of its class in MMDetection, its channels per stage, its optimizer.

The names of MMDetection's constructors are used here and nowhere else.

Sources: `mmdet/models/backbones/resnet.py`, `resnext.py` and `swin.py`, and `configs/swin` and `configs/convnext` of
mmdet 3.3.0, `projects/ViTDet` of its repository; `convnext.py`, `vision_transformer.py` and `beit.py` of
`mmpretrain/models/backbones`, mmpretrain 1.2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.interface import Hyperparameters, TimmModel
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.swin import Swin
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.mmdetection.config.network import Network, TrainingRecipe
from ckptconv.mmdetection.config.timm_args import timm_network

VITDET = "projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py"
ON_ONE_MAP = "mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py"


DEFAULTS: Mapping[str, Any] = {
    "type": "ResNet",
    "depth": 50,
    "stem_channels": 64,
    "base_channels": 64,
    "groups": 1,
    "base_width": 4,
    "style": "pytorch",
    "in_channels": 3,
}
"""The defaults of the constructors, for arguments that a config leaves out; type and depth as in most configs."""


def _in_channels(backbone: Backbone, key: str = "in_channels") -> dict[str, Any]:
    """The argument for images with other than three channels."""
    return {} if backbone.in_channels == 3 else {key: backbone.in_channels}


def _resnet(backbone: ResNet) -> Network:
    arguments = {
        "type": "ResNeXt" if backbone.groups > 1 else "ResNet",
        "depth": backbone.layers,
        "stem_channels": backbone.stem_channels,
        "base_channels": backbone.planes,
    }
    if backbone.groups > 1:
        arguments |= {"groups": backbone.groups, "base_width": backbone.inner_channels // backbone.groups}
    arguments |= _in_channels(backbone)
    expansion = 4 if backbone.bottleneck else 1
    # All methods known here train torchvision's ResNet, whose strides are in the 3x3 convolutions.
    arguments["style"] = "pytorch"
    return Network(arguments, tuple(backbone.planes * expansion << stage for stage in range(4)))


_ADAMW = {"type": "AdamW", "betas": (0.9, 0.999), "weight_decay": 0.05}


def _mlp_ratio(backbone: Swin | VisionTransformer) -> float:
    """4 rather than 4.0: MMDetection multiplies by it and takes the product as a number of channels."""
    ratio = backbone.hidden_dim / backbone.embed_dim
    return int(ratio) if ratio == int(ratio) else ratio


def _swin(backbone: Swin, stated: Hyperparameters) -> Network:
    width = backbone.embed_dim
    arguments = {
        "type": "SwinTransformer",
        "embed_dims": width,
        "depths": list(backbone.depths),
        "num_heads": list(backbone.num_heads),
        "window_size": max(backbone.window_sizes, default=None),
        "mlp_ratio": _mlp_ratio(backbone),
        "drop_path_rate": 0.2,
        "convert_weights": False,
    }
    usual = {"patch_size": 4, "patch_norm": True, "qkv_bias": True}
    own = {"patch_size": backbone.patch_size, "patch_norm": backbone.patch_norm, "qkv_bias": backbone.qkv_bias}
    arguments |= {key: value for key, value in own.items() if value != usual[key]}
    arguments |= _in_channels(backbone)
    if backbone.patch_size != 4:
        arguments["strides"] = [backbone.patch_size, 2, 2, 2]
    if stated.eps:
        arguments["norm_cfg"] = {"type": "LN", "eps": stated.eps}
    undecayed = {name: {"decay_mult": 0.0} for name in ("absolute_pos_embed", "relative_position_bias_table", "norm")}
    training = TrainingRecipe(
        lr=0.0001,
        optimizer=_ADAMW,
        wrapper={"paramwise_cfg": {"custom_keys": undecayed}},
        warmup=1000,
        source="configs/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
    )
    return Network(arguments, tuple(width << stage for stage in range(4)), batch_norm=False, training=training)


def _convnext(backbone: ConvNeXt) -> Network:
    depths, channels = list(backbone.depths), list(backbone.embed_dims)
    shallow = depths[2] <= 9  # as in the config of the tiny one; the config of the small one is for deeper networks
    arguments = {
        "type": "mmpretrain.ConvNeXt",
        "arch": {"depths": depths, "channels": channels},
        "drop_path_rate": 0.4 if shallow else 0.6,
        "layer_scale_init_value": 1.0 if backbone.layer_scale else 0.0,
        "gap_before_final_norm": False,
    }
    arguments |= _in_channels(backbone)
    if backbone.grn:
        arguments["use_grn"] = True
    if backbone.has_larger_eps:
        arguments["norm_cfg"] = {"type": "LN2d", "eps": 1e-5}
    if backbone.patch_size != 4:
        arguments["stem_patch_size"] = backbone.patch_size
    paramwise = {"decay_rate": 0.95 if shallow else 0.7, "decay_type": "layer_wise", "num_layers": 6 if shallow else 12}
    training = TrainingRecipe(
        lr=0.0001,
        optimizer=_ADAMW,
        wrapper={"constructor": "LearningRateDecayOptimizerConstructor", "paramwise_cfg": paramwise},
        warmup=1000,
        source="configs/convnext",
    )
    return Network(
        arguments,
        tuple(channels),
        batch_norm=False,
        init={"prefix": "backbone."},
        imports=("mmpretrain.models",),
        training=training,
    )


def _vitdet(backbone: VisionTransformer, stated: Hyperparameters) -> Network:
    width, depth = backbone.embed_dim, backbone.depth
    arguments = {
        "type": "ViT",
        "embed_dim": width,
        "depth": depth,
        "num_heads": backbone.num_heads,
        "mlp_ratio": _mlp_ratio(backbone),
        "patch_size": backbone.patch_size,
        "qkv_bias": backbone.qkv_bias,
        "pretrain_img_size": (backbone.grid_size or 0) * backbone.patch_size,  # `obstacle` refuses one without a grid
        "pretrain_use_cls_token": backbone.prefix_positions == 1,
        # window attention in all blocks but the last of each quarter
        "window_block_indexes": [i for i in range(depth) if (i + 1) % max(depth // 4, 1)],
        "norm_cfg": {"type": "LN", "requires_grad": True, "eps": stated.eps or 1e-6},
        **_in_channels(backbone, "in_chans"),
    }
    widths = (width // 4, width // 2, width, width)
    return Network(arguments, widths, batch_norm=False, base=VITDET, stands_on="ViT")


def _on_one_map(
    backbone: VisionTransformer | Beit, stated: Hyperparameters, kind: str, hidden: int, own: Mapping[str, Any]
) -> Network:
    """A transformer of MMPretrain with global attention: its output is one map, that of the last block."""
    width, patch = backbone.embed_dim, backbone.patch_size
    arguments = {
        "type": f"mmpretrain.{kind}",
        "arch": {
            "embed_dims": width,
            "num_layers": backbone.depth,
            "num_heads": backbone.num_heads,
            "feedforward_channels": hidden,
        },
        "img_size": (backbone.grid_size or 0) * patch,
        "patch_size": patch,
        "drop_path_rate": 0.1,
        "final_norm": backbone.final_norm,
        "out_type": "featmap",
        **_in_channels(backbone),
        **own,
    }
    if stated.eps:
        arguments["norm_cfg"] = {"type": "LN", "eps": stated.eps}
    undecayed = {name: {"decay_mult": 0.0} for name in ("pos_embed", "cls_token", "gamma", "ln1", "ln2")}
    training = TrainingRecipe(
        lr=0.0001,
        optimizer=_ADAMW,
        wrapper={"paramwise_cfg": {"custom_keys": undecayed}},
        warmup=1000,
        source="configs/swin, in which its transformers are trained",
    )
    return Network(
        arguments,
        (width,) * 4,
        batch_norm=False,
        init={"prefix": "backbone."},
        imports=("mmpretrain.models",),
        training=training,
        base=ON_ONE_MAP,
        stride=patch,
    )


def _vit(backbone: VisionTransformer, stated: Hyperparameters) -> Network:
    own: dict[str, Any] = {}
    if not backbone.class_token:
        own["with_cls_token"] = False
    if not backbone.qkv_bias:
        own["qkv_bias"] = False
    if backbone.layer_scale:
        own["layer_scale_init_value"] = 1e-5
    hidden = backbone.hidden_dim
    if backbone.swiglu:  # MMPretrain makes two thirds of what is asked for, in multiples of 8
        own["layer_cfgs"], hidden = {"ffn_type": "swiglu_fused"}, hidden * 3 // 2
    return _on_one_map(backbone, stated, "VisionTransformer", hidden, own)


def _beit(backbone: Beit, stated: Hyperparameters) -> Network | None:
    """None with relative positions: MMPretrain's class takes images of one size only with them."""
    if backbone.has_tables:
        return None
    own = {
        "bias": "qv_bias" if backbone.qv_bias else False,
        "use_abs_pos_emb": True,
        "use_rel_pos_bias": False,
        "layer_scale_init_value": 0.1 if backbone.layer_scale else 0.0,
    }
    return _on_one_map(backbone, stated, "BEiTViT", backbone.hidden_dim, own)


def _beit_as_vit(backbone: Beit, stated: Hyperparameters) -> Network:
    """A BEiT as ViTDet's ViT: only one with absolute positions and a row for the class token is written so."""
    vit = VisionTransformer(
        embed_dim=backbone.embed_dim,
        depth=backbone.depth,
        hidden_dim=backbone.hidden_dim,
        patch_size=backbone.patch_size,
        positions=backbone.grid_size**2,
        in_channels=backbone.in_channels,
        num_heads=backbone.num_heads,
    )
    return _vitdet(vit, stated)


def network(
    backbone: Backbone,
    target: str = "",
    stated: Hyperparameters | None = None,
    said: TimmModel | None = None,
    method: str = "",
) -> Network | None:
    """How MMDetection builds this backbone from a file for ``target``, the usual one if it is ''.

    ``stated`` is what no tensor tells; ``said`` is how a file for timm says that it is built; ``method`` is whose
    weights it has. None if no config here can build it.
    """
    stated = stated or Hyperparameters()
    if target == "timm" or (not target and FAMILIES[backbone.family].targets[0] == "timm"):
        return timm_network(backbone, stated, said, method)
    match backbone, target or FAMILIES[backbone.family].targets[0]:
        case ResNet() as resnet, "mmdet":
            return _resnet(resnet)
        case Swin(shifted=True) as swin, "mmdet":
            return _swin(swin, stated)
        case ConvNeXt() as convnext, "mmpretrain":
            return _convnext(convnext)
        case VisionTransformer() as vit, "vitdet":
            return _vitdet(vit, stated)
        case VisionTransformer() as vit, "mmpretrain":
            return _vit(vit, stated)
        case Beit() as beit, "mmpretrain":
            return _beit(beit, stated)
        case Beit() as beit, "vitdet":
            return _beit_as_vit(beit, stated)
    return None
