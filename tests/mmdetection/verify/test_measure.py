"""AP, as pycocotools' own summary and MMDetection's CocoMetric give it for the same detections."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ckptconv.mmdetection.verify.data import synthetic
from ckptconv.mmdetection.verify.measure import NAMES, measure

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

KINDS = {"box": "bbox", "mask": "segm"}
CATEGORIES = [1, 2, 3]
BOTH = ("box", "mask")


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> COCO:
    return made(tmp_path_factory.mktemp("small"), side=128)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> COCO:
    return made(tmp_path_factory.mktemp("large"), side=256)


def made(folder: Path, side: int) -> COCO:
    synthetic.make(folder, train=1, val=40, side=side, seed=1)
    return read(folder / "annotations" / "instances_val2017.json")


def read(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    coco.path = path
    return coco


def encoded(mask: Any) -> dict[str, Any]:
    found = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def perfect(truth: COCO) -> list[dict[str, Any]]:
    """Every object that is no crowd, as it is."""
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [float(v) for v in a["bbox"]],
            "score": 0.9,
            "segmentation": encoded(truth.annToMask(a)),
        }
        for a in truth.anns.values()
        if not a["iscrowd"]
    ]


def jittered(truth: COCO, seed: int) -> list[dict[str, Any]]:
    """Moved a little, some of another class, some missed, some where nothing is, some twice."""
    rng = np.random.default_rng(seed)
    found = []
    for detection in perfect(truth):
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            dx, dy = (int(v) for v in rng.integers(-4, 5, 2))
            x, y, w, h = detection["bbox"]
            mask = np.roll(run_lengths.decode(detection["segmentation"]), (dy, dx), (0, 1))
            other = {"category_id": int(rng.integers(1, 4))} if rng.random() < 0.15 else {}
            if rng.random() < 0.1:
                other["image_id"] = int(rng.integers(len(truth.imgs)))
            box = [x + dx, y + dy, w * rng.uniform(0.8, 1.2), h * rng.uniform(0.8, 1.2)]
            found.append(
                {**detection, "bbox": box, "segmentation": encoded(mask), "score": float(rng.random()), **other}
            )
    return found


def write(folder: Path, listed: list[dict[str, Any]]) -> Path:
    """Both files, as CocoMetric leaves them: masks have the boxes with them."""
    boxes = [{k: v for k, v in d.items() if k != "segmentation"} for d in listed]
    (folder / "found.bbox.json").write_text(json.dumps(boxes))
    (folder / "found.segm.json").write_text(json.dumps(listed))
    return folder / "found"


def oracle(
    truth: COCO,
    listed: list[dict[str, Any]],
    metric: str,
    categories: list[int] | None = None,
    with_boxes: bool = False,
) -> dict[str, float | None]:
    """What COCOeval prints, in percent; -1 is None. No more than 100 detections an image and class are given to it."""
    without = {"box": "segmentation", "mask": "bbox"}[metric]
    listed = [{k: v for k, v in d.items() if k != without or with_boxes} for d in listed]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(listed), KINDS[metric])
        if categories is not None:
            judge.params.catIds = categories
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: None if v == -1 else 100 * v for name, v in zip(NAMES, judge.stats[:6], strict=True)}


def as_oracle(found: Any, expected: dict[str, float | None]) -> None:
    assert {n: v is None for n, v in found.items()} == {n: v is None for n, v in expected.items()}
    assert {n: v for n, v in found.items() if v is not None} == pytest.approx(
        {n: v for n, v in expected.items() if v is not None}, abs=1e-9
    )


@pytest.mark.parametrize("metric", BOTH)
def test_perfect_detections_have_an_ap_of_100(truth, tmp_path, metric):
    found = measure(truth.path, write(tmp_path, perfect(truth)), [metric], 40, CATEGORIES)
    assert {name: found.ap[metric][name] for name in ("AP", "AP50", "AP75", "APs", "APm")} == pytest.approx(
        dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm"), 100.0)
    )
    assert found.main(metric) == found.ap[metric]["AP"]


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize("seed", range(4))
def test_any_detections_have_the_ap_of_cocoevals_summary(truth, tmp_path, metric, seed):
    listed = jittered(truth, seed)
    found = measure(truth.path, write(tmp_path, listed), BOTH, 40, CATEGORIES).ap[metric]
    expected = oracle(truth, listed, metric)
    assert 5 < expected["AP"] < 95
    as_oracle(found, expected)


@pytest.mark.parametrize("metric", BOTH)
def test_large_objects_have_an_ap_of_their_own(large, tmp_path, metric):
    listed = jittered(large, 0)
    found = measure(large.path, write(tmp_path, listed), BOTH, 40, CATEGORIES).ap[metric]
    assert found["APl"] is not None
    as_oracle(found, oracle(large, listed, metric))


@pytest.mark.parametrize("metric", BOTH)
def test_where_no_object_is_large_their_ap_is_not_0_but_none(truth, tmp_path, metric):
    assert max(a["area"] for a in truth.anns.values()) < 96**2
    found = measure(truth.path, write(tmp_path, perfect(truth)), BOTH, 40, CATEGORIES)
    assert found.ap[metric]["APl"] is None


@pytest.fixture(scope="module")
def of_mmdet(truth, tmp_path_factory) -> Callable[[int], tuple[Path, dict[str, float]]]:
    """Jittered detections as a detector would give them to CocoMetric: the files it leaves, and its AP."""

    def evaluated(seed: int) -> tuple[Path, dict[str, float]]:
        prefix = tmp_path_factory.mktemp("mmdet") / "found"
        metric = CocoMetric(str(truth.path), metric=["bbox", "segm"], outfile_prefix=str(prefix))
        metric.dataset_meta = {"classes": synthetic.CLASSES}
        metric.process({}, list(samples(truth, jittered(truth, seed))))
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return prefix, metric.evaluate(len(truth.imgs))

    return evaluated


def samples(truth: COCO, listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for image in truth.imgs.values():
        mine = [d for d in listed if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in mine], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        yield {
            "img_id": image["id"],
            "ori_shape": (image["height"], image["width"]),
            "pred_instances": {
                "bboxes": boxes,
                "scores": torch.tensor([d["score"] for d in mine], dtype=torch.float64),
                "labels": torch.tensor([d["category_id"] - 1 for d in mine], dtype=torch.long),
                "masks": [
                    {"size": d["segmentation"]["size"], "counts": d["segmentation"]["counts"].encode()} for d in mine
                ],
            },
        }


@pytest.mark.parametrize("seed", range(2))
def test_the_files_of_mmdetections_metric_have_its_ap(truth, of_mmdet, seed):
    prefix, metrics = of_mmdet(seed)
    found = measure(truth.path, prefix, BOTH, len(truth.imgs), CATEGORIES)
    for metric, kind in KINDS.items():
        for name, theirs in zip(NAMES, ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"), strict=True):
            value, said = found.ap[metric][name], metrics[f"coco/{kind}_{theirs}"]
            assert said == (-1 if value is None else pytest.approx(value / 100, abs=0.00051))  # it rounds


@pytest.mark.parametrize("metric", BOTH)
def test_no_detection_at_all_is_an_ap_of_0(truth, tmp_path, metric):
    found = measure(truth.path, write(tmp_path, []), BOTH, 40, CATEGORIES)
    assert {name: found.ap[metric][name] for name in ("AP", "AP50", "AP75")} == {"AP": 0, "AP50": 0, "AP75": 0}
    assert found.ap[metric]["APl"] is None
    assert found.detections == 0


@pytest.mark.parametrize("metric", BOTH)
def test_detections_where_nothing_is_are_an_ap_of_0(truth, tmp_path, metric):
    corner = np.zeros((128, 128), bool)
    corner[:2, :2] = True
    wrong = [{**d, "bbox": [0.0, 0.0, 2.0, 2.0], "segmentation": encoded(corner)} for d in perfect(truth)]
    found = measure(truth.path, write(tmp_path, wrong), BOTH, 40, CATEGORIES).ap[metric]
    assert found == {"AP": 0, "AP50": 0, "AP75": 0, "APs": 0, "APm": 0, "APl": None}


def test_the_size_of_a_mask_is_that_of_the_mask(tmp_path):
    """A wrong detection with a small mask in a box of middle size: it spoils the AP of small masks and middle boxes."""
    side = 128
    small, middle = np.zeros((side, side), bool), np.zeros((side, side), bool)
    small[2:20, 2:20] = True  # 324 pixels
    middle[60:120, 60:120] = True  # 3600
    diagonal = np.eye(side, dtype=bool)
    diagonal[40:] = False  # 40 pixels in a box of 1600
    said = {
        "images": [{"id": 0, "file_name": "0.png", "width": side, "height": side}],
        "categories": [{"id": 1, "name": "circle"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 2, 18, 18], "area": 324, "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 1, "bbox": [60, 60, 60, 60], "area": 3600, "iscrowd": 0},
        ],
    }
    for annotation, mask in zip(said["annotations"], (small, middle), strict=True):
        annotation["segmentation"] = encoded(mask)
    (tmp_path / "truth.json").write_text(json.dumps(said))
    coco = read(tmp_path / "truth.json")
    wrong = {
        "image_id": 0,
        "category_id": 1,
        "bbox": [0.0, 0.0, 40.0, 40.0],
        "score": 0.99,
        "segmentation": encoded(diagonal),
    }
    listed = [*perfect(coco), wrong]
    found = measure(coco.path, write(tmp_path, listed), BOTH, 1, [1]).ap
    assert found["box"]["APs"] == pytest.approx(100)
    assert found["box"]["APm"] < 60
    assert found["mask"]["APs"] < 60
    assert found["mask"]["APm"] == pytest.approx(100)
    for metric in BOTH:
        as_oracle(found[metric], oracle(coco, listed, metric))
    assert oracle(coco, listed, "mask", with_boxes=True)["APs"] == pytest.approx(100)  # what is avoided


def test_only_the_categories_that_count_are_counted(truth, tmp_path):
    listed = [d for d in perfect(truth) if d["category_id"] != 3]
    prefix = write(tmp_path, listed)
    assert measure(truth.path, prefix, ["box"], 40, CATEGORIES).main("box") == pytest.approx(200 / 3)
    assert measure(truth.path, prefix, ["box"], 40, [1, 2]).main("box") == pytest.approx(100)
    found = measure(truth.path, write(tmp_path, jittered(truth, 0)), ["box"], 40, [2]).ap["box"]
    as_oracle(found, oracle(truth, jittered(truth, 0), "box", [2]))


def test_an_image_that_was_not_evaluated_counts_as_missed(truth, tmp_path):
    listed = [d for d in perfect(truth) if d["image_id"] < 20]
    found = measure(truth.path, write(tmp_path, listed), ["box"], 20, CATEGORIES)
    assert (found.images, found.annotated) == (20, 40)
    assert found.main("box") < 75
    as_oracle(found.ap["box"], oracle(truth, listed, "box"))


def test_a_detection_of_a_crowd_is_neither_right_nor_wrong(truth, tmp_path):
    crowds = [a for a in truth.anns.values() if a["iscrowd"]]
    assert crowds
    more = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [float(v) for v in a["bbox"]],
            "score": 0.99,
            "segmentation": a["segmentation"],
        }
        for a in crowds
    ]
    found = measure(truth.path, write(tmp_path, [*more, *perfect(truth)]), BOTH, 40, CATEGORIES)
    assert found.main("box") == pytest.approx(100)
    assert found.main("mask") == pytest.approx(100)


def test_of_a_class_in_an_image_the_best_100_count_however_they_are_listed(truth, tmp_path):
    """100 that are wrong and sure, then the right ones: within 100 of each class and image nothing is cut off."""
    rng = np.random.default_rng(0)
    first = perfect(truth)[0]
    wrong = [{**first, "bbox": [float(v) for v in rng.uniform(0, 20, 4)], "score": 0.1} for _ in range(99)]
    listed = [*wrong, first]
    found = measure(truth.path, write(tmp_path, listed), ["box"], 40, CATEGORIES).ap["box"]
    as_oracle(found, oracle(truth, listed, "box"))
    assert found["AP"] > 0


def test_what_is_counted_is_told(truth, tmp_path):
    listed = jittered(truth, 0)
    prefix = write(tmp_path, listed)
    found = measure(truth.path, prefix, BOTH, 39, CATEGORIES)
    assert (found.images, found.annotated, found.detections) == (39, 40, len(listed))
    assert list(found.ap) == ["box", "mask"]
    assert tuple(found.ap["box"]) == NAMES
    (tmp_path / "found.segm.json").unlink()
    assert list(measure(truth.path, prefix, ["box"], 39, CATEGORIES).ap) == ["box"]


def test_it_prints_nothing(truth, tmp_path, capsys):
    measure(truth.path, write(tmp_path, perfect(truth)), BOTH, 40, CATEGORIES)
    assert capsys.readouterr() == ("", "")
