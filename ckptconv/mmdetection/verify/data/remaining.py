"""What is left of a data set: something to train on, and what is left out or read otherwise than meant. Pure."""

from __future__ import annotations

from ckptconv.mmdetection.coco_file import CocoFile
from ckptconv.mmdetection.verify.data import classes
from ckptconv.mmdetection.verify.data.dataset import Loaded
from ckptconv.mmdetection.verify.data.datasets import Said
from ckptconv.mmdetection.verify.data.findings import Findings
from ckptconv.text import some


def left(said: Said, coco: CocoFile, loaded: Loaded, found: Findings) -> None:
    """Whether there is something to train on."""
    where, path, total = said.where, coco.path, len({image.id for image in coco.images})
    if not total:
        found.problem(f"{path} has no images", "Give the file of the training's part.")
    elif not loaded.labels:
        found.problem(*classes.no_class(said, coco))
    elif not loaded.images and loaded.small and loaded.small + loaded.empty == total:
        largest = max(min(image.width, image.height) for image in coco.images)
        rest = f"; images without an annotation of a class: {loaded.empty:,}" if loaded.empty else ""
        found.problem(
            f"{where}.filter_cfg.min_size is {said.min_size:g}, and no image of {path} is left: "
            f"the shorter side of its largest is {largest:g}{rest}",
            f"Set {where}.filter_cfg.min_size = {min(32, largest):g}.",
        )
    elif not loaded.images and loaded.empty == total:
        found.problem(
            f"{where}.filter_cfg leaves out images without annotations, and none of {path} has one of a class",
            "Check that the annotations' image_id and category_id are those of the file's images and categories.",
        )
    elif not loaded.images:
        found.problem(f"{where}.indices leaves none of the {total:,} images of {path}", f"Leave {where}.indices out.")
    elif not loaded.objects:
        why = some((f"{n:,} annotations are {what}" for what, n in loaded.skipped.items()), 3)
        found.problem(
            f"{path} has no object to train on" + (f": {why}" if why else ""),
            "A bbox is [x, y, width, height] in pixels, and area in pixels, too." if why else "Annotate its images.",
        )
    elif loaded.small:
        found.note(
            f"{loaded.small:,} of {total:,} images of {path} are left out: a side is below {where}.filter_cfg.min_size"
        )


def odd(said: Said, coco: CocoFile, loaded: Loaded, found: Findings) -> None:
    """What MMDetection takes without a word, and may not be meant."""
    classes.look(said, coco, loaded, found)
    numbers = {image.id for image in coco.images}
    categories = {category.id for category in coco.categories}
    notes = {
        "images have the id of another one, and take its annotations": len(coco.images) - len(numbers),
        "annotations are of an image that is not in the file": sum(a.image_id not in numbers for a in coco.annotations),
        "annotations are of a category that is not in the file": sum(
            a.category_id not in categories for a in coco.annotations
        ),
        **{f"annotations are {what}, and left out": count for what, count in loaded.skipped.items()},
    }
    for text, count in notes.items():
        if count and loaded.objects:
            found.note(f"{coco.path}: {count:,} {text}")
    if 2 * loaded.corners > loaded.boxes:
        found.note(
            f"{coco.path}: most of its boxes reach out of their images, and would not as x1, y1, x2, y2; a bbox is "
            "[x, y, width, height]"
        )
