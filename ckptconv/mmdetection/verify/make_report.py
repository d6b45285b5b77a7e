"""A plan, and what its runs measured -> the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.type_names import type_name
from ckptconv.mmdetection.verify.compare_ap import Verdict
from ckptconv.mmdetection.verify.measure import Measured
from ckptconv.mmdetection.verify.plan import VerificationPlan
from ckptconv.mmdetection.verify.recipes import digest, length
from ckptconv.mmdetection.verify.report.report import (
    DataReport,
    DetectorReport,
    Evaluated,
    LoadProof,
    LossPoint,
    RecipeReport,
    RunReport,
    VerificationReport,
)
from ckptconv.mmdetection.verify.run.environment import value_or_none
from ckptconv.mmdetection.verify.run.events import curve
from ckptconv.mmdetection.verify.run.files import EVENTS, Run, RunResult, sha256

_POINTS = 400  # of a loss curve


def collect(
    plan: VerificationPlan,
    proof: LoadProof | None,
    measured: Mapping[str, Measured],
    verdict: Verdict,
    notes: Sequence[str] = (),
    command_line: str = "",
) -> VerificationReport:
    """The whole report.

    Args:
        measured: by the run's name; a run that did not end is left out.
        notes: of the data check.
        command_line: what was typed, if anything was.
    """
    first = next(iter(measured.values()), None)
    detector = plan.request.checkpoint
    return VerificationReport(
        config=plan.request.config,
        title=plan.title,
        tier=plan.request.tier,
        purpose=plan.purpose,
        verdict=verdict,
        expected=plan.expected,
        proof=proof,
        notes=plan.notes,
        recipe=_recipe(plan),
        data=DataReport(
            generated=plan.synthetic is not None,
            images=first.images if first else None,
            annotated=first.annotated if first else None,
            sha256=value_or_none(lambda: sha256(plan.annotations)),
            notes=tuple(notes),
        ),
        detector=DetectorReport(detector, value_or_none(lambda: sha256(Path(detector)))) if detector else None,
        runs=tuple(_run(run, measured[run.name]) for run in plan.runs if run.name in measured),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command_line=command_line,
    )


def _recipe(plan: VerificationPlan) -> RecipeReport:
    """What was run: of a training on generated images that is not the target's own recipe."""
    config = plan.runs[0].config if plan.runs else plan.config
    generated = plan.synthetic is not None
    row = plan.recipe if not generated else None
    return RecipeReport(
        digest=digest(config, plan.launch.processes) if generated else plan.digest,
        row=row.name if row else None,
        images_per_step=plan.images_per_step,
        length=length(config),
        lr=value_at(config, "optim_wrapper.optimizer.lr"),
        detector=type_name(value_at(config, "model")) or None,
        style=value_at(config, "model.backbone", {}).get("style", "pytorch"),
        schedule=row.schedule if row else None,
        stand_in=plan.stand_in.name if plan.stand_in else None,
    )


def _run(run: Run, measured: Measured) -> RunReport:
    result = RunResult.load(run.folder)
    course = curve(run.folder / EVENTS)
    thinned = course.steps[:: max(len(course.steps) // _POINTS, 1)]
    peaks = [result.peak_mib, *(step["memory_mib"] for step in course.steps)]
    return RunReport(
        name=run.name,
        group=run.group,
        seed=run.job.seed,
        iterations=result.iterations,
        starts=course.starts,
        seconds_per_step=course.seconds,
        images_per_second=result.images_per_second,
        peak_mib=max(filter(None, peaks), default=None),
        ap={metric: values["AP"] for metric, values in measured.ap.items()},
        metrics=measured.ap,
        raw=measured.raw,
        detections=measured.detections,
        steps=tuple(LossPoint(step["iteration"], step["loss"], step["lr"]) for step in thinned),
        evaluations=tuple(Evaluated(event["iteration"], event["ap"]) for event in course.evaluations),
        environment=result.environment,
        classes=measured.classes,
    )
