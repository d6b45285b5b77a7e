"""plan, prove, run, measure, judge, report: six calls in a row."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.run import CheckReport, check
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.loading.inert_load import require_readable
from ckptconv.mmdetection.verify import claims, config_edits, same_network
from ckptconv.mmdetection.verify.data import subset, synthetic
from ckptconv.mmdetection.verify.data.check import check as check_data
from ckptconv.mmdetection.verify.data.findings import Findings
from ckptconv.mmdetection.verify.measure import Counting, Measured, differences, measure
from ckptconv.mmdetection.verify.packages import gpus_there, require_packages
from ckptconv.mmdetection.verify.plan import CONVERTED, RANDOM, Plan, plan
from ckptconv.mmdetection.verify.report import html, report
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.requirements import require_machine
from ckptconv.mmdetection.verify.run import results
from ckptconv.mmdetection.verify.run.events import Curve, curve
from ckptconv.mmdetection.verify.run.files import CONFIG, DETECTIONS, EVALUATION, EVENTS, RAW, Run
from ckptconv.mmdetection.verify.run.supervisor import Stopped, Watch, alone, conduct
from ckptconv.mmdetection.verify.verdict import FAIL, INCONCLUSIVE, MEASURED, PASS, Verdict, compared, lifted

IDENTITY = "request.json"
CHECK = "ckptconv check"
_DIVERGED = 1.5  # mean loss of the last tenth of the steps over that of the first


def planned(request: Request) -> Plan:
    """What `verify` would do, and nothing done. Raises UnreadableError for a checkpoint that is broken or not safe."""
    made = plan(request, gpus_there())
    require_readable({**made.config, "checkpoint": request.detector}, made.folder)
    return made


def examined(made: Plan, stage: Callable[[str], None] = lambda _: None) -> Findings:
    """Whether the user's data and the config go together. Raises UnreadableError for a file that is not COCO's."""
    if made.training is not None or made.request.tier == "load":
        return Findings()
    parts = ("val",) if made.request.tier == "eval" else ("train", "val")
    return check_data(made.config, parts, made.request.images, stage)


def verify(
    request: Request,
    watch: Watch | None = None,
    stage: Callable[[str], None] = lambda _: None,
    made: Plan | None = None,
) -> tuple[report.Report, Path]:
    """Do all of it, or go on with it. Returns the report and the work dir, where it is written, too.

    ``watch`` is told each event of each run; ``stage`` what begins, in words. ``made`` is what `planned` has
    made of the request.
    Raises UsageError, UnreadableError, EnvironmentMissingError, and what `conduct` raises for runs that break.
    """
    made = made or planned(request)
    require_packages()
    require_machine(made, gpus_there())
    seen = examined(made, stage)
    seen.require_none()
    for note in seen.notes:
        stage(f"data: {note}")
    with alone(made.folder) as lock:
        _claim(made)
        _write_config(made.folder / CONFIG, made.config)
        checked = None
        measured: dict[str, Measured] = {}
        if made.start is not None or request.tier != "eval":
            stage("proof: the detector is built and compared with its checkpoint")
            checked = check(made.folder / CONFIG)
        reasons = [] if checked is None or checked.good else list(_unproved(checked))
        weak: list[str] = []  # what says nothing about the checkpoint, as what is wrong with the opponent of a lift
        if not reasons:
            try:
                if request.tier == "lift":
                    _require_alike(made, stage)
                _prepare(made, stage)
                for run, command in zip(made.runs, made.commands(), strict=True):
                    stage(f"{run.name}: {_what(made, run)}")
                    if made.launch.apart:
                        stage(f"on each of the other nodes: {command}")
                    _lay_out(run)
                    run.job.save(run.folder)
                    conduct(run, made.launch.command(run.folder), lock, watch or _unwatched)
                    measured[run.name] = results.measured(run.folder, partial(_measured, made, run), stage)
                    (weak if run.group == RANDOM else reasons).extend(_spoilt(run, measured[run.name]))
                    if text := measured[run.name].unconfirmed:
                        weak.append(f"{run.name}: {text} for the same detections")
            except Stopped as stopped:
                (weak if run.group == RANDOM else reasons).append(f"{run.name} was stopped: {stopped}")
        if reasons or weak:
            started = checked is None or checked.good
            rule, means = ("an unsound run is no evidence", claims.NO_EVIDENCE) if started else (CHECK, claims.NO_START)
            sure = reasons and (checked is None or checked.proved)
            verdict = Verdict(FAIL if sure else INCONCLUSIVE, (*reasons, *weak), rule, meaning=means)
        else:
            verdict = _judged(made, measured)
            verdict = replace(verdict, meaning=claims.meaning(request.tier, verdict.status))
        found = report.report(made, _proof(made, checked), measured, verdict, seen.notes)
        for name, write in report.FORMS.items():
            _write(made.folder / name, partial(write, found, made.folder), stage)
        _write(made.folder / html.PAGE, lambda: html.write(found, made.folder, _seen(made)), stage)
        return found, made.folder


def _write(path: Path, write: Callable[[], None], stage: Callable[[str], None]) -> None:
    """Write a form of the report. One that fails, on a full disk or for any reason, is said: the verdict stands."""
    try:
        write()
    except Exception as error:  # whatever drawing a page may do
        why = runtime.error_line(error)
        stage(f"{path} could not be written: {why}; the same command writes it, without training again")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # an earlier one would tell of another verdict


def _unwatched(*_: Any) -> None:
    pass


def _what(made: Plan, run: Run) -> str:
    return f"trains and is evaluated, {made.images} images a step" if run.job.train else "is evaluated"


def _claim(made: Plan) -> None:
    """A work dir belongs to one question: asked again it goes on; another one is refused."""
    asked = asdict(made.request)
    asked |= {
        "config": hashlib.sha256(python_source.assignments(made.config).encode()).hexdigest(),
        "fingerprint": made.start.fingerprint if made.start else None,
        "detector_sha256": report.hashed(Path(made.request.detector)) if made.request.detector else None,
        "annotations_sha256": None if made.training else report.hashed(report.truth(made)),
    }
    for free in ("expected", "tolerance", "work_dir", "seeds"):  # the same runs, judged anew, or more of them
        asked.pop(free)
    asked = json.loads(json.dumps(asked))
    path = made.folder / IDENTITY
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in asked if before.get(key) != asked[key]]
        if other:
            raise UsageError(
                f"{made.folder} holds another run: its {', '.join(other)} differ{'s' if len(other) == 1 else ''}",
                "Give another --work-dir, or remove that one.",
            )
    path.write_text(json.dumps(asked, indent=1), encoding="utf-8")


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    try:
        path.write_text(python_source.assignments(config), encoding="utf-8")
    except (TypeError, ValueError) as error:
        raise UsageError(f"the config cannot be written down: {error}", "Use plain values in it.") from None


def _unproved(checked: CheckReport) -> Iterator[str]:
    for found in checked.findings:
        yield f"the detector does not start from its checkpoint: {found.text}" if found.certain else found.text


def _proof(made: Plan, checked: CheckReport | None) -> Mapping[str, Any] | None:
    if checked is None or not checked.modules:
        return None
    reports = checked.modules
    return {
        "equal": sum(r.equal for r in reports),
        "total": sum(r.total for r in reports),
        "checkpoint": reports[0].checkpoint,
        "fingerprint": made.start.fingerprint if made.start else None,
        "method": made.start.method if made.start else None,
        "backbone": reports[0].network,
    }


def _lay_out(run: Run) -> Path:
    run.folder.mkdir(exist_ok=True)
    _write_config(run.folder / CONFIG, run.config)
    return run.folder / CONFIG


def _require_alike(made: Plan, stage: Callable[[str], None]) -> None:
    stage("arms: both networks are built and compared")
    one, other = (next(run for run in made.runs if run.group == arm) for arm in (CONVERTED, RANDOM))
    same_network.require_alike(_lay_out(one), _lay_out(other))


def _prepare(made: Plan, stage: Callable[[str], None]) -> None:
    """The generated data, or the part of the user's that is asked for."""
    if made.training is not None and not (made.data / "annotations" / "instances_val2017.json").exists():
        stage(f"data: {made.training.train} images to train on and {made.training.val} to evaluate are drawn")
        draft = made.folder / ".data"
        synthetic.make(draft, made.training.train, made.training.val, made.training.side)
        draft.replace(made.data)
    if made.request.images is not None:
        stage(f"data: {made.request.images} images of each part are chosen")
        subset.write(made.config, made.request.images, made.data)


