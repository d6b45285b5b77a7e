"""`emit-config` for a data set of the user's own: what it reads from the files, what it writes, and what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from mmdet.datasets import CocoDataset

from ckptconv.cli.spelling import spell
from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection.config.options import STYLES
from tests.support import tiny_coco
from tests.support.converted import OWN, at, emit, plain, resolve

pytestmark = pytest.mark.mmdet

NAMES = ("stop sign", "don't walk", "a, b", '"quoted"')
FILE = "_annotations.coco.json"
BOXES = {"detector": "faster-rcnn"}
NAMED = {"train_ann": f"rf/train/{FILE}", "val_ann": f"rf/valid/{FILE}"}
SUPER = (
    "no annotation of rf/train/_annotations.coco.json is of 'things': it is still a class of the detector. "
    "Without it: `classes=('box',)`"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data sets")
    tiny_coco.make(folder / "coco")
    tiny_coco.roboflow(folder / "rf")
    tiny_coco.roboflow(folder / "odd names", names=NAMES, first=3)
    return folder


@pytest.fixture(autouse=True)
def here(data, monkeypatch) -> None:
    monkeypatch.chdir(data)


def sets(text: str) -> dict[str, dict[str, Any]]:
    """What the three data sets of a config are."""
    made = resolve(text)
    keys = ("data_root", "ann_file", "data_prefix", "metainfo")
    found = {p: made[f"{p}_dataloader"]["dataset"] for p in ("train", "val", "test")}
    assert made["val_evaluator"]["ann_file"] == made["test_evaluator"]["ann_file"]
    assert Path(made["val_evaluator"]["ann_file"]) == Path(found["val"]["data_root"], found["val"]["ann_file"])
    assert found["val"] == found["test"]
    return {p: plain({k: v for k, v in d.items() if k in keys}) for p, d in found.items()}


def refused(**said: Any) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        emit("r18", **{**BOXES, **said})
    return caught.value.message, caught.value.hint


def loaded(part: dict[str, Any]) -> CocoDataset:
    """MMDetection's own reading of a data set."""
    return CocoDataset(**part, filter_cfg={"filter_empty_gt": True}, pipeline=[])


# What is written


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("said", "root"),
    [
        ({"data_root": "rf", "train_ann": f"train/{FILE}", "val_ann": f"valid/{FILE}"}, "rf/"),
        ({"data_root": "rf/", "train_ann": f"rf/train/{FILE}", "val_ann": f"./rf/valid/{FILE}"}, "rf/"),
        (NAMED, "rf/"),
        ({**NAMED, "train_images": "rf/train/", "val_images": "rf/valid"}, "rf/"),
        ({**NAMED, "data_root": "rf", "train_images": "train", "val_images": "valid/"}, "rf/"),
        ({"data_root": ".", "train_ann": f"rf/train/{FILE}", "val_ann": f"rf/valid/{FILE}"}, ""),
    ],
)
def test_roboflows_layout(said, root, style):
    emitted = emit("r18", style=style, **BOXES, **said)
    found = sets(emitted.text)
    for part, folder in (("train", "train"), ("val", "valid")):
        below = folder if root else f"rf/{folder}"
        assert found[part] == {
            "data_root": root,
            "ann_file": f"{below}/{FILE}",
            "data_prefix": {"img": f"{below}/"},
            "metainfo": {"classes": ["things", "box"]},
        }
        assert len(loaded(found[part])) == 4
    assert at(resolve(emitted.text), "model.roi_head.bbox_head.num_classes") == [2]
    assert list(emitted.notes) == [SUPER]


def test_absolute_paths_and_the_home_folder(data, monkeypatch):
    monkeypatch.setenv("HOME", str(data))
    for start in (f"{data}/", "~/"):
        found = sets(emit("r18", **BOXES, **{k: f"{start}{v}" for k, v in NAMED.items()}).text)
        assert found["train"]["data_root"] == f"{data}/rf/"
        assert found["train"]["ann_file"] == f"train/{FILE}"
        found = sets(
            emit("r18", **BOXES, data_root=f"{start}rf", train_ann=f"train/{FILE}", val_ann=f"valid/{FILE}").text
        )
        assert found["val"]["data_root"] == f"{data}/rf/"
    assert resolve(emit("r18", data_root="~/nothing").text)["data_root"] == f"{data}/nothing/"


