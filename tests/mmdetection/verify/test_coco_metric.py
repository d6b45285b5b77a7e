"""AP against MMDetection's CocoMetric itself, for drawn detections. ``EVALUATIONS=1000`` draws that many."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from pycocotools import mask as run_lengths

from ckptconv.mmdetection.verify.measure import NAMES, CocoMetricSettings, Measured, differences, measure

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
KINDS = {"box": "bbox", "mask": "segm"}
ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
SIDE = 128
# Width and height; areas of 32^2 and 96^2 and one pixel less and more, which are small, middle and large.
SIZES = ((32, 32), (31, 33), (25, 41), (16, 64), (96, 96), (95, 97), (97, 95), (72, 128), (8, 8), (60, 40), (2, 1))
SCORES = (0.0, 0.25, 0.5, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Case:
    """``images``: (objects, detections) of each, None where it was not evaluated; ``seed`` of where they are.

    ``ties``: few scores, and shared; ``buried``: what is near an object has the lower half of the scores.
    """

    seed: int
    images: list[tuple[int, int | None]]
    categories: list[int]
    evaluated: list[int]
    ties: bool
    buried: bool
    first: int
    said: dict[str, Any] = field(default_factory=dict)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    found = st.one_of(
        st.integers(0, 12), st.sampled_from((0, 1, 30, 99, 100, 101, 102, 130)), st.sampled_from((0, 5, 5, 240, 1030))
    )
    objects = st.integers(0, 5) | st.integers(0, 5) | st.sampled_from((0, 20, 120))
    categories = draw(st.lists(st.integers(1, 90), min_size=1, max_size=4, unique=True))
    return Case(
        seed=draw(st.integers(0, 2**32 - 1)),
        images=draw(st.lists(st.tuples(objects, st.none() | found | found), min_size=1, max_size=4)),
        categories=categories,
        evaluated=draw(st.lists(st.sampled_from(categories), min_size=1, unique=True)),
        ties=draw(st.booleans()),
        buried=draw(st.booleans()),
        first=draw(st.sampled_from((0, 1, 1, 7))),
        said=draw(
            st.fixed_dictionaries(
                {"metric": st.sampled_from((["bbox", "segm"], ["segm", "bbox"], ["proposal", "bbox", "segm"]))},
                optional={
                    "proposal_nums": st.sampled_from(((100, 1, 10), (1, 10, 100), [3, 100, 300, 1000], (7, 100, 50))),
                    "metric_items": st.sampled_from((["mAP", "mAP_50"], list(ITEMS))),
                    "classwise": st.booleans(),
                    "sort_categories": st.booleans(),
                },
            )
        ),
    )


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of the sizes above, [N, 4] as x, y, width, height, in whole pixels."""
    size = np.array(SIZES)[rng.integers(len(SIZES), size=count)].reshape(-1, 2)
    corner = np.floor(rng.random((count, 2)) * (SIDE + 1 - size))
    return np.concatenate([corner, size], 1)


def encoded(rows: np.ndarray) -> list[dict[str, Any]]:
    """A mask for each box, which is filled."""
    return run_lengths.frPyObjects(rows.astype(np.double), SIDE, SIDE) if len(rows) else []