def _measured(made: Plan, run: Run) -> Measured:
    found = _evaluated(made, run, run.folder)
    if not (run.folder / RAW / EVALUATION).exists():
        return found
    raw = _evaluated(made, run, run.folder / RAW)
    return replace(found, raw=raw.ap, unconfirmed="; ".join(filter(None, (found.unconfirmed, raw.unconfirmed))))


def _evaluated(made: Plan, run: Run, folder: Path) -> Measured:
    said = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    counting = Counting.of(run.config["val_evaluator"])
    images, categories = len(said["images"]), said["categories"]
    found = measure(report.truth(made), folder / DETECTIONS, made.metrics, images, categories, counting)
    return replace(found, unconfirmed="; ".join(differences(found, said["mmdet"])))


def _seen(made: Plan) -> tuple[Path, Path, Path] | None:
    """Where what was evaluated first can be seen: annotations, detections, images."""
    for run in made.runs[:1]:
        for dataset in config_edits.datasets(run.config, "val"):
            folder = (dataset.get("data_prefix") or {}).get("img", "")
            images = Path(dataset.get("data_root") or "") / folder
            return report.truth(made), run.folder / DETECTIONS, images
    return None


def _spoilt(run: Run, found: Measured) -> Iterator[str]:
    """Why an AP cannot be trusted, whatever it is."""
    if found.images < found.annotated:
        yield f"{run.name}: only {found.images} of {found.annotated} images were evaluated"
    if run.job.train:
        yield from _diverged(run, curve(run.folder / EVENTS))


