"""A data set x its annotation file -> the images and labels that `CocoDataset` would give. Pure.

The steps are those of mmdet 3.3.0 (`datasets/coco.py`: load_data_list, parse_data_info, filter_data) and pycocotools
2.0 (`coco.py`: createIndex, getCatIds, getAnnIds), in their order, because what they remove depends on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckptconv.mmdetection.coco_file import NO_MASK, NOT_A_MASK, Annotation, Category, CocoFile, Image
from ckptconv.mmdetection.verify.data.dataset_configs import DatasetConfig


class Fault(NamedTuple):
    """What is wrong with so many ``entries`` of a file; ``first`` is the first of them: ``annotations[17]``.

    ``first`` is '' where the whole file is wrong.
    """

    what: str
    entries: int
    first: str


@dataclass(frozen=True)
class LoadedDataset:
    """What `CocoDataset` makes of a file.

    ``labels``: the category of each label. ``faults``: where it fails. ``images``: those that remain, in order.
    ``objects``: how many of each label they have. ``removed``: annotations that are removed, by reason. ``small`` and
    ``empty``: images that are removed because they are smaller than min_size, or have no annotation of a class;
    ``out_of_range``: how many of the indices have no image.
    ``boxes``: annotations with a box; ``corners``: those whose box looks like two corners.
    """

    labels: tuple[Category, ...]
    faults: tuple[Fault, ...]
    images: tuple[Image, ...]
    objects: Mapping[int, int]
    removed: Mapping[str, int]
    small: int
    empty: int
    out_of_range: int
    boxes: int
    corners: int


MIXED = "some of its {} ids are numbers and some are strings, which COCOeval cannot sort"
SAME_ID = "the same id as another annotation"
NO_AREA = "no area, which MMDetection reads"
NO_SEGMENTATION = "no segmentation, which a detector with masks needs"
NO_POLYGON = "a segmentation that is neither polygons nor run lengths"
_UNLOADABLE = {NO_MASK: NO_SEGMENTATION, NOT_A_MASK: NO_POLYGON}
OUTSIDE, FLAT, EMPTY = "outside of their image", "less than a pixel wide or high", "with an area of 0"


def labels(categories: Sequence[Category], classes: tuple[str, ...] | str) -> tuple[Category, ...]:
    """The category of each label: in the order of the file, not of the classes; all of them without classes.

    A string is searched for the name of each category, as Python's ``in`` does.
    """
    return tuple(c for c in categories if c.name in classes) if len(classes) else tuple(categories)


class Faults:
    """Counts what is wrong, and keeps the first entry of each kind."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, entry: str) -> None:
        self._count[what] += 1
        self._first.setdefault(what, entry)

    def all(self) -> tuple[Fault, ...]:
        return tuple(Fault(what, count, self._first[what]) for what, count in self._count.items())


def identified(coco: CocoFile) -> tuple[Fault, ...]:
    """Entries without the ids that every reader of the format needs."""
    faults = Faults()
    for i, image in enumerate(coco.images):
        if not _is_id(image.id):
            faults.add("no id", f"images[{i}]")
    for i, annotation in enumerate(coco.annotations):
        for name, value in (
            ("id", annotation.id),
            ("image_id", annotation.image_id),
            ("category_id", annotation.category_id),
        ):
            if not _is_id(value):
                faults.add(f"no {name}", f"annotations[{i}]")
    return faults.all()


