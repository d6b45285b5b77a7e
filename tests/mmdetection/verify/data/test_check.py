"""Data that do not go with their config. The oracle: an ideal detector, MMDetection's own data sets and CocoMetric.

It numbers the classes as the training's data set does, and finds every object of the images that are evaluated. Its AP
is 1 where nothing is wrong; where something is, MMDetection stops, or the AP is another one.
"""

from __future__ import annotations

import copy
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

import cv2
import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection.verify.data.check import check_data
from ckptconv.mmdetection.verify.data.findings import DataFindings

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
CATEGORIES = [{"id": 90, "name": "disc"}, {"id": 3, "name": "box"}, {"id": 17, "name": "tri"}]
CLASSES = ("disc", "box", "tri")
SIDE = 64


def content(first: int, images: int = 4) -> dict:
    """A file of images with one object of each class, the last image with none, and a crowd."""
    described = [
        {"id": first + i, "file_name": f"{first + i}.png", "width": SIDE, "height": SIDE} for i in range(images)
    ]
    annotations = [
        {
            "id": 1 + 3 * i + j,
            "image_id": first + i,
            "category_id": category["id"],
            "bbox": [2 + 20 * j, 4, 18, 30 + i],
            "area": 18 * (30 + i),
            "iscrowd": int(i == j == 0),
            "segmentation": [[2 + 20 * j, 4, 20 + 20 * j, 4, 20 + 20 * j, 34 + i, 2 + 20 * j, 34 + i]],
        }
        for i in range(images - 1)
        for j, category in enumerate(CATEGORIES)
    ]
    return {"images": described, "annotations": annotations, "categories": copy.deepcopy(CATEGORIES)}


