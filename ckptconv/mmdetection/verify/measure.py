"""Detections and annotations -> AP as MMDetection's CocoMetric counts it, unrounded and in percent. Imports no torch.

The precision is pycocotools' own. Which of its entries CocoMetric reports as AP depends on the settings of the config:
`mmdet/evaluation/metrics/coco_metric.py` and `mmdet/datasets/api_wrappers/cocoeval_mp.py`, 3.3.0.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_KINDS = {"box": "bbox", "mask": "segm"}
_ITEMS = dict(zip(NAMES, ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"), strict=True))  # CocoMetric's names
_AREAS = {"APs": 1, "APm": 2, "APl": 3}  # of pycocotools' areaRngLbl; 0 is all
_AT = {"AP50": 0.5, "AP75": 0.75}
DEFAULT_LIMIT = 100
"""Detections per image and class for which pycocotools' summary takes the first AP, with any limits."""
_ROUNDED = 0.0005 + 1e-9  # CocoMetric rounds to three digits


@dataclass(frozen=True)
class CocoMetricSettings:
    """CocoMetric's settings on which its AP depends, by its own names.

    ``proposal_nums``: limits of detections per image and class. pycocotools' summary takes AP at 100 of them and all
    others at the third smallest limit; CocoMetric's evaluation by several processes (``use_mp_eval``) takes all of them
    at the largest.
    """

    proposal_nums: tuple[int, ...] = (DEFAULT_LIMIT, 300, 1000)
    use_mp_eval: bool = False

    @classmethod
    def from_config(cls, evaluator: Mapping[str, Any]) -> CocoMetricSettings:
        """The settings in a CocoMetric's config, with CocoMetric's defaults."""
        limits = evaluator.get("proposal_nums", cls.proposal_nums)
        return cls(tuple(limits), bool(evaluator.get("use_mp_eval")))

    def limit(self, name: str) -> int:
        """For how many detections per image and class the AP of this name is taken."""
        if self.use_mp_eval:
            return max(self.proposal_nums)
        return DEFAULT_LIMIT if name == "AP" else sorted(self.proposal_nums)[2]


@dataclass(frozen=True)
class Measured:
    """AP in percent by 'box' and 'mask' and by the names of `NAMES`; None where the data set has no such object.

    ``images`` were evaluated, ``annotated`` are in the annotation file. ``detections``: of boxes, all images together.
    ``raw``: AP of the weights as they were trained, where ``ap`` is of their average. ``unconfirmed``: where CocoMetric
    itself reported something else, in words; '' if nowhere. ``classes``: AP by 'box' and 'mask', and by class.
    """

    ap: Mapping[str, Mapping[str, float | None]]
    images: int
    annotated: int
    detections: int
    raw: Mapping[str, Mapping[str, float | None]] | None = None
    unconfirmed: str = ""
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def main(self, metric: str) -> float | None:
        return self.ap[metric]["AP"]


def measure(
    annotations: Path,
    detections: Path,
    metrics: Sequence[str],
    images: int,
    categories: Sequence[int],
    counting: CocoMetricSettings | None = None,
) -> Measured:
    """AP of ``DETECTIONS.bbox.json`` and ``DETECTIONS.segm.json`` on a COCO annotation file.

    Args:
        annotations: instances in COCO's format.
        detections: the path without its two suffixes.
        metrics: of 'box' and 'mask'.
        images: how many were evaluated. All of the file count: one that was not evaluated counts as missed.
        categories: ids of the categories that count.
        counting: CocoMetric's settings; None is its defaults.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycocotools.coco import COCO

        truth = COCO(str(annotations))
        aps: dict[str, Mapping[str, float | None]] = {}
        classes: dict[str, Mapping[str, float | None]] = {}
        boxes = 0
        for metric in metrics:
            listed = json.loads(detections.with_name(f"{detections.name}.{_KINDS[metric]}.json").read_text())
            boxes = len(listed) if metric == "box" else boxes
            aps[metric], classes[metric] = _stats(truth, listed, metric, categories, counting or CocoMetricSettings())
        return Measured(aps, images, len(truth.getImgIds()), boxes, classes=classes)


def differences(measured: Measured, reported: Mapping[str, float]) -> Iterator[str]:
    """Where the measured AP is not the one that CocoMetric ``reported`` for the same detections, at its rounding."""
    for metric, values in measured.ap.items():
        for name, value in values.items():
            theirs = reported.get(f"{_KINDS[metric]}_{_ITEMS[name]}")
            if theirs is not None and abs(theirs - (-1 if value is None else value / 100)) > _ROUNDED:
                ours = "missing" if value is None else f"{value:.2f}"
                yield f"{metric} {name} is {ours}, CocoMetric reports {theirs:g}"


def _stats(
    truth: Any, listed: list[Any], metric: str, categories: Sequence[int], counting: CocoMetricSettings
) -> tuple[Mapping[str, float | None], Mapping[str, float | None]]:
    """AP by the names of `NAMES`, and by class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if metric == "mask":
        listed = [{k: v for k, v in d.items() if k != "bbox"} for d in listed]  # or sizes are those of the boxes
    if listed:
        results = truth.loadRes(listed)
    else:  # which loadRes does not take
        results = COCO()
        results.dataset = {"images": truth.dataset["images"], "annotations": []}
        results.createIndex()
    judge = COCOeval(truth, results, _KINDS[metric])
    judge.params.catIds, judge.params.maxDets = list(categories), list(counting.proposal_nums)
    judge.evaluate()
    judge.accumulate()
    known = [(str(truth.cats[number]["name"]), i) for i, number in enumerate(judge.params.catIds)]
    classes = {name: _precision(judge, "AP", counting, [i]) for name, i in known}
    return {name: _precision(judge, name, counting) for name in NAMES}, classes


def _precision(
    judge: Any, name: str, counting: CocoMetricSettings, classes: Sequence[int] | None = None
) -> float | None:
    """The mean of precision [thresholds, recalls, categories, areas, limits] that ``COCOeval.summarize`` prints."""
    precision = judge.eval["precision"][..., _AREAS.get(name, 0), judge.params.maxDets.index(counting.limit(name))]
    if classes is not None:
        precision = precision[:, :, classes]
    if name in _AT:
        precision = precision[judge.params.iouThrs == _AT[name]]
    counted = precision[precision > -1]
    return float(100 * counted.mean()) if counted.size else None