def _diverged(run: Run, went: Curve) -> Iterator[str]:
    losses = [step["loss"] for step in went.steps if step["loss"] is not None]
    tenth = max(len(losses) // 10, 1)
    if len(losses) > 1:
        first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        if last > _DIVERGED * first:
            yield f"{run.name} diverged: its loss went from {first:.3g} to {last:.3g}"


def _judged(made: Plan, measured: Mapping[str, Measured]) -> Verdict:
    if made.request.tier == "load":
        return Verdict(PASS, ("every tensor of the backbone equals the checkpoint",), CHECK)
    if made.request.tier == "lift":
        return lifted(dict(_differences(made, measured)))
    values = {m: [_ap(found, m) for found in measured.values()] for m in made.metrics}
    if made.expected is None:
        said = ", ".join(f"{m} AP {v[0]:.2f}" for m, v in values.items())
        reasons = (f"{said}; there is nothing to compare it with: no published row, nor --expect", made.known)
        return Verdict(MEASURED, tuple(filter(None, reasons)), "none")
    return compared(values, made.expected)


def _ap(found: Measured, metric: str) -> float:
    value = found.main(metric)
    return 0.0 if value is None else value


def _differences(made: Plan, measured: Mapping[str, Measured]) -> Iterator[tuple[str, Sequence[float]]]:
    """By metric: AP of the converted backbone above that of random weights, a seed each."""
    for metric in made.metrics:
        arms = [
            [_ap(measured[run.name], metric) for run in made.runs if run.group == arm] for arm in (CONVERTED, RANDOM)
        ]
        yield metric, [with_it - without for with_it, without in zip(*arms, strict=True)]
