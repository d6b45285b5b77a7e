"""What a tier shows, in words: its purpose before it runs, and afterwards what its verdict means. Pure.

A sentence never says more than was measured: a smoke test does not judge the weights, and an AP that is compared with
nothing confirms nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE, MEASURED, PASS, Expected

TIERS: Mapping[str, str] = {
    "load": "the detector starts from its checkpoint; nothing is trained",
    "smoke": "the chain works, from the file to an AP; this does not judge the weights, the tier lift does",
    "lift": "the checkpoint helps: its AP compared with that of the same network from random weights",
    "eval": "a trained detector has the published AP",
    "full": "the recipe's training reaches the published AP",
}
"""Each tier with what it shows if it passes."""
EXPECT = "given by the user"
"""The source of an AP that the user expects."""
NO_START = "it is not proved that the detector starts from its checkpoint"
NO_EVIDENCE = "the run is unsound, so its AP proves nothing"
_OF_AN_AP = {
    PASS: "the AP is as expected",
    FAIL: "the AP is not as expected",
    INCONCLUSIVE: "it is not clear yet whether the AP is as expected",
    MEASURED: "the AP is measured, and compared with nothing",
}
_MEANINGS: Mapping[str, Mapping[str, str]] = {
    "load": {PASS: "the detector starts from its checkpoint"},
    "smoke": {
        PASS: "the chain works; this does not judge the weights, the tier lift does",
        FAIL: "the chain does not work, or the detector learns too little; this does not judge the weights",
        INCONCLUSIVE: "it is not clear yet whether the chain works; this does not judge the weights",
    },
    "lift": {
        PASS: "the checkpoint helps on these images",
        FAIL: "the checkpoint is worse than random weights on these images",
        INCONCLUSIVE: "it is not clear yet whether the checkpoint helps on these images",
    },
    "eval": _OF_AN_AP,
    "full": _OF_AN_AP,
}


_STAND_IN = "the detector starts from its checkpoint, and trains with a small network of the same class"
_MEANINGS_WITH_STAND_IN: Mapping[str, str] = {
    PASS: f"{_STAND_IN}; the network of the checkpoint was not trained",
    FAIL: "with a small network of the same class the detector does not train, or learns too little; the network of "
    "the checkpoint was not trained",
    INCONCLUSIVE: "it is not clear yet whether the detector trains with a small network of the same class; the "
    "network of the checkpoint was not trained",
}


def purpose(tier: str, expected: Expected | None, stand_in: bool = False) -> str:
    """What a tier shows if it passes, by what the AP is compared with, and whether a small network is trained."""
    if tier == "smoke" and stand_in:
        return _STAND_IN
    if tier not in ("eval", "full"):
        return TIERS[tier]
    if expected is None:
        return "measures the AP; there is nothing to compare it with"
    if expected.source == EXPECT:
        return f"the {'detector has' if tier == 'eval' else 'training reaches'} the AP that is expected"
    return TIERS[tier]


def meaning(tier: str, status: str, stand_in: bool = False) -> str:
    """What a verdict on a sound run says."""
    return _MEANINGS_WITH_STAND_IN[status] if tier == "smoke" and stand_in else _MEANINGS[tier][status]
