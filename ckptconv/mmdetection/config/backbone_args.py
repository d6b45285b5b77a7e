"""A backbone read from shapes -> what MMDetection's constructor of it is given, its channels a stage, its optimizer.

Sources: `mmdet/models/backbones/resnet.py`, `resnext.py` and `swin.py`, and `configs/swin` and `configs/convnext` of
mmdet 3.3.0, `projects/ViTDet` of its repository; `convnext.py`, `vision_transformer.py` and `beit.py` of
`mmpretrain/models/backbones`, mmpretrain 1.2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.mmdetection.type_names import named

VITDET = "projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py"
ON_ONE_MAP = "mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py"


@dataclass(frozen=True)
class Training:
    """How a network is trained where SGD does not do it: what replaces the optimizer of a base that has SGD.

    ``lr`` is for 16 images a step; ``warmup`` counts iterations; ``source`` is the config of MMDetection it is from.
    """

    lr: float
    optimizer: Mapping[str, Any]
    wrapper: Mapping[str, Any]
    warmup: int
    source: str


@dataclass(frozen=True)
class Network:
    """``arguments`` of the constructor, all of them with their values; ``channels`` of each stage's output.

    ``batch_norm`` is whether it has any. ``init`` is what ``init_cfg`` says beside the file, ``imports`` what must be
    imported for its class. ``training`` is None for what the detector's own optimizer trains. ``base`` is a
    config that it can stand on, '' if the table's detectors will do: then either ``stands_on`` is the type of backbone
    that a base must have for it, or ``stride`` that of the only map it hands out, 0 where it hands out one a stage.
    """

    arguments: Mapping[str, Any]
    channels: tuple[int, ...]
    batch_norm: bool = True
    init: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    training: Training | None = None
    base: str = ""
    stands_on: str = ""
    stride: int = 0

    @property
    def plain(self) -> bool:
        """Whether `mmdet`'s ResLayer, which knows a depth and nothing else, can be its last stage."""
        return named(self.arguments, "ResNet") and bool(self.arguments["base_channels"] == 64)


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
"""What the constructors take an argument to be that the config leaves out; type and depth as in most configs."""


def _in_channels(settings: Mapping[str, Any], key: str = "in_channels") -> dict[str, Any]:
    """The argument for images that have not three channels."""
    return {} if settings["in_channels"] == 3 else {key: settings["in_channels"]}


def _resnet(settings: Mapping[str, Any]) -> Network:
    grouped = settings["groups"] > 1
    arguments = {"type": "ResNeXt" if grouped else "ResNet", "depth": settings["depth"]}
    arguments |= {key: settings[key] for key in ("stem_channels", "base_channels")}
    if grouped:
        arguments |= {"groups": settings["groups"], "base_width": settings["base_width"]}
    arguments |= _in_channels(settings)
    expansion = 4 if settings["bottleneck"] else 1
    # All methods known here train torchvision's ResNet, whose strides are in the 3x3 convolutions.
    arguments["style"] = "pytorch"
    return Network(arguments, tuple(settings["base_channels"] * expansion << stage for stage in range(4)))


_ADAMW = {"type": "AdamW", "betas": (0.9, 0.999), "weight_decay": 0.05}


def _whole(ratio: float) -> float:
    """4 for 4.0: MMDetection multiplies by it, and takes the product for a number of channels."""
    return int(ratio) if ratio == int(ratio) else ratio


def _swin(settings: Mapping[str, Any]) -> Network:
    width = settings["embed_dims"]
    arguments = {
        "type": "SwinTransformer",
        "embed_dims": width,
        "depths": list(settings["depths"]),
        "num_heads": list(settings["num_heads"]),
        "window_size": settings["window_size"],
        "mlp_ratio": _whole(settings["mlp_ratio"]),
        "drop_path_rate": 0.2,
        "convert_weights": False,
    }
    usual = {"patch_size": 4, "patch_norm": True, "qkv_bias": True}
    arguments |= {key: settings[key] for key, value in usual.items() if settings[key] != value}
    arguments |= _in_channels(settings)
    if settings["patch_size"] != 4:
        arguments["strides"] = [settings["patch_size"], 2, 2, 2]
    if settings.get("eps"):
        arguments["norm_cfg"] = {"type": "LN", "eps": settings["eps"]}
    undecayed = {name: {"decay_mult": 0.0} for name in ("absolute_pos_embed", "relative_position_bias_table", "norm")}
    training = Training(
        lr=0.0001,
        optimizer=_ADAMW,
        wrapper={"paramwise_cfg": {"custom_keys": undecayed}},
        warmup=1000,
        source="configs/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
    )
    return Network(arguments, tuple(width << stage for stage in range(4)), batch_norm=False, training=training)


