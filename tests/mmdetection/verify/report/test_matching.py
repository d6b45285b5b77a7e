"""Which detections are hits: by hand, and against COCOeval's own matches at one overlap."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ckptconv.mmdetection.verify.report.matching import FALSE, HIT, LEAST_OVERLAP, LEAST_SCORE, MISSED, matched, overlap

pytestmark = [
    pytest.mark.mmdet,
    # pycocotools is older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
boxes = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2).map(list)
objects = st.lists(
    st.fixed_dictionaries({"bbox": boxes, "category_id": st.integers(1, 2), "iscrowd": st.sampled_from((0, 0, 0, 1))}),
    max_size=6,
)
scores = st.lists(st.floats(0, 1, width=32), max_size=8, unique=True)


@st.composite
def detections(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {"bbox": draw(boxes), "category_id": draw(st.integers(1, 2)), "score": score, "image_id": 1}
        for score in draw(scores)
    ]


def theirs(annotations: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Hits, missed and false by COCOeval."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1}, {"id": 2}],
            "annotations": [
                {**one, "id": i, "image_id": 1, "area": one["bbox"][2] * one["bbox"][3]}
                for i, one in enumerate(annotations, 1)
            ],
        }
        truth.createIndex()
        sure = [one for one in found if one["score"] >= LEAST_SCORE]
        results = truth.loadRes(sure) if sure else COCO()
        if not sure:
            results.dataset = {"images": [{"id": 1}], "annotations": []}
            results.createIndex()
        judge = COCOeval(truth, results, "bbox")
        judge.params.iouThrs = np.array([LEAST_OVERLAP])
        judge.evaluate()
    hits = missed = false = 0
    for one in judge.evalImgs[: 2 * len(judge.params.areaRng) : len(judge.params.areaRng)]:
        if one is not None:
            real = ~np.array(one["gtIgnore"], bool)
            hits += int((one["gtMatches"][0][real] > 0).sum())
            missed += int((one["gtMatches"][0][real] == 0).sum())
            false += int(((one["dtMatches"][0] == 0) & ~one["dtIgnore"][0].astype(bool)).sum())
    return hits, missed, false


@given(objects, detections())
def test_it_is_what_cocoeval_matches(annotations, found):
    mine = matched(annotations, found)
    assert tuple(map(mine.count, (HIT, MISSED, FALSE))) == theirs(annotations, found)
    assert sum(one.kind == HIT for one in mine.detections) == mine.count(HIT)


@given(boxes, boxes)
def test_the_overlap_is_that_of_pycocotools(one, other):
    known = run_lengths.iou(np.array([one], np.double), np.array([other], np.double), [0])
    assert overlap(one, other) == pytest.approx(float(known[0, 0]))


def test_an_object_is_taken_once_and_by_the_surest():
    annotations = [{"bbox": [0, 0, 10, 10], "category_id": 1}]
    found = [{"bbox": [0, 0, 10, 10], "category_id": 1, "score": s, "image_id": 1} for s in (0.6, 0.9)]
    outcome = matched(annotations, found)
    assert [(one.kind, one.score) for one in outcome.detections] == [(HIT, 0.9), (FALSE, 0.6)]
    assert outcome.errors == 1