def test_parts_in_different_places(data):
    """What is not below the root has its absolute path; MMDetection joins no root to that."""
    said = {"train_ann": "coco/annotations/instances_train2017.json", "val_ann": f"{data}/rf/valid/{FILE}"}
    found = sets(emit("r18", **BOXES, data_root="coco", classes="box", **said).text)
    assert found["train"]["ann_file"] == "annotations/instances_train2017.json"
    assert found["train"]["data_prefix"] == {"img": "train2017/"}
    assert found["val"]["ann_file"] == f"{data}/rf/valid/{FILE}"
    assert found["val"]["data_prefix"] == {"img": f"{data}/rf/valid/"}
    assert [len(loaded(found[part])) for part in ("train", "val")] == [4, 4]


def test_cocos_layout_with_other_classes():
    emitted = emit("r18", detector="mask-rcnn", data_root="coco")
    found = sets(emitted.text)
    assert found["train"]["metainfo"] == {"classes": ["box"]}
    assert found["train"]["ann_file"] == "annotations/instances_train2017.json"
    assert (emitted.data.classes, emitted.notes) == (("box",), ())
    assert "ann_file='" not in emitted.text


def test_cocos_own_classes_are_the_bases_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = CocoDataset.METAINFO["classes"]
    rewritten(tiny_coco.make(tmp_path / "coco"), lambda d: d.update(categories=categories(*names)))
    emitted = emit("r18", data_root="coco")
    assert "metainfo" not in emitted.text
    assert resolve(emitted.text)["model"]["roi_head"]["bbox_head"]["num_classes"] == 80


def categories(*names: str, first: int = 1) -> list[dict[str, Any]]:
    return [{"id": first + i, "name": name} for i, name in enumerate(names)]


def rewritten(folder: Path, change: Any, only: str = "") -> Path:
    for file in folder.rglob("*.json"):
        if only in file.name:
            described = json.loads(file.read_text())
            change(described)
            file.write_text(json.dumps(described))
    return folder


def test_names_of_every_kind_reach_mmdetection():
    said = {k: v.replace("rf", "odd names") for k, v in NAMED.items()}
    emitted = emit("r18", **BOXES, **said)
    found = sets(emitted.text)
    assert found["train"]["metainfo"]["classes"] == ["things", *NAMES]
    assert emitted.notes == (
        (
            f"no annotation of odd names/train/{FILE} is of 'things': it is still a class of the detector. "
            "Without it: `classes='FILE'` with one name on each line"
        ),
    )


@pytest.mark.parametrize("order", [(90, 3, 17), (3, 17, 90)])
def test_a_label_means_the_name_that_it_has_in_the_file(tmp_path, monkeypatch, order):
    """MMDetection numbers categories as the file lists them, whatever their ids are."""
    monkeypatch.chdir(tmp_path)
    names = {90: "disc", 3: "box", 17: "tri"}

    def change(described: Any) -> None:
        described["categories"] = [{"id": i, "name": names[i]} for i in order]
        for i, annotation in enumerate(described["annotations"]):
            annotation["category_id"] = [90, 3, 17, 3][i]

    rewritten(tiny_coco.make(tmp_path / "coco"), change)
    emitted = emit("r18", data_root="coco")
    dataset = loaded(sets(emitted.text)["train"])
    classes = dataset.metainfo["classes"]
    labels = [dataset.get_data_info(i)["instances"][0]["bbox_label"] for i in range(4)]
    assert [classes[label] for label in labels] == ["disc", "box", "tri", "box"]
    sorted_ = emit("r18", data_root="coco", classes="tri,disc,box")
    assert sorted_.data.classes == emitted.data.classes == tuple(names[i] for i in order)
    assert sorted_.notes == (
        (
            "the classes are written in the order of coco/annotations/instances_train2017.json, in which MMDetection "
            "numbers them"
        ),
    )


