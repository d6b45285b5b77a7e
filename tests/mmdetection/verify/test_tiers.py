"""What a tier shows and what its verdict means: never more than was compared."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptconv
from ckptconv.mmdetection.verify import tiers
from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE, MEASURED, PASS, Expected
from ckptconv.mmdetection.verify.tiers import TIERS

pytestmark = pytest.mark.mmdet


def expected(source: str) -> Expected:
    return Expected({"box": 38.0}, 0.3, "noise", source)


@pytest.mark.parametrize(
    ("tier", "source", "text"),
    [
        ("full", None, "measures the AP; there is nothing to compare it with"),
        ("eval", None, "measures the AP; there is nothing to compare it with"),
        ("full", "given by the user", "the training reaches the AP that is expected"),
        ("eval", "given by the user", "the detector has the AP that is expected"),
        ("full", "a table", "the recipe's training reaches the published AP"),
        ("eval", "a table", "a trained detector has the published AP"),
        ("load", None, TIERS["load"]),
        ("lift", None, TIERS["lift"]),
        ("smoke", "this tier's minimum", TIERS["smoke"]),
        ("smoke", "given by the user", TIERS["smoke"]),
    ],
)
def test_a_purpose_says_what_is_compared(tier, source, text):
    assert tiers.purpose(tier, expected(source) if source else None) == text


@pytest.mark.parametrize("status", [PASS, FAIL, INCONCLUSIVE])
def test_a_smoke_test_does_not_judge_the_weights(status):
    assert "this does not judge the weights" in tiers.meaning("smoke", status)
    assert "this does not judge the weights, the tier lift does" in TIERS["smoke"]


@pytest.mark.parametrize(
    ("tier", "status"),
    [
        ("load", PASS),
        *((tier, status) for tier in ("smoke", "lift", "eval", "full") for status in (PASS, FAIL, INCONCLUSIVE)),
        *((tier, MEASURED) for tier in ("eval", "full")),
    ],
)
def test_every_verdict_has_a_meaning_of_its_own(tier, status):
    assert tiers.meaning(tier, status)
    assert "published" not in tiers.meaning(tier, status)


def test_the_guide_says_of_smoke_what_it_shows():
    guide = (Path(ckptconv.__file__).parent / "guide" / "verify-ap.md").read_text(encoding="utf-8")
    (row,) = [line for line in guide.splitlines() if line.startswith("| `smoke` |")]
    shows = row.split("|")[3]
    assert shows.startswith(" the chain works, from the file to an AP")
    assert "It says nothing about the weights" in shows
