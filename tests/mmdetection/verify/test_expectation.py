"""What an AP is compared with: the row of the same recipe and the same weights, and no other."""

from __future__ import annotations

import pytest

from ckptconv.mmdetection.verify.expectation import how_to_compare, row_of
from ckptconv.mmdetection.verify.recipes import RECIPES

pytestmark = pytest.mark.mmdet
MOCO, SWAV = "mocov2-mask-rcnn-r50-fpn-1x", "swav-mask-rcnn-r50-fpn-1x"
ROWS = [RECIPES[MOCO], RECIPES[SWAV]]
THIS = f"this is the recipe of {MOCO} (box AP 38, mask AP 34.3), {SWAV} (box AP 39.1, mask AP 35.7)"


@pytest.mark.parametrize(("method", "row"), [("moco", MOCO), ("swav", SWAV), ("dino", None), (None, None)])
def test_a_row_is_that_of_the_weights(method, row):
    chosen = row_of(ROWS, method)
    assert (chosen.name if chosen else None) == row


def test_rows_that_differ_in_their_weights_only_are_none():
    rows = [row for row in RECIPES.values() if row.method == "mmselfsup"]
    assert len(rows) == 6
    assert row_of(rows, "mmselfsup") is None
    text = how_to_compare(rows, "mmselfsup")
    assert all(row.name in text for row in rows)
    assert text.endswith("): give the name of the one with your weights instead of the config, and `pretrained='CKPT'`")


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        (None, ": to compare with it, give the converted checkpoint of its weights, `pretrained='CKPT'`"),
        (
            "dino",
            (
                ", with other weights than those of dino: give the AP that you expect, "
                "`expect={'box': 'AP', 'mask': 'AP'}`"
            ),
        ),
    ],
)
def test_whose_recipe_it_is_is_said_with_what_to_type(method, advice):
    assert how_to_compare(ROWS, method) == THIS + advice


def test_a_recipe_of_nobody_is_not_named():
    assert how_to_compare([], "moco") == how_to_compare([], None) == ""
