"""What a tier shows, in words: before it runs by what it compares, afterwards by its verdict. Pure.

A sentence never says more than was looked at: a smoke test judges no weights, and an AP that is compared with nothing
reaches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckptconv.mmdetection.verify.recipes import Recipe
from ckptconv.mmdetection.verify.request import TIERS
from ckptconv.mmdetection.verify.verdict import FAIL, INCONCLUSIVE, MEASURED, PASS, Expected
from ckptconv.text import some

ASKED = "--expect"
"""The source of an AP that the user expects."""
NO_START = "that the detector starts from its checkpoint is not proved"
NO_EVIDENCE = "the run is unsound, so its AP is no evidence"
_OF_AN_AP = {
    PASS: "the AP is the one that is expected",
    FAIL: "the AP is not the one that is expected",
    INCONCLUSIVE: "whether the AP is the one that is expected cannot be told yet",
    MEASURED: "the AP is measured, and compared with nothing",
}
_MEANINGS: Mapping[str, Mapping[str, str]] = {
    "load": {PASS: "the detector starts from its checkpoint"},
    "smoke": {
        PASS: "the chain works; nothing is said of the weights, which --tier lift judges",
        FAIL: "the chain does not work, or learns too little; nothing is said of the weights",
        INCONCLUSIVE: "whether the chain works cannot be told yet; nothing is said of the weights",
    },
    "lift": {
        PASS: "the checkpoint helps on these images",
        FAIL: "the checkpoint does worse than random weights on these images",
        INCONCLUSIVE: "whether the checkpoint helps on these images cannot be told yet",
    },
    "eval": _OF_AN_AP,
    "full": _OF_AN_AP,
}


def claim(tier: str, expected: Expected | None) -> str:
    """What a tier shows if it passes, by what the AP is compared with."""
    if tier not in ("eval", "full"):
        return TIERS[tier]
    if expected is None:
        return "measures the AP; there is nothing to compare it with"
    if expected.source == ASKED:
        return f"the {'detector has' if tier == 'eval' else 'training reaches'} the AP that {ASKED} says"
    return TIERS[tier]


def meaning(tier: str, status: str) -> str:
    """What a verdict on a sound run says."""
    return _MEANINGS[tier][status]


def row_of(rows: Iterable[Recipe], method: str | None) -> Recipe | None:
    """Of the rows that have a config's recipe, the one of this method's weights; None for none, and for several."""
    found = [row for row in rows if row.method == method]
    return found[0] if len(found) == 1 else None


def known(rows: Iterable[Recipe], method: str | None) -> str:
    """Whose recipe a config has that no row is compared with, and how to compare it; '' where it is nobody's.

    ``method``: of the weights that it starts from; None where that is not known.
    """
    rows = list(rows)
    if not rows:
        return ""
    said = f"this is the recipe of {some([f'{r.name} (box AP {r.box:g}, mask AP {r.mask:g})' for r in rows], 6)}"
    if method is None:
        return f"{said}: give --pretrained CKPT, the converted file of its weights, to compare with it"
    if any(row.method == method for row in rows):
        return f"{said}: give the name of the one whose weights these are as TARGET, and --pretrained CKPT"
    return f"{said}, and says nothing of weights of {method}: give the AP that you expect, --expect box=...,mask=..."
