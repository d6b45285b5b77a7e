"""What notebooks show of each result: a few lines, in which every name is text."""

from __future__ import annotations

from typing import Any

import pytest

from ckptconv.difference.compare import Diff, DifferingShape, DiffSide
from ckptconv.proof.prove_module import Proof
from tests.support.html_page import Parsed

HOSTILE = "<script>alert(1)</script>"


def shown(value: Any) -> tuple[str, str, str]:
    """The colour, the headline and all of the text."""
    text = value._repr_html_()
    parsed = Parsed(text)
    assert "script" not in {tag for tag, _ in parsed.elements}
    (colour,) = [
        attrs["class"].split()[1] for _, attrs in parsed.elements if attrs.get("class", "").startswith("ckptconv")
    ]
    return colour, parsed.said("b")[0], " ".join(said for tag, said in parsed.texts if tag != "style")


def test_a_proof():
    assert shown(Proof(("a",), (), (), (), ()))[:2] == ("good", "1/1 tensors of the file are in the module, equal")
    colour, headline, text = shown(Proof(("a",), (HOSTILE,), (), (), ("head",)))
    assert (colour, headline) == ("bad", "1/2 tensors of the file are in the module, equal")
    assert f"1 with other numbers: {HOSTILE}" in text
    assert repr(Proof(("a",), (HOSTILE,), (), (), ("head",))).startswith("Proof(proved=False, equal=1, differing=1,")


def diff(**changed: Any) -> Diff:
    side = DiffSide(HOSTILE, "torch", 1, "", "moco", "ResNet-18", ())
    fields = {"equal": ("a", "b"), "rounded": (), "differing": (), "shapes": (), "only_a": (), "only_b": ()}
    return Diff(side, side, "mmdet", True, **{**fields, **changed})


def test_a_diff():
    assert shown(diff())[:2] == ("good", "The same numbers: 2 of 2 tensors are equal")
    colour, headline, text = shown(diff(shapes=(DifferingShape(HOSTILE, (1,), (2,)),), only_a=("x", "y")))
    assert (colour, headline) == ("bad", "Not the same: 2 of 3 tensors are equal")
    assert f"another shape 1: {HOSTILE}" in text
    assert "only in the first 2: x, y" in text


@pytest.mark.parametrize(
    ("status", "colour"), [("pass", "good"), ("measured", "good"), ("fail", "bad"), ("inconclusive", "warn")]
)
def test_a_verdict(status, colour):
    from ckptconv.mmdetection.verify.compare_ap import Verdict

    found = shown(Verdict(status, (HOSTILE, "box AP 30"), "at least 20", 7, HOSTILE))
    assert found[:2] == (colour, f"{status}: {HOSTILE}")
    assert "at least 20" in found[2]
    assert "about 7 would decide" in found[2]


@pytest.mark.mmdet
def test_a_comparison():
    from ckptconv.mmdetection.check.compare import Comparison

    assert shown(Comparison(equal=("a", "b")))[:2] == ("good", "2 of 2 tensors are equal")
    colour, headline, text = shown(Comparison(equal=("a",), differing=(HOSTILE,), unexpected=("c", "d")))
    assert (colour, headline) == ("bad", "1 of 2 tensors are equal")
    assert f"differing 1: {HOSTILE}" in text
    assert "not in the module 2: c, d" in text