def test_names_that_a_command_line_cannot_hold(tmp_path, monkeypatch):
    """The list of classes takes words apart by one space; the file's own name is what MMDetection looks for."""
    monkeypatch.chdir(tmp_path)
    rewritten(tiny_coco.make(Path("coco")), lambda d: d.update(categories=categories("stop  sign ", "a\x1b[2J")))
    emitted = emit("r18", data_root="coco", classes="stop sign")
    assert emitted.data.classes == ("stop  sign ",)
    assert len(loaded(sets(emitted.text)["train"])) == 4
    assert refused(data_root="coco", classes="a")[1] == "It has stop  sign , a\\x1b[2J."


def test_some_of_the_classes():
    emitted = emit("r18", **BOXES, **NAMED, classes="box")
    dataset = loaded(sets(emitted.text)["train"])
    assert (emitted.data.classes, emitted.notes, dataset.cat_ids) == (("box",), (), [1])


# Data that are elsewhere


def test_data_on_another_machine():
    said = {"data_root": "/far", "train_ann": "a/train.json", "val_ann": "annotations/instances_val.json"}
    emitted = emit("r18", classes="a,b", **said)
    found = sets(emitted.text)
    assert found["train"] == {
        "data_root": "/far/",
        "ann_file": "a/train.json",
        "data_prefix": {"img": "a/"},
        "metainfo": {"classes": ["a", "b"]},
    }
    assert found["val"]["data_prefix"] == {"img": "val/"}
    assert emitted.notes == (
        "there is no /far/a/train.json here, so it is not checked",
        "there is no /far/annotations/instances_val.json here, so it is not checked",
    )
    assert emit("r18", data_root="/far").notes == (
        "there is no /far/annotations/instances_train2017.json here, so the data set is not checked",
    )
    assert refused(**said) == (
        "there is no /far/a/train.json, and its classes are not given",
        "Give the file: `train_ann='FILE.json'`. For data on another machine, give `classes=('a', 'b', 'c')`, too.",
    )


def test_a_part_that_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tiny_coco.make(Path("coco")) / "annotations" / "instances_val2017.json").unlink()
    emitted = emit("r18", data_root="coco")
    val = "coco/annotations/instances_val2017.json"
    assert (emitted.data.classes, emitted.notes) == (("box",), (f"there is no {val} here, so it is not checked",))


# Refusals


def test_the_options_of_another_layout_are_said_and_can_be_typed():
    message, hint = refused(data_root="rf")
    assert message == "there is no rf/annotations/instances_train2017.json"
    assert hint == (
        "The data set has another layout: `data_root='rf'` `train_ann='train/_annotations.coco.json'` "
        "`val_ann='valid/_annotations.coco.json'`"
    )
    assert typed(hint).data.classes == ("things", "box")
    message, hint = refused(data_root="odd names")
    assert "`data_root='odd names'` `train_ann=" in hint
    assert typed(hint).data.classes == ("things", *NAMES)


def typed(hint: str) -> Any:
    text = spell(hint)
    words = shlex.split(text[text.index("--") :])
    return emit("r18", **BOXES, **{w[2:].replace("-", "_"): v for w, v in zip(words[::2], words[1::2], strict=True)})


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.json", "val.json"),
        ("annotations/instances_train.json", "annotations/instances_val.json"),
        ("train/annotations.json", "val/annotations.json"),
        ("Train/labels.json", "test/labels.json"),
    ],
)
def test_layouts_that_are_obvious(tmp_path, monkeypatch, train, val):
    monkeypatch.chdir(tmp_path)
    made = tiny_coco.make(tmp_path / "made")
    for old, new in (("train2017", train), ("val2017", val)):
        target = tmp_path / "set" / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (made / "annotations" / f"instances_{old}.json").rename(target)
        folder = target.parent if target.parent.name != "annotations" else target.parents[1] / new[22:-5]
        for image in (made / old).iterdir():
            folder.mkdir(exist_ok=True)
            image.rename(folder / image.name)
    if "annotations/" in train:  # as COCO has them
        (tmp_path / "set" / "annotations" / "captions_train.json").write_text("{}")
    hint = refused(data_root="set")[1]
    assert f"`train_ann={train!r}` `val_ann={val!r}`" in hint
    assert typed(hint).data.classes == ("box",)


