"""The evaluator's file x the evaluated images -> whether `CocoMetric` can measure their AP. Pure.

By mmdet 3.3.0 (`evaluation/metrics/coco_metric.py`) and pycocotools 2.0 (`cocoeval.py`): they read iscrowd,
area, bbox, id and, for masks, the segmentation of every annotation of a class.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from ckptconv.mmdetection.coco_file import INCOMPLETE, NO_MASK, NOT_A_MASK, Category, CocoFile
from ckptconv.mmdetection.verify.data.coco_dataset import (
    MIXED,
    NO_AREA,
    NO_POLYGON,
    NO_SEGMENTATION,
    Fault,
    Faults,
    is_number,
    labels,
)


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of the classes in the evaluator's file.

    ``labels``: the category of each label; ``images``: all ids of the file; ``faults``: where COCOeval fails;
    ``objects``: annotations that count, without crowds; ``zero``: whether one of them has the id 0.
    """

    labels: tuple[Category, ...]
    images: Set[Any]
    faults: tuple[Fault, ...]
    objects: int
    zero: bool


NO_ISCROWD = "no iscrowd, which COCOeval reads"
_LARGEST = 1e10  # pixels, the end of COCOeval's range of areas
_UNREADABLE = {
    NO_MASK: NO_SEGMENTATION,
    NOT_A_MASK: NO_POLYGON,
    INCOMPLETE: "a segmentation that COCOeval cannot read",
}


def ground_truth(coco: CocoFile, classes: tuple[str, ...] | str, masks: bool) -> GroundTruth:
    """The annotations of the classes, in a file whose entries have ids."""
    chosen = labels(coco.categories, classes)
    numbers = {category.id for category in chosen}
    images = {image.id for image in coco.images}
    faults = Faults()
    for name, ids in (("image", images), ("category", {category.id for category in coco.categories})):
        if not _sortable(ids):
            faults.add(MIXED.format(name), "")
    objects, zero = 0, False
    for i, a in enumerate(coco.annotations):
        if a.category_id not in numbers or a.image_id not in images:
            continue
        entry = f"annotations[{i}]"
        if not _is_whole(a.iscrowd):
            faults.add(NO_ISCROWD, entry)
        if a.iscrowd:
            pass  # ignored, with any area
        elif not is_number(a.area):
            faults.add(NO_AREA, entry)
        elif not (a.area < 0 or a.area > _LARGEST):
            objects += 1
            zero = zero or a.id == 0
        if not (isinstance(a.bbox, list) and len(a.bbox) == 4):
            faults.add("no bbox of four numbers", entry)
        if not _is_float(a.id):
            faults.add("an id that is not a number", entry)
        if masks and a.segmentation in _UNREADABLE:
            faults.add(_UNREADABLE[a.segmentation], entry)
    return GroundTruth(chosen, images, faults.all(), objects, zero)


def _sortable(ids: Set[Any]) -> bool:
    """COCOeval sorts them."""
    return len({isinstance(number, str) for number in ids}) < 2


def _is_whole(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_float(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def other_names(evaluated: Sequence[tuple[Any, str]], coco: CocoFile) -> int:
    """How many of the evaluated images have another file name in the evaluator's file."""
    names = {image.id: _stem(image.file_name) for image in coco.images}
    return sum(number in names and names[number] != _stem(name) for number, name in evaluated)


def _stem(name: Any) -> str:
    return str(name).replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or str(name)
