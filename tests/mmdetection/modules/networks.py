"""Small networks of timm, one of each kind, and detectors of MMDetection around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tests.support import pretrain

if TYPE_CHECKING:
    from ckptconv.mmdetection.modules import TimmBackbone

NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 4, "num_heads": 2}, {}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 56}, {}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {"embed_dim": 48, "depth": 4, "num_heads": 2}, {}),
    "eva02": ("eva02_tiny_patch14_224", {"embed_dim": 48, "depth": 4, "num_heads": 2}, {}),
    "beit": ("beit_base_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, {"image_size": (64, 96)}),
    "xcit": ("xcit_nano_12_p16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, {}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 2, 1)}, {"image_size": (64, 96)}),
    "swinv2": ("swinv2_tiny_window8_256", {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}, {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, {}),
    "regnet": ("regnety_002", {}, {}),
    "resnet": ("resnet10t", {}, {}),
}
"""Name and arguments for timm, and what a `TimmBackbone` is given besides."""
PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
DYNAMIC = ("vit", "dinov2", "dinov3", "eva02", "swinv2")
"""Those whose class takes images of any size if it is told to."""


def made(kind: str, seed: int = 0, **options: Any) -> TimmBackbone:
    from ckptconv.mmdetection.modules import TimmBackbone

    pretrain.module("timm")
    name, arguments, own = NETWORKS[kind]
    torch.manual_seed(seed)
    return TimmBackbone(name, arguments, **{**own, **options}).eval()


def timms(kind: str, **more: Any) -> Any:
    """timm's own model of the same name."""
    name, arguments, own = NETWORKS[kind]
    size = {"img_size": own["image_size"]} if "image_size" in own else {}
    dynamic = {"dynamic_img_size": True} if kind in DYNAMIC else {}
    timm = pretrain.module("timm")
    return timm.create_model(name, num_classes=0, global_pool="", **{**arguments, **size, **dynamic, **more}).eval()


def images(height: int = 64, width: int = 96, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def randomise(module: torch.nn.Module, seed: int = 2) -> None:
    """Random numbers in every parameter: tokens, biases and norms too, which timm fills with constants."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1 + (value.dim() == 1) * 0.5)


def retinanet(kind: str, **options: Any) -> dict[str, Any]:
    """The config of a small RetinaNet around a network: a simple pyramid where it is plain, else an FPN."""
    from ckptconv.mmdetection.modules import TimmBackbone

    pretrain.module("timm")
    name, arguments, own = NETWORKS[kind]
    backbone = {"type": "TimmBackbone", "name": name, "arguments": arguments, **own, **options}
    probe = TimmBackbone(**{key: value for key, value in backbone.items() if key not in ("type", "init_cfg")})
    neck: dict[str, Any] = {"type": "SimpleFeaturePyramid", "in_channels": probe.channels[0], "out_channels": 8}
    if not probe.plain:
        neck = {"type": "FPN", "in_channels": list(probe.channels), "out_channels": 8, "num_outs": 5}
    anchors = {"octave_base_scale": 4, "scales_per_octave": 1, "ratios": [1.0], "strides": [4, 8, 16, 32, 64]}
    return {
        "type": "RetinaNet",
        "data_preprocessor": {"type": "DetDataPreprocessor", "bgr_to_rgb": True, **PIXELS},
        "backbone": backbone,
        "neck": neck,
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": 1,
            "in_channels": 8,
            "feat_channels": 8,
            "stacked_convs": 1,
            "anchor_generator": {"type": "AnchorGenerator", **anchors},
        },
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
        },
        "test_cfg": {"nms_pre": 10, "score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 5},
    }


def built(kind: str, **options: Any) -> Any:
    """That RetinaNet, initialised."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(retinanet(kind, **options))
        detector.init_weights()
    return detector


def batch(height: int = 64, width: int = 96) -> dict[str, Any]:
    """Two images, each with one box, as a detector's `data_preprocessor` gives them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for _ in range(2):
        size = (height, width)
        sample = DetDataSample(metainfo={"img_shape": size, "pad_shape": size, "batch_input_shape": size})
        boxes, labels = torch.tensor([[10.0, 8.0, 42.0, 40.0]]), torch.tensor([0])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return {"inputs": images(height, width), "data_samples": samples}


def loss(detector: Any, **size: int) -> torch.Tensor:
    """The detector's whole loss."""
    losses = detector(**batch(**size), mode="loss")
    total, _ = detector.parse_losses(losses)
    return total