def test_a_number_of_classes_is_no_list_of_them():
    train = f"rf/train/{FILE}"
    message, hint = refused(num_classes=2, **NAMED)
    assert message == f"`num_classes=2` does not say which classes, and {train} has 2"
    assert hint == "Leave it out for all of them, or name them: `classes=('things', 'box')`"
    assert emit("r18", **BOXES, **NAMED, classes="things,box").data.classes == ("things", "box")
    assert refused(num_classes=7) == (
        "`num_classes=7` does not say which classes: MMDetection would use the base's own",
        (
            "Name them: `classes=('a', 'b', 'c')` or a file with one name on each line; or give `train_ann` and "
            "`val_ann`, which have them."
        ),
    )
    assert resolve(emit("r18", num_classes=80).text)["model"]["roi_head"]["bbox_head"]["num_classes"] == 80
    assert emit("r18", classes="a,b", num_classes=2).data.classes == ("a", "b")


def test_what_contradicts_the_files(tmp_path):
    train = f"rf/train/{FILE}"
    for said, message, hint in (
        ({"train_ann": train}, "`val_ann` is missing: MMDetection trains on one file and measures on another", GIVE),
        ({"val_ann": train}, "`train_ann` is missing: MMDetection trains on one file and measures on another", GIVE),
        ({"val_images": "rf"}, "`train_ann` is missing: MMDetection trains on one file and measures on another", GIVE),
        ({**NAMED, "classes": "Box"}, f"{train} has no category 'Box'", "Did you mean box?"),
        ({**NAMED, "classes": "cat"}, f"{train} has no category 'cat'", "It has things, box."),
        (
            {**NAMED, "val_images": "rf"},
            f"there is no rf/0.png, the first image of rf/valid/{FILE}",
            "Give the folder from which the file_name of its images is seen: --val-images DIR",
        ),
        ({"detector": "mask-rcnn", "train_ann": ""}, "`train_ann` is empty", "Give a file in COCO's format."),
        ({"val_images": ""}, "`val_images` is empty", "Give a folder of images; . is the current folder."),
    ):
        assert refused(**said) == (message, hint)


GIVE = "Give `train_ann='FILE.json'` and `val_ann='FILE.json'`."


def changed(tmp_path: Path, change: Any, only: str = "") -> dict[str, str]:
    folder = rewritten(tiny_coco.make(tmp_path / "coco"), change, only)
    return {"data_root": str(folder)}


def test_files_that_training_would_misread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, val = (f"coco/annotations/instances_{part}2017.json" for part in ("train", "val"))
    tiny_coco.make(Path("coco"))
    two = categories("box", "disc")
    rewritten(Path("coco"), lambda d: d.update(categories=two))
    rewritten(Path("coco"), lambda d: d.update(categories=two[::-1]), "val")
    both = "Write the same list of categories into both files."
    by_itself = f"and {train} numbers them box, disc: MMDetection numbers each file separately"
    assert refused(data_root="coco") == (f"{val} has its categories in another order, {by_itself}", both)
    rewritten(Path("coco"), lambda d: d.update(categories=two[1:]), "val")
    assert refused(data_root="coco") == (f"{val} has no category 'box', {by_itself}", both)
    rewritten(Path("coco"), lambda d: d.update(categories=categories("box", "box")))
    assert refused(data_root="coco") == (f"{train} has two categories 'box'", "Give each category its own name.")
    rewritten(Path("coco"), lambda d: d.update(categories=[]))
    assert refused(data_root="coco")[0] == f"{train} has no categories"
    Path(train).write_text("{")
    with pytest.raises(UnreadableError, match="is not JSON"):
        emit("r18", data_root="coco", classes="a")


