"""What a user can ask of `verify-ap`, validated where it is made. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ckptconv.arguments import argument
from ckptconv.errors import UsageError, unknown
from ckptconv.mmdetection.verify.tiers import TIERS
from ckptconv.small_file import is_file

LAUNCHERS = ("none", "pytorch", "slurm")
METRICS = ("box", "mask")


@dataclass(frozen=True)
class Request:
    """One call of `verify-ap`.

    ``config``: a path, 'mmdet::…', or a recipe's name. ``pretrained``: a converted checkpoint.
    ``checkpoint``: the trained detector of the eval tier. ``gpus`` per node; 0 is the CPU, None all of this machine.
    ``seeds``: how many trainings, with the seeds ``seed``, ``seed`` + 1, …; ``images``: how many of the user's data
    the lift takes.
    ``expect``: AP in percent by 'box' and 'mask'; ``tolerance`` in points.
    """

    config: str
    tier: str = "smoke"
    pretrained: str | None = None
    data_root: str | None = None
    images: int | None = None
    checkpoint: str | None = None
    gpus: int | None = None
    nodes: int = 1
    launcher: str | None = None
    work_dir: str | None = None
    seeds: int | None = None
    seed: int = 0
    amp: bool = False
    expect: Mapping[str, float] | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for what, name, table in (("tier", self.tier, TIERS), ("launcher", self.launcher or "none", LAUNCHERS)):
            if name not in table:
                raise unknown(what, name, table)
        for parameter, value, least in (
            ("gpus", self.gpus, 0),
            ("nodes", self.nodes, 1),
            ("seeds", self.seeds, 1),
            ("seed", self.seed, 0),
            ("images", self.images, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{argument(parameter, value)} is too small", f"Give {least} or more.", parameter)
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            points = self.tolerance if math.isfinite(self.tolerance) else str(self.tolerance)
            raise UsageError(
                f"{argument('tolerance', points)} is not a number of AP points",
                "Give 0 or more, such as 0.3.",
                "tolerance",
            )
        self._require_tier()

    def _require_tier(self) -> None:
        tier = argument("tier", self.tier)
        if self.tier == "eval" and self.checkpoint is None:
            raise UsageError(f"{tier} needs a trained detector", "Give `checkpoint='DETECTOR.pth'`.", "tier")
        for parameter, given, tiers in (
            ("checkpoint", self.checkpoint is not None, ("eval",)),
            ("images", self.images is not None, ("lift",)),
            ("data_root", self.data_root is not None, ("lift", "eval", "full")),
            ("expect", self.expect is not None, ("smoke", "eval", "full")),
            ("tolerance", self.tolerance is not None, ("smoke", "eval", "full")),
            ("amp", self.amp, ("smoke", "lift", "full")),
            ("seeds", self.seeds is not None, ("smoke", "lift", "full")),
        ):
            if given and self.tier not in tiers:
                advice = f"It applies to {' and '.join(argument('tier', name) for name in tiers)}."
                raise UsageError(f"{argument(parameter)} does not apply to {tier}", advice, parameter)
        if self.images is not None and self.data_root is None:
            raise UsageError("`images` needs a data set of your own", "Give it, too: `data_root='DIR'`.", "images")
        if self.tier == "lift" and self.seeds == 1:
            raise UsageError("one seed has no confidence interval", "Give `seeds=3` or more.", "seeds")


def expectations(text: str) -> dict[str, float]:
    """``box=38.0,mask=34.3`` as AP in percent. Raises UsageError for anything else."""
    expected: dict[str, float] = {}
    for part in text.split(","):
        name, mark, value = (word.strip() for word in part.partition("="))
        if name not in METRICS or not mark or name in expected:
            raise UsageError(
                f"{argument('expect', text)}: {part.strip()!r} is neither box=AP nor mask=AP",
                "Write it as box=38.0,mask=34.3.",
                "expect",
            )
        try:
            expected[name] = float(value)
        except ValueError:
            expected[name] = math.nan
        if not 0 <= expected[name] <= 100:
            raise UsageError(
                f"{argument('expect', text)}: {value!r} is not an AP in percent",
                "Write it as box=38.0,mask=34.3.",
                "expect",
            )
        if 0 < expected[name] < 1:
            raise UsageError(
                f"{argument('expect', text)}: AP is in percent here",
                f"Do you mean {name}={expected[name] * 100:g}?",
                "expect",
            )
    return expected


def is_config(name: str) -> bool:
    """Whether a name is that of a config, not of a recipe."""
    return "::" in name or name.endswith(".py") or "/" in name or is_file(name)
