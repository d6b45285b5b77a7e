"""Verdicts: intervals against scipy's, bounds to the last digit, and rules that hold for any numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ckptconv.mmdetection.verify.compare_ap import (
    FAIL,
    GOOD,
    INCONCLUSIVE,
    MEASURED,
    PASS,
    Expected,
    compared,
    interval,
)
from ckptconv.mmdetection.verify.lift import lifted

pytestmark = pytest.mark.mmdet

BOX = Expected({"box": 38.0}, 0.5, "noise", "a table")
RANK = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}
ABOVE = st.sampled_from([FAIL, "remark", PASS])
APS = st.lists(st.floats(0, 100), min_size=1, max_size=6)
EVERY = settings(deadline=None, derandomize=True, max_examples=300)


def like(values: list[float], seeds: int) -> list[float]:
    """As many values, with the same mean and the same scatter."""
    spread = np.arange(seeds) - (seeds - 1) / 2
    return list(fmean(values) + stdev(values) * spread / np.std(spread, ddof=1))


def test_the_interval_of_three_seeds_is_that_of_a_table_of_student():
    found = interval([40.0, 41.0, 42.0])
    assert found.mean == 41
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)  # t of 2 degrees of freedom at 97.5 %
    assert found.seeds == 3
    assert str(found) == "41.00 ± 2.48"


@EVERY
@given(st.lists(st.floats(0, 100), min_size=2, max_size=8).filter(lambda v: stdev(v) > 1e-6))
def test_the_interval_is_scipys(values):
    found = interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)


def test_one_seed_has_no_width():
    found = interval([38.04])
    assert found.half is None
    assert found.low == found.high == found.mean == 38.04
    assert str(found) == "38.04"


def test_equal_seeds_have_no_width():
    assert interval([38.0, 38.0, 38.0]).half == 0


@pytest.mark.parametrize(
    ("above", "measured", "status"),
    [
        *((above, 37.5, PASS) for above in (FAIL, "remark", PASS)),
        *((above, math.nextafter(37.5, 0), FAIL) for above in (FAIL, "remark", PASS)),
        *((above, 38.5, PASS) for above in (FAIL, "remark", PASS)),
        (FAIL, math.nextafter(38.5, 100), FAIL),
        ("remark", 60.0, PASS),
        (PASS, 60.0, PASS),
        *((above, 0.0, FAIL) for above in (FAIL, "remark", PASS)),
    ],
)
def test_the_bounds_themselves_are_allowed(above, measured, status):
    assert compared({"box": [measured]}, replace(BOX, above=above)).status == status


def test_no_tolerance_allows_the_value_itself_only():
    exact = replace(BOX, tolerance=0, above=FAIL)
    assert compared({"box": [38.0]}, exact).status == PASS
    assert compared({"box": [math.nextafter(38, 0)]}, exact).status == FAIL
    assert compared({"box": [math.nextafter(38, 100)]}, exact).status == FAIL


def test_a_failure_says_by_how_much_and_on_which_side():
    below = compared({"box": [36.0]}, BOX)
    assert below.reasons == ("box AP 36.00, expected 38: 1.50 points below the tolerance of 0.5",)
    above = compared({"box": [40.0]}, replace(BOX, above=FAIL))
    assert above.reasons == ("box AP 40.00, expected 38: 1.50 points above the tolerance of 0.5",)


def test_an_ap_that_is_too_good_is_worth_a_remark():
    remarked = compared({"box": [38.6]}, BOX)
    assert remarked.status == PASS
    assert remarked.reasons == (
        "box AP 38.60, expected 38: more than noise explains; check whether it is the same recipe",
    )
    assert compared({"box": [38.5]}, BOX).reasons == ("box AP 38.50, expected 38",)
    assert compared({"box": [38.6]}, replace(BOX, above=PASS)).reasons == ("box AP 38.60, expected 38",)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([37.9, 38.0, 38.1], PASS),  # 38 ± 0.25
        ([37.7, 38.0, 38.3], INCONCLUSIVE),  # 38 ± 0.75
        ([37.2, 37.5, 37.8], INCONCLUSIVE),  # 37.5 ± 0.75
        ([36.5, 36.8, 37.1], INCONCLUSIVE),  # 36.8 ± 0.75
        ([36.3, 36.6, 36.9], FAIL),  # 36.6 ± 0.75
        ([30.0, 30.1, 30.2], FAIL),
    ],
)
def test_several_seeds_are_judged_by_their_interval(values, status):
    assert compared({"box": values}, BOX).status == status


def test_the_ends_of_the_interval_may_stand_on_the_bounds():
    values = [37.7, 38.0, 38.3]
    low = interval(values).low
    at = replace(BOX, ap={"box": low + 0.5})
    assert at.ap["box"] - 0.5 == low
    assert compared({"box": values}, at).status == PASS
    assert compared({"box": values}, replace(at, ap={"box": math.nextafter(at.ap["box"], 100)})).status == INCONCLUSIVE


def test_an_interval_wider_than_the_band_is_inconclusive():
    verdict = compared({"box": [37.0, 38.0, 39.0]}, replace(BOX, above=FAIL))
    assert verdict.status == INCONCLUSIVE
    assert verdict.reasons[0].startswith("box AP 38.00 ± 2.48, expected 38: its interval contains 3")


@pytest.mark.parametrize(
    ("box", "mask", "status"),
    [
        (38.0, 34.0, PASS),
        (38.0, 30.0, FAIL),
        (30.0, 34.0, FAIL),
        (30.0, 30.0, FAIL),
    ],
)
def test_the_worst_of_the_metrics_decides(box, mask, status):
    verdict = compared({"box": [box], "mask": [mask]}, replace(BOX, ap={"box": 38.0, "mask": 34.0}))
    assert verdict.status == status
    assert [reason.split()[0] for reason in verdict.reasons] == ["box", "mask"]


def test_a_metric_that_is_undecided_leaves_all_of_it_undecided():
    values = {"box": [38.0, 38.0, 38.0], "mask": [33.5, 34.1, 34.7]}
    verdict = compared(values, replace(BOX, ap={"box": 38.0, "mask": 34.0}))
    assert verdict.status == INCONCLUSIVE
    assert verdict.needed is not None


def test_a_metric_that_nobody_expects_does_not_count():
    assert compared({"box": [38.0], "mask": [0.0]}, BOX).status == PASS


def test_a_pass_needs_no_more_seeds():
    assert compared({"box": [38.0, 38.0, 38.0]}, BOX).needed is None
    assert compared({"box": [10.0]}, BOX).needed is None


def test_seeds_that_do_not_scatter_around_the_bound_are_never_enough():
    values = [37.4, 37.5, 37.6]
    assert fmean(values) == 37.5
    verdict = compared({"box": values}, BOX)
    assert (verdict.status, verdict.needed) == (INCONCLUSIVE, None)


@EVERY
@given(st.lists(st.floats(30, 45), min_size=2, max_size=6), ABOVE, st.floats(0, 3))
def test_as_many_seeds_as_are_needed_decide_and_one_less_does_not(values, above, tolerance):
    expected = replace(BOX, above=above, tolerance=tolerance)
    verdict = compared({"box": values}, expected)
    if verdict.needed is None:
        return
    assert verdict.status == INCONCLUSIVE
    assert verdict.needed > len(values)
    assert compared({"box": like(values, verdict.needed)}, expected).status in (PASS, FAIL)
    assert compared({"box": like(values, verdict.needed - 1)}, expected).status == INCONCLUSIVE


@EVERY
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6))
def test_as_many_seeds_as_a_lift_needs_decide_it(values):
    verdict = lifted({"box": values})
    if verdict.needed is not None:
        assert verdict.status == INCONCLUSIVE
        assert lifted({"box": like(values, verdict.needed)}).status in (PASS, FAIL)


@EVERY
@given(APS, st.floats(0, 100), ABOVE, st.floats(0, 20), st.floats(0, 20))
def test_more_tolerance_never_makes_a_verdict_worse(values, ap, above, tolerance, more):
    expected = Expected({"box": ap}, tolerance, "noise", "a table", above)
    wider = replace(expected, tolerance=tolerance + more)
    assert RANK[compared({"box": values}, wider).status] >= RANK[compared({"box": values}, expected).status]


@EVERY
@given(APS, st.floats(0, 100), st.floats(0, 20), st.floats(0, 20))
def test_more_ap_never_makes_a_verdict_worse_where_above_is_good(values, ap, tolerance, more):
    expected = Expected({"box": ap}, tolerance, "noise", "a table", PASS)
    better = replace(expected, ap={"box": ap - more})  # the same as more AP, without its rounding
    assert RANK[compared({"box": values}, better).status] >= RANK[compared({"box": values}, expected).status]


@EVERY
@given(APS, st.floats(0, 100), ABOVE, st.floats(0, 20), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(values, ap, above, tolerance, random):
    expected = Expected({"box": ap}, tolerance, "noise", "a table", above)
    shuffled = random.sample(values, len(values))
    assert compared({"box": shuffled}, expected).status == compared({"box": values}, expected).status


@EVERY
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_a_lift_turned_round_is_turned_round(values):
    turned = {PASS: FAIL, FAIL: PASS, INCONCLUSIVE: INCONCLUSIVE}
    assert lifted({"box": [-v for v in values]}).status == turned[lifted({"box": values}).status]


@pytest.mark.parametrize(
    ("values", "status", "said"),
    [
        ([5.0, 5.5, 6.0], PASS, ()),
        ([-5.0, -5.5, -6.0], FAIL, ("the checkpoint is worse than random weights",)),
        ([-1.0, 0.0, 1.5], INCONCLUSIVE, ("the interval contains 0",)),
        ([0.0, 0.0, 0.0], INCONCLUSIVE, ("the interval contains 0",)),
    ],
)
def test_a_lift_is_judged_by_whether_its_interval_holds_zero(values, status, said):
    verdict = lifted({"box": values})
    assert verdict.status == status
    assert verdict.reasons[1:] == said
    assert verdict.reasons[0].startswith("box AP ")
    assert verdict.reasons[0].endswith(" above random weights")


def test_box_ap_decides_a_lift_and_mask_ap_is_told():
    verdict = lifted({"mask": [-3.0, -3.1, -3.2], "box": [3.0, 3.1, 3.2]})
    assert verdict.status == PASS
    assert len(verdict.reasons) == 2
    assert "box AP over 3 seeds" in verdict.rule
    assert lifted({"mask": [-3.0, -3.1, -3.2]}).status == FAIL


def test_the_rule_is_told_in_words():
    one = compared({"box": [38.0]}, BOX)
    assert one.rule == "box AP 38, at most 0.5 points below (noise)"
    assert compared({"box": [38.0]}, replace(BOX, above=FAIL)).rule == "box AP 38, at most 0.5 points off (noise)"
    assert compared({"box": [38.0]}, replace(BOX, above=PASS, tolerance=0)).rule == "at least box AP 38 (noise)"
    many = compared({"box": [38.0, 38.0]}, BOX)
    assert many.rule.startswith(one.rule)
    assert "the 95% interval of the mean of 2 seeds must lie inside" in many.rule


def test_only_a_pass_and_a_mere_measurement_are_good():
    assert {PASS, MEASURED, FAIL, INCONCLUSIVE} - set(GOOD) == {FAIL, INCONCLUSIVE}
