"""Changes to a resolved config: a small and quick detector, other data, another batch size. Pure; imports no torch.

All of them take a config as nested dicts and return a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.overlay import GUARD
from ckptconv.mmdetection.type_names import SYNC_BN, has_type

Config = dict[str, Any]

_WIDTH = 64  # channels of the neck and of the heads, a quarter of the usual 256
_USUAL = 256
_NECKS = ("FPN", "SimpleFeaturePyramid")
_LAYER_DECAY = "LayerDecayOptimWrapperConstructor"
_PATCH = 16


@dataclass(frozen=True)
class SyntheticTraining:
    """The short training of a small detector on generated images.

    ``train_images``, ``val_images``: how many are generated, each ``image_size`` pixels wide and high.
    ``val_interval`` in epochs. ``lr`` is that of the heads; the backbone's is ``backbone_lr_mult`` times as much.
    """

    train_images: int
    val_images: int
    epochs: int
    val_interval: int
    image_size: int = 128
    batch_size: int = 8
    lr: float = 5e-4
    backbone_lr_mult: float = 1.0

    @property
    def iterations(self) -> int:
        return self.epochs * -(-self.train_images // self.batch_size)


def shrink(config: Config, training: SyntheticTraining, data: Path, classes: tuple[str, ...]) -> Config:
    """The same family of detector with narrow heads, few samples and a short schedule, on the generated data.

    The backbone, its checkpoint and its normalisation stay; so does the constructor that decays learning rates
    by layer, where backbone and heads have one rate. A detector without the values below keeps its own: it is
    slower, and not another detector.
    """
    small = deepcopy(config)
    _narrow(small["model"])
    _fit(small["model"], training.image_size)
    _recount(small["model"], len(classes))
    small |= _data(small, training, data, classes)
    small |= _schedule(training, _layer_decay(config))
    small["default_hooks"] = {
        **(small.get("default_hooks") or {}),
        "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2},
    }
    return small


def decays_by_layer(config: Mapping[str, Any]) -> bool:
    """Whether learning rates decay by layer, as `emit-config` writes it for timm's transformers."""
    wrapper = config.get("optim_wrapper") or {}
    return has_type({"type": wrapper.get("constructor")}, _LAYER_DECAY)


def with_guard(config: Config, fingerprint: str) -> Config:
    """The same config with `CheckpointGuard` for its backbone, unless it already has one."""
    hooks = list(config.get("custom_hooks") or [])
    if any(has_type(hook, "CheckpointGuard") for hook in hooks):
        return config
    changed = deepcopy(config)
    changed["custom_hooks"] = [*hooks, {"type": "CheckpointGuard", "fingerprint": fingerprint}]
    imports = (changed.get("custom_imports") or {}).get("imports") or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    changed["custom_imports"] = {"imports": [*imports, GUARD], "allow_failed_imports": False}
    return changed


def without_sync_bn(config: Config) -> Config:
    """The same config with BN for SyncBN, which several processes cannot use on CPUs."""
    local = deepcopy(config)
    for _, node in dicts(local["model"]):
        if has_type(node, *SYNC_BN):
            node["type"] = "BN"
    return local


def with_batch_size(config: Config, images: int) -> Config:
    """The same config with this many images per process and step."""
    split = deepcopy(config)
    split["train_dataloader"]["batch_size"] = images
    return split


def with_mixed_precision(config: Config) -> Config:
    """The same config with automatic mixed precision, as mmdet's ``tools/train.py`` sets it."""
    changed = deepcopy(config)
    changed["optim_wrapper"] |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic"}
    return changed


def with_data_root(config: Config, root: str) -> Config:
    """The same config with its files below another data root. Raises UsageError for no data root, or several."""
    after = f"{root.rstrip('/')}/"
    changed = {**deepcopy(config), "data_root": after}
    parts = [changed.get(part) for part in ("train_dataloader", "val_dataloader", "val_evaluator")]
    roots = {node["data_root"] for part in parts for _, node in dicts(part) if node.get("data_root")}
    own = str(config.get("data_root"))
    if own not in roots and len(roots) != 1:
        where = f"the data sets are in {', '.join(sorted(roots))}" if roots else "the config has no data_root"
        raise UsageError(f"`data_root` is ambiguous: {where}", "Set data_root in the config.", "data_root")
    before = f"{(own if own in roots else roots.pop()).rstrip('/')}/"
    for part in parts:
        for _, node in dicts(part):
            for key in ("data_root", "ann_file", "img"):
                value = node.get(key)
                if isinstance(value, str) and f"{value}/".startswith(before):
                    node[key] = after + value[len(before) :]
    return changed


def datasets(config: Mapping[str, Any], part: str) -> Iterator[Config]:
    """The data sets of a part, 'train' or 'val', without their wrappers."""
    return (node for _, node in dicts(config.get(f"{part}_dataloader")) if "ann_file" in node)


def annotation_files(config: Mapping[str, Any]) -> dict[str, Path]:
    """The annotation file of the first data set of each part."""
    firsts = {part: next(datasets(config, part)) for part in ("train", "val")}
    return {part: Path(dataset.get("data_root") or "", dataset["ann_file"]) for part, dataset in firsts.items()}


def with_annotations(config: Config, train: Path, val: Path) -> Config:
    """The same config with other annotation files for training and for evaluation."""
    changed = deepcopy(config)
    for part, file in (("train", train), ("val", val)):
        for _, node in dicts(changed[f"{part}_dataloader"]):
            if "ann_file" in node:
                node["ann_file"] = str(file.absolute())
    changed["val_evaluator"]["ann_file"] = str(val.absolute())
    return changed


