"""What the AP of a run is compared with: the user's, that of a published row, the tier's minimum, or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify.compare_ap import FAIL, PASS, Expected
from ckptconv.mmdetection.verify.recipes import Recipe
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.tiers import EXPECT
from ckptconv.text import some

_LEAST = 20.0, "an untrained detector has 0"
_LEAST_OF_SLOW = 0.5, "an untrained detector has 0, and this network learns slowly from few images"
"""AP points of a smoke test, and why. Small ViTs from random weights reached 2 to 3, a ResNet-18 reached 71."""
_TESTED = (
    0.07,
    (
        "the same weights, tested again: 0.05 for rounding to one decimal, 0.02 for another GPU, as detectron2's "
        "verify_results allows"
    ),
)
_TRAINED = (0.3, "another training of the same recipe: mmdet's maintainers call this noise")


def expectation(request: Request, recipe: Recipe | None, digest: str, slow: bool = False) -> Expected | None:
    """What the AP is compared with; None for nothing.

    ``recipe``: the row that is named, or that has the digest and the method. ``slow``: whether the backbone is
    a transformer of timm, or a small network of random weights. Raises UsageError where the AP of the row
    that is named does not apply to a run with this digest.
    """
    tier, tolerance = request.tier, request.tolerance
    usual = _TESTED if tier == "eval" else _TRAINED
    reason = usual[1] if tolerance is None else "as asked"
    above = FAIL if tier == "eval" else "remark"
    if request.expect is not None:
        return Expected(request.expect, usual[0] if tolerance is None else tolerance, reason, EXPECT, above)
    if tier == "smoke":
        least, why = _LEAST_OF_SLOW if slow else _LEAST
        return Expected({"box": least}, tolerance or 0, why, "this tier's minimum", PASS)
    if tier not in ("full", "eval") or recipe is None:
        return None
    if recipe.digest != digest:
        cause = "`amp` changes the recipe" if request.amp else "this is another recipe"
        raise UsageError(
            f"the AP of {recipe.name} does not apply: {cause}",
            "Give the AP that you expect: `expect={'box': 'AP', 'mask': 'AP'}`",
        )
    points, why = usual if tier == "eval" else (recipe.tolerance, recipe.reason)
    if tolerance is not None:
        points, why = tolerance, "as asked"
    return Expected({"box": recipe.box, "mask": recipe.mask}, points, why, recipe.source, above)


def row_of(rows: Iterable[Recipe], method: str | None) -> Recipe | None:
    """Of the rows with a config's recipe, the one of this method's weights; None for none, and for several."""
    matching = [row for row in rows if row.method == method]
    return matching[0] if len(matching) == 1 else None


def how_to_compare(rows: Iterable[Recipe], method: str | None) -> str:
    """Which rows have a config's recipe, and how to compare with one of them; '' where there are none.

    ``method``: of the weights that it starts from; None where that is not known.
    """
    rows = list(rows)
    if not rows:
        return ""
    names = some([f"{r.name} (box AP {r.box:g}, mask AP {r.mask:g})" for r in rows], 6)
    recipe = f"this is the recipe of {names}"
    if method is None:
        return f"{recipe}: to compare with it, give the converted checkpoint of its weights, `pretrained='CKPT'`"
    if any(row.method == method for row in rows):
        return f"{recipe}: give the name of the one with your weights instead of the config, and `pretrained='CKPT'`"
    return (
        f"{recipe}, with other weights than those of {method}: give the AP that you expect, "
        "`expect={'box': 'AP', 'mask': 'AP'}`"
    )
