"""Images of one size, for a network that takes no other: every step that resizes gives at most that size. Pure.

`TimmBackbone` pads smaller images itself, at the bottom and at the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.mmdetection.config.channels import pipelines
from ckptconv.mmdetection.config.detectors import Detector
from ckptconv.mmdetection.config.edits import Changes
from ckptconv.mmdetection.config.python_source import Code
from ckptconv.mmdetection.type_names import has_type

_RESIZING = ("Resize", "RandomResize", "RandomChoiceResize", "ResizeShortestEdge")
_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


def set_image_size(changes: Changes, detector: Detector, load: list[Any], side: int) -> None:
    """Resize the images of training and test to at most ``side`` x ``side`` pixels, whose shape they keep.

    ``load`` are the first steps of a pipeline on MMDetection's own bases. A base of the user's own keeps its pipelines,
    in which each step that resizes is replaced.
    """
    note = f"The network takes images of {side}x{side} pixels; smaller ones are padded."
    resize = {"type": "Resize", "scale": (side, side), "keep_ratio": True}
    if detector.found is not None:
        for path, steps in pipelines(detector.found, ""):
            changed = _replaced(steps, resize)
            if changed != steps:
                changes.set(path, changed)
        return
    annotations: dict[str, Any] = {"type": "LoadAnnotations", "with_bbox": True}
    if detector.masks:
        annotations["with_mask"] = True
    train = [*load, annotations, resize, {"type": "RandomFlip", "prob": 0.5}, {"type": "PackDetInputs"}]
    test = [*load, resize, annotations, {"type": "PackDetInputs", "meta_keys": _META}]
    changes.set("train_pipeline", train, note)
    changes.set("test_pipeline", test)
    for part in ("train", "val", "test"):
        changes.set(f"{part}_dataloader.dataset.pipeline", Code(f"{'train' if part == 'train' else 'test'}_pipeline"))


def _replaced(node: Any, resize: Mapping[str, Any]) -> Any:
    """The steps with ``resize`` for each one that resizes, those inside others, too."""
    if isinstance(node, Mapping):
        if has_type(node, *_RESIZING):
            return dict(resize)
        return {key: _replaced(value, resize) for key, value in node.items()}
    return [_replaced(one, resize) for one in node] if isinstance(node, list) else node
