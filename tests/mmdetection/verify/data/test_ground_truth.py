"""Whether there is an AP to measure. The oracle: MMDetection's own `CocoMetric`, on random files and detections."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmdet")

import torch
from mmdet.evaluation import CocoMetric

from ckptconv.mmdetection.coco_file import read
from ckptconv.mmdetection.verify.data import coco_dataset, ground_truth

SIDE = 64
SQUARE = [[4, 4, 24, 4, 24, 24, 4, 24]]
IDS = st.one_of(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["a", "b", 1.5, "7"]))
CATEGORIES = st.sampled_from(
    [
        [{"id": 1, "name": "disc"}, {"id": 2, "name": "box"}],
        [{"id": 2, "name": "disc"}, {"id": 1, "name": "box"}, {"id": 3, "name": "tri"}],
        [{"id": "a", "name": "disc"}, {"id": "b", "name": "box"}],
        [{"id": 1, "name": "disc"}, {"id": "b", "name": "box"}],
    ]
)
ANNOTATIONS = st.fixed_dictionaries(
    {
        "image_id": IDS,
        "category_id": st.sampled_from([1, 1, 2, 2, 3, 9, "a"]),
        "bbox": st.sampled_from(
            [[4, 4, 20, 20]] * 6 + [[4, 4, "20", 20], [4, 4, 20], None, [4, 4, None, 20], [], [0, 0, -1, 0]]
        ),
        "area": st.sampled_from([400, 400, 400, 400, 0, -1, float("nan"), None, "400"]),
        "iscrowd": st.sampled_from([0, 0, 0, 0, 1, False, "0", None, "no", 0.5]),
    },
    optional={
        "ignore": st.sampled_from([0, 1]),
        "segmentation": st.sampled_from(
            [SQUARE, SQUARE, SQUARE, None, [], SQUARE[0], "a.png", {"counts": [4096], "size": [64, 64]}, {}, [[1, 2]]]
        ),
    },
)


@st.composite
def files(draw):
    annotations = draw(st.lists(ANNOTATIONS, max_size=5))
    numbers = draw(st.sampled_from([[1, 2, 3, 4, 5], [0, 1, 2, 3, 4], ["1", "2", "3", "4", "5"], [1, 2, 3, 4, "e"]]))
    dropped = draw(st.sampled_from([None] * 5 + ["area", "iscrowd", "bbox"]))
    annotations = [{"id": n, **a} for n, a in zip(numbers, annotations, strict=False)]
    for annotation in annotations:
        annotation.pop(dropped, None)
    images = draw(st.lists(IDS, min_size=1, max_size=4))
    return {
        "images": [{"id": number, "file_name": "a.jpg", "width": SIDE, "height": SIDE} for number in images],
        "annotations": annotations,
        "categories": draw(CATEGORIES),
    }


def measured(path, content, classes, labels, masks):
    """The AP of boxes when one square of each class is found in each image."""
    metric = CocoMetric(
        ann_file=str(path), metric=["bbox", "segm"] if masks else "bbox", outfile_prefix=str(path.parent / "out")
    )
    metric.dataset_meta = {"classes": classes}
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, 4:24, 4:24] = True
    numbers = list({image["id"]: None for image in content["images"]})
    for number in numbers:
        found = {
            "bboxes": torch.tensor([[4.0, 4, 24, 24]] * labels),
            "scores": torch.full((labels,), 0.9),
            "labels": torch.arange(labels),
            **({"masks": mask.repeat(labels, 1, 1)} if masks else {}),
        }
        metric.process({}, [{"img_id": number, "ori_shape": (SIDE, SIDE), "pred_instances": found}])
    return metric.evaluate(size=len(numbers))["coco/bbox_mAP"]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
@settings(max_examples=150, deadline=None)
@given(files(), st.sampled_from([("disc", "box"), ("box",), ()]), st.booleans())
def test_it_is_measured_where_nothing_is_wrong(tmp_path_factory, content, classes, masks):
    path = tmp_path_factory.mktemp("data") / "a.json"
    path.write_text(json.dumps(content))
    coco = read(path)
    assert not coco_dataset.identified(coco)
    truth = ground_truth.ground_truth(coco, classes, masks)
    try:
        ap = measured(path, content, classes, len(truth.labels), masks)
    except Exception:  # of whatever type
        assert truth.faults
        return
    assert not truth.faults
    assert (ap == -1) == (truth.objects == 0)


def test_an_annotation_with_the_id_0_is_never_found(tmp_path):
    path = tmp_path / "a.json"
    annotation = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    images = [{"id": 1, "file_name": "a.jpg", "width": SIDE, "height": SIDE}]
    for number, ap in ((1, 1.0), (0, 0.0)):
        content = {
            "images": images,
            "annotations": [{"id": number, **annotation}],
            "categories": [{"id": 1, "name": "disc"}],
        }
        path.write_text(json.dumps(content))
        assert ground_truth.ground_truth(read(path), ("disc",), masks=False).zero == (number == 0)
        assert measured(path, content, ("disc",), 1, masks=False) == ap
