"""A config of the user's own as a base: a row like those of `detectors`, read from what it resolves to."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.methods.interface import Pixels
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.config.detectors import DETECTORS, Detector, value_at
from ckptconv.mmdetection.type_names import has_type, type_name

_C4 = DETECTORS["mask-rcnn-c4"]
_MMENGINES = re.compile(r"\w*::\w*/\w*")  # what mmengine takes for another package's config (not 'mmdet::gn+ws/…')


def reference(base: str, folder: Path | None) -> str:
    """How a config in ``folder`` names its base: mmengine sees relative paths from there."""
    located = runtime.find_config(base)
    if "::" not in base and folder is not None:
        return os.path.relpath(located, folder.resolve())
    return base if "::" in base and _MMENGINES.match(base) else str(located)


def detector(base: str) -> Detector:
    """What a new backbone changes of this config. Raises UsageError if it does not have one to change."""
    config: dict[str, Any] = runtime.read_config(runtime.find_config(base), shown=base, imports=False).to_dict()
    model = config.get("model")
    backbone = value_at(config, "model.backbone", {})
    if not isinstance(model, dict) or not isinstance(backbone, dict) or "type" not in backbone:
        raise UsageError(f"{base} does not have a model.backbone", "Give the config of a detector.")
    if not isinstance(backbone["type"], str) or backbone["type"].count(".") > 1:  # 'mmdet.models.backbones.ResNet'
        raise UsageError(
            f"{base} is in mmengine's new style, which imports what it names: only configs in that style inherit it",
            "Give the config of the same detector in the style of mmdet/.mim/configs.",
        )
    for path, value in _walk(model, "model"):
        if path.endswith("backbone") and path != "model.backbone" and isinstance(value, dict):
            raise UsageError(
                f"{base} has a second backbone, {path}, which would keep its own start",
                "Write both into the config yourself; ckptconv check CONFIG proves them.",
            )
    shared = _C4.shared_head if isinstance(value_at(config, _C4.shared_head), dict) else ""
    if shared and not has_type(backbone, "ResNet"):
        raise UsageError(
            f"{base} shares its head with a {backbone['type']}, which a ResNet cannot replace",
            f"Choose another base: {argument('detector', 'mask-rcnn-c4')} is the plain one.",
        )
    datasets = tuple(
        path.removesuffix(".ann_file")
        for part in ("train", "val", "test")
        for path, _ in _find(config.get(f"{part}_dataloader"), f"{part}_dataloader", "ann_file")
    )
    batch = value_at(config, "train_dataloader.batch_size") or 2
    counts = value_at(config, "optim_wrapper.accumulative_counts") or 1
    rate = value_at(config, "optim_wrapper.optimizer.lr")
    return Detector(
        name="",
        title=type_name(model) or "the detector",
        bases={},
        widths={p: s for p, s in _C4.widths.items() if value_at(config, p)} if shared else _neck(base, model, backbone),
        classes=tuple(_class_counts(model)),
        shared_head=shared,
        start_level=value_at(config, "model.neck.start_level") or 0,
        optimizer=type_name(value_at(config, "optim_wrapper.optimizer")),
        images=value_at(config, "auto_scale_lr.base_batch_size") or 8 * batch * counts,
        batch_size=batch,
        accumulative_counts=counts,
        lr=float(rate) if isinstance(rate, int | float) else None,
        backbone=backbone,
        channels=(),
        pixels=_pixels(value_at(config, "model.data_preprocessor") or {}),
        datasets=datasets,
        masks=isinstance(value_at(config, "model.roi_head.mask_head"), Mapping),
        evaluated=dict(_below_the_data_root(config)),
        files=dict(_files(config, datasets)),
        evaluators=tuple(
            path
            for part in ("val_evaluator", "test_evaluator")
            for path, name in _find(config.get(part), part, "ann_file")
            if isinstance(name, str)
        ),
        strides=tuple(
            path
            for path, value in _walk(model, "model")
            if path.endswith(("_generator.strides", ".featmap_strides"))
            and isinstance(value, list | tuple)
            and len(value) == 1
        ),
        found=config,
    )


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below a node, by its path: ``a.b[0].c``."""
    yield path, node
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _walk(child, f"{path}.{name}")
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _walk(child, f"{path}[{i}]")


