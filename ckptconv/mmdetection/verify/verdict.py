"""What was proved and measured -> the verdict. An unsound run proves nothing, at any AP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptconv.mmdetection.check.verdict import CheckReport
from ckptconv.mmdetection.verify import tiers
from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE, MEASURED, PASS, Verdict, compared
from ckptconv.mmdetection.verify.lift import frozen_whole, lifted
from ckptconv.mmdetection.verify.measure import Measured
from ckptconv.mmdetection.verify.plan import VerificationPlan
from ckptconv.mmdetection.verify.run.events import Curve, curve
from ckptconv.mmdetection.verify.run.files import CONVERTED, EVENTS, RANDOM, Run

CHECK = "ckptconv check"
_DIVERGED = 1.5  # mean loss of the last tenth of the steps, divided by that of the first


@dataclass
class Unsound:
    """Why an AP cannot be used.

    ``failures``: what is wrong with the checkpoint or its training; ``doubts``: what says nothing about the checkpoint,
    such as a random arm that diverged.
    """

    failures: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def add(self, run: Run, *reasons: str) -> None:
        (self.doubts if run.group == RANDOM else self.failures).extend(reasons)


def unproved(checked: CheckReport | None) -> list[str]:
    """Why it is not proved that the detector starts from its checkpoint."""
    if checked is None or checked.good:
        return []
    return [
        f"the detector does not start from its checkpoint: {finding.text}" if finding.certain else finding.text
        for finding in checked.findings
    ]


def flaws(run: Run, measured: Measured) -> Iterator[str]:
    """Why a run's AP cannot be trusted."""
    if measured.images < measured.annotated:
        yield f"{run.name}: only {measured.images} of {measured.annotated} images were evaluated"
    if run.job.train:
        yield from _diverged(run, curve(run.folder / EVENTS))


def _diverged(run: Run, course: Curve) -> Iterator[str]:
    losses = [step["loss"] for step in course.steps if step["loss"] is not None]
    tenth = max(len(losses) // 10, 1)
    if len(losses) > 1:
        first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        if last > _DIVERGED * first:
            yield f"{run.name} diverged: its loss rose from {first:.3g} to {last:.3g}"


def judge(
    plan: VerificationPlan, checked: CheckReport | None, measured: Mapping[str, Measured], unsound: Unsound
) -> Verdict:
    """The verdict. ``checked``: the proof of the start, if there was one; ``measured`` by the run's name."""
    if unsound.failures or unsound.doubts:
        started = checked is None or checked.good
        rule, means = ("an unsound run proves nothing", tiers.NO_EVIDENCE) if started else (CHECK, tiers.NO_START)
        sure = unsound.failures and (checked is None or checked.proved)
        return Verdict(FAIL if sure else INCONCLUSIVE, (*unsound.failures, *unsound.doubts), rule, meaning=means)
    verdict = _of_tier(plan, measured)
    return replace(verdict, meaning=tiers.meaning(plan.request.tier, verdict.status, plan.stand_in is not None))


def _of_tier(plan: VerificationPlan, measured: Mapping[str, Measured]) -> Verdict:
    if plan.request.tier == "load":
        return Verdict(PASS, ("every tensor of the backbone equals the checkpoint",), CHECK)
    if plan.request.tier == "lift":
        return lifted(dict(_differences(plan, measured)), frozen_whole(plan.config["model"]["backbone"]))
    values = {metric: [_ap(one, metric) for one in measured.values()] for metric in plan.metrics}
    if plan.expected is None:
        aps = ", ".join(f"{metric} AP {several[0]:.2f}" for metric, several in values.items())
        reasons = (
            f"{aps}; there is nothing to compare it with: no published row, and no `expect`",
            plan.how_to_compare,
        )
        return Verdict(MEASURED, tuple(filter(None, reasons)), "none")
    return compared(values, plan.expected)


def _ap(measured: Measured, metric: str) -> float:
    value = measured.main(metric)
    return 0.0 if value is None else value


def _differences(plan: VerificationPlan, measured: Mapping[str, Measured]) -> Iterator[tuple[str, Sequence[float]]]:
    """By metric: AP of the converted backbone above that of random weights, one difference per seed."""
    for metric in plan.metrics:
        converted, random = (
            [_ap(measured[run.name], metric) for run in plan.runs if run.group == arm] for arm in (CONVERTED, RANDOM)
        )
        yield metric, [one - other for one, other in zip(converted, random, strict=True)]
