"""Annotation files in COCO's format, and what is not one. The oracles: `json`, and mmdet's and pycocotools' readers."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection import coco_file
from ckptconv.mmdetection.coco_file import (
    INCOMPLETE,
    NO_MASK,
    NOT_A_MASK,
    POLYGONS,
    RUN_LENGTHS,
    SHORT_POLYGONS,
    Annotation,
    Category,
    Image,
    read,
)

TRIANGLE = [10, 10, 20, 10, 15, 20]
EXPORT = "Export the data set in COCO's format: one JSON object with images, annotations and categories."


def coco(**changed):
    said = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48, "license": 1}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "bbox": [1, 2, 30.5, 40],
                "area": 1220.0,
                "iscrowd": 0,
                "segmentation": [TRIANGLE],
            }
        ],
        "categories": [{"id": 90, "name": "disc", "supercategory": "x"}, {"id": 3, "name": "box"}],
    }
    return {**said, **changed}


def test_what_it_says_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco()))
    found = read(path)
    assert found.path == str(path)
    assert found.categories == (Category(90, "disc"), Category(3, "box"))
    assert found.images == (Image(7, "a.jpg", 64, 48),)
    assert found.annotations == (Annotation(1, 7, 90, [1, 2, 30.5, 40], 1220.0, 0, None, POLYGONS),)


def test_annotations_may_be_absent_as_of_test_images(tmp_path):
    path = tmp_path / "a.json"
    said = coco()
    del said["annotations"]
    path.write_text(json.dumps(said))
    assert read(path).annotations == ()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b'{"images": [', "{} is not JSON: Expecting value, line 1, column 13"),
        (b"", "{} is not JSON: Expecting value, line 1, column 1"),
        (b"[" * 100_000, "{} is not JSON that can be read: maximum recursion depth exceeded*"),
        (b'{"images": ' + b"9" * 5000 + b"}", "{} is not JSON that can be read: Exceeds the limit (4300 digits)*"),
        (b'{"images": "\xff"}', "{} is not UTF-8: byte 12"),
        (b"[]", "{} is not in COCO's format: it holds a list"),
        (b"null", "{} is not in COCO's format: it holds null"),
        (b"{}", "{} is not in COCO's format: it has nothing, and no images and no categories"),
        (
            b'{"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg"}',
            "{} is not in COCO's format: it has version, flags, shapes, imagePath, and no images and no categories",
        ),
        (
            b'{"images": [], "annotations": []}',
            "{} is not in COCO's format: it has images, annotations, and no categories",
        ),
        (b'{"images": {}, "categories": []}', "{} is not in COCO's format: its images are an object, not a list"),
        (b'{"images": [3], "categories": []}', "{} is not in COCO's format: images[0] is a number or a word"),
        (
            b'{"images": [], "categories": [], "annotations": [{}, null]}',
            "{} is not in COCO's format: annotations[1] is null",
        ),
        (b'{"images": [], "categories": [{"name": "a"}]}', "{}: categories[0] needs an id that is a number"),
        (b'{"images": [], "categories": [{"id": 1, "name": 3}]}', "{}: categories[0] needs a name that is a string"),
    ],
)
def test_what_is_not_one(tmp_path, content, error):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as raised:
        read(path)
    beginning = error.format(path)
    assert raised.value.message == beginning or raised.value.message.startswith(beginning.rstrip("*"))
    assert raised.value.message == beginning or error.endswith("*")
    assert raised.value.hint in (EXPORT, "It is cut short or was edited by hand: copy or export it again.")


def test_what_is_not_there_or_no_file(tmp_path):
    for path in (tmp_path / "b.json", tmp_path):
        with pytest.raises(UsageError, match=f"^there is no annotation file {re.escape(str(path))}\nCheck the path"):
            read(path)


def test_larger_than_can_be_held(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_file, "LARGEST", 10)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco()))
    with pytest.raises(UnreadableError, match=r"a\.json cannot be read: it is larger than 10 bytes"):
        read(path)


KINDS = [
    (None, NO_MASK),
    ([], NO_MASK),
    ([TRIANGLE], POLYGONS),
    ([TRIANGLE, TRIANGLE], POLYGONS),
    ([TRIANGLE, [1, 2, 3, 4, 5]], SHORT_POLYGONS),
    ([TRIANGLE[:5]], SHORT_POLYGONS),
    ([TRIANGLE, [1, 2, 3, 4]], SHORT_POLYGONS),
    ([TRIANGLE, []], SHORT_POLYGONS),
    ([[1, 2, 3, 4]], INCOMPLETE),
    ([[1, 2, 3, 4], TRIANGLE], INCOMPLETE),
    ([[]], INCOMPLETE),
    ([[1, 2]], INCOMPLETE),
    (TRIANGLE, NOT_A_MASK),
    ([TRIANGLE, 3], NOT_A_MASK),
    ([["1.5"] * 6], POLYGONS),
    ([["a"] * 6], NOT_A_MASK),
    ([[[1]] * 6], NOT_A_MASK),
    ([[None] * 6], POLYGONS),
    ({"counts": [3000, 72], "size": [48, 64]}, RUN_LENGTHS),
    ({"counts": "PP3", "size": [48, 64]}, RUN_LENGTHS),
    ({"size": [2, 4]}, INCOMPLETE),
    ("mask.png", NOT_A_MASK),
    (True, NOT_A_MASK),
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("segmentation", "kind"), KINDS)
def test_kinds_of_segmentations(tmp_path, segmentation, kind, indent):
    path = tmp_path / "a.json"
    annotation = {**coco()["annotations"][0], "segmentation": segmentation}
    path.write_text(json.dumps(coco(annotations=[annotation, annotation]), indent=indent))
    assert [a.segmentation for a in read(path).annotations] == [kind] * 2


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize(("segmentation", "kind"), KINDS)
def test_mmdet_and_pycocotools_read_them_so(segmentation, kind):
    """The oracle of the kinds: a training's loading of masks, and what COCOeval makes masks of."""
    pytest.importorskip("mmdet")
    from mmdet.datasets.transforms import LoadAnnotations
    from pycocotools.coco import COCO

    def trains():
        found = {"instances": [], "ori_shape": (48, 64)}
        found["instances"] = [{"mask": segmentation, "ignore_flag": 0}] if segmentation else [{"ignore_flag": 0}]
        LoadAnnotations(with_bbox=False, with_mask=True)._load_masks(found)
        return found["instances"][0]["ignore_flag"] == 0

    def evaluates():
        truth = COCO()
        truth.imgs = {7: {"height": 48, "width": 64}}
        truth.annToRLE({"image_id": 7, "segmentation": segmentation})

    expected = {
        NO_MASK: (False, False),
        POLYGONS: (True, True),
        SHORT_POLYGONS: (True, True),
        INCOMPLETE: (True, False),
        RUN_LENGTHS: (True, True),
        NOT_A_MASK: (False, False),
    }[kind]
    for action, good in zip((trains, evaluates), expected, strict=True):
        if good:
            action()
        else:
            with pytest.raises(Exception):  # noqa: B017 (of whatever type)
                action()


