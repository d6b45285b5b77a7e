"""Classes compared with categories, and the number of classes of a detector's heads. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptconv.mmdetection.coco_file import CocoFile
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.verify.data import commands
from ckptconv.mmdetection.verify.data.coco_dataset import LoadedDataset
from ckptconv.mmdetection.verify.data.dataset_configs import DatasetConfig
from ckptconv.mmdetection.verify.data.findings import DataFindings
from ckptconv.mmdetection.verify.data.ground_truth import GroundTruth
from ckptconv.text import some

# The heads of mmdet 3.3.0's detectors whose labels are the classes. An RPN's head has one class.
_BOX_HEADS = ("model.bbox_head", "model.roi_head.bbox_head", "model.query_head")
_MASK_HEADS = ("model.mask_head", "model.roi_head.mask_head")


def not_categories(dataset: DatasetConfig, coco: CocoFile) -> list[str]:
    """The classes that are not a category of a file."""
    names = {category.name for category in coco.categories}
    return [] if isinstance(dataset.classes, str) else [name for name in dataset.classes if name not in names]


def no_class(dataset: DatasetConfig, coco: CocoFile) -> tuple[str, str]:
    """The problem that no class is a category: a sentence, and what to type."""
    categories = some((category.name for category in coco.categories), 3) or "none"
    if dataset.default:
        subject = f"{dataset.where} sets no classes, so the {len(dataset.classes)} of {dataset.kind} apply"
        subject = f"{subject} ({some(dataset.classes, 2)}), and none of them"
        if dataset.capitals:
            subject = f"{dataset.where}.metainfo has CLASSES, but MMDetection 3 reads classes, and none of its defaults"
    else:
        subject = f"none of the classes of {dataset.where} ({_shown(dataset)})"
    folded = {category.name.strip().casefold() for category in coco.categories}
    alike = not dataset.default and any(name.strip().casefold() in folded for name in dataset.classes)
    why = "; upper case, lower case and spaces matter" if alike else ""
    return f"{subject} is a category of {coco.path} ({categories}){why}", commands.classes(
        dataset.where, coco.path, coco.categories
    )


def _shown(dataset: DatasetConfig) -> str:
    return repr(dataset.classes) if isinstance(dataset.classes, str) else some(dataset.classes, 3)


def note_classes(dataset: DatasetConfig, coco: CocoFile, loaded: LoadedDataset, findings: DataFindings) -> None:
    """Notes on classes that may be intended."""
    if isinstance(dataset.classes, str):
        findings.note(
            f"{dataset.where}.metainfo.classes is the string {dataset.classes!r}, and every category whose name is a "
            f"part of it is a class: one class is written ({dataset.classes!r},)"
        )
        return
    missing = not_categories(dataset, coco)
    if missing and loaded.labels:
        findings.note(f"classes of {dataset.where} that are not categories of {coco.path}: {some(missing, 3)}")
    names = [category.name for category in loaded.labels]
    order = [name for name in dataset.classes if name in set(names)]
    if names != order and len(set(names)) == len(names) and len(set(order)) == len(order):
        findings.note(
            f"MMDetection numbers the classes in the order of {coco.path} ({some(names, 3)}), so it prints the names "
            f"of {dataset.where}.metainfo ({some(order, 3)}) for the wrong classes"
        )
    if loaded.labels:
        _note_unused(dataset, coco, loaded, findings)


def _note_unused(dataset: DatasetConfig, coco: CocoFile, loaded: LoadedDataset, findings: DataFindings) -> None:
    used = {category.id for category in loaded.labels}
    others = {category.id: category.name for category in coco.categories if category.id not in used}
    counts = dict.fromkeys(others, 0)
    for annotation in coco.annotations if others else ():
        if annotation.category_id in counts:
            counts[annotation.category_id] += 1
    unused = [others[number] for number, count in counts.items() if count]
    if unused:
        findings.note(
            f"{sum(counts.values()):,} annotations of {coco.path} have a category that is not a class of "
            f"{dataset.where}: {some(unused, 3)}"
        )


def same_labels(parts: Sequence[tuple[str, Sequence[str]]], findings: DataFindings) -> bool:
    """Whether a label means the same class in all files; each comes with the names of its labels."""
    if not parts:
        return True
    first, names = max(parts, key=lambda part: len(part[1]))
    good = True
    for path, others in parts:
        at = next((i for i, (a, b) in enumerate(zip(names, others, strict=False)) if a != b), None)
        if at is None:
            continue
        good = False
        findings.problem(
            f"class {at} is {names[at]} in {first} and {others[at]} in {path}, because MMDetection numbers the classes "
            "in the order of a file's categories",
            f"Put them in the same order: {commands.order(first, path)}"
            if sorted(names) == sorted(others)
            else "Give both files the same categories, in the same order.",
        )
    return good


def heads(model: Mapping[str, Any], paths: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The numbers of classes that heads have, by their path in the config."""
    for path in paths:
        node = value_at({"model": model}, path)
        several = isinstance(node, Sequence) and not isinstance(node, str)
        for i, head in enumerate(node if several else [node]):
            count = head.get("num_classes") if isinstance(head, Mapping) and not head.get("class_agnostic") else None
            if isinstance(count, int):
                yield f"{path}{f'[{i}]' * several}.num_classes", count


def head_sizes(
    model: Mapping[str, Any],
    trained: Sequence[tuple[DatasetConfig, CocoFile, LoadedDataset]],
    truth: GroundTruth | None,
    path: str,
    findings: DataFindings,
) -> None:
    """Whether the heads have as many classes as there are labels.

    With too few, a head takes an object of the next class for background, and fails at the classes after it. With too
    many, CocoMetric fails at a detection of one of them. Detectors that read text number words, not classes.
    """
    if "language_model" in model:
        return
    for where, count in heads(model, (*_BOX_HEADS, *_MASK_HEADS)):
        for dataset, coco, loaded in trained:
            if max(loaded.objects, default=-1) >= count:
                findings.problem(
                    f"{where} is {count}, and {coco.path} has {len(loaded.labels)} of the classes of {dataset.where}",
                    f"Set {where} = {len(loaded.labels)}.",
                )
    for where, count in heads(model, _BOX_HEADS):
        if truth is not None and truth.labels and count > len(truth.labels):
            findings.problem(
                f"{where} is {count}, and {path} has {len(truth.labels)} of the classes: CocoMetric fails at the first "
                "detection of another class",
                f"Set {where} = {len(truth.labels)}, or set metainfo to the classes of the file.",
            )
