"""The part of a data set that `--images` asks for: which images, and what stays of the rest of the file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ckptconv.mmdetection.verify.config_edits import annotation_files
from ckptconv.mmdetection.verify.data import subset

pytestmark = pytest.mark.mmdet

IDS = [7, 2, 40, 11, 3]


def coco(ids: list[int], each: int = 2) -> dict[str, Any]:
    """Instances in COCO's format: so many annotations an image, of which the id says whose they are."""
    return {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids],
        "categories": [{"id": 1, "name": "box"}, {"id": 9, "name": "a 'ball'"}],
        "annotations": [{"id": 10 * i + n, "image_id": i, "category_id": 9} for n in range(each) for i in ids],
    }


def config(root: Path, train: dict[str, Any], val: dict[str, Any]) -> dict[str, Any]:
    """A config of two data sets, whose files are written below the root."""
    (root / "annotations").mkdir(parents=True)
    for part, said in (("train", train), ("val", val)):
        (root / "annotations" / f"{part}.json").write_text(json.dumps(said))
    return {
        f"{part}_dataloader": {
            "dataset": {"type": "CocoDataset", "data_root": str(root), "ann_file": f"annotations/{part}.json"}
        }
        for part in ("train", "val")
    }


def chosen(config: dict[str, Any], images: int, folder: Path) -> dict[str, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for part, path in annotation_files(config).items():
        subset.write(path, images, folder / f"{part}.json")
    return {part: json.loads((folder / f"{part}.json").read_text()) for part in ("train", "val")}


def ids(said: dict[str, Any]) -> list[int]:
    return [image["id"] for image in said["images"]]


def test_the_first_images_by_id_are_kept_with_their_annotations_and_no_others(tmp_path):
    found = chosen(config(tmp_path / "coco", coco(IDS), coco([5, 4])), 3, tmp_path / "data")["train"]
    assert ids(found) == [2, 3, 7]
    assert sorted(a["id"] for a in found["annotations"]) == [20, 21, 30, 31, 70, 71]
    assert all(a["id"] // 10 == a["image_id"] for a in found["annotations"])


def test_each_part_is_taken_from_its_own_file(tmp_path):
    found = chosen(config(tmp_path / "coco", coco([1, 2]), coco([4, 3])), 1, tmp_path / "data")
    assert (ids(found["train"]), ids(found["val"])) == ([1], [3])


def test_what_is_said_of_the_whole_data_set_stays(tmp_path):
    whole = coco(IDS)
    found = chosen(config(tmp_path / "coco", whole, whole), 1, tmp_path / "data")["val"]
    assert found["categories"] == whole["categories"]  # those without an object, too: the detector has them all
    assert found["info"] == whole["info"]


@pytest.mark.parametrize("images", [5, 6, 1000])
def test_more_than_there_are_is_all_of_them(tmp_path, images):
    found = chosen(config(tmp_path / "coco", coco(IDS), coco(IDS)), images, tmp_path / "data")["train"]
    assert ids(found) == sorted(IDS)
    assert len(found["annotations"]) == 2 * len(IDS)


def test_an_image_without_an_object_counts_as_one(tmp_path):
    said = coco(IDS)
    said["annotations"] = [a for a in said["annotations"] if a["image_id"] != 2]
    found = chosen(config(tmp_path / "coco", said, coco(IDS)), 2, tmp_path / "data")["train"]
    assert ids(found) == [2, 3]
    assert {a["image_id"] for a in found["annotations"]} == {3}


def test_the_order_of_the_file_does_not_matter(tmp_path):
    shuffled = coco(IDS)
    for name in ("images", "annotations"):
        random.Random(0).shuffle(shuffled[name])
    found = [
        chosen(config(tmp_path / f"coco{i}", said, said), 3, tmp_path / f"data{i}")["train"]
        for i, said in enumerate((coco(IDS), shuffled))
    ]
    assert found[0]["images"] == found[1]["images"]
    one, other = (sorted(said["annotations"], key=lambda a: a["id"]) for said in found)
    assert one == other


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda dataset: {"type": "RepeatDataset", "times": 3, "dataset": dataset},
        lambda dataset: {"type": "MultiImageMixDataset", "dataset": {"type": "RepeatDataset", "dataset": dataset}},
        lambda dataset: {"type": "ConcatDataset", "datasets": [dataset]},
    ],
    ids=["repeated", "twice", "listed"],
)
def test_a_data_set_is_found_whatever_wraps_it(tmp_path, wrapped):
    plain = config(tmp_path / "coco", coco(IDS), coco([4]))
    plain["train_dataloader"]["dataset"] = wrapped(plain["train_dataloader"]["dataset"])
    assert ids(chosen(plain, 2, tmp_path / "data")["train"]) == [2, 3]


@pytest.mark.parametrize("root", [None, "", "/nowhere"])
def test_a_file_that_is_given_whole_needs_no_root(tmp_path, root):
    plain = config(tmp_path / "coco", coco(IDS), coco([4]))
    dataset = plain["train_dataloader"]["dataset"]
    dataset.update(data_root=root, ann_file=str(tmp_path / "coco" / "annotations" / "train.json"))
    assert ids(chosen(plain, 1, tmp_path / "data")["train"]) == [2]


def test_chosen_again_with_another_number_it_is_that_number(tmp_path):
    plain = config(tmp_path / "coco", coco(IDS), coco(IDS))
    chosen(plain, 4, tmp_path / "data")
    assert ids(chosen(plain, 1, tmp_path / "data")["val"]) == [2]


def test_the_files_themselves_are_left_as_they_are(tmp_path):
    plain = config(tmp_path / "coco", coco(IDS), coco(IDS))
    before = {path: path.read_bytes() for path in (tmp_path / "coco").rglob("*.json")}
    chosen(plain, 2, tmp_path / "data")
    assert {path: path.read_bytes() for path in (tmp_path / "coco").rglob("*.json")} == before