def _is_id(value: Any) -> bool:
    return value is not None and isinstance(value, Hashable)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def load(dataset: DatasetConfig, coco: CocoFile) -> LoadedDataset:
    """What `CocoDataset` makes of a file whose entries have ids."""
    chosen = labels(coco.categories, dataset.classes)
    label_of = {category.id: i for i, category in enumerate(chosen)}
    images = {image.id: image for image in coco.images}
    faults = Faults()
    _complete(coco.images, images, faults)
    by_image, last = _index(coco, images, faults)
    removed: Counter[str] = Counter()
    boxes = corners = 0
    objects: dict[Any, list[int]] = {}
    maskless: dict[Any, list[tuple[str, int]]] = defaultdict(list)
    for key, image in images.items():
        width, height = image.width, image.height
        objects[key] = counted = []
        if not (is_number(width) and is_number(height)):
            continue
        for number in by_image.get(key, ()):
            i, annotation = last[number]
            if annotation.ignore:
                continue
            box = annotation.bbox
            if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
                faults.add("no bbox of four numbers", f"annotations[{i}]")
                continue
            x, y, w, h = box
            boxes += 1
            corners += w > x >= 0 and h > y >= 0 and (x + w > width + 1 or y + h > height + 1)
            if max(0, min(x + w, width) - max(x, 0)) * max(0, min(y + h, height) - max(y, 0)) == 0:
                removed[OUTSIDE if w > 0 and h > 0 else FLAT] += 1
            elif not is_number(annotation.area):
                faults.add(NO_AREA, f"annotations[{i}]")
            elif annotation.area <= 0:
                removed[EMPTY] += 1
            elif w < 1 or h < 1:
                removed[FLAT] += 1
            elif (label := label_of.get(annotation.category_id)) is not None:
                counted.append(label)
                if dataset.masks and annotation.segmentation in _UNLOADABLE:
                    maskless[key].append((_UNLOADABLE[annotation.segmentation], i))
    annotated = {a.image_id for a in coco.annotations if a.category_id in label_of}
    remaining, small, empty = _filtered(dataset, list(images.values()), annotated)
    remaining, out_of_range = _indexed(dataset, remaining)
    for image in remaining:
        for what, i in maskless.get(image.id, ()):
            faults.add(what, f"annotations[{i}]")
    counts = Counter(label for image in remaining for label in objects[image.id])
    return LoadedDataset(
        chosen, faults.all(), tuple(remaining), counts, removed, small, empty, out_of_range, boxes, corners
    )


def _complete(images: Iterable[Image], last: Mapping[Any, Image], faults: Faults) -> None:
    for i, image in enumerate(images):
        if last[image.id] is not image:  # CocoDataset does not use it
            continue
        if not isinstance(image.file_name, str):
            faults.add("no file_name", f"images[{i}]")
        if not (is_number(image.width) and is_number(image.height)):
            faults.add("no width and height", f"images[{i}]")


def _index(
    coco: CocoFile, images: Mapping[Any, Image], faults: Faults
) -> tuple[Mapping[Any, Sequence[Any]], Mapping[Any, tuple[int, Annotation]]]:
    """The ids of the annotations of each image, and the last annotation with each id, which is the one that counts."""
    by_image: dict[Any, list[Any]] = defaultdict(list)
    last: dict[Any, tuple[int, Annotation]] = {}
    of_images: set[Any] = set()
    for i, annotation in enumerate(coco.annotations):
        key = annotation.id
        by_image[annotation.image_id].append(key)
        last[key] = i, annotation
        if annotation.image_id in images:  # those of other images are not used
            if key in of_images:
                faults.add(SAME_ID, f"annotations[{i}]")
            of_images.add(key)
    return by_image, last


def _filtered(dataset: DatasetConfig, images: list[Image], annotated: Set[Any]) -> tuple[list[Image], int, int]:
    """The images that remain, and how many are too small, or have no annotation of a class."""
    remaining, small, empty = images, 0, 0
    if dataset.filtered:
        remaining = []
        for image in images:
            if dataset.filter_empty and image.id not in annotated:
                empty += 1
            elif not (is_number(image.width) and is_number(image.height)):
                continue
            elif min(image.width, image.height) < dataset.min_size:
                small += 1
            else:
                remaining.append(image)
    return remaining, small, empty


def _indexed(dataset: DatasetConfig, images: list[Image]) -> tuple[list[Image], int]:
    """The images that ``indices`` selects (the first or the last so many, or a list), and how many have no image."""
    indices = dataset.indices
    if indices is None:
        return images, 0
    if isinstance(indices, int):
        return images[:indices] if indices >= 0 else images[indices:], 0
    chosen = [images[i] for i in indices if -len(images) <= i < len(images)]
    return chosen, len(indices) - len(chosen)
