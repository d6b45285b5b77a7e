"""What a config says of its evaluation: one CocoMetric however it is written, and the line of what cannot be measured.

That CocoMetric itself does what is refused here is shown with CocoMetric.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.evaluation import CocoMetric

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify.evaluators import (
    other_test_parts,
    require_box_ap,
    require_measurable,
    with_single_metric,
)

pytestmark = pytest.mark.mmdet
COCO = {"type": "CocoMetric", "ann_file": "val.json", "metric": "bbox"}
VOC = {"type": "VOCMetric", "metric": "mAP"}
ONE = "Leave one CocoMetric in val_evaluator: verify-ap measures COCO's AP only."
SET = "Set val_evaluator = dict(type='CocoMetric', ann_file=FILE, metric='bbox')."


@pytest.mark.parametrize(
    "written",
    [
        COCO,
        [COCO],
        {"metrics": COCO},
        {"type": "Evaluator", "metrics": [COCO]},
        {"type": "mmengine.Evaluator", "metrics": [COCO]},
    ],
)
def test_one_coco_metric_is_found_however_it_is_written(written):
    config = {"val_evaluator": written, "model": {}}
    assert with_single_metric(config, "own.py") == {"val_evaluator": COCO, "model": {}}
    assert config["val_evaluator"] is written


@pytest.mark.parametrize("kind", ["mmdet.CocoMetric", "mmdet.evaluation.metrics.CocoMetric", CocoMetric])
def test_its_class_may_be_named_in_any_way(kind):
    assert with_single_metric({"val_evaluator": [{**COCO, "type": kind}]}, "own.py")["val_evaluator"]["type"] == kind


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        (None, "own.py: val_evaluator is not set", SET),
        ([], "own.py: val_evaluator is an empty list", SET),
        ({"metrics": []}, "own.py: val_evaluator.metrics is an empty list", SET),
        (VOC, "own.py: val_evaluator.type is VOCMetric, which is not CocoMetric", ONE),
        ([VOC], "own.py: val_evaluator[0].type is VOCMetric, which is not CocoMetric", ONE),
        ([COCO, VOC], "own.py: val_evaluator[1].type is VOCMetric, which is not CocoMetric", ONE),
        (
            [COCO, {"type": "DumpProposals", "output_dir": "out"}],
            "own.py: val_evaluator[1].type is DumpProposals, which is not CocoMetric",
            ONE,
        ),
        (
            [COCO, {**COCO, "prefix": "b"}],
            "own.py: val_evaluator[1] is a second CocoMetric, so it is not clear which AP counts",
            ONE,
        ),
        (
            {"type": "Evaluator", "metrics": [COCO, COCO]},
            "own.py: val_evaluator.metrics[1] is a second CocoMetric, so it is not clear which AP counts",
            ONE,
        ),
        (
            {"type": "MultiDatasetsEvaluator", "metrics": [COCO], "dataset_prefixes": ["a"]},
            "own.py: val_evaluator.type is MultiDatasetsEvaluator, which is not one CocoMetric",
            ONE,
        ),
        ({"ann_file": "val.json"}, "own.py: val_evaluator.type is missing", ONE),
    ],
)
def test_what_is_not_one_coco_metric_is_refused_with_its_line(written, message, hint):
    with pytest.raises(UsageError) as error:
        with_single_metric({"val_evaluator": written}, "own.py")
    assert (error.value.message, error.value.hint) == (message, hint)


@pytest.mark.parametrize("metric", ["bbox", ["bbox"], ["segm", "bbox"], ["proposal_fast", "bbox"]])
def test_boxes_are_measured(metric):
    require_box_ap({**COCO, "metric": metric}, "own.py")
    assert "bbox" in CocoMetric(metric=metric).metrics


@pytest.mark.parametrize(
    ("metric", "wrong"),
    [
        ("segm", "does not measure box AP"),
        (["proposal"], "does not measure box AP"),
        (("bbox", "segm"), "CocoMetric does not take ('bbox', 'segm')"),
        (["bbox", "keypoints"], "CocoMetric does not take 'keypoints'"),
    ],
)
def test_metrics_without_boxes_or_unknown_ones_are_refused(metric, wrong):
    with pytest.raises(UsageError) as error:
        require_box_ap({**COCO, "metric": metric}, "own.py")
    between = " " if wrong.startswith("does") else ": "
    assert error.value.message == f"own.py: val_evaluator.metric={metric!r}{between}{wrong}"
    assert error.value.hint == "Set it to 'bbox', or to ['bbox', 'segm']."
    if wrong.startswith("CocoMetric"):
        with pytest.raises(KeyError, match="metric should be one of"):
            CocoMetric(metric=metric)


REFUSED = [
    ({"ann_file": None}, "ann_file=None: it must name a file in COCO's format"),
    ({"backend_args": {"backend": "petrel"}}, "backend_args={'backend': 'petrel'}: verify-ap reads annotations from"),
    ({"format_only": True}, "format_only=True: with it, CocoMetric evaluates nothing"),
    ({"iou_thrs": [0.5]}, "iou_thrs=[0.5]: COCO's AP is the mean over 0.50, 0.55, …, 0.95"),
    ({"metric_items": ["AP"]}, "metric_items=['AP']: CocoMetric does not know all of them"),
    ({"file_client_args": {}}, "file_client_args={}: CocoMetric refuses it"),
    ({"proposal_nums": (1, 10, 50)}, "proposal_nums=(1, 10, 50): CocoMetric needs three limits for an AP, and one"),
    ({"proposal_nums": (100, 300)}, "proposal_nums=(100, 300): CocoMetric needs three limits for an AP, and one"),
    ({"proposal_nums": 100}, "proposal_nums=100: it must be numbers of detections"),
]


@pytest.mark.parametrize(("said", "message"), REFUSED)
def test_what_coco_metric_cannot_measure_is_refused_with_its_line(said, message):
    with pytest.raises(UsageError) as error:
        require_measurable({**COCO, **said}, "own.py")
    assert error.value.message.startswith(f"own.py: val_evaluator.{message}")
    assert error.value.hint


ALLOWED: list[dict[str, Any]] = [
    {},
    {"proposal_nums": (100, 1, 10)},
    {"proposal_nums": (50, 200), "use_mp_eval": True},
    {"metric_items": ["mAP", "mAP_s"]},
    {"classwise": True},
    {"backend_args": {"backend": "local"}},
    {"collect_device": "gpu"},
    {"sort_categories": True},
    {"prefix": "mine", "format_only": False},
]


@pytest.mark.parametrize("said", ALLOWED)
def test_other_settings_are_allowed(said):
    require_measurable({**COCO, **said}, "own.py")
    assert "bbox" in CocoMetric(**{"metric": "bbox", **said}).metrics


def evaluated(folder: Path, **said: Any) -> dict[str, float]:
    """What CocoMetric reports of one right box."""
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "categories": [{"id": 2, "name": "box"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    said = {"outfile_prefix": str(folder / "found"), **said}
    found = {
        "bboxes": torch.tensor([[4.0, 4.0, 24.0, 24.0]]),
        "scores": torch.tensor([0.9]),
        "labels": torch.tensor([0]),
    }
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        metric = CocoMetric(str(folder / "truth.json"), **said)
        metric.dataset_meta = {"classes": ("box",)}
        metric.process({}, [{"img_id": 1, "ori_shape": (64, 64), "pred_instances": found}])
        reported: dict[str, float] = metric.evaluate(1)
    return reported


@pytest.mark.parametrize("said", [said for said, _ in REFUSED if not said.keys() & {"ann_file", "backend_args"}])
def test_coco_metric_itself_has_no_such_ap(tmp_path, said):
    try:
        found = evaluated(tmp_path, **said)
    except Exception:  # whatever it does
        return
    if "iou_thrs" in said:  # with an older numpy: the AP of these, and none at 0.5
        assert found["coco/bbox_mAP_50"] == -1
        return
    assert found.get("coco/bbox_mAP", -1) == -1


@pytest.mark.parametrize("said", ALLOWED)
def test_coco_metric_itself_has_an_ap_with_what_is_allowed(tmp_path, said):
    found = evaluated(tmp_path, **said)
    assert found[f"{said.get('prefix', 'coco')}/bbox_mAP"] == 1


def both(**test: Any) -> dict[str, Any]:
    """A config whose test part is its val part, but for what is said."""
    loader = {
        "batch_size": 1,
        "dataset": {"type": "CocoDataset", "ann_file": "val.json", "data_prefix": {"img": "val"}},
    }
    return {
        "val_dataloader": loader,
        "val_evaluator": COCO,
        "test_dataloader": {**loader, **test.get("loader", {})},
        "test_evaluator": test.get("evaluator", COCO),
    }


def test_a_test_part_that_measures_the_same_needs_no_word():
    same = both(
        loader={"batch_size": 4, "num_workers": 3}, evaluator=[{**COCO, "outfile_prefix": "out", "prefix": "b"}]
    )
    for config in (both(), same, {"val_evaluator": COCO, "val_dataloader": {}}, {**both(), "test_dataloader": None}):
        assert list(other_test_parts(config)) == []


def test_where_a_test_part_would_measure_something_else_is_named():
    other = {"type": "CocoDataset", "ann_file": "test.json", "data_prefix": {"img": "test"}}
    config = both(loader={"dataset": other}, evaluator={**COCO, "ann_file": "test.json", "format_only": True})
    assert list(other_test_parts(config)) == [
        "test_dataloader.dataset.ann_file",
        "test_dataloader.dataset.data_prefix.img",
        "test_evaluator.ann_file",
        "test_evaluator.format_only",
    ]
    assert list(other_test_parts(both(evaluator=VOC))) == [
        "test_evaluator.ann_file",
        "test_evaluator.metric",
        "test_evaluator.type",
    ]
    assert list(other_test_parts(both(evaluator=[COCO, VOC]))) == ["test_evaluator"]
