"""What is said of a data set and loaded of it. The oracle: MMDetection's own `CocoDataset`, on random files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmdet")

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations

from ckptconv.mmdetection.coco_file import read
from ckptconv.mmdetection.verify.data import coco_dataset
from ckptconv.mmdetection.verify.data.dataset_configs import DatasetConfig, datasets

WIDTH, HEIGHT = 64, 48
TRIANGLE = [[10, 10, 20, 10, 15, 20]]

MOSTLY_IDS = st.integers(1, 6)
NUMBERS = st.one_of(st.integers(-70, 140), st.floats(-1, 1), st.sampled_from([float("nan"), 0, -0.0, 0.5]))
BOXES = st.one_of(
    st.just([5, 5, 20, 20]),
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.sampled_from([[1, 2, 3], [1, 2, "3", 4], [1, 2, None, 4], None, "1234", []]),
)
AREAS = st.sampled_from([400, 400, 400, 12.5, 0, -3, float("nan"), None, "400", True])
MASKS = st.sampled_from(
    [TRIANGLE, TRIANGLE, None, [], TRIANGLE[0], "a.png", {"counts": "1", "size": [48, 64]}, [[1, 2]]]
)
LABELLED = st.fixed_dictionaries(
    {"image_id": MOSTLY_IDS, "category_id": st.sampled_from([90, 3, 17, 5]), "bbox": BOXES, "area": AREAS},
    optional={
        "iscrowd": st.sampled_from([0, 1, None]),
        "ignore": st.sampled_from([0, 1]),
        "segmentation": MASKS,
    },
)
IMAGES = st.fixed_dictionaries(
    {"id": MOSTLY_IDS},
    optional={
        "file_name": st.just("a.jpg"),
        "width": st.sampled_from([WIDTH, 20]),
        "height": st.sampled_from([HEIGHT, 16]),
    },
)
WHOLE = st.fixed_dictionaries(
    {
        "id": MOSTLY_IDS,
        "file_name": st.just("a.jpg"),
        "width": st.sampled_from([WIDTH, 20]),
        "height": st.sampled_from([HEIGHT, 16]),
    }
)
NAMES = st.lists(st.sampled_from(["disc", "box", "tri", "Disc", "di"]), max_size=4).map(tuple)


@st.composite
def files(draw):
    annotations = draw(st.lists(LABELLED, max_size=8))
    numbers = draw(st.sampled_from([range(1, 9), range(8), [1, 2, 3, 3, 4, 4, 5, 6]]))
    annotations = [{"id": n, **a} for n, a in zip(numbers, annotations, strict=False)]
    categories = [{"id": 90, "name": "disc"}, {"id": 3, "name": "box"}, {"id": 17, "name": "tri"}]
    return {
        "images": draw(st.lists(draw(st.sampled_from([WHOLE, WHOLE, IMAGES])), max_size=6)),
        "annotations": annotations,
        "categories": draw(st.permutations(categories)) + draw(st.sampled_from([[], [{"id": 8, "name": "disc"}]])),
    }


FILTERS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"filter_empty_gt": st.booleans(), "min_size": st.sampled_from([0, 18, 40, 400])}
    ),
)
CONFIGS = st.fixed_dictionaries(
    {"test_mode": st.booleans(), "filter_cfg": FILTERS},
    optional={
        "metainfo": st.one_of(
            NAMES.map(lambda names: {"classes": names}), st.just({"classes": "disc"}), st.just({"CLASSES": ("disc",)})
        ),
        "indices": st.sampled_from([0, 1, 2, -1, 99, [0], []]),
    },
)


def real(node):
    """Ids and labels of the images that MMDetection gives, once it has loaded each one's masks where it does that."""
    arguments = {key: value for key, value in node.items() if key not in ("type", "pipeline")}
    made = CocoDataset(**arguments, serialize_data=False)
    masks = LoadAnnotations(with_mask=True) if node["pipeline"] else None
    found = []
    for i in range(len(made)):
        info = made.get_data_info(i)
        labels = [instance["bbox_label"] for instance in info["instances"]]
        if masks:
            masks._process_masks(info)
        found.append((info["img_id"], labels))
    return found


@settings(max_examples=200, deadline=None)
@given(files(), CONFIGS, st.booleans())
def test_what_is_left_is_what_mmdetection_gives(tmp_path_factory, content, config, masks):
    path = tmp_path_factory.mktemp("data") / "a.json"
    path.write_text(json.dumps(content))
    pipeline = [{"type": "LoadAnnotations", "with_mask": True}] if masks else []
    node = {"type": "CocoDataset", "ann_file": str(path), "data_prefix": {"img": ""}, "pipeline": pipeline, **config}
    (said,) = datasets({"train_dataloader": {"dataset": node}}, "train")
    assert isinstance(said, DatasetConfig)
    coco = read(path)
    assert not coco_dataset.identified(coco)
    loaded = coco_dataset.load(said, coco)
    try:
        expected = real(node)
    except Exception:  # of whatever type: a file stops MMDetection in many ways
        assert loaded.faults or loaded.out_of_range
        return
    assert not loaded.faults
    assert not loaded.out_of_range
    assert [image.id for image in loaded.images] == [number for number, _ in expected]
    assert loaded.objects == Counter(label for _, labels in expected for label in labels)


@pytest.mark.parametrize(
    "lacking", [("images", "id"), ("annotations", "id"), ("annotations", "image_id"), ("annotations", "category_id")]
)
def test_entries_without_ids_stop_mmdetection(tmp_path, lacking):
    entries, key = lacking
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert not coco_dataset.identified(read(path))
    del content[entries][0][key]
    path.write_text(json.dumps(content))
    (fault,) = coco_dataset.identified(read(path))
    assert fault == (f"no {key}", 1, f"{entries}[0]")
    with pytest.raises(KeyError, match=key):
        CocoDataset(ann_file=str(path), data_prefix={"img": ""})


def test_a_prefix_without_images_stops_mmdetection(tmp_path):
    path = Path(tmp_path) / "a.json"
    path.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}], "categories": []})
    )
    (said,) = datasets({"train_dataloader": {"dataset": {"type": "CocoDataset", "ann_file": str(path)}}}, "train")
    assert isinstance(said, DatasetConfig)
    assert said.images is None
    with pytest.raises(KeyError, match="img"):
        CocoDataset(ann_file=str(path))