class World:
    """A folder with data and the config for them, which a test changes before `write`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train, self.val = content(1), content(101)
        load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]

        def dataset(part: str) -> dict:
            return {
                "type": "CocoDataset",
                "data_root": f"{root}/",
                "ann_file": f"{part}.json",
                "data_prefix": {"img": f"{part}/"},
                "metainfo": {"classes": CLASSES},
                "pipeline": copy.deepcopy(load),
            }

        self.config = {
            "model": {"type": "FasterRCNN", "roi_head": {"bbox_head": {"type": "Shared2FCBBoxHead", "num_classes": 3}}},
            "train_dataloader": {
                "dataset": {**dataset("train"), "filter_cfg": {"filter_empty_gt": True, "min_size": 32}}
            },
            "val_dataloader": {"dataset": {**dataset("val"), "test_mode": True}},
            "val_evaluator": {"type": "CocoMetric", "ann_file": f"{root}/val.json", "metric": "bbox"},
        }

    def of(self, part: str) -> dict:
        return self.config[f"{part}_dataloader"]["dataset"]

    def write(self) -> World:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for part, said in (("train", self.train), ("val", self.val)):
            (self.root / part).mkdir(exist_ok=True)
            for entry in said["images"]:
                cv2.imwrite(str(self.root / part / Path(entry.get("file_name", "a.png")).name), image)
            (self.root / f"{part}.json").write_text(json.dumps(said))
        return self

    def find(self, *parts: str, **said) -> DataFindings:
        return check_data(self.config, parts or ("train", "val"), **said)

    def ideal(self) -> float:
        """The AP of an ideal detector. Raises what MMDetection raises."""
        init_default_scope("mmdet")
        train, val = (DATASETS.build(copy.deepcopy(self.of(part))) for part in ("train", "val"))
        objects = sum(len(train[i]["gt_bboxes_labels"]) for i in range(len(train)))
        assert objects, "there is nothing to train on"
        names = {c["id"]: c["name"] for c in self.train["categories"]}
        numbers, *others = ({names[n]: i for i, n in enumerate(each.cat_ids)} for each in leaves(train))
        assert all(other == numbers for other in others), "a label means two classes"
        classes = self.config["model"]["roi_head"]["bbox_head"]["num_classes"]
        said = {**self.config["val_evaluator"], "outfile_prefix": str(self.root / "out")}
        metric = CocoMetric(**{key: value for key, value in said.items() if key != "type"})
        metric.dataset_meta = val.metainfo
        here = {c["id"]: c["name"] for c in self.val["categories"]}
        for i in range(len(val)):
            image = val[i]
            found = [
                (a["bbox"], numbers[here[a["category_id"]]], 0.9)
                for a in self.val["annotations"]
                if a["image_id"] == image["img_id"] and numbers.get(here[a["category_id"]], classes) < classes
            ]
            found += [([50, 50, 3, 3], label, 0.1) for label in range(classes)]
            boxes = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _, _ in found], dtype=torch.float)
            pred = {
                "bboxes": boxes,
                "labels": torch.tensor([label for _, label, _ in found]),
                "scores": torch.tensor([score for _, _, score in found]),
            }
            metric.process({}, [{"img_id": image["img_id"], "ori_shape": (SIDE, SIDE), "pred_instances": pred}])
        return metric.evaluate(size=len(val))["coco/bbox_mAP"]


def leaves(data):
    if hasattr(data, "cat_ids"):
        return [data]
    return [leaf for inside in getattr(data, "datasets", None) or [data.dataset] for leaf in leaves(inside)]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(Path())


def no_metainfo(world):
    for part in ("train", "val"):
        world.of(part)["metainfo"] = None


def capitals(world):
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"CLASSES": CLASSES}


def other_case(world):
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": ("Disc", "Box", "Tri")}


def one_class_forgotten_by_val(world):
    world.val["categories"] = [c for c in CATEGORIES if c["name"] != "box"]
    world.val["annotations"] = [a for a in world.val["annotations"] if a["category_id"] != 3]


def other_order(world):
    world.val["categories"].reverse()


def concat(world, **changed):
    one = world.of("train")
    world.config["train_dataloader"]["dataset"] = {
        "type": "RepeatDataset",
        "times": 2,
        "dataset": {"type": "ConcatDataset", "datasets": [one, {**copy.deepcopy(one), **changed}]},
    }


def concat_of_other_order(world):
    concat(world, ann_file="other.json")
    (world.root / "other.json").write_text(json.dumps({**world.train, "categories": CATEGORIES[::-1]}))


def masks(world):
    for part in ("train", "val"):
        world.of(part)["pipeline"][1]["with_mask"] = True


def masks_without(world):
    masks(world)
    world.train["annotations"][4]["segmentation"] = []


def drop(*keys):
    def change(world):
        for part in (world.train, world.val):
            for annotation in part["annotations"]:
                for key in keys:
                    del annotation[key]

    return change


def set_at(what, *path, to):
    def change(world):
        node = getattr(world, what)
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = to

    return change


def config(path, to):
    return set_at("config", *(int(step) if step.isdigit() else step for step in path.split(".")), to=to)


def normalised(world):
    for annotation in world.train["annotations"]:
        annotation["bbox"] = [value / SIDE for value in annotation["bbox"]]


def words(world):
    for part in (world.train, world.val):
        for image in part["images"]:
            image["id"] = f"n{image['id']}"
        for annotation in part["annotations"]:
            annotation["image_id"] = f"n{annotation['image_id']}"


def mixed(world):
    world.val["images"][0]["id"] = "n"
    for annotation in world.val["annotations"][:3]:
        annotation["image_id"] = "n"


def filtered(world):
    world.val["images"][0]["height"] = 16
    world.of("val").update(test_mode=False, filter_cfg={"min_size": 32})


def gone(world):
    for number in (1, 3):
        entry = world.train["images"][number - 1]
        entry["file_name"] = f"gone/{entry['file_name']}"


USES = "val_evaluator uses"
SET = "Set val_evaluator.ann_file = 'val.json'."
NAMED = "Set {}_dataloader.dataset.metainfo = dict(classes=('disc', 'box', 'tri'))."
DEFAULT = (
    "{0}_dataloader.dataset sets no classes, so the 80 of CocoDataset apply (person, bicycle and 78 more), and "
    "none of them is a category of {0}.json (disc, box, tri)"
)
CAPITALS = (
    "{0}_dataloader.dataset.metainfo has CLASSES, but MMDetection 3 reads classes, and none of its defaults is a "
    "category of {0}.json (disc, box, tri)"
)
CASE = (
    "none of the classes of {0}_dataloader.dataset (Disc, Box, Tri) is a category of {0}.json (disc, box, tri); "
    "upper case, lower case and spaces matter"
)
NUMBERED = "because MMDetection numbers the classes in the order of a file's categories"
HEAD = "model.roi_head.bbox_head.num_classes"
FIRST = "CocoMetric fails at the first detection of another class"
MASKLESS = "has no segmentation, which a detector with masks needs"
EXPORT = "Correct or remove them, or export the data set again."

WRONG = {
    "metainfo forgotten": (no_metainfo, [(DEFAULT.format(p), NAMED.format(p)) for p in ("train", "val")]),
    "metainfo of 2.x": (capitals, [(CAPITALS.format(p), NAMED.format(p)) for p in ("train", "val")]),
    "another case": (other_case, [(CASE.format(p), NAMED.format(p)) for p in ("train", "val")]),
    "too many classes": (
        config(HEAD, 80),
        [
            (
                f"{HEAD} is 80, and val.json has 3 of the classes: {FIRST}",
                f"Set {HEAD} = 3, or set metainfo to the classes of the file.",
            )
        ],
    ),
    "too few classes": (
        config(HEAD, 2),
        [(f"{HEAD} is 2, and train.json has 3 of the classes of train_dataloader.dataset", f"Set {HEAD} = 3.")],
    ),
    "a class that val.json forgot": (
        one_class_forgotten_by_val,
        [
            (
                f"class 1 is box in train.json and tri in val.json, {NUMBERED}",
                "Give both files the same categories, in the same order.",
            ),
            (
                f"{HEAD} is 3, and val.json has 2 of the classes: {FIRST}",
                f"Set {HEAD} = 2, or set metainfo to the classes of the file.",
            ),
        ],
    ),
    "another order": (other_order, [(f"class 0 is disc in train.json and tri in val.json, {NUMBERED}", "typed")]),
    "another order in a ConcatDataset": (
        concat_of_other_order,
        [(f"class 0 is disc in train.json and tri in other.json, {NUMBERED}", "typed")],
    ),
    "min_size": (
        config("train_dataloader.dataset.filter_cfg.min_size", 400),
        [
            (
                (
                    "train_dataloader.dataset.filter_cfg.min_size is 400, which removes every image of train.json: "
                    "the shorter side of its largest image is 64; images without an annotation of a class: 1"
                ),
                "Set train_dataloader.dataset.filter_cfg.min_size = 32.",
            )
        ],
    ),
    "only empty images": (
        lambda world: [a.update(image_id=99) for a in world.train["annotations"]],
        [
            (
                (
                    "train_dataloader.dataset.filter_cfg removes images without annotations, and no image of "
                    "train.json has one of a class"
                ),
                "Check that the annotations' image_id and category_id are those of the file's images and categories.",
            )
        ],
    ),
    "no images": (
        set_at("train", "images", to=[]),
        [("train.json has no images", "Give the file of the training images.")],
    ),
    "boxes of 0 to 1": (
        normalised,
        [
            (
                "train.json has no object to train on: 9 annotations are less than a pixel wide or high",
                "A bbox is [x, y, width, height] in pixels, and area is in square pixels.",
            )
        ],
    ),
    "no area": (
        drop("area"),
        [
            (
                f"{p}.json: 9 annotations have no area, which MMDetection reads; the first is annotations[0]",
                "typed",
            )
            for p in ("train", "val")
        ],
    ),
    "no iscrowd": (
        drop("iscrowd"),
        [("val.json: 9 annotations have no iscrowd, which COCOeval reads; the first is annotations[0]", "typed")],
    ),
    "ids that repeat": (
        set_at("train", "annotations", 3, "id", to=1),
        [("train.json: 1 of the annotations has the same id as another annotation: annotations[3]", "typed")],
    ),
    "ids of two types": (
        mixed,
        [
            (
                "val.json: some of its image ids are numbers and some are strings, which COCOeval cannot sort",
                "Use numbers for all of them, or export the data set again.",
            )
        ],
    ),
    "an annotation without bbox": (
        set_at("train", "annotations", 3, "bbox", to=[1, 2, 3]),
        [("train.json: 1 of the annotations has no bbox of four numbers: annotations[3]", EXPORT)],
    ),
    "an image without size": (
        lambda world: world.train["images"][2].pop("width"),
        [("train.json: 1 of the images has no width and height: images[2]", EXPORT)],
    ),
    "an image without name": (
        lambda world: world.val["images"][2].pop("file_name"),
        [("val.json: 1 of the images has no file_name: images[2]", EXPORT)],
    ),
    "an image without id": (
        lambda world: world.train["images"][2].pop("id"),
        [("train.json: 1 of the images has no id: images[2]", EXPORT)],
    ),
    "no masks": (
        masks_without,
        [
            (
                f"train.json: 1 of the annotations {MASKLESS}: annotations[4]",
                (
                    "Annotate masks, or use a detector without masks: "
                    "`ckptconv.emit_config('CKPT', detector='faster-rcnn')`"
                ),
            )
        ],
    ),
    "the evaluator has the training's file": (
        config("val_evaluator.ann_file", "train.json"),
        [(f"{USES} train.json, which does not have 4 of the 4 images of val.json", SET)],
    ),
    "a part is evaluated": (
        config("val_dataloader.dataset.indices", 2),
        [
            (
                f"{USES} the 4 images of val.json, and only 2 are evaluated",
                "Set val_dataloader.dataset.test_mode = True, and leave out its indices.",
            )
        ],
    ),
    "images that are evaluated are filtered": (
        filtered,
        [
            (
                f"{USES} the 4 images of val.json, and only 3 are evaluated",
                "Set val_dataloader.dataset.test_mode = True, and leave out its indices.",
            )
        ],
    ),
    "nothing to find": (
        set_at("val", "annotations", to=[]),
        [("val.json has no annotation of a class, except crowds: there is no AP", "Annotate its images.")],
    ),
    "images that are not there": (
        gone,
        [
            (
                "2 of the 3 images of train.json are not in train: gone/1.png, gone/3.png",
                "Check train_dataloader.dataset.data_prefix, or copy them there.",
            )
        ],
    ),
    "a prefix that is not there": (
        config("val_dataloader.dataset.data_prefix", {"img": "valid/"}),
        [
            (
                "4 of the 4 images of val.json are not in valid: 101.png, 102.png, 103.png and 1 more",
                "Check val_dataloader.dataset.data_prefix, or copy them there.",
            )
        ],
    ),
    "a prefix that is not said": (
        config("train_dataloader.dataset.data_prefix", {"img_path": "train/"}),
        [
            (
                "train_dataloader.dataset.data_prefix has no img",
                "Set train_dataloader.dataset.data_prefix = dict(img='…').",
            )
        ],
    ),
    "several files in ann_file": (
        config("train_dataloader.dataset.ann_file", ["train.json", "train.json"]),
        [
            (
                "train_dataloader.dataset.ann_file is a list, and CocoDataset takes one file",
                "Give each file a data set, and join them: type='ConcatDataset', datasets=[…].",
            )
        ],
    ),
    "a file that is not there": (
        config("train_dataloader.dataset.ann_file", "no.json"),
        [("train_dataloader.dataset.ann_file does not exist: no.json", "Check data_root and ann_file.")],
    ),
    "an evaluator's file that is not there": (
        config("val_evaluator.ann_file", "no.json"),
        [("val_evaluator.ann_file does not exist: no.json", "Check data_root and ann_file.")],
    ),
    "indices beyond the end": (
        config("train_dataloader.dataset.indices", [0, 9]),
        [
            (
                "1 of train_dataloader.dataset.indices are out of range for the images of train.json",
                "Leave train_dataloader.dataset.indices out.",
            )
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_said_and_mmdetection_does_not_measure_it(world, name):
    change, problems = WRONG[name]
    change(world)
    world.write()
    found = world.find()
    assert [p.text for p in found.problems] == [text for text, _ in problems]
    for problem, (_, hint) in zip(found.problems, problems, strict=True):
        assert hint in ("typed", problem.hint)
    try:
        ap = world.ideal()
    except Exception:  # of whatever type
        return
    assert ap != 1


@pytest.mark.parametrize("name", [name for name, (_, problems) in WRONG.items() if "typed" in dict(problems).values()])
def test_the_commands_mend_the_files(world, name):
    WRONG[name][0](world)
    world.write()
    before = {path.name: path.read_bytes() for path in Path().glob("*.json")}
    for problem in world.find().problems:
        command = problem.hint[problem.hint.index("python -c") :]
        subprocess.run(shlex.split(command.replace("python", sys.executable, 1)), check=True)
    assert not world.find().problems
    changed = {path.stem: path.read_bytes() for path in Path().glob("*.old")}
    assert changed == {n: data for n, data in before.items() if Path(n).read_bytes() != data}  # nothing is lost
    assert not [*Path().glob("*.new")]
    world.train, world.val = (json.loads(Path(f"{part}.json").read_text()) for part in ("train", "val"))
    assert world.ideal() == 1


def subset(world):
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": ("box",)}
    world.config["model"]["roi_head"]["bbox_head"]["num_classes"] = 1


def unknown_class(world):
    """A class that no category has, and that the head does not count."""
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": ("star", *CLASSES)}


def swapped(world):
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": CLASSES[::-1]}


def one_string(world):
    subset(world)
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": "box"}


def names_in_a_file(world):
    Path("names.txt").write_text("disc\nbox\ntri\n")
    for part in ("train", "val"):
        world.of(part)["metainfo"] = {"classes": "names.txt"}


def strays(world):
    world.train["annotations"] += [
        {**world.train["annotations"][0], "id": 90, "image_id": 77},
        {**world.train["annotations"][0], "id": 91, "category_id": 77},
        {**world.train["annotations"][0], "id": 92, "bbox": [900, 0, 20, 20]},
        {**world.train["annotations"][0], "id": 93, "bbox": [9, 9, 0, 20]},
        {**world.train["annotations"][0], "id": 94, "area": 0},
    ]
    world.train["images"].append(world.train["images"][0])


def corners(world):
    for annotation in world.train["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x + 20, y + 20, x + 20 + w, y + 20 + h]


def absolute(world):
    for image in world.train["images"]:
        image["file_name"] = str(Path.cwd() / "train" / f"{image['id']}.png")


def rle(world):
    masks(world)
    world.train["annotations"][0]["segmentation"] = {"counts": [0, 40, SIDE * SIDE - 40], "size": [SIDE, SIDE]}


def small_ones(world):
    world.train["images"][0]["height"] = 16


def balanced(world):
    world.config["train_dataloader"]["dataset"] = {
        "type": "ClassBalancedDataset",
        "oversample_thr": 0.1,
        "dataset": world.of("train"),
    }


def no_loader(world):
    """Images that no pipeline of MMDetection reads from files are not looked for."""
    gone(world)
    for part in ("train", "val"):
        world.of(part)["pipeline"] = world.of(part)["pipeline"][1:]


def of_no_class(count, part, *names):
    where = f"{part}_dataloader.dataset"
    return f"{count} annotations of {part}.json have a category that is not a class of {where}: {', '.join(names)}"


def listed(part):
    return (
        f"MMDetection numbers the classes in the order of {part}.json (disc, box, tri), so it prints the names of "
        f"{part}_dataloader.dataset.metainfo (tri, box, disc) for the wrong classes"
    )


RIGHT = {
    "as it is": (lambda _: None, []),
    "a part of the classes": (subset, [of_no_class(6, p, "disc", "tri") for p in ("train", "val")]),
    "a class that is not there": (
        unknown_class,
        [f"classes of {p}_dataloader.dataset that are not categories of {p}.json: star" for p in ("train", "val")],
    ),
    "classes in another order than the file": (swapped, [listed(p) for p in ("train", "val")]),
    "one string": (
        one_string,
        [
            f"{p}_dataloader.dataset.metainfo.classes is the string 'box', and every category whose name is a part of "
            "it is a class: one class is written ('box',)"
            for p in ("train", "val")
        ],
    ),
    "a file of names": (names_in_a_file, []),
    "strays": (
        strays,
        [
            "train.json: 1 images have the same id as another image, and get its annotations",
            "train.json: 1 annotations are of an image that is not in the file",
            "train.json: 1 annotations are of a category that is not in the file",
            "train.json: 1 annotations are outside of their image, and are removed",
            "train.json: 1 annotations are less than a pixel wide or high, and are removed",
            "train.json: 1 annotations are with an area of 0, and are removed",
        ],
    ),
    "corners": (
        corners,
        [
            (
                "train.json: most boxes extend beyond their images, and would not if they were [x1, y1, x2, y2]; a "
                "bbox is [x, y, width, height]"
            )
        ],
    ),
    "absolute names": (absolute, []),
    "ids that are words": (words, []),
    "masks": (masks, []),
    "run lengths": (rle, []),
    "a small image": (
        small_ones,
        ["1 of 4 images of train.json are removed: a side is below train_dataloader.dataset.filter_cfg.min_size"],
    ),
    "ConcatDataset": (concat, []),
    "ClassBalancedDataset": (balanced, []),
    "boxes without masks": (lambda world: [a.pop("segmentation") for a in world.train["annotations"]], []),
    "images that are not read from files": (no_loader, []),
    "no filter": (config("train_dataloader.dataset.filter_cfg", None), []),
    "the same file under another name": (
        lambda world: (
            Path("again.json").write_text(json.dumps(world.val)),
            config("val_evaluator.ann_file", "again.json")(world),
        ),
        [],
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_mmdetection_measures_is_not_refused(world, name):
    change, notes = RIGHT[name]
    change(world)
    world.write()
    found = world.find()
    assert found.problems == []
    assert found.notes == notes
    assert world.ideal() == 1


def test_the_id_0_is_a_note(world):
    world.val["annotations"][4]["id"] = 0
    found = world.write().find()
    assert not found.problems
    assert found.notes == ["val.json: an annotation has the id 0, and COCOeval counts its object as missed"]
    assert world.ideal() < 1


@pytest.mark.parametrize("said", ["[]", '{"images": [', '{"shapes": []}'])
def test_a_file_that_is_not_coco_is_unreadable(world, said):
    world.write()
    Path("val.json").write_text(said)
    with pytest.raises(UnreadableError, match=r"^val\.json is not "):
        world.find()


def test_data_that_are_on_another_machine_are_not_judged(world):
    assert world.find() == DataFindings()


def test_a_test_looks_at_its_part_only(world):
    del world.train["annotations"][0]["area"]
    world.write()
    assert world.find().problems
    assert not world.find("val").problems


def test_what_reads_in_a_way_of_its_own_is_not_checked(world):
    world.of("train")["type"] = "Objects365V2Dataset"
    found = world.write().find()
    assert not found.problems
    assert found.notes == [
        "train_dataloader.dataset is not checked: ckptconv does not know how Objects365V2Dataset reads its files"
    ]


def test_other_classes_of_mmdetection_are_read_from_its_source(world):
    for part in ("train", "val"):
        world.of(part).update(type="DeepFashionDataset", metainfo=None)
    found = world.write().find()
    assert found.problems[0].text == (
        "train_dataloader.dataset sets no classes, so the 15 of DeepFashionDataset apply (top, skirt and 13 more), "
        "and none of them is a category of train.json (disc, box, tri)"
    )


def test_the_first_images_only(world):
    world.val["images"].reverse()
    del world.train["annotations"][5]["area"]
    world.write()
    assert world.find().problems
    assert not world.find(first=1).problems
    world.train["annotations"] = world.train["annotations"][3:]
    world.write()
    assert world.find(first=1).problems[0].text.startswith("train_dataloader.dataset.filter_cfg removes images")


def test_images_beside_their_annotations_are_found(world):
    world.write()
    for part in ("train", "val"):
        Path(f"{part}.json").rename(f"{part}/a.json")
        world.of(part).update(ann_file=f"{part}/a.json", data_prefix={"img": "images/"})
    world.config["val_evaluator"]["ann_file"] = "val/a.json"
    for part, problem in zip(("train", "val"), world.find().problems, strict=True):
        before, _, said = problem.hint.partition("data_prefix = ")
        assert before == f"They are next to the annotations: set {part}_dataloader.dataset."
        world.of(part)["data_prefix"] = eval(said.rstrip("."))  # as it is pasted into a config
    assert not world.find().problems


def test_another_set_with_the_same_ids(world):
    world.write()
    other = copy.deepcopy(world.val)
    for image in other["images"]:
        image["file_name"] = f"b{image['file_name']}"
    Path("other.json").write_text(json.dumps(other))
    world.config["val_evaluator"]["ann_file"] = "other.json"
    (problem,) = world.find().problems
    assert problem.text == f"{USES} other.json, where the same ids belong to other images than in val.json"


def test_all_of_it_is_said_at_once_and_a_command_once(world):
    drop("area", "iscrowd")(world)
    with pytest.raises(UsageError) as raised:
        world.write().find().require_none()
    assert raised.value.message.startswith("train.json: 9 annotations have no area")
    first, second, third = raised.value.hint.split("\n")
    assert first.startswith('Fill them in: python -c "import json')
    assert second.startswith("Also: val.json: 9 annotations have no area, which MMDetection reads; the first")
    assert second.endswith(" val.json")
    assert third == (
        "Also: val.json: 9 annotations have no iscrowd, which COCOeval reads; the first is annotations[0]."
    )


def test_it_needs_neither_torch_nor_mmdet():
    code = """
import sys, ckptconv.mmdetection.verify.data.check
print([m for m in ("torch", "numpy", "mmengine", "mmdet", "pycocotools") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
