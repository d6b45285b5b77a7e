"""THE TABLE of published results: what was trained, how, its AP, and the source.

The same weights differ by 2 AP between recipes: a row applies only to a run of its own recipe, with the same `digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ckptconv.mmdetection.config.detectors import DetectorName, ScheduleName, value_at
from ckptconv.mmdetection.config.options import Choices
from ckptconv.mmdetection.type_names import has_type, type_name

_MMDET = "mmdetection 3.3.0, configs/selfsup_pretrain/README.md"
_TRAINING = (
    "another training of the same recipe: mmdet's maintainers call less than 0.2 to 0.3 noise, mmselfsup's regression "
    "test allows 0.2"
)


@dataclass(frozen=True)
class Recipe:
    """One published row.

    ``method``, ``backbone``, ``pretraining``: the weights' method, their network, and their epochs of pretraining, 0 if
    the source does not say.
    ``detector``, ``schedule``: rows of `detectors` where the recipe is MMDetection's, else as its source has them.
    ``images``, ``lr``: images per step, and the learning rate for them.
    ``box``, ``mask``: AP on COCO val2017 in percent; ``tolerance`` in the same points, and ``reason`` for it.
    ``source``: where the row is published. ``digest``: of the resolved recipe; '' for a row of another framework, which
    no run of MMDetection can be compared with. ``config``: the file of MMDetection's repository that is this recipe; ''
    for a recipe that `emit-config` writes.
    """

    name: str
    title: str
    method: str
    backbone: str
    pretraining: int
    detector: str
    schedule: str
    images: int
    lr: float
    box: float
    mask: float
    source: str
    digest: str = ""
    tolerance: float = 0.3
    reason: str = _TRAINING
    config: str = ""

    @property
    def choices(self) -> Choices:
        """What `emit-config` is asked for to get this recipe."""
        return Choices(cast("DetectorName", self.detector), cast("ScheduleName", self.schedule))


def _mmdet(method: str, title: str, schedule: str, words: str, mark: str, box: float, mask: float) -> Recipe:
    return Recipe(
        f"{title.replace(' ', '').lower()}-mask-rcnn-r50-fpn-{schedule}",
        f"{title}, Mask R-CNN, {words}",
        *(method, "ResNet-50", 800, "mask-rcnn", schedule, 16, 0.02, box, mask, _MMDET, mark),
    )


def _mmselfsup(name: str, title: str, epochs: int, box: float, mask: float) -> Recipe:
    return Recipe(
        f"mmselfsup-{name}-mask-rcnn-r50-fpn",
        f"{title} of MMSelfSup, {epochs} epochs, Mask R-CNN, its recipe",
        *("mmselfsup", "ResNet-50", epochs, "mask-rcnn", "mmselfsup", 16, 0.02, box, mask),
        "mmselfsup, configs/selfsup/*/README.md",
        _MMSELFSUP,
    )


def _detectron2(method: str, title: str, epochs: int, schedule: str, box: float, mask: float, source: str) -> Recipe:
    kind, _, length = schedule.partition(" ")
    return Recipe(
        f"{method}{epochs}-mask-rcnn-r50-{kind.lower()}-{length}-detectron2",
        f"{title}, {epochs} epochs, Mask R-CNN {schedule} of detectron2",
        *(method, "ResNet-50", epochs, f"Mask R-CNN {kind} of detectron2", length, 16, 0.02, box, mask, source),
    )


def _vitdet(detector: str, size: str, epochs: int, box: float, mask: float) -> Recipe:
    return Recipe(
        f"mae-{detector.lower().replace(' ', '-')}-vit-{size.lower()}-{epochs}e-detectron2",
        f"MAE, ViT-{size}, {detector} of ViTDet, {epochs} epochs, 1024 pixels",
        *("mae", f"ViT-{size}/16", 0, f"{detector} of ViTDet", f"{epochs} epochs", 64, 1e-4, box, mask, _VITDET),
    )


def _eva02(size: str, epochs: int, side: int, images: int, lr: float, box: float, mask: float) -> Recipe:
    return Recipe(
        f"eva02-cascade-mask-rcnn-{size.lower()}-{side}px-detectron2",
        f"EVA-02, {size}, Cascade Mask R-CNN of ViTDet, 60,000 iterations, {side} pixels",
        *("eva02", f"EVA-02-{size}/16", epochs, "Cascade Mask R-CNN of ViTDet", "60,000 iterations"),
        *(images, lr, box, mask, _EVA02),
    )


# Of mmdet 3.3.0's own configs/selfsup_pretrain; both methods have the same recipe.
_1X = "ae43027cfbe7972aa14261e22250fea25a3759f35f9667d5d4e96505d0753c66"
_MS_2X = "a2547438558c406d3f802cc4ea881d9ea9e7116b565d94950bbcf5a24494735d"
# Of mmselfsup's configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py on mmdet 3.3.0.
_MMSELFSUP = "aaef7a05f41afc3951abae47e0578dd34bdc319e3595dc7ac48a1c0523c00375"
# Of projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py of mmdetection's repository, as of 394f758.
_VITDET_OF_MMDET = "2fffd0573a5f1f6f85a869cb6f24fb788ce66904cadf839f2968ce063de14fe7"
_VITDET = "ViTDet, projects/ViTDet/README.md of detectron2"
_EVA02 = "EVA-02, det/README.md"
_FIVE_SEEDS = "another training of the same recipe: ViTDet's authors state a standard deviation of 0.1 over five seeds"
_PIXPRO = "PixPro, README.md"
_SOCO = "SoCo, README.md"
_INSLOC = "InstanceLoc, MODELZOO.md"

RECIPES: Mapping[str, Recipe] = {
    r.name: r
    for r in (
        _mmdet("moco", "MoCo v2", "1x", "1x", _1X, 38.0, 34.3),
        _mmdet("moco", "MoCo v2", "ms-2x", "multi-scale 2x", _MS_2X, 40.8, 36.8),
        _mmdet("swav", "SwAV", "1x", "1x", _1X, 39.1, 35.7),
        _mmdet("swav", "SwAV", "ms-2x", "multi-scale 2x", _MS_2X, 41.3, 37.3),
        _mmselfsup("mocov2", "MoCo v2", 200, 40.2, 36.1),
        _mmselfsup("byol", "BYOL", 200, 40.9, 36.8),
        _mmselfsup("swav", "SwAV", 200, 40.2, 36.3),
        _mmselfsup("simsiam100", "SimSiam", 100, 38.6, 34.6),
        _mmselfsup("simsiam200", "SimSiam", 200, 38.8, 34.9),
        _mmselfsup("simclr", "SimCLR", 200, 38.7, 34.9),
        _detectron2("moco", "MoCo v2", 800, "FPN 1x", 40.4, 36.4, _PIXPRO),
        _detectron2("moco", "MoCo v2", 800, "C4 1x", 39.5, 34.5, _PIXPRO),
        _detectron2("pixpro", "PixPro", 100, "FPN 1x", 40.8, 36.8, _PIXPRO),
        _detectron2("pixpro", "PixPro", 100, "C4 1x", 40.0, 34.8, _PIXPRO),
        _detectron2("pixpro", "PixPro", 400, "C4 1x", 40.5, 35.3, _PIXPRO),
        _detectron2("soco", "SoCo", 100, "FPN 1x", 42.3, 37.6, _SOCO),
        _detectron2("soco", "SoCo", 400, "FPN 1x", 43.0, 38.2, _SOCO),
        _detectron2("soco", "SoCo", 100, "C4 1x", 40.4, 34.9, _SOCO),
        _detectron2("soco", "SoCo", 400, "C4 1x", 40.9, 35.3, _SOCO),
        _detectron2("insloc", "InsLoc", 200, "FPN 1x", 41.4, 37.1, _INSLOC),
        _detectron2("insloc", "InsLoc", 400, "FPN 1x", 42.0, 37.6, _INSLOC),
        _detectron2("insloc", "InsLoc", 200, "C4 1x", 39.5, 34.5, _INSLOC),
        _detectron2("insloc", "InsLoc", 400, "C4 1x", 39.8, 34.7, _INSLOC),
        Recipe(
            "moby300-mask-rcnn-swin-t-1x-moby",
            "MoBY, 300 epochs, Mask R-CNN 1x of its own repository",
            *("moby", "Swin-T", 300, "Mask R-CNN of Swin-Transformer-Object-Detection", "1x", 16, 1e-4, 43.6, 39.6),
            "Transformer-SSL, README.md",
        ),
        Recipe(
            "mae-mask-rcnn-vit-b-100e",
            "MAE, ViT-B, Mask R-CNN of MMDetection's ViTDet, 100 epochs, 1024 pixels",
            *("mae", "ViT-B/16", 0, "mask-rcnn", "vitdet", 64, 1e-4, 51.6, 45.7),
            "mmdetection, projects/ViTDet/README.md",
            _VITDET_OF_MMDET,
            reason=_FIVE_SEEDS,
            config="projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py",
        ),
        _vitdet("Mask R-CNN", "B", 100, 51.6, 45.9),
        _vitdet("Mask R-CNN", "L", 100, 55.5, 49.2),
        _vitdet("Mask R-CNN", "H", 75, 56.7, 50.2),
        _vitdet("Cascade Mask R-CNN", "B", 100, 54.0, 46.7),
        _vitdet("Cascade Mask R-CNN", "L", 100, 57.6, 50.0),
        _vitdet("Cascade Mask R-CNN", "H", 75, 58.7, 51.0),
        _eva02("B", 150, 1024, 128, 5e-5, 55.5, 47.1),
        _eva02("L", 56, 1024, 144, 6e-5, 59.2, 50.8),
        _eva02("B", 150, 1536, 128, 5e-5, 58.9, 50.7),  # with soft NMS
        _eva02("L", 56, 1536, 128, 5e-5, 62.3, 53.8),  # with soft NMS
    )
}

_PARTS = (
    "model",
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "train_cfg",
    "param_scheduler",
    "optim_wrapper",
    "val_cfg",
    "load_from",
    "custom_hooks",
)
"""The parts of a config that decide the AP. Logging, paths, processes and seeds do not belong to a recipe."""

_LIBRARIES = ("mmdet", "mmengine", "mmcv", "torch")
"""MMDetection finds their registered names without a scope."""
_CLASSES = {"PretrainedInit": "Pretrained", "SyncBatchNorm": "SyncBN", "BatchNorm2d": "BN"}
"""Classes that are registered by another name, as a config in mmengine's new style may import them."""
_UNRELATED = ("_scope_", "checkpoint", "data_root", "num_workers", "persistent_workers", "backend_args", "val_interval")


