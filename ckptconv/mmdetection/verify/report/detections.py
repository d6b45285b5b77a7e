"""A few evaluated images with the detections drawn on them."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_LEAST_SCORE = 0.5
_COLORS = ((235, 99, 37), (6, 119, 217), (105, 150, 5), (38, 38, 220), (237, 58, 124))  # BGR
_SIDE = 360  # pixels of the longer side
Image = np.ndarray[Any, Any]


class EvaluatedImages(NamedTuple):
    """The paths of what one run evaluated.

    ``annotations``: instances in COCO's format; ``detections``: the path of ``….bbox.json`` and ``….segm.json`` without
    these suffixes; ``folder`` of the files that the annotations name.
    """

    annotations: Path
    detections: Path
    folder: Path


def drawn(evaluated: EvaluatedImages, most: int = 6) -> Iterator[tuple[str, str]]:
    """A caption and a JPEG as a data URL, for each of the first images with a detection of at least 0.5."""
    import cv2

    truth = json.loads(evaluated.annotations.read_text(encoding="utf-8"))
    names = {c["id"]: str(c["name"]) for c in truth["categories"]}
    by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    path = evaluated.detections
    masks = path.with_name(f"{path.name}.segm.json")
    source = masks if masks.exists() else path.with_name(f"{path.name}.bbox.json")
    for detection in json.loads(source.read_text(encoding="utf-8")):
        if detection["score"] >= _LEAST_SCORE:
            by_image[detection["image_id"]].append(detection)
    count = 0
    for entry in truth["images"]:
        image = cv2.imread(str(evaluated.folder / entry["file_name"])) if entry["id"] in by_image else None
        if image is None or count == most:
            continue
        count += 1
        detections = by_image[entry["id"]]
        yield f"{entry['file_name']}: {_count(len(detections))}", _url(_overlaid(image, detections, names))


def _count(detections: int) -> str:
    return f"{detections} detection{'' if detections == 1 else 's'}"


def _overlaid(image: Image, detections: list[Mapping[str, Any]], names: Mapping[int, str]) -> Image:
    import cv2

    scale = _SIDE / max(image.shape[:2])
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    for detection in sorted(detections, key=lambda d: d["score"]):
        color = _COLORS[detection["category_id"] % len(_COLORS)]
        if "segmentation" in detection:
            inside = _mask(detection["segmentation"], large.shape[:2])
            large[inside] = (0.6 * large[inside] + 0.4 * np.array(color)).astype(np.uint8)
        x, y, width, height = (round(v * scale) for v in detection["bbox"])
        cv2.rectangle(large, (x, y), (x + width, y + height), color, 2)
        label = f"{names.get(detection['category_id'], '?')} {detection['score']:.2f}"
        (wide, high), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
        left, bottom = max(min(x, large.shape[1] - wide - 4), 0), y if y > high + below else y + high + below
        cv2.rectangle(large, (left, bottom - high - below), (left + wide + 4, bottom), color, cv2.FILLED)
        at = (left + 2, bottom - below + 1)
        cv2.putText(large, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return large


def _mask(segmentation: Mapping[str, Any], shape: tuple[int, ...]) -> Image:
    import cv2
    from pycocotools import mask

    inside: Image = cv2.resize(mask.decode(dict(segmentation)), shape[::-1], interpolation=cv2.INTER_NEAREST)
    return inside.astype(bool)


def _url(image: Image) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
