"""A data set in COCO's layout, small enough for a step of training: grey images with one bright box each.

Images of one, three and four channels are PNG, which OpenCV writes with the first three in reverse; others are TIFF.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import tifffile

SIDE = 64


def write(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, C), whose channels are in the order of the file."""
    count = image.shape[2]
    if path.suffix == ".png":
        cv2.imwrite(str(path), image[..., [0] if count == 1 else [2, 1, 0, *range(3, count)]])
    else:
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")


def make(folder: Path, images: int = 4, channels: int = 3) -> Path:
    """Write ``annotations/instances_{train,val}2017.json`` and the images they name."""
    rng = np.random.default_rng(0)
    suffix = ".png" if channels in (1, 3, 4) else ".tif"
    (folder / "annotations").mkdir(parents=True)
    for part in ("train2017", "val2017"):
        (folder / part).mkdir()
        boxes = [(int(rng.integers(4, 20)), int(rng.integers(4, 20)), 32, 36) for _ in range(images)]
        for i, (x, y, w, h) in enumerate(boxes):
            image = rng.integers(80, 120, (SIDE, SIDE, channels)).astype(np.uint8)
            image[y : y + h, x : x + w] = 250
            write(folder / part / f"{i}{suffix}", image)
        described = {
            "images": [{"id": i, "file_name": f"{i}{suffix}", "width": SIDE, "height": SIDE} for i in range(images)],
            "categories": [{"id": 1, "name": "box"}],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": i,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
                for i, (x, y, w, h) in enumerate(boxes)
            ],
        }
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(described))
    return folder


def roboflow(folder: Path, images: int = 4, names: tuple[str, ...] = ("box",), first: int = 1) -> Path:
    """The same data as Roboflow exports them: ``{train,valid}/_annotations.coco.json`` beside the images.

    Category 0 is a supercategory without annotations; the others have numbers from ``first`` on, with gaps.
    """
    made = make(folder / "made", images)
    for part, said in (("train", "train2017"), ("valid", "val2017")):
        (made / said).rename(folder / part)
        file = made / "annotations" / f"instances_{said}.json"
        described = json.loads(file.read_text())
        described["categories"] = [
            {"id": 0, "name": "things", "supercategory": "none"},
            *({"id": first + 7 * i, "name": name, "supercategory": "things"} for i, name in enumerate(names)),
        ]
        for i, annotation in enumerate(described["annotations"]):
            annotation["category_id"] = first + 7 * (i % len(names))
        (folder / part / "_annotations.coco.json").write_text(json.dumps(described))
        file.unlink()
    return folder