def _convnext(settings: Mapping[str, Any]) -> Network:
    depths, channels = list(settings["depths"]), list(settings["dims"])
    shallow = depths[2] <= 9  # as of the tiny one; the config of the small one serves what is deeper
    arguments = {
        "type": "mmpretrain.ConvNeXt",
        "arch": {"depths": depths, "channels": channels},
        "drop_path_rate": 0.4 if shallow else 0.6,
        "layer_scale_init_value": 1.0 if settings["layer_scale"] else 0.0,
        "gap_before_final_norm": False,
    }
    arguments |= _in_channels(settings)
    if settings["grn"]:
        arguments["use_grn"] = True
    if settings["patch"] != 4:
        arguments["stem_patch_size"] = settings["patch"]
    paramwise = {"decay_rate": 0.95 if shallow else 0.7, "decay_type": "layer_wise", "num_layers": 6 if shallow else 12}
    training = Training(
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


def _vitdet(settings: Mapping[str, Any]) -> Network:
    width, depth = settings["embed_dim"], settings["depth"]
    arguments = {
        "type": "ViT",
        "embed_dim": width,
        "depth": depth,
        "num_heads": settings["heads"],
        "mlp_ratio": _whole(settings["mlp_ratio"]),
        "patch_size": settings["patch_size"],
        "qkv_bias": settings["qkv_bias"],
        "pretrain_img_size": (settings["grid"] or 0) * settings["patch_size"],  # ViTDet has no ViT without a grid
        "pretrain_use_cls_token": settings["position_slots"] == 1,
        # all blocks but the last of each quarter look at windows
        "window_block_indexes": [i for i in range(depth) if (i + 1) % max(depth // 4, 1)],
        "norm_cfg": {"type": "LN", "requires_grad": True, "eps": settings.get("eps", 1e-6)},
        **_in_channels(settings, "in_chans"),
    }
    widths = (width // 4, width // 2, width, width)
    return Network(arguments, widths, batch_norm=False, base=VITDET, stands_on="ViT")


def _on_one_map(settings: Mapping[str, Any], kind: str, hidden: int, own: Mapping[str, Any]) -> Network:
    """A transformer of MMPretrain, every block of which sees the whole image: it hands out the last one's map."""
    width, patch = settings["embed_dim"], settings["patch_size"]
    arguments = {
        "type": f"mmpretrain.{kind}",
        "arch": {
            "embed_dims": width,
            "num_layers": settings["depth"],
            "num_heads": settings["heads"],
            "feedforward_channels": hidden,
        },
        "img_size": (settings["grid"] or 0) * patch,
        "patch_size": patch,
        "drop_path_rate": 0.1,
        "final_norm": settings["final_norm"],
        "out_type": "featmap",
        **_in_channels(settings),
        **own,
    }
    if settings.get("eps"):
        arguments["norm_cfg"] = {"type": "LN", "eps": settings["eps"]}
    undecayed = {name: {"decay_mult": 0.0} for name in ("pos_embed", "cls_token", "gamma", "ln1", "ln2")}
    training = Training(
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


def _vit(settings: Mapping[str, Any]) -> Network:
    own: dict[str, Any] = {}
    if not settings["cls_token"]:
        own["with_cls_token"] = False
    if not settings["qkv_bias"]:
        own["qkv_bias"] = False
    if settings["layer_scale"]:
        own["layer_scale_init_value"] = 1e-5
    hidden = settings["hidden_dim"]
    if settings["swiglu"]:  # of what is asked for, MMPretrain makes two thirds, in multiples of 8
        own["layer_cfgs"], hidden = {"ffn_type": "swiglu_fused"}, hidden * 3 // 2
    return _on_one_map(settings, "VisionTransformer", hidden, own)


def _beit(settings: Mapping[str, Any]) -> Network | None:
    """None for what has relative positions: MMPretrain's class knows them for images of one size only."""
    if settings["shared_relative_positions"] or settings["own_relative_positions"]:
        return None
    own = {
        "bias": "qv_bias" if settings["qv_bias"] else False,
        "use_abs_pos_emb": True,
        "use_rel_pos_bias": False,
        "layer_scale_init_value": 0.1 if settings["layer_scale"] else 0.0,
    }
    return _on_one_map(settings, "BEiTViT", settings["hidden_dim"], own)


def _beit_as_vit(settings: Mapping[str, Any]) -> Network:
    """What a BEiT becomes for ViTDet, which has it only with positions of its own and a row for the class token."""
    return _vitdet({**settings, "qkv_bias": True, "position_slots": 1})


_MADE: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Network | None]] = {
    ("ResNet", "mmdet"): _resnet,
    ("Swin", "mmdet"): _swin,
    ("ConvNeXt", "mmpretrain"): _convnext,
    ("ViT", "vitdet"): _vitdet,
    ("ViT", "mmpretrain"): _vit,
    ("BEiT", "mmpretrain"): _beit,
    ("BEiT", "vitdet"): _beit_as_vit,
}
"""By family, and the target that its file was written for."""


def network(backbone: Backbone, facts: Mapping[str, Any] | None = None, target: str = "") -> Network | None:
    """How MMDetection builds this backbone from a file for ``target``, the usual one if it is ''.

    ``facts`` are what no tensor tells. None where no config here can.
    """
    settings = {**backbone.settings(), **(facts or {})}
    make = _MADE.get((backbone.family, target or FAMILIES[backbone.family].targets[0]))
    return make(settings) if make else None