NAMES = st.text(st.sampled_from(' "\\[]{},:segmntaio\u00e9\n'), max_size=24)
POLYGON = st.lists(st.one_of(st.integers(-5, 900), st.floats(0, 900)), max_size=9)
SEGMENTATION = st.one_of(st.none(), st.lists(POLYGON, max_size=3), st.just({"counts": "1", "size": [1, 1]}))


@given(
    st.lists(st.tuples(NAMES, SEGMENTATION), max_size=6), st.sampled_from([None, 0, 2]), st.booleans(), st.booleans()
)
def test_polygons_are_skipped_and_nothing_else(tmp_path_factory, annotations, indent, escaped, compact):
    """The same annotations as `json.loads` gives, whatever strings stand beside the polygons."""
    said = coco(
        annotations=[
            {"id": name, '"segmentation": [[': 1, "segmentation": segmentation, "bbox": [1, 2, 3, 4], name: [[1] * 6]}
            for name, segmentation in annotations
        ]
    )
    path = tmp_path_factory.mktemp("coco") / "a.json"
    separators = (",", ":") if compact else None
    path.write_text(json.dumps(said, indent=indent, ensure_ascii=escaped, separators=separators), encoding="utf-8")
    plain = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    assert read(path).annotations == tuple(map(coco_file._annotation, plain))


def test_it_needs_neither_torch_nor_mmdet_nor_numpy():
    code = """
import sys, ckptconv.mmdetection.coco_file
print([m for m in ("torch", "numpy", "mmengine", "mmdet", "pycocotools") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
