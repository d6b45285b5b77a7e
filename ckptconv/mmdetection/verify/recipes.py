"""THE TABLE of published results: what was trained how, the AP that came out, and where it is written.

The same weights differ by 2 AP between recipes, so a row speaks only of a run of its own recipe: the same `digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.mmdetection.choices import Choices

_MMDET = "mmdetection 3.3.0, configs/selfsup_pretrain/README.md"
_TRAINING = (
    "a training of the same recipe: mmdet's maintainers call less than 0.2 to 0.3 noise, mmselfsup's regression test "
    "allows 0.2"
)


@dataclass(frozen=True)
class Recipe:
    """One published row.

    ``method``, ``backbone``, ``pretraining``: whose weights, on what, for how many epochs.
    ``detector``, ``schedule``: rows of `detectors`; ``images``, ``lr``: images a step, and the learning rate for them.
    ``box``, ``mask``: AP on COCO val2017 in percent; ``tolerance`` in the same points, and ``reason`` for it.
    ``digest``: of the resolved recipe; ``source``: where the row is written.
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
    digest: str
    source: str = _MMDET
    tolerance: float = 0.3
    reason: str = _TRAINING

    @property
    def choices(self) -> Choices:
        """What `emit-config` is asked for to get this recipe."""
        return Choices(self.detector, self.schedule)


# Of mmdet 3.3.0's own configs/selfsup_pretrain; both methods have the same recipe.
_1X = "e478b41c2491d0e13004240efe65183dcafc8749b03cd89ccddd1743a067e28c"
_MS_2X = "6d7a84727760d92f95512d50414b51ef82e27deea2713d84a4116bbbc9b20c3e"

RECIPES: Mapping[str, Recipe] = {
    r.name: r
    for r in (
        Recipe(
            "mocov2-mask-rcnn-r50-fpn-1x",
            "MoCo v2, Mask R-CNN, 1x",
            *("moco", "ResNet-50", 800, "mask-rcnn", "1x", 16, 0.02, 38.0, 34.3, _1X),
        ),
        Recipe(
            "mocov2-mask-rcnn-r50-fpn-ms-2x",
            "MoCo v2, Mask R-CNN, multi-scale 2x",
            *("moco", "ResNet-50", 800, "mask-rcnn", "ms-2x", 16, 0.02, 40.8, 36.8, _MS_2X),
        ),
        Recipe(
            "swav-mask-rcnn-r50-fpn-1x",
            "SwAV, Mask R-CNN, 1x",
            *("swav", "ResNet-50", 800, "mask-rcnn", "1x", 16, 0.02, 39.1, 35.7, _1X),
        ),
        Recipe(
            "swav-mask-rcnn-r50-fpn-ms-2x",
            "SwAV, Mask R-CNN, multi-scale 2x",
            *("swav", "ResNet-50", 800, "mask-rcnn", "ms-2x", 16, 0.02, 41.3, 37.3, _MS_2X),
        ),
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
)
"""The parts of a config that decide the AP. Logging, paths, processes, hooks and seeds do not belong to a recipe."""

_ELSEWHERE = ("_scope_", "checkpoint", "data_root", "num_workers", "persistent_workers", "backend_args", "val_interval")


def digest(config: Mapping[str, Any], gpus: int) -> str:
    """What a resolved config trains, as 64 hex digits: equal for two configs that differ only in where things are.

    Images a GPU count times GPUs. Paths of data and checkpoint, workers and hooks do not count.
    """
    recipe = {part: _plain(config.get(part), str(config.get("data_root") or "")) for part in _PARTS}
    loader = recipe["train_dataloader"]
    if isinstance(loader, dict):
        loader["batch_size"] = int(loader.get("batch_size", 1)) * gpus
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(node: Any, root: str) -> Any:
    """Values that JSON has, without what tells where things are; numbers that are equal look alike."""
    if isinstance(node, Mapping):
        return {str(k): _plain(v, root) for k, v in node.items() if k not in _ELSEWHERE}
    if isinstance(node, list | tuple):
        return [_plain(v, root) for v in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if isinstance(node, str) and root:
        return node.removeprefix(root)
    return node if node is None or isinstance(node, str | bool | int | float) else str(node)
