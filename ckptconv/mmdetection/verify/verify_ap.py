"""plan, prove, run, measure, judge, report: the whole of `verify-ap`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.check.verdict import CheckReport
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.loading.inert_load import require_readable
from ckptconv.mmdetection.verify import config_edits, same_network
from ckptconv.mmdetection.verify.data import subset, synthetic
from ckptconv.mmdetection.verify.data.check import check_data
from ckptconv.mmdetection.verify.data.findings import DataFindings
from ckptconv.mmdetection.verify.make_report import collect
from ckptconv.mmdetection.verify.measure import CocoMetricSettings, Measured, differences, measure
from ckptconv.mmdetection.verify.packages import gpus_here, require_packages
from ckptconv.mmdetection.verify.plan import VerificationPlan, make_plan
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.report import LoadProof, VerificationReport
from ckptconv.mmdetection.verify.report.write import write
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.requirements import require_machine
from ckptconv.mmdetection.verify.run import results
from ckptconv.mmdetection.verify.run.files import (
    CONFIG,
    CONVERTED,
    DETECTIONS,
    EVALUATION,
    RANDOM,
    RAW,
    Evaluation,
    Run,
    sha256,
)
from ckptconv.mmdetection.verify.run.supervisor import Stopped, Watch, locked, supervise
from ckptconv.mmdetection.verify.verdict import Unsound, flaws, judge, unproved

IDENTITY = "request.json"
Stage = Callable[[str], None]


def _ignore(*_: Any) -> None:
    pass


def planned(request: Request) -> VerificationPlan:
    """What `verify` would do, and nothing done. Raises UnreadableError for a checkpoint that is broken or not safe."""
    plan = make_plan(request, gpus_here())
    require_readable({**plan.config, "checkpoint": request.checkpoint}, plan.folder)
    return plan


def data_findings(plan: VerificationPlan, stage: Stage = _ignore) -> DataFindings:
    """Whether the user's data and the config fit together. Raises UnreadableError for a file that is not COCO's."""
    request = plan.request
    if plan.synthetic is not None or request.tier == "load":
        return DataFindings()
    parts = ("val",) if request.tier == "eval" else ("train", "val")
    return check_data(plan.config, parts, request.images, stage)


def verify(
    request: Request,
    watch: Watch = _ignore,
    stage: Stage = _ignore,
    plan: VerificationPlan | None = None,
    command_line: str = "",
) -> tuple[VerificationReport, Path]:
    """Do all of it, or continue it. Returns the report, and the work dir, which holds it too.

    ``watch`` is told each event of each run, and ``stage`` each step that begins, in words. ``plan``: what `planned`
    returned for the request. ``command_line``: what was typed, for the report.
    Raises UsageError, UnreadableError, EnvironmentMissingError, and what `supervise` raises for runs that break.
    """
    plan = plan or planned(request)
    require_packages()
    require_machine(plan, gpus_here())
    data = data_findings(plan, stage)
    data.require_none()
    for note in data.notes:
        stage(f"data: {note}")
    with locked(plan.folder) as lock:
        _require_same_request(plan)
        _write_config(plan.folder / CONFIG, plan.config)
        checked = None
        if plan.pretrained is not None or request.tier != "eval":
            stage("proof: building the detector and comparing it with its checkpoint")
            checked = check(plan.folder / CONFIG)
        unsound = Unsound(unproved(checked))
        measured = {} if unsound.failures else _run_all(plan, lock, watch, stage, unsound)
        verdict = judge(plan, checked, measured, unsound)
        report = collect(plan, _proof(plan, checked), measured, verdict, data.notes, command_line)
        write(report, plan.folder, _evaluated_images(plan), stage)
        return report, plan.folder


def _run_all(plan: VerificationPlan, lock: int, watch: Watch, stage: Stage, unsound: Unsound) -> dict[str, Measured]:
    """What the runs measured, by name. The first run that stops ends all of them; ``unsound`` gets the reasons."""
    measured: dict[str, Measured] = {}
    if plan.request.tier == "lift":
        _require_same_network(plan, stage)
    _prepare_data(plan, stage)
    for run, command in zip(plan.runs, plan.commands(), strict=True):
        stage(f"{run.name}: {_what(plan, run)}")
        _write_run_config(run)
        run.job.save(run.folder)
        if plan.launch.other_nodes:  # which read what is written by now
            stage(f"on each of the other nodes: {command}")
        try:
            supervise(run, plan.launch.command(run.folder), lock, watch)
        except Stopped as stopped:
            unsound.add(run, f"{run.name} was stopped: {stopped}")
            break
        one = results.measure_and_save(run.folder, partial(_measured, plan, run), stage)
        measured[run.name] = one
        unsound.add(run, *flaws(run, one))
        if one.unconfirmed:
            unsound.doubts.append(f"{run.name}: {one.unconfirmed} for the same detections")
    return measured


def _what(plan: VerificationPlan, run: Run) -> str:
    return f"training and evaluation, {plan.images_per_step} images per step" if run.job.train else "evaluation"


def _require_same_request(plan: VerificationPlan) -> None:
    """A work dir belongs to one request: the same one continues there. Raises UsageError for another one."""
    asked = asdict(plan.request)
    asked |= {
        "config": hashlib.sha256(python_source.assignments(plan.config).encode()).hexdigest(),
        "fingerprint": plan.pretrained.fingerprint if plan.pretrained else None,
        "detector_sha256": sha256(Path(plan.request.checkpoint)) if plan.request.checkpoint else None,
        "annotations_sha256": None if plan.synthetic else sha256(plan.annotations),
    }
    for free in ("expect", "tolerance", "work_dir", "seeds"):  # the same runs, judged again, or more of them
        asked.pop(free)
    asked = json.loads(json.dumps(asked))
    path = plan.folder / IDENTITY
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in asked if before.get(key) != asked[key]]
        if other:
            raise UsageError(
                f"{plan.folder} holds another run: its {', '.join(other)} differ{'s' if len(other) == 1 else ''}",
                "Give another `work_dir`, or remove that one.",
            )
    path.write_text(json.dumps(asked, indent=1), encoding="utf-8")


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    try:
        path.write_text(python_source.assignments(config), encoding="utf-8")
    except (TypeError, ValueError) as error:
        raise UsageError(f"the config cannot be written to a file: {error}", "Use plain values in it.") from None


def _write_run_config(run: Run) -> Path:
    run.folder.mkdir(exist_ok=True)
    _write_config(run.folder / CONFIG, run.config)
    return run.folder / CONFIG


def _proof(plan: VerificationPlan, checked: CheckReport | None) -> LoadProof | None:
    if checked is None or not checked.modules:
        return None
    reports, pretrained = checked.modules, plan.pretrained
    return LoadProof(
        equal=sum(report.equal for report in reports),
        total=sum(report.total for report in reports),
        checkpoint=reports[0].checkpoint,
        fingerprint=pretrained.fingerprint if pretrained else None,
        method=pretrained.method if pretrained else None,
        backbone=reports[0].network,
    )


def _require_same_network(plan: VerificationPlan, stage: Stage) -> None:
    stage("arms: building both networks and comparing them")
    one, other = (next(run for run in plan.runs if run.group == arm) for arm in (CONVERTED, RANDOM))
    same_network.require_same_network(_write_run_config(one), _write_run_config(other))


def _prepare_data(plan: VerificationPlan, stage: Stage) -> None:
    """Write the generated data, or the part of the user's data that the request asks for."""
    if plan.synthetic is not None and not (plan.data / "annotations" / "instances_val2017.json").exists():
        train, val, size = plan.synthetic.train_images, plan.synthetic.val_images, plan.synthetic.image_size
        stage(f"data: generating {train} images for training and {val} for evaluation")
        draft = plan.folder / ".data"
        synthetic.make(draft, train, val, size)
        draft.replace(plan.data)
    if plan.request.images is not None:
        stage(f"data: taking the first {plan.request.images} images of each part")
        plan.data.mkdir(exist_ok=True)
        for part, path in config_edits.annotation_files(plan.config).items():
            subset.write(path, plan.request.images, plan.data / f"{part}.json")


