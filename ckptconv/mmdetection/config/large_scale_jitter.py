"""ViTDet's schedule: large-scale jitter at 1024 pixels, 100 epochs of 64 images, AdamW with layer decay. Pure.

Source: `projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py` and `lsj-100e_coco-instance.py` of mmdetection,
as of its commit 394f758, and detectron2's `projects/ViTDet` for the numbers of larger networks.
"""

from __future__ import annotations

from typing import Any

from ckptconv.mmdetection.config.detectors import Detector
from ckptconv.mmdetection.config.edits import Changes
from ckptconv.mmdetection.config.learning_rate import set_wrapper
from ckptconv.mmdetection.config.network import Network, TrainingRecipe
from ckptconv.mmdetection.config.pyramid import NORM
from ckptconv.mmdetection.config.python_source import Code

SIDE = 1024
IMAGES, BATCH_SIZE, RATE = 64, 4, 0.0001
_ITERATIONS, _INTERVAL, _WARMUP = 184375, 5000, 250
_MILESTONES = [163889, 177546]
_WINDOW = 14
_SIZE = (SIDE, SIDE)
_PAD = {"type": "Pad", "size": _SIZE, "pad_val": {"img": (114, 114, 114)}}


def set_schedule(changes: Changes, detector: Detector, network: Network, load: list[Any]) -> None:
    """Add the schedule to the changes, for a plain transformer; ``load`` are the steps that load."""
    _pipelines(changes, detector, load)
    if network.windows:
        note = "Attention within windows, except in the last block of each quarter."
        changes.set("model.backbone.window", _WINDOW, note)
        changes.set("model.backbone.global_blocks", global_blocks(network.depth))
    _heads(changes, detector)
    assert network.training is not None
    _optimizer(changes, network.training)
    _loop(changes)


def global_blocks(depth: int) -> list[int]:
    """The blocks that attend to the whole image: the last one of each quarter, or all of fewer than four."""
    return sorted({max((i + 1) * depth // 4 - 1, 0) for i in range(4)})


def _pipelines(changes: Changes, detector: Detector, load: list[Any]) -> None:
    annotations: dict[str, Any] = {"type": "LoadAnnotations", "with_bbox": True}
    if detector.masks:
        annotations["with_mask"] = True
    changes.set(
        "train_pipeline",
        [
            *load,
            annotations,
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "RandomResize", "scale": _SIZE, "ratio_range": (0.1, 2.0), "keep_ratio": True},
            {
                "type": "RandomCrop",
                "crop_type": "absolute_range",
                "crop_size": _SIZE,
                "recompute_bbox": True,
                "allow_negative_crop": True,
            },
            {"type": "FilterAnnotations", "min_gt_bbox_wh": (0.01, 0.01)},
            _PAD,
            {"type": "PackDetInputs"},
        ],
        "Large-scale jitter (arXiv:2012.07177).",
    )
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    changes.set(
        "test_pipeline",
        [
            *load,
            {"type": "Resize", "scale": _SIZE, "keep_ratio": True},
            _PAD,
            annotations,
            {"type": "PackDetInputs", "meta_keys": keys},
        ],
    )
    for part in ("train", "val", "test"):
        changes.set(f"{part}_dataloader.dataset.pipeline", Code(f"{'train' if part == 'train' else 'test'}_pipeline"))
    changes.set("train_dataloader.batch_size", BATCH_SIZE)
    changes.set("train_dataloader.num_workers", 8)
    changes.set("train_dataloader.batch_sampler", None, "All images have one size: none are grouped by their shape.")
    pad: dict[str, Any] = {"type": "BatchFixedSizePad", "size": _SIZE}
    changes.set("model.data_preprocessor.batch_augments", [{**pad, "pad_mask": True} if detector.masks else pad])


def _heads(changes: Changes, detector: Detector) -> None:
    """The heads of two stages have norms; MMDetection's recipe has two convolutions in the RPN."""
    if not detector.synced or "model.roi_head.bbox_head" not in "".join(detector.synced):
        return
    changes.set("model.rpn_head.num_convs", 2)
    for path, value in detector.synced.items():
        if path != "model.neck.norm_cfg":
            changes.set(path, dict(NORM) if path.endswith("norm_cfg") else value)


def _optimizer(changes: Changes, training: TrainingRecipe) -> None:
    at = "optim_wrapper"
    changes.set(f"{at}._delete_", True)
    changes.set(f"{at}.type", "AmpOptimWrapper", "float16 where it is safe, with a scaled loss.")
    set_wrapper(changes, training)
    optimizer = training.optimizer
    for key, value in {"type": optimizer["type"], "lr": RATE, **optimizer}.items():
        changes.set(f"{at}.optimizer.{key}", value)
    changes.set("auto_scale_lr.base_batch_size", IMAGES)


def _loop(changes: Changes) -> None:
    last = _ITERATIONS // _INTERVAL * _INTERVAL + 1
    changes.set("train_cfg._delete_", True)
    for key, value in {
        "type": "IterBasedTrainLoop",
        "max_iters": _ITERATIONS,
        "val_interval": _INTERVAL,
        "dynamic_intervals": [(last, _ITERATIONS)],
    }.items():
        changes.set(f"train_cfg.{key}", value, "100 epochs of COCO with 64 images a step." if key == "type" else "")
    changes.set(
        "param_scheduler",
        [
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": _WARMUP},
            {
                "type": "MultiStepLR",
                "begin": 0,
                "end": _ITERATIONS,
                "by_epoch": False,
                "milestones": _MILESTONES,
                "gamma": 0.1,
            },
        ],
    )
    changes.set("default_hooks.logger.interval", 50)
    for key, value in {"by_epoch": False, "save_last": True, "interval": _INTERVAL, "max_keep_ckpts": 5}.items():
        changes.set(f"default_hooks.checkpoint.{key}", value)
    changes.set("log_processor.by_epoch", False)