def _find(node: Any, path: str, key: str) -> Iterator[tuple[str, Any]]:
    return ((where, value) for where, value in _walk(node, path) if where.endswith(f".{key}"))


def _class_counts(model: Mapping[str, Any]) -> list[str]:
    """The paths of the number of classes: where it is that of the box head, so that stuff classes stay."""
    found = dict(_find(model, "model", "num_classes"))
    of_boxes = [value for path, value in found.items() if "bbox_head" in path] or list(found.values())
    wanted = Counter(of_boxes).most_common(1)[0][0] if of_boxes else None
    return [path for path, value in found.items() if value == wanted]


def _neck(base: str, model: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, tuple[int, ...] | int]:
    """The paths where the neck takes the channels of the backbone's output stages."""
    stages = backbone.get("out_indices", tuple(range(4)))
    stages = tuple(stages) if isinstance(stages, list | tuple) else (stages,)
    neck, path = model.get("neck"), "model.neck"
    if isinstance(neck, list) and neck:
        neck, path = neck[0], "model.neck[0]"
    wanted = neck.get("in_channels") if isinstance(neck, Mapping) else None
    if stages and all(isinstance(s, int) and 0 <= s < 4 for s in stages):
        if isinstance(wanted, int):
            return {f"{path}.in_channels": stages[-1]}
        if isinstance(wanted, list | tuple) and len(wanted) == len(stages):
            return {f"{path}.in_channels": stages}
        heads = _heads(model) if neck is None and len(stages) == 1 else []
        if heads:
            return dict.fromkeys(heads, stages[0])
    raise UsageError(
        f"{base}: how many channels its neck takes of which stage cannot be told from out_indices={list(stages)} and "
        f"neck.in_channels={wanted!r}",
        "Write the backbone into the config yourself; ckptconv check CONFIG proves it.",
    )


def _heads(model: Mapping[str, Any]) -> list[str]:
    """The paths where heads without a neck take the channels of the only map: those that agree with the first head."""
    wanted = value_at(model, "rpn_head.in_channels") or value_at(model, "bbox_head.in_channels")
    return [
        path
        for path, value in _walk(model, "model")
        if wanted and value == wanted and path.endswith((".in_channels", ".out_channels", ".feat_channels"))
        if not path.startswith("model.backbone.")
    ]


def _pixels(fed: Mapping[str, Any]) -> Pixels | None:
    """What the base feeds the network, if it is described as `Pixels` are."""
    mean: Any = fed.get("mean")
    std: Any = fed.get("std")
    with contextlib.suppress(UsageError):
        return Pixels(mean, std, "RGB" if fed.get("bgr_to_rgb") else "BGR")
    return None


def _files(config: Mapping[str, Any], datasets: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, str]]]:
    """For each part with one data set of one file: that file and its folder of images."""
    for part in ("train", "val"):
        places = [path for path in datasets if path.startswith(f"{part}_dataloader.")]
        if len(places) == 1:
            found = dict(_walk(config.get(f"{part}_dataloader"), f"{part}_dataloader"))[places[0]]
            root, prefix = str(found.get("data_root") or ""), found.get("data_prefix")
            images = prefix.get("img") if isinstance(prefix, Mapping) else None
            if isinstance(found["ann_file"], str):
                yield part, (found["ann_file"].removeprefix(root), str(images or ""))


def _below_the_data_root(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the evaluators name of the data set, by path; the names without the data root."""
    root = config.get("data_root")
    for part in ("val_evaluator", "test_evaluator"):
        for path, name in _walk(config.get(part), part):
            if isinstance(name, str) and isinstance(root, str) and root and name.startswith(root):
                yield path, name[len(root) :]
