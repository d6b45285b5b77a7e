"""A config of the user's own as a base: a row like those of `detectors`, read from what it resolves to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.methods.interface import Pixels
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.detectors import DETECTORS, Detector

_C4 = DETECTORS["mask-rcnn-c4"]


def reference(base: str, folder: Path) -> str:
    """How a config in ``folder`` names its base: mmengine sees relative paths from there."""
    if "::" in base:
        runtime.locate(base)
        return base
    return os.path.relpath(runtime.locate(base), folder.resolve())


def detector(base: str) -> Detector:
    """What a new backbone changes of this config. Raises UsageError for one that has no backbone to change."""
    config: dict[str, Any] = runtime.read_config(runtime.locate(base), shown=base, imports=False).to_dict()
    model = config.get("model")
    backbone = model.get("backbone") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(backbone, dict) or "type" not in backbone:
        raise UsageError(f"{base} has no model.backbone to replace", "Give the config of a detector.")
    shared = "model.roi_head.shared_head" if "shared_head" in (model.get("roi_head") or {}) else ""
    train = config.get("train_dataloader") or {}
    batch = int(train.get("batch_size", 2))
    return Detector(
        name="",
        title=str(model.get("type", "the detector")),
        bases={},
        widths=_c4_widths(model) if shared else _neck(base, model, backbone),
        classes=tuple(_class_counts(model)),
        shared_head=shared,
        images=int((config.get("auto_scale_lr") or {}).get("base_batch_size", 8 * batch)),
        batch_size=batch,
        lr=_learning_rate(config),
        backbone=backbone,
        channels=(),
        pixels=_pixels(model.get("data_preprocessor") or {}),
        datasets=tuple(
            path.removesuffix(".ann_file")
            for part in ("train", "val", "test")
            for path, _ in _find(config.get(f"{part}_dataloader"), f"{part}_dataloader", "ann_file")
        ),
        evaluated=dict(_annotations(config)),
        prefixed=bool((backbone.get("init_cfg") or {}).get("prefix")) if isinstance(backbone, dict) else False,
        hooks=bool(config.get("custom_hooks")),
        imports=tuple((config.get("custom_imports") or {}).get("imports", ())),
    )


def _find(node: Any, path: str, key: str) -> Iterator[tuple[str, Any]]:
    """Every ``key`` below a node, by dotted path; ``[]`` for the items of a list that all have it."""
    if isinstance(node, Mapping):
        if key in node:
            yield f"{path}.{key}", node[key]
        for name, child in node.items():
            if name != key:
                yield from _find(child, f"{path}.{name}", key)
    elif isinstance(node, list) and node and all(isinstance(item, Mapping) and key in item for item in node):
        yield f"{path}[].{key}", node[0][key]


def _class_counts(model: Mapping[str, Any]) -> list[str]:
    """Where the number of classes stands: what agrees with the box head, so that stuff classes are left alone."""
    found = dict(_find(model, "model", "num_classes"))
    of_boxes = next((value for path, value in found.items() if "bbox_head" in path), next(iter(found.values()), None))
    return [path for path, value in found.items() if value == of_boxes]


def _neck(base: str, model: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, tuple[int, ...] | int]:
    """Where the neck takes the channels of the stages that the backbone hands out."""
    stages = tuple(backbone.get("out_indices", range(4)))
    neck, path = model.get("neck"), "model.neck"
    if isinstance(neck, list) and neck:
        neck, path = neck[0], "model.neck[0]"
    wanted = neck.get("in_channels") if isinstance(neck, Mapping) else None
    if isinstance(wanted, int):
        return {f"{path}.in_channels": stages[-1]}
    if isinstance(wanted, list | tuple) and len(wanted) == len(stages) and all(0 <= s < 4 for s in stages):
        return {f"{path}.in_channels": stages}
    raise UsageError(
        f"{base}: how many channels its neck takes of which stage cannot be told from out_indices={list(stages)} and "
        f"neck.in_channels={wanted!r}",
        "Write the backbone into the config yourself; ckptconv check CONFIG proves it.",
    )


def _c4_widths(model: Mapping[str, Any]) -> dict[str, tuple[int, ...] | int]:
    """The widths of a C4 detector, of those heads that this one has."""

    def has(path: str) -> bool:
        node: Any = {"model": model}
        for step in path.split("."):
            if not isinstance(node, Mapping) or step not in node:
                return False
            node = node[step]
        return True

    return {path: stages for path, stages in _C4.widths.items() if has(path)}


def _learning_rate(config: Mapping[str, Any]) -> float:
    return float(((config.get("optim_wrapper") or {}).get("optimizer") or {}).get("lr", 0.02))


def _pixels(fed: Mapping[str, Any]) -> Pixels | None:
    """What the base feeds the network, if it is described as `Pixels` are."""
    mean, std = fed.get("mean"), fed.get("std")
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple) or not len(mean) == len(std) == 3:
        return None
    return Pixels(tuple(mean), tuple(std), "RGB" if fed.get("bgr_to_rgb") else "BGR")


def _annotations(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The evaluators' annotation files, below the data root."""
    root = str(config.get("data_root") or "")
    for part in ("val_evaluator", "test_evaluator"):
        for path, file in _find(config.get(part), part, "ann_file"):
            if isinstance(file, str) and root and file.startswith(root):
                yield path, file[len(root) :]