def _measured(plan: VerificationPlan, run: Run) -> Measured:
    own = _evaluated(plan, run, run.folder)
    if not (run.folder / RAW / EVALUATION).exists():
        return own
    raw = _evaluated(plan, run, run.folder / RAW)
    return replace(own, raw=raw.ap, unconfirmed="; ".join(filter(None, (own.unconfirmed, raw.unconfirmed))))


def _evaluated(plan: VerificationPlan, run: Run, folder: Path) -> Measured:
    evaluation = Evaluation.load(folder)
    own = measure(
        plan.annotations,
        folder / DETECTIONS,
        plan.metrics,
        len(evaluation.images),
        evaluation.categories,
        CocoMetricSettings.from_config(run.config["val_evaluator"]),
    )
    return replace(own, unconfirmed="; ".join(differences(own, evaluation.mmdet)))


def _evaluated_images(plan: VerificationPlan) -> EvaluatedImages | None:
    """What the first run evaluated; None if there is none."""
    for run in plan.runs[:1]:
        for dataset in config_edits.datasets(run.config, "val"):
            folder = (dataset.get("data_prefix") or {}).get("img", "")
            images = Path(dataset.get("data_root") or "") / folder
            try:
                categories = Evaluation.load(run.folder).categories
            except (OSError, ValueError, LookupError):
                return None
            return EvaluatedImages(plan.annotations, run.folder / DETECTIONS, images, categories)
    return None
