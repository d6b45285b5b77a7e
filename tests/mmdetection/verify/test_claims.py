"""What a tier claims and what a verdict says of it: never more than was compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptconv.mmdetection.verify import claims
from ckptconv.mmdetection.verify.recipes import RECIPES
from ckptconv.mmdetection.verify.request import TIERS
from ckptconv.mmdetection.verify.verdict import FAIL, INCONCLUSIVE, MEASURED, PASS, Expected

pytestmark = pytest.mark.mmdet
MOCO, SWAV = "mocov2-mask-rcnn-r50-fpn-1x", "swav-mask-rcnn-r50-fpn-1x"
ROWS = [RECIPES[MOCO], RECIPES[SWAV]]
THIS = f"this is the recipe of {MOCO} (box AP 38, mask AP 34.3), {SWAV} (box AP 39.1, mask AP 35.7)"


def expected(source: str) -> Expected:
    return Expected({"box": 38.0}, 0.3, "noise", source)


@pytest.mark.parametrize(
    ("tier", "source", "said"),
    [
        ("full", None, "measures the AP; there is nothing to compare it with"),
        ("eval", None, "measures the AP; there is nothing to compare it with"),
        ("full", "--expect", "the training reaches the AP that --expect says"),
        ("eval", "--expect", "the detector has the AP that --expect says"),
        ("full", "a table", "the recipe's training reaches the published AP"),
        ("eval", "a table", "a trained detector has the AP that is said of it"),
        ("load", None, TIERS["load"]),
        ("lift", None, TIERS["lift"]),
        ("smoke", "the floor of this tier", TIERS["smoke"]),
        ("smoke", "--expect", TIERS["smoke"]),
    ],
)
def test_a_claim_says_what_is_compared(tier, source, said):
    assert claims.claim(tier, expected(source) if source else None) == said


@pytest.mark.parametrize("status", [PASS, FAIL, INCONCLUSIVE])
def test_a_smoke_test_says_nothing_of_the_weights(status):
    assert "nothing is said of the weights" in claims.meaning("smoke", status)
    assert "nothing about the weights, which --tier lift judges" in TIERS["smoke"]


@pytest.mark.parametrize(
    ("tier", "status"),
    [
        ("load", PASS),
        *((tier, status) for tier in ("smoke", "lift", "eval", "full") for status in (PASS, FAIL, INCONCLUSIVE)),
        *((tier, MEASURED) for tier in ("eval", "full")),
    ],
)
def test_every_verdict_has_a_meaning_of_its_own(tier, status):
    assert claims.meaning(tier, status)
    assert "published" not in claims.meaning(tier, status)


@pytest.mark.parametrize(("method", "row"), [("moco", MOCO), ("swav", SWAV), ("dino", None), (None, None)])
def test_a_row_is_that_of_the_weights(method, row):
    found = claims.row_of(ROWS, method)
    assert (found.name if found else None) == row


def test_rows_that_differ_in_their_weights_only_are_none():
    rows = [row for row in RECIPES.values() if row.method == "mmselfsup"]
    assert len(rows) == 6
    assert claims.row_of(rows, "mmselfsup") is None
    said = claims.known(rows, "mmselfsup")
    assert all(row.name in said for row in rows)
    assert said.endswith("): give the name of the one whose weights these are as TARGET, and --pretrained CKPT")


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        (None, ": give --pretrained CKPT, the converted file of its weights, to compare with it"),
        ("dino", ", and says nothing of weights of dino: give the AP that you expect, --expect box=...,mask=..."),
    ],
)
def test_whose_recipe_it_is_is_said_with_what_to_type(method, advice):
    assert claims.known(ROWS, method) == THIS + advice


def test_a_recipe_of_nobody_is_not_named():
    assert claims.known([], "moco") == claims.known([], None) == ""


def test_readme_says_of_smoke_what_it_claims():
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith("| `smoke` |")]
    claimed = row.split("|")[3]
    assert claimed.startswith(" the chain works, from the file to an AP")
    assert "Nothing about the weights" in claimed