def dicts(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dict below a node, with its dotted path."""
    if isinstance(node, dict):
        yield path, node
        for name, child in node.items():
            yield from dicts(child, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list | tuple):
        for child in node:
            yield from dicts(child, path)


def _narrow(model: Config) -> None:
    """Make the values of mmdet 3.3.0's configs smaller that cost most time."""
    neck = model.get("neck")
    if isinstance(neck, dict) and has_type(neck, *_NECKS) and neck.get("out_channels") == _USUAL:
        for path, node in dicts(model):
            for key in ("in_channels", "out_channels", "feat_channels", "conv_out_channels"):
                if not path.startswith("backbone") and node.get(key) == _USUAL:
                    node[key] = _WIDTH
            if isinstance(node.get("fc_out_channels"), int):
                node["fc_out_channels"] = _USUAL
            if has_type(node, "FCNMaskHead"):
                node["num_convs"] = 2
    for path, node in dicts(model):
        if has_type(node, "RandomSampler") and node.get("num") == 512:
            node["num"] = 64
        if path.endswith(("rpn_proposal", "test_cfg.rpn")):
            node |= {"nms_pre": 200, "max_per_img": 100}
        if path.endswith("test_cfg.rcnn"):
            node["max_per_img"] = 20
        if has_type(node, "AnchorGenerator") and node.get("scales") == [8]:
            node["scales"] = [4]  # objects of 18 to 64 pixels


def _fit(model: Config, side: int) -> None:
    """Set the size of images for networks that take one size only, and for what pads every batch to one size.

    A BEiT's tables and a Hiera's are resized when they are loaded.
    """
    for _, node in dicts(model):
        if has_type(node, "TimmBackbone") and node.get("image_size") is not None:
            patch = (node.get("arguments") or {}).get("patch_size", _PATCH)
            node["image_size"] = (-(-side // patch) * patch,) * 2
        if has_type(node, "BatchFixedSizePad"):
            node["size"] = (side, side)


def _layer_decay(config: Config) -> Config:
    """What a config's optimizer has of a learning rate that decays by layer."""
    if not decays_by_layer(config):
        return {}
    wrapper = config["optim_wrapper"]
    return {key: wrapper[key] for key in ("constructor", "paramwise_cfg") if key in wrapper}


def _recount(model: Config, classes: int) -> None:
    """Set the number of classes: that of the box head, and every equal one."""
    counts = {path: node["num_classes"] for path, node in dicts(model) if isinstance(node.get("num_classes"), int)}
    wanted = next((count for path, count in counts.items() if "bbox_head" in path), None)
    for _, node in dicts(model):
        if wanted is not None and node.get("num_classes") == wanted:
            node["num_classes"] = classes


def _data(config: Config, training: SyntheticTraining, data: Path, classes: tuple[str, ...]) -> Config:
    """Loaders and evaluators of the generated data set; ``{"type": …}`` as mmdet's `coco_instance.py` has them."""
    metric = config["val_evaluator"].get("metric", "bbox")
    masks = {"with_mask": True} if "segm" in metric else {}
    size = {"type": "Resize", "scale": (training.image_size, training.image_size), "keep_ratio": True}
    load: list[Config] = [{"type": "LoadImageFromFile", "backend_args": None}]
    annotations = {"type": "LoadAnnotations", "with_bbox": True, **masks}
    meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    train = [*load, annotations, size, {"type": "RandomFlip", "prob": 0.5}, {"type": "PackDetInputs"}]
    val = [*load, size, annotations, {"type": "PackDetInputs", "meta_keys": meta}]

    def loader(part: str, images: int, shuffled: bool, pipeline: list[Config]) -> Config:
        filters = {"filter_cfg": {"filter_empty_gt": True, "min_size": 4}} if shuffled else {"test_mode": True}
        return {
            "batch_size": images,
            "num_workers": 0,
            "persistent_workers": False,
            "drop_last": False,
            "sampler": {"type": "DefaultSampler", "shuffle": shuffled},
            "dataset": {
                "type": "CocoDataset",
                "data_root": f"{data}/",
                "ann_file": f"annotations/instances_{part}2017.json",
                "data_prefix": {"img": f"{part}2017/"},
                "metainfo": {"classes": classes},
                "pipeline": pipeline,
                "backend_args": None,
                **filters,
            },
        }

    loaders = {
        "train_dataloader": loader("train", training.batch_size, True, train),
        "val_dataloader": loader("val", 1, False, val),
    }
    evaluator = {
        "type": "CocoMetric",
        "ann_file": f"{data}/annotations/instances_val2017.json",
        "metric": metric,
        "format_only": False,
        "backend_args": None,
    }
    return {
        "data_root": f"{data}/",
        **loaders,
        "val_evaluator": evaluator,
        "test_dataloader": loaders["val_dataloader"],
        "test_evaluator": evaluator,
    }


def _schedule(training: SyntheticTraining, by_layer: Config) -> Config:
    """AdamW, which learns within hundreds of steps with any backbone; the rate drops after three quarters.

    ``by_layer``: the config's own constructor of learning rates.
    """
    drop = max(training.epochs * 3 // 4, 1)
    steps = {"type": "MultiStepLR", "begin": 0, "end": training.epochs, "by_epoch": True, "milestones": [drop]}
    slower = {"custom_keys": {"backbone": {"lr_mult": training.backbone_lr_mult}}}
    return {
        "train_cfg": {
            "type": "EpochBasedTrainLoop",
            "max_epochs": training.epochs,
            "val_interval": training.val_interval,
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": 20},
            {**steps, "gamma": 0.2},
        ],
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": training.lr, "weight_decay": 1e-4},
            "clip_grad": {"max_norm": 10},
            **({"paramwise_cfg": slower} if training.backbone_lr_mult != 1 else by_layer),
        },
    }
