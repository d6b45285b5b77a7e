"""What remains of a data set: whether there is something to train on, what is removed, what looks unusual. Pure."""

from __future__ import annotations

from ckptconv.mmdetection.coco_file import CocoFile
from ckptconv.mmdetection.verify.data import class_findings
from ckptconv.mmdetection.verify.data.coco_dataset import LoadedDataset
from ckptconv.mmdetection.verify.data.dataset_configs import DatasetConfig
from ckptconv.mmdetection.verify.data.findings import DataFindings
from ckptconv.text import some


def require_objects(dataset: DatasetConfig, coco: CocoFile, loaded: LoadedDataset, findings: DataFindings) -> None:
    """A problem where nothing remains to train on."""
    where, path, total = dataset.where, coco.path, len({image.id for image in coco.images})
    if not total:
        findings.problem(f"{path} has no images", "Give the file of the training images.")
    elif not loaded.labels:
        findings.problem(*class_findings.no_class(dataset, coco))
    elif not loaded.images and loaded.small and loaded.small + loaded.empty == total:
        largest = max(min(image.width, image.height) for image in coco.images)
        rest = f"; images without an annotation of a class: {loaded.empty:,}" if loaded.empty else ""
        findings.problem(
            f"{where}.filter_cfg.min_size is {dataset.min_size:g}, which removes every image of {path}: "
            f"the shorter side of its largest image is {largest:g}{rest}",
            f"Set {where}.filter_cfg.min_size = {min(32, largest):g}.",
        )
    elif not loaded.images and loaded.empty == total:
        findings.problem(
            f"{where}.filter_cfg removes images without annotations, and no image of {path} has one of a class",
            "Check that the annotations' image_id and category_id are those of the file's images and categories.",
        )
    elif not loaded.images:
        findings.problem(
            f"{where}.indices selects none of the {total:,} images of {path}", f"Leave {where}.indices out."
        )
    elif not loaded.objects:
        why = some((f"{n:,} annotations are {what}" for what, n in loaded.removed.items()), 3)
        findings.problem(
            f"{path} has no object to train on" + (f": {why}" if why else ""),
            "A bbox is [x, y, width, height] in pixels, and area is in square pixels."
            if why
            else "Annotate its images.",
        )
    elif loaded.small:
        findings.note(
            f"{loaded.small:,} of {total:,} images of {path} are removed: a side is below {where}.filter_cfg.min_size"
        )


def note_unusual(dataset: DatasetConfig, coco: CocoFile, loaded: LoadedDataset, findings: DataFindings) -> None:
    """Notes on what MMDetection accepts without a message, and what may not be intended."""
    class_findings.note_classes(dataset, coco, loaded, findings)
    numbers = {image.id for image in coco.images}
    categories = {category.id for category in coco.categories}
    notes = {
        "images have the same id as another image, and get its annotations": len(coco.images) - len(numbers),
        "annotations are of an image that is not in the file": sum(a.image_id not in numbers for a in coco.annotations),
        "annotations are of a category that is not in the file": sum(
            a.category_id not in categories for a in coco.annotations
        ),
        **{f"annotations are {what}, and are removed": count for what, count in loaded.removed.items()},
    }
    for text, count in notes.items():
        if count and loaded.objects:
            findings.note(f"{coco.path}: {count:,} {text}")
    if 2 * loaded.corners > loaded.boxes:
        findings.note(
            f"{coco.path}: most boxes extend beyond their images, and would not if they were [x1, y1, x2, y2]; a bbox "
            "is [x, y, width, height]"
        )