def truth(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    """Annotations, some of crowds, some with an area of their own; a category may have none."""
    annotations: list[dict[str, Any]] = []
    for image, (objects, _) in enumerate(case.images):
        rows = boxes(rng, objects)
        for row, mask in zip(rows, encoded(rows), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + case.first,
                    "image_id": 3 * image + 2,
                    "category_id": int(rng.choice(case.categories)),
                    "bbox": row.tolist(),
                    "area": float(row[2] * row[3]) if rng.random() < 0.8 else float(rng.choice([1023, 1024, 9216])),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                }
            )
    images = [
        {"id": 3 * i + 2, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(len(case.images))
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in case.categories]
    return {"images": images, "categories": categories, "annotations": annotations}


def samples(case: Case, said: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """What a detector hands to CocoMetric: most boxes near an object, some elsewhere, and with ties in their scores."""
    for image, (_, count) in zip(said["images"], case.images, strict=True):
        if count is None:
            continue
        rows = boxes(rng, count)
        known = np.array([a["bbox"] for a in said["annotations"] if a["image_id"] == image["id"]]).reshape(-1, 4)
        near = rng.random(count) < (0.7 if len(known) else 0)
        if len(known):
            rows[near] = known[rng.integers(len(known), size=int(near.sum()))]
            rows[:, :2] = np.clip(
                rows[:, :2] + rng.integers(-2, 3, (count, 2)) * (rng.random((count, 1)) < 0.6), 0, None
            )
        scores = rng.choice(SCORES, count) if case.ties else rng.random(count)
        if case.buried:
            scores = scores / 2 + np.where(near, 0, 0.5)
        yield {
            "img_id": image["id"],
            "ori_shape": (SIDE, SIDE),
            "pred_instances": {
                "bboxes": torch.tensor(np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1)),
                "scores": torch.tensor(scores),
                "labels": torch.tensor(rng.integers(len(case.evaluated), size=count)),
                "masks": encoded(rows),
                **({"mask_scores": torch.tensor(rng.choice(SCORES, count))} if case.seed % 5 == 0 else {}),
            },
        }


@contextlib.contextmanager
def recorded() -> Iterator[dict[str, np.ndarray]]:
    """The unrounded ``stats`` of each evaluation that CocoMetric makes meanwhile, by pycocotools' kind."""
    stats: dict[str, np.ndarray] = {}

    def recording(summarize: Callable[[Any], None]) -> Callable[[Any], None]:
        def recorded(judge: Any) -> None:
            summarize(judge)
            if judge.params.useCats:  # not of proposals
                stats[judge.params.iouType] = judge.stats

        return recorded

    with pytest.MonkeyPatch.context() as patch:
        for judge in (coco_metric.COCOeval, coco_metric.COCOevalMP):
            patch.setattr(judge, "summarize", recording(judge.summarize))
        yield stats


def evaluated(case: Case, folder: Path) -> tuple[Measured, dict[str, np.ndarray], dict[str, float]]:
    """What is measured of CocoMetric's files; CocoMetric's numbers, unrounded and rounded."""
    rng = np.random.default_rng(case.seed)
    said = truth(case, rng)
    (folder / "truth.json").write_text(json.dumps(said))
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        metric = CocoMetric(str(folder / "truth.json"), outfile_prefix=str(folder / "found"), **case.said)
        metric.dataset_meta = {"classes": tuple(f"class {number}" for number in case.evaluated)}
        given_to = list(samples(case, said, rng))
        if not given_to:
            return Measured({}, 0, 0, 0), {}, {}
        metric.process({}, given_to)
        with recorded() as stats:
            rounded = metric.evaluate(len(given_to))
    counting = CocoMetricSettings.from_config(case.said)
    found = measure(folder / "truth.json", folder / "found", list(KINDS), len(given_to), metric.cat_ids, counting)
    return found, stats, {name.removeprefix("coco/"): value for name, value in rounded.items()}


def require_equal(case: Case, folder: Path) -> None:
    found, stats, rounded = evaluated(case, folder)
    for metric, values in found.ap.items():
        if KINDS[metric] not in stats:  # CocoMetric reports nothing where nothing was found
            assert found.detections == 0
            assert {v for v in values.values() if v is not None} <= {0.0}
            continue
        for i, name in enumerate(NAMES):
            value, theirs = values[name], float(stats[KINDS[metric]][i])
            assert (None if theirs == -1 else 100 * theirs) == value, (metric, name)
            if "metric_items" not in case.said or ITEMS[i] in case.said["metric_items"]:
                reported = rounded[f"{KINDS[metric]}_{ITEMS[i]}"]
                assert reported == (-1 if value is None else round(np.float64(theirs), 3)), (metric, name)
    assert list(differences(found, rounded)) == []


@settings(
    max_examples=int(os.environ.get("EVALUATIONS", "120")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases())
def test_ap_is_that_of_coco_metric_in_every_digit(tmp_path, case):
    require_equal(case, tmp_path)


CROWDED = Case(
    3, [(5, 1030), (4, 240), (5, None), (0, 3)], [4, 90, 17], [90, 4], True, True, 1, {"metric": ["bbox", "segm"]}
)


def with_settings(**said: Any) -> Case:
    return Case(**{**vars(CROWDED), "said": {**CROWDED.said, **said}})


@pytest.mark.parametrize("limits", [(100, 300, 1000), (100, 1, 10), [1000, 5, 100, 300]])
def test_more_detections_than_any_limit_have_coco_metrics_ap(tmp_path, limits):
    require_equal(with_settings(proposal_nums=limits), tmp_path)


def test_ap_by_class_is_coco_metrics_own(tmp_path):
    """Its own is of the largest limit, ours of that for AP: both are 100 here."""
    case = with_settings(proposal_nums=(1, 10, 100), classwise=True, metric=["bbox"])
    found, _, rounded = evaluated(case, tmp_path)
    theirs = {name.removesuffix("_precision"): ap for name, ap in rounded.items() if name.endswith("_precision")}
    assert theirs.keys() == found.classes["box"].keys() == {"class 4", "class 90"}
    for name, ap in found.classes["box"].items():
        assert ap is not None
        assert round(ap / 100, 3) == pytest.approx(float(theirs[name]), abs=5e-4), name
    assert len(set(found.classes["box"].values())) == 2


@pytest.mark.parametrize("limits", [(100, 300, 1000), (50, 200)])
def test_evaluated_by_several_processes_it_is_another_ap_and_still_coco_metrics(tmp_path, limits):
    require_equal(with_settings(proposal_nums=limits, use_mp_eval=True), tmp_path)


def test_a_limit_of_100_is_not_one_of_1000(tmp_path):
    """What was wrong once: detections 101 to 1000 do not count for AP, and do for the others."""
    found, stats, _ = evaluated(CROWDED, tmp_path)
    other = measure(
        tmp_path / "truth.json", tmp_path / "found", ["box"], 3, [90, 4], CocoMetricSettings(use_mp_eval=True)
    )
    assert other.ap["box"]["AP"] != found.ap["box"]["AP"]
    assert other.ap["box"]["AP75"] == found.ap["box"]["AP75"]
    assert set(stats) == {"bbox", "segm"}


def test_what_coco_metric_does_not_confirm_is_told(tmp_path):
    found, _, rounded = evaluated(CROWDED, tmp_path)
    wrong = {**rounded, "bbox_mAP": round(rounded["bbox_mAP"] + 0.001, 3), "segm_mAP_l": 0.5}
    assert found.ap["mask"]["APl"] is None
    assert list(differences(found, wrong)) == [
        f"box AP is {found.ap['box']['AP']:.2f}, CocoMetric reports {wrong['bbox_mAP']:g}",
        "mask APl is missing, CocoMetric reports 0.5",
    ]