def test_boxes_without_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without = lambda d: [a.update(segmentation=[]) for a in d["annotations"]]  # noqa: E731
    rewritten(tiny_coco.make(Path("coco")), without)
    train = "coco/annotations/instances_train2017.json"
    for detector, title, other in (
        ("mask-rcnn", "Mask R-CNN with FPN", "faster-rcnn"),
        ("cascade-mask-rcnn", "Cascade Mask R-CNN with FPN", "cascade-rcnn"),
    ):
        message, hint = refused(data_root="coco", detector=detector)
        assert message == f"{train} has boxes and no masks, and {title} trains masks"
        assert hint == f"Choose a detector of boxes: `detector='{other}'`"
        assert emit("r18", data_root="coco", detector=other).data.classes == ("box",)
    said = {"base": "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "detector": None, "data_root": "coco"}
    assert refused(**said)[1] == "Choose a base without a mask head."


def test_images_that_are_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tiny_coco.roboflow(Path("rf"))
    (made / "train").rename(made / "pictures")
    (made / "train").mkdir()
    (made / "pictures" / FILE).rename(made / "train" / FILE)
    assert refused(**NAMED) == (
        f"cannot find the images of rf/train/{FILE}: there is no rf/train/0.png",
        "Say where they are: --train-images DIR",
    )
    found = sets(emit("r18", **BOXES, **NAMED, train_images="rf/pictures").text)
    assert found["train"]["data_prefix"] == {"img": "pictures/"}
    assert len(loaded(found["train"])) == 4


# Bases of the user's own


@pytest.mark.parametrize("style", STYLES)
def test_a_base_of_the_users_own(tmp_path, monkeypatch, data, style):
    base = OWN / "retinanet" / "retinanet_r50_fpn_1x_coco.py"
    text = (
        f"_base_ = {str(base)!r}\nmeta = dict(classes=('x',), palette=[(1, 2, 3)])\nprefix = dict(img='i/', seg='s/')\n"
        + "".join(
            f"{part}_dataloader = dict(dataset=dict(metainfo=meta, data_root='old/', data_prefix=prefix))\n"
            for part in ("train", "val", "test")
        )
    )
    (tmp_path / "own.py").write_text(text)
    emitted = emit("r18", base=str(tmp_path / "own.py"), style=style, **NAMED)
    found = sets(emitted.text)
    assert found["train"] == {
        "data_root": "rf/",
        "ann_file": f"train/{FILE}",
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": ["things", "box"]},
    }
    assert [len(loaded(found[part])) for part in ("train", "val")] == [4, 4]


def test_bases_that_have_no_place_for_a_file():
    voc = "mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py"
    lvis = "mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py"
    for base, message in (
        (voc, "cannot take `train_ann`: its train_dataloader does not have exactly one data set with one file"),
        (lvis, "reads its data set with LVISV1Dataset, and `train_ann` is a file in COCO's format"),
    ):
        assert refused(detector=None, base=base, **NAMED)[0] == f"{base} {message}"


# One GPU


@pytest.mark.parametrize("detector", ["mask-rcnn", "mask-rcnn-c4", "retinanet", "dino"])
@pytest.mark.parametrize("schedule", ["1x", "mmselfsup"])
def test_the_statistics_of_two_images_are_said(detector, schedule):
    one = emit(detector=detector, schedule=schedule, gpus=1)
    assert one.notes == (
        (
            "batch norm takes its statistics from the 2 images of one GPU: give it more, `batch_size=8`, or keep those "
            "of the pretraining: `norm='frozen'`"
        ),
    )
    comments = " ".join(line.strip().removeprefix("# ") for line in one.text.splitlines())
    assert "Here these are the 2 images of one GPU." in comments
    for said in ({}, {"gpus": 2}, {"gpus": 1, "batch_size": 8}, {"batch_size": 2}):
        assert emit(detector=detector, schedule=schedule, **said).notes == ()
    if schedule == "1x":
        assert emit(detector=detector, gpus=1, norm="frozen").notes == ()
    assert (
        emit(detector=detector, gpus=1, batch_size=1)
        .notes[0]
        .startswith("batch norm takes its statistics from the 1 i")
    )


def test_heads_that_are_synced_where_the_backbone_is_frozen():
    assert emit(schedule="mmselfsup", gpus=1, norm="frozen").notes == (
        "batch norm takes its statistics from the 2 images of one GPU: give it more, `batch_size=8`",
    )


def test_paths_that_are_none():
    for path in ("a\0b", "x" * 5000, "\udcff"):
        assert "the data set is not checked" in emit("r18", data_root=path).notes[0]
        assert refused(train_ann=path, val_ann=path)[1].startswith("Give the file: `train_ann='FILE.json'`.")
        assert emit("r18", classes="a", train_ann=path, val_ann=path).data.classes == ("a",)
