"""Classes against categories, and the number of classes that a detector's heads have. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptconv.mmdetection.coco_file import CocoFile
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.verify.data import commands
from ckptconv.mmdetection.verify.data.dataset import Loaded
from ckptconv.mmdetection.verify.data.datasets import Said
from ckptconv.mmdetection.verify.data.evaluator import Truth
from ckptconv.mmdetection.verify.data.findings import Findings
from ckptconv.text import some

# Where detectors of mmdet 3.3.0 have the heads whose labels are the classes. That of an RPN has one class.
_BOX_HEADS = ("model.bbox_head", "model.roi_head.bbox_head", "model.query_head")
_MASK_HEADS = ("model.mask_head", "model.roi_head.mask_head")


def absent(said: Said, coco: CocoFile) -> list[str]:
    """The classes that no category of a file has."""
    names = {category.name for category in coco.categories}
    return [] if isinstance(said.classes, str) else [name for name in said.classes if name not in names]


def no_class(said: Said, coco: CocoFile) -> tuple[str, str]:
    """That no class is a category, as a sentence, and what to type."""
    has = some((category.name for category in coco.categories), 3) or "none"
    if said.default:
        who = f"{said.where} names no classes, so they are the {len(said.classes)} of {said.kind}"
        who = f"{who} ({some(said.classes, 2)}), and none"
        if said.capitals:
            who = f"{said.where}.metainfo has CLASSES, which MMDetection 3 calls classes, and none of its default ones"
    else:
        who = f"none of the classes of {said.where} ({_shown(said)})"
    folded = {category.name.strip().casefold() for category in coco.categories}
    alike = not said.default and any(name.strip().casefold() in folded for name in said.classes)
    why = "; capitals and spaces count" if alike else ""
    return f"{who} is a category of {coco.path} ({has}){why}", commands.classes(said.where, coco.path, coco.categories)


def _shown(said: Said) -> str:
    return repr(said.classes) if isinstance(said.classes, str) else some(said.classes, 3)


def look(said: Said, coco: CocoFile, loaded: Loaded, findings: Findings) -> None:
    """Notes on classes that may be meant so."""
    if isinstance(said.classes, str):
        findings.note(
            f"{said.where}.metainfo.classes is the string {said.classes!r}, and every category whose name is a part of "
            f"it is a class: one class is written ({said.classes!r},)"
        )
        return
    lacking = absent(said, coco)
    if lacking and loaded.labels:
        findings.note(f"{some(lacking, 3)} of the classes of {said.where}: not a category of {coco.path}")
    names = [category.name for category in loaded.labels]
    order = [name for name in said.classes if name in set(names)]
    if names != order and len(set(names)) == len(names) and len(set(order)) == len(order):
        findings.note(
            f"MMDetection numbers the classes as {coco.path} lists them ({some(names, 3)}), so it prints the names of "
            f"{said.where}.metainfo ({some(order, 3)}) in the wrong places"
        )
    if loaded.labels:
        _unclaimed(said, coco, loaded, findings)


def _unclaimed(said: Said, coco: CocoFile, loaded: Loaded, findings: Findings) -> None:
    taken = {category.id for category in loaded.labels}
    others = {category.id: category.name for category in coco.categories if category.id not in taken}
    counts = dict.fromkeys(others, 0)
    for annotation in coco.annotations if others else ():
        if annotation.category_id in counts:
            counts[annotation.category_id] += 1
    left = [others[number] for number, count in counts.items() if count]
    if left:
        findings.note(
            f"{sum(counts.values()):,} annotations of {coco.path} are of no class of {said.where}: {some(left, 3)}"
        )


def same_labels(parts: Sequence[tuple[str, Sequence[str]]], findings: Findings) -> bool:
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
            f"class {at} is {names[at]} in {first} and {others[at]} in {path}, for MMDetection numbers the classes in "
            "the order of a file's categories",
            f"Put them in one order: {commands.order(first, path)}"
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


def numbers(
    model: Mapping[str, Any],
    trained: Sequence[tuple[Said, CocoFile, Loaded]],
    seen: Truth | None,
    path: str,
    findings: Findings,
) -> None:
    """Whether the heads have as many classes as there are labels.

    A head of too few takes an object of the next class for background, and fails at one beyond. At a detection of one
    of too many, CocoMetric fails. Detectors that read text number words, not classes.
    """
    if "language_model" in model:
        return
    for where, count in heads(model, (*_BOX_HEADS, *_MASK_HEADS)):
        for said, coco, loaded in trained:
            if max(loaded.objects, default=-1) >= count:
                findings.problem(
                    f"{where} is {count}, and {coco.path} has {len(loaded.labels)} of the classes of {said.where}",
                    f"Set {where} = {len(loaded.labels)}.",
                )
    for where, count in heads(model, _BOX_HEADS):
        if seen is not None and seen.labels and count > len(seen.labels):
            findings.problem(
                f"{where} is {count}, and {path} has {len(seen.labels)} of the classes: CocoMetric stops at the first "
                "detection of another one",
                f"Set {where} = {len(seen.labels)}, or name in metainfo what is in the file.",
            )
