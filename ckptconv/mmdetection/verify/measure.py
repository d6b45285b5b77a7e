"""Detections and annotations -> AP, by pycocotools itself, unrounded and in percent. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_KINDS = {"box": "bbox", "mask": "segm"}
_MOST = [100, 300, 1000]  # detections an image, as mmdet's CocoMetric counts them; AP takes the last


@dataclass(frozen=True)
class Measured:
    """AP in percent by 'box' and 'mask' and by the names of `NAMES`; None where the data set has no such object.

    ``images`` were evaluated, ``annotated`` are in the annotation file. ``detections``: of boxes, all images together.
    """

    ap: Mapping[str, Mapping[str, float | None]]
    images: int
    annotated: int
    detections: int

    def main(self, metric: str) -> float | None:
        return self.ap[metric]["AP"]


def measure(
    annotations: Path, detections: Path, metrics: Sequence[str], images: int, categories: Sequence[int]
) -> Measured:
    """AP of ``DETECTIONS.bbox.json`` and ``DETECTIONS.segm.json`` on a COCO annotation file.

    Args:
        annotations: instances in COCO's format.
        detections: the path without its two suffixes.
        metrics: of 'box' and 'mask'.
        images: how many were evaluated. All of the file count: one that was not evaluated counts as missed.
        categories: ids of the categories that count.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycocotools.coco import COCO

        truth = COCO(str(annotations))
        found: dict[str, Mapping[str, float | None]] = {}
        boxes = 0
        for metric in metrics:
            listed = json.loads(detections.with_name(f"{detections.name}.{_KINDS[metric]}.json").read_text())
            boxes = len(listed) if metric == "box" else boxes
            found[metric] = _stats(truth, listed, metric, categories)
        return Measured(found, images, len(truth.getImgIds()), boxes)


def _stats(truth: Any, listed: list[Any], metric: str, categories: Sequence[int]) -> Mapping[str, float | None]:
    from pycocotools.cocoeval import COCOeval

    if not listed:
        return {name: 0.0 if name in NAMES[:3] else None for name in NAMES}
    if metric == "mask":
        listed = [{k: v for k, v in d.items() if k != "bbox"} for d in listed]  # or sizes are those of the boxes
    judge = COCOeval(truth, truth.loadRes(listed), _KINDS[metric])
    judge.params.catIds, judge.params.maxDets = list(categories), _MOST
    judge.evaluate()
    judge.accumulate()
    return {name: _precision(judge, name) for name in NAMES}


def _precision(judge: Any, name: str) -> float | None:
    """The mean of precision [thresholds, recalls, categories, areas, detections] that ``COCOeval.summarize`` prints."""
    area = ("all", "small", "medium", "large").index({"s": "small", "m": "medium", "l": "large"}.get(name[2:], "all"))
    precision = judge.eval["precision"][..., area, -1]
    if name[2:] in ("50", "75"):
        precision = precision[[{"50": 0, "75": 5}[name[2:]]]]
    counted = precision[precision > -1]
    return float(100 * counted.mean()) if counted.size else None
