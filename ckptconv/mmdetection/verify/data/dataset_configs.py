"""A resolved config -> its data sets, as MMDetection would build them. Reads only files of class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.config.channels import transforms
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.type_names import has_type, type_name
from ckptconv.mmdetection.verify.data import metainfo
from ckptconv.small_file import is_file

# mmengine 0.10.7, dataset/dataset_wrapper.py; mmdet 3.3.0, datasets/dataset_wrappers.py.
_WRAPPERS = ("ConcatDataset", "RepeatDataset", "ClassBalancedDataset", "MultiImageMixDataset")
_REMOTE = ("http://", "https://", "s3://")  # mmengine 0.10.7, utils/path.py: absolute, and not on this machine


@dataclass(frozen=True)
class DatasetConfig:
    """One data set of a part.

    ``where``: its path in the config. ``ann_file`` and ``images`` start with the data root; ``images`` is None where
    ``data_prefix`` has no 'img'. ``classes``: names; a string that is not a file stays a string, as in MMDetection.
    ``default``: the config sets no classes, so those of ``kind`` apply. ``capitals``: it sets CLASSES, as for
    MMDetection 2. ``filtered``: whether filter_cfg applies. ``masks``: whether masks are loaded.
    ``here``: whether a pipeline reads the images from files on this machine.
    """

    where: str
    kind: str
    ann_file: str
    images: str | None
    classes: tuple[str, ...] | str
    default: bool = False
    capitals: bool = False
    filtered: bool = False
    filter_empty: bool = False
    min_size: float = 0
    indices: int | tuple[int, ...] | None = None
    masks: bool = False
    here: bool = True


@dataclass(frozen=True)
class UncheckedDataset:
    """A data set that is not checked, and why; with a ``hint``, ``why`` is a problem."""

    where: str
    why: str
    hint: str = ""


@dataclass(frozen=True)
class EvaluatorConfig:
    """A CocoMetric: its path in the config, its annotation file, and whether it measures masks."""

    where: str
    ann_file: str
    masks: bool


def datasets(config: Mapping[str, Any], part: str) -> Iterator[DatasetConfig | UncheckedDataset]:
    """The data sets of a part, 'train' or 'val', without their wrappers."""
    where = f"{part}_dataloader.dataset"
    node = value_at(config, where)
    if isinstance(node, Mapping):
        yield from _below(node, where)


def evaluators(config: Mapping[str, Any]) -> Iterator[EvaluatorConfig]:
    """Those with an annotation file on this machine."""
    value = config.get("val_evaluator")
    several = isinstance(value, list | tuple)
    for i, node in enumerate(value if isinstance(value, list | tuple) else [value]):
        if isinstance(node, Mapping) and has_type(node, "CocoMetric") and not node.get("backend_args"):
            path = node.get("ann_file")
            if isinstance(path, str) and not path.startswith(_REMOTE):
                yield EvaluatorConfig(
                    f"val_evaluator{f'[{i}]' * several}", _joined("", path), "segm" in (node.get("metric") or "")
                )


def _below(node: Mapping[str, Any], where: str) -> Iterator[DatasetConfig | UncheckedDataset]:
    if not has_type(node, *_WRAPPERS):
        yield _dataset(node, type_name(node), where)
        return
    inside = {f"{where}.dataset": node.get("dataset")}
    if has_type(node, "ConcatDataset"):
        several = node.get("datasets")
        inside = {f"{where}.datasets[{i}]": d for i, d in enumerate(several if isinstance(several, Sequence) else ())}
    for path, child in inside.items():
        if isinstance(child, Mapping):
            yield from _below(child, path)


def _dataset(node: Mapping[str, Any], name: str, where: str) -> DatasetConfig | UncheckedDataset:
    usual = metainfo.classes_of(name)
    if usual is None:
        return UncheckedDataset(where, f"ckptconv does not know how {name} reads its files")
    ann_file, root, prefix = node.get("ann_file") or "", node.get("data_root") or "", node.get("data_prefix")
    if isinstance(ann_file, Sequence) and not isinstance(ann_file, str):
        return UncheckedDataset(
            where,
            f"{where}.ann_file is a list, and {name} takes one file",
            "Give each file a data set, and join them: type='ConcatDataset', datasets=[…].",
        )
    if not ann_file:
        return UncheckedDataset(where, f"{where} has no ann_file", f"Set {where}.ann_file.")
    meta = node.get("metainfo") or {}
    classes = meta.get("classes", usual) if isinstance(meta, Mapping) else usual
    filters = node.get("filter_cfg")
    images = prefix.get("img") if isinstance(prefix, Mapping) else None
    path = _joined(root, ann_file)
    if node.get("backend_args") or path.startswith(_REMOTE):
        return UncheckedDataset(where, f"{path} is not a file on this machine")
    loads = list(transforms(node.get("pipeline")))
    return DatasetConfig(
        where=where,
        kind=name,
        ann_file=path,
        images=_joined(root, images) if isinstance(images, str) else None,
        classes=_names(classes),
        default="classes" not in meta,
        capitals="CLASSES" in meta,
        filtered=isinstance(filters, Mapping) and not node.get("test_mode", False),
        filter_empty=isinstance(filters, Mapping) and bool(filters.get("filter_empty_gt", False)),
        min_size=filters.get("min_size", 0) if isinstance(filters, Mapping) else 0,
        indices=_indices(node.get("indices")),
        masks=any(has_type(t, "LoadAnnotations") and t.get("with_mask") for t in loads),
        here=any(
            has_type(t, "LoadImageFromFile") and not t.get("backend_args") and not t.get("file_client_args")
            for t in loads
        ),
    )


def _joined(root: Any, path: str) -> str:
    """As mmengine 0.10.7 does (`BaseDataset._join_prefix`)."""
    if path.startswith(_REMOTE):
        return path
    if not isinstance(root, str) or not root:
        return str(Path(path))
    return str(Path(root, path)) if not root.startswith(_REMOTE) else f"{root.rstrip('/')}/{path}"


def _names(classes: Any) -> tuple[str, ...] | str:
    """As mmengine 0.10.7 does (`BaseDataset._load_metainfo`): a string may be a file with a name on each line."""
    if isinstance(classes, str):
        if not is_file(classes):
            return classes
        return tuple(Path(classes).read_text(encoding="utf-8", errors="replace").splitlines())
    return tuple(classes) if isinstance(classes, Sequence) else ()


def _indices(value: Any) -> int | tuple[int, ...] | None:
    return tuple(value) if isinstance(value, Sequence) else value
