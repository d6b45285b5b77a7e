"""THE TABLE of detectors and schedules: where MMDetection's own configs keep what a new backbone changes.

Pure data, read from the configs of mmdet 3.3.0 (`configs/`, paths as they stand behind `mmdet::`); tests compare each
row with the config itself. Paths are dotted and start at the config's top; ``[]`` stands for each item of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ckptconv.methods.interface import IMAGENET, Pixels

WARMUP = {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 500}
_SYNC = {"type": "SyncBN", "requires_grad": True}
_R50 = {"type": "ResNet", "depth": 50, "style": "pytorch"}
_CAFFE = {**_R50, "style": "caffe"}
_VAL = "annotations/instances_val2017.json"
_EVALUATED = {"val_evaluator.ann_file": _VAL, "test_evaluator.ann_file": _VAL}
_FILES = {"train": ("annotations/instances_train2017.json", "train2017/"), "val": (_VAL, "val2017/")}
_FPN = {"model.neck.in_channels": (0, 1, 2, 3)}
_MAPPER = {"model.neck.in_channels": (1, 2, 3)}


@dataclass(frozen=True)
class Detector:
    """One detector on ResNet-50, as MMDetection configures it.

    What a new backbone changes:
    ``bases``: its config by the number of epochs; the first one serves other numbers, too.
    ``widths``: what holds the channels of which of the backbone's stages (a list of them, or one).
    ``classes``: what holds the number of classes.
    ``shared_head``: the path of a head that is the network's last stage, as in C4 detectors; '' if there is none.
    ``synced``: what MMSelfSup's recipe changes, and ``synced_note`` what it cannot.
    ``warmup``, ``milestones``: the schedule, where the base has none for the epochs that are asked for.
    ``scales``: False where the base's own augmentation already draws from several scales.

    What the base says:
    ``start_level``: how many of the backbone's first stages its neck takes and does not use.
    ``optimizer``: its type. ``images``, ``batch_size``, ``lr``: images a step and a GPU, and the rate for them.
    ``accumulative_counts``: how many batches of a GPU make a step.
    ``backbone``: arguments of its backbone; ``channels`` of its stages, () where they are not known.
    ``pixels``: what it feeds the network; None for what no method here was trained with (detectron's BGR weights).
    ``masks``: whether it is trained on masks, too. ``datasets``, ``evaluated``: where data sets stand, and their files.
    ``files``: of 'train' and 'val', the file and the folder of images below the data root; no part that has several.
    ``evaluators``: what names a file with the truth.
    ``strides``: where that of its only map stands, in a base that has one.
    ``levels``: the strides of the maps that its neck gives; () without a neck. ``level_strides``: where some of them
    stand, with their values.
    ``found``: all of it, where it has been read; None for MMDetection's own, of which the row says enough.
    """

    name: str
    title: str
    bases: Mapping[int, str]
    widths: Mapping[str, tuple[int, ...] | int]
    classes: tuple[str, ...]
    shared_head: str = ""
    synced: Mapping[str, Any] = field(default_factory=dict)
    synced_note: str = ""
    warmup: Mapping[str, Any] | None = field(default_factory=lambda: WARMUP)
    milestones: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {12: (8, 11), 24: (16, 22)})
    scales: bool = True
    start_level: int = 0
    optimizer: str = "SGD"
    images: int = 16
    batch_size: int = 2
    lr: float | None = 0.02
    backbone: Mapping[str, Any] = field(default_factory=lambda: _R50)
    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    pixels: Pixels | None = IMAGENET
    masks: bool = False
    datasets: tuple[str, ...] = tuple(f"{part}_dataloader.dataset" for part in ("train", "val", "test"))
    evaluated: Mapping[str, str] = field(default_factory=lambda: _EVALUATED)
    files: Mapping[str, tuple[str, str]] = field(default_factory=lambda: _FILES)
    evaluators: tuple[str, ...] = tuple(_EVALUATED)
    strides: tuple[str, ...] = ()
    levels: tuple[int, ...] = (4, 8, 16, 32, 64)
    level_strides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    found: Mapping[str, Any] | None = None
    accumulative_counts: int = 1

    def width(self, path: str) -> object:
        """What the base has at a path of ``widths``; None if that is not known."""
        return among(self.channels, self.widths[path]) if self.channels else None


def value_at(node: Any, path: str, default: Any = None) -> Any:
    """What stands at a dotted path of nested dicts."""
    for step in path.split("."):
        if not isinstance(node, Mapping) or step not in node:
            return default
        node = node[step]
    return node


def among(channels: tuple[int, ...], stages: tuple[int, ...] | int) -> list[int] | int:
    """The channels of these stages, or of this one."""
    return channels[stages] if isinstance(stages, int) else [channels[stage] for stage in stages]


_TWO_STAGE = {
    "model.neck.norm_cfg": _SYNC,
    "model.roi_head.bbox_head.type": "Shared4Conv1FCBBoxHead",
    "model.roi_head.bbox_head.norm_cfg": _SYNC,
}
_CASCADE = {
    "model.neck.norm_cfg": _SYNC,
    "model.roi_head.bbox_head[].type": "Shared4Conv1FCBBoxHead",
    "model.roi_head.bbox_head[].norm_cfg": _SYNC,
}
_MASK = {"model.roi_head.mask_head.norm_cfg": _SYNC}
_FINE, _COARSE = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)
_BOXES = {
    "model.rpn_head.anchor_generator.strides": _FINE,
    "model.roi_head.bbox_roi_extractor.featmap_strides": _FINE[:4],
}
_MASKS = {**_BOXES, "model.roi_head.mask_roi_extractor.featmap_strides": _FINE[:4]}
_one_stage = partial(
    Detector,
    widths=_FPN,
    classes=("model.bbox_head.num_classes",),
    start_level=1,
    lr=0.01,
    levels=_COARSE,
    synced={"model.neck.norm_cfg": _SYNC},
    synced_note="A one-stage head is shared by all levels and keeps its own normalisation; it does not use 4conv1fc.",
)
_with_queries = partial(
    Detector,
    widths=_MAPPER,
    classes=("model.bbox_head.num_classes",),
    warmup=None,
    milestones={12: (11,), 24: (20,)},
    scales=False,
    levels=_COARSE[:4],
    optimizer="AdamW",
    synced_note="Its neck and heads have no batch norm, and its own augmentation stays.",
)

DetectorName = Literal[
    "mask-rcnn",
    "mask-rcnn-c4",
    "faster-rcnn",
    "cascade-mask-rcnn",
    "cascade-rcnn",
    "retinanet",
    "fcos",
    "atss",
    "deformable-detr",
    "dino",
]
ScheduleName = Literal["1x", "2x", "ms-1x", "ms-2x", "vitdet", "mmselfsup"]

DETECTORS: Mapping[str, Detector] = {
    d.name: d
    for d in (
        Detector(
            name="mask-rcnn",
            title="Mask R-CNN with FPN",
            bases={12: "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", 24: "mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py"},
            widths=_FPN,
            classes=("model.roi_head.bbox_head.num_classes", "model.roi_head.mask_head.num_classes"),
            masks=True,
            level_strides=_MASKS,
            synced={**_TWO_STAGE, **_MASK},
        ),
        Detector(
            name="mask-rcnn-c4",
            title="Mask R-CNN on C4",
            bases={12: "mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py"},
            widths={
                "model.rpn_head.in_channels": 2,
                "model.rpn_head.feat_channels": 2,
                "model.roi_head.bbox_roi_extractor.out_channels": 2,
                "model.roi_head.bbox_head.in_channels": 3,
                "model.roi_head.mask_head.in_channels": 3,
            },
            classes=("model.roi_head.bbox_head.num_classes", "model.roi_head.mask_head.num_classes"),
            masks=True,
            backbone=_CAFFE,
            pixels=None,
            synced_note="MMSelfSup adds a batch norm after the shared head. MMDetection does not have a module for it.",
            levels=(),
            strides=("model.rpn_head.anchor_generator.strides", "model.roi_head.bbox_roi_extractor.featmap_strides"),
            shared_head="model.roi_head.shared_head",
        ),
        Detector(
            name="faster-rcnn",
            title="Faster R-CNN with FPN",
            bases={12: "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", 24: "faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py"},
            widths=_FPN,
            classes=("model.roi_head.bbox_head.num_classes",),
            level_strides=_BOXES,
            synced=_TWO_STAGE,
        ),
        Detector(
            name="cascade-mask-rcnn",
            title="Cascade Mask R-CNN with FPN",
            bases={12: "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"},
            widths=_FPN,
            classes=("model.roi_head.bbox_head[].num_classes", "model.roi_head.mask_head.num_classes"),
            masks=True,
            level_strides=_MASKS,
            synced={**_CASCADE, **_MASK},
        ),
        Detector(
            name="cascade-rcnn",
            title="Cascade R-CNN with FPN",
            bases={12: "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"},
            widths=_FPN,
            classes=("model.roi_head.bbox_head[].num_classes",),
            level_strides=_BOXES,
            synced=_CASCADE,
        ),
        _one_stage(
            name="retinanet",
            title="RetinaNet",
            bases={12: "retinanet/retinanet_r50_fpn_1x_coco.py", 24: "retinanet/retinanet_r50_fpn_2x_coco.py"},
            level_strides={"model.bbox_head.anchor_generator.strides": _COARSE},
        ),
        _one_stage(
            name="fcos",
            title="FCOS",
            bases={12: "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"},
            backbone=_CAFFE,
            pixels=None,
            warmup={"type": "ConstantLR", "factor": 1 / 3, "by_epoch": False, "begin": 0, "end": 500},
            level_strides={"model.bbox_head.strides": _COARSE},
        ),
        _one_stage(
            name="atss",
            title="ATSS",
            bases={12: "atss/atss_r50_fpn_1x_coco.py"},
            level_strides={"model.bbox_head.anchor_generator.strides": _COARSE},
        ),
        _with_queries(
            name="deformable-detr",
            title="Deformable DETR",
            bases={50: "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"},
            images=32,
            lr=0.0002,
        ),
        _with_queries(
            name="dino",
            title="DINO (the detector), 4 scales",
            bases={12: "dino/dino-4scale_r50_8xb2-12e_coco.py", 24: "dino/dino-4scale_r50_8xb2-24e_coco.py"},
            lr=0.0001,
        ),
    )
}


@dataclass(frozen=True)
class Schedule:
    """Epochs, how images are resized in training (None: as the base does), and whether heads and neck are synced.

    ``large_scale_jitter`` is ViTDet's schedule, which replaces the base's: only plain transformers have it.
    """

    name: str
    title: str
    epochs: int
    resize: Mapping[str, Any] | None = None
    frozen_stages: int = 0
    synced: bool = False
    large_scale_jitter: bool = False


# configs/selfsup_pretrain/*_ms-2x_coco.py of mmdet 3.3.0
_RANGE = {"type": "RandomResize", "scale": [(1333, 640), (1333, 800)], "keep_ratio": True}
# configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py of mmselfsup 1.0
_STEPS = {
    "type": "RandomChoiceResize",
    "scales": [(1333, short) for short in (640, 672, 704, 736, 768, 800)],
    "keep_ratio": True,
}

SCHEDULES: Mapping[str, Schedule] = {
    s.name: s
    for s in (
        Schedule("1x", "12 epochs", 12),
        Schedule("2x", "24 epochs", 24),
        Schedule("ms-1x", "12 epochs, multi-scale", 12, _RANGE),
        Schedule("ms-2x", "24 epochs, multi-scale", 24, _RANGE),
        Schedule("vitdet", "ViTDet's recipe: 100 epochs, large-scale jitter", 100, large_scale_jitter=True),
        Schedule("mmselfsup", "MMSelfSup's recipe: 12 epochs, multi-scale", 12, _STEPS, -1, True),
    )
}
