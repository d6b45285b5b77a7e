"""A data set x its annotation file -> the images and labels that `CocoDataset` would give. Pure.

The steps are those of mmdet 3.3.0 (`datasets/coco.py`: load_data_list, parse_data_info, filter_data) and pycocotools
2.0 (`coco.py`: createIndex, getCatIds, getAnnIds), in their order, for what they skip depends on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckptconv.mmdetection.coco_file import NO_MASK, NOT_A_MASK, Annotation, Category, CocoFile, Image
from ckptconv.mmdetection.verify.data.datasets import Said


class Fault(NamedTuple):
    """What is wrong with ``entries`` of a file, in number, of which ``first`` is one: ``annotations[17]``.

    With the file as a whole where ``first`` is empty.
    """

    what: str
    entries: int
    first: str


@dataclass(frozen=True)
class Loaded:
    """What `CocoDataset` makes of a file.

    ``labels``: the category of each label. ``faults``: what it stops at. ``images``: those that are left, in order.
    ``objects``: how many of each label they have. ``skipped``: annotations that are left out, by reason. ``small``
    and ``empty``: images that were left out as smaller than min_size, or as having no annotation of a class; ``lost``:
    indices of images that there are not.
    ``boxes``: annotations with one; ``corners``: those that read better as two corners.
    """

    labels: tuple[Category, ...]
    faults: tuple[Fault, ...]
    images: tuple[Image, ...]
    objects: Mapping[int, int]
    skipped: Mapping[str, int]
    small: int
    empty: int
    lost: int
    boxes: int
    corners: int


MIXED = "some of its {} ids are numbers and some are words, which COCOeval cannot sort"
SAME_ID = "the id of another one"
NO_AREA = "no area, which MMDetection reads"
NO_SEGMENTATION = "no segmentation, which a detector with masks reads"
NO_POLYGON = "a segmentation that is neither polygons nor run lengths"
_UNLOADABLE = {NO_MASK: NO_SEGMENTATION, NOT_A_MASK: NO_POLYGON}
OUTSIDE, FLAT, EMPTY = "outside of their image", "less than a pixel wide or high", "with an area of 0"


def labels(categories: Sequence[Category], classes: tuple[str, ...] | str) -> tuple[Category, ...]:
    """The category of each label: in the order of the file, whatever the order of the classes; all where none is named.

    A string is searched for the name of each category, as Python's ``in`` does.
    """
    return tuple(c for c in categories if c.name in classes) if len(classes) else tuple(categories)


class Faults:
    """Counts what is wrong, and remembers the first of each kind."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, entry: str) -> None:
        self._count[what] += 1
        self._first.setdefault(what, entry)

    def all(self) -> tuple[Fault, ...]:
        return tuple(Fault(what, count, self._first[what]) for what, count in self._count.items())


def identified(coco: CocoFile) -> tuple[Fault, ...]:
    """Entries without the ids that every reader of the format asks for."""
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


def load(said: Said, coco: CocoFile) -> Loaded:
    """What `CocoDataset` makes of a file whose entries have ids."""
    chosen = labels(coco.categories, said.classes)
    label_of = {category.id: i for i, category in enumerate(chosen)}
    images = {image.id: image for image in coco.images}
    faults = Faults()
    _complete(coco.images, images, faults)
    by_image, last = _index(coco, images, faults)
    skipped: Counter[str] = Counter()
    boxes = corners = 0
    objects: dict[Any, list[int]] = {}
    maskless: dict[Any, list[tuple[str, int]]] = defaultdict(list)
    for key, image in images.items():
        width, height = image.width, image.height
        objects[key] = found = []
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
                skipped[OUTSIDE if w > 0 and h > 0 else FLAT] += 1
            elif not is_number(annotation.area):
                faults.add(NO_AREA, f"annotations[{i}]")
            elif annotation.area <= 0:
                skipped[EMPTY] += 1
            elif w < 1 or h < 1:
                skipped[FLAT] += 1
            elif (label := label_of.get(annotation.category_id)) is not None:
                found.append(label)
                if said.masks and annotation.segmentation in _UNLOADABLE:
                    maskless[key].append((_UNLOADABLE[annotation.segmentation], i))
    annotated = {a.image_id for a in coco.annotations if a.category_id in label_of}
    kept, small, empty = _filtered(said, list(images.values()), annotated)
    kept, lost = _indexed(said, kept)
    for image in kept:
        for what, i in maskless.get(image.id, ()):
            faults.add(what, f"annotations[{i}]")
    counts = Counter(label for image in kept for label in objects[image.id])
    return Loaded(chosen, faults.all(), tuple(kept), counts, skipped, small, empty, lost, boxes, corners)


def _complete(images: Iterable[Image], last: Mapping[Any, Image], faults: Faults) -> None:
    for i, image in enumerate(images):
        if last[image.id] is not image:  # nobody looks at it
            continue
        if not isinstance(image.file_name, str):
            faults.add("no file_name", f"images[{i}]")
        if not (is_number(image.width) and is_number(image.height)):
            faults.add("no width and height", f"images[{i}]")


def _index(
    coco: CocoFile, images: Mapping[Any, Image], faults: Faults
) -> tuple[Mapping[Any, Sequence[Any]], Mapping[Any, tuple[int, Annotation]]]:
    """The ids of the annotations of each image, and what each id means: the last annotation that has it."""
    by_image: dict[Any, list[Any]] = defaultdict(list)
    last: dict[Any, tuple[int, Annotation]] = {}
    of_images: set[Any] = set()
    for i, annotation in enumerate(coco.annotations):
        key = annotation.id
        by_image[annotation.image_id].append(key)
        last[key] = i, annotation
        if annotation.image_id in images:  # those of images that are not there are never looked at
            if key in of_images:
                faults.add(SAME_ID, f"annotations[{i}]")
            of_images.add(key)
    return by_image, last


def _filtered(said: Said, images: list[Image], annotated: Set[Any]) -> tuple[list[Image], int, int]:
    """The images that are left, and how many were too small, or had no annotation of a class."""
    kept, small, empty = images, 0, 0
    if said.filtered:
        kept = []
        for image in images:
            if said.filter_empty and image.id not in annotated:
                empty += 1
            elif not (is_number(image.width) and is_number(image.height)):
                continue
            elif min(image.width, image.height) < said.min_size:
                small += 1
            else:
                kept.append(image)
    return kept, small, empty


def _indexed(said: Said, images: list[Image]) -> tuple[list[Image], int]:
    """The images that ``indices`` chooses: the first, or the last, so many; or each one of a list."""
    indices = said.indices
    if indices is None:
        return images, 0
    if isinstance(indices, int):
        return images[:indices] if indices >= 0 else images[indices:], 0
    chosen = [images[i] for i in indices if -len(images) <= i < len(images)]
    return chosen, len(indices) - len(chosen)