def digest(config: Mapping[str, Any], gpus: int) -> str:
    """What a resolved config trains, as 64 hex digits: equal for two configs that differ only in paths and devices.

    The batch size counts times GPUs, and times accumulated batches. Paths of data and checkpoint, workers,
    and the hooks that every config has do not count.
    """
    recipe = {part: _plain(config.get(part), str(config.get("data_root") or "")) for part in _PARTS}
    hooks = [hook for hook in config.get("custom_hooks") or [] if not has_type(hook, "CheckpointGuard")]
    recipe["custom_hooks"] = _plain(hooks, "")
    loader = recipe["train_dataloader"]
    if isinstance(loader, dict):
        counts = value_at(config, "optim_wrapper.accumulative_counts", 1)
        loader["batch_size"] = int(loader.get("batch_size", 1)) * gpus * counts
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def length(config: Mapping[str, Any]) -> str:
    """How long a resolved config trains, in words; '' if it is not set."""
    lengths = {unit: value_at(config, f"train_cfg.max_{unit}") for unit in ("epochs", "iters")}
    return next((f"{count} {unit.replace('iters', 'iterations')}" for unit, count in lengths.items() if count), "")


def _registered(node: Mapping[str, Any]) -> str:
    """The ``type`` as MMDetection's own configs write it: a name of another library keeps its scope."""
    name = str(node["type"]) if isinstance(node["type"], str) else f"{node['type'].__module__}.{type_name(node)}"
    library, dot, _ = name.partition(".")
    library = library if dot else str(node.get("_scope_", "mmdet"))
    registered = _CLASSES.get(type_name(node), type_name(node))
    return registered if library in _LIBRARIES else f"{library}.{registered}"


def _plain(node: Any, root: str) -> Any:
    """Values that JSON has, without paths and devices; equal numbers get the same form."""
    if isinstance(node, Mapping):
        plain = {str(k): _plain(v, root) for k, v in node.items() if k not in _UNRELATED}
        return {**plain, "type": _registered(node)} if "type" in node else plain
    if isinstance(node, list | tuple):
        return [_plain(v, root) for v in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if isinstance(node, str) and root:
        return node.removeprefix(root)
    return node if node is None or isinstance(node, str | bool | int | float) else str(node)
