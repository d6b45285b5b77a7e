"""The generated data set, as pycocotools and MMDetection read it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ckptconv.mmdetection.verify.data import synthetic

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PARTS = ("train2017", "val2017")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("shapes"), train=120, val=40, seed=3)


@pytest.fixture(scope="module", params=PARTS)
def coco(request, folder) -> COCO:
    return COCO(folder / "annotations" / f"instances_{request.param}.json")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    one, two, other = (
        digests(synthetic.make(tmp_path / name, 5, 3, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == two
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())
    assert len([name for name in one if name.endswith(".png")]) == 8


def test_train_and_val_share_no_image(folder):
    train, val = ({v for k, v in digests(folder / part).items()} for part in PARTS)
    assert len(train) == 120
    assert not train & val


def test_masks_boxes_and_areas_agree(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation["bbox"]
        assert annotation["area"] > 0
        # pycocotools fills a polygon by a rule of its own: up to a pixel less than cv2 on each side
        slack = 2 if isinstance(annotation["segmentation"], list) else 0
        assert abs(columns.min() - x) <= slack
        assert abs(rows.min() - y) <= slack
        assert abs(columns.max() + 1 - x - w) <= slack
        assert abs(rows.max() + 1 - y - h) <= slack
        if slack == 0:
            assert mask.sum() == annotation["area"]


def test_an_annotation_is_what_is_seen_of_its_shape(coco):
    for image in coco.imgs:
        seen = [coco.annToMask(a) for a in coco.imgToAnns[image] if not isinstance(a["segmentation"], list)]
        assert not seen or np.sum(seen, axis=0).max() == 1  # what stands behind ends where the front begins


def test_it_has_what_coco_has(folder):
    described = json.loads((folder / "annotations" / "instances_train2017.json").read_text())
    annotations = described["annotations"]
    assert {a["category_id"] for a in annotations} == {1, 2, 3}
    assert [c["name"] for c in described["categories"]] == list(synthetic.CLASSES)
    assert {type(a["segmentation"]) for a in annotations} == {list, dict}
    assert {a["iscrowd"] for a in annotations} == {0, 1}
    assert {i["id"] for i in described["images"]} - {a["image_id"] for a in annotations}  # empty images
    areas = [a["area"] for a in annotations]
    assert min(areas) < 200 < 1500 < max(areas)
    assert len({a["id"] for a in annotations}) == len(annotations)
    assert min(a["id"] for a in annotations) == 1


def test_the_images_show_the_shapes(folder):
    coco = COCO(folder / "annotations" / "instances_val2017.json")
    brighter = []
    for annotation in coco.anns.values():
        name = coco.imgs[annotation["image_id"]]["file_name"]
        image = cv2.imread(str(folder / "val2017" / name)).astype(float).mean(2)
        mask = coco.annToMask(annotation).astype(bool)
        brighter.append(image[mask].mean() > image[~mask].mean())
    assert np.mean(brighter) > 0.9


def test_mmdetection_reads_it(folder):
    from mmdet.datasets import CocoDataset

    data = CocoDataset(
        ann_file="annotations/instances_train2017.json",
        data_root=str(folder),
        data_prefix={"img": "train2017/"},
        metainfo={"classes": synthetic.CLASSES},
        pipeline=[],
    )
    assert len(data) == 120
    assert sum(len(data.get_data_info(i)["instances"]) for i in range(len(data))) > 200
