"""What a verification found, as data: ``report.json``, and ``report.md`` with the columns of MMDetection's table.

``report.json`` (schema 1)::

    schema, command        1, "verify-ap"
    target, title, tier, claim
    verdict                {status, reasons, rule, needed, meaning}
    expected               {ap: {box, mask}, tolerance, above, band (in words), reason, source} or null
    proof                  {equal, total, checkpoint, fingerprint, method, backbone} or null
    notes                  [sentences: what is not as the config says]
    recipe                 {digest, row, images, length, lr, detector, style, schedule} of what was run
    data                   {generated, images, annotated, sha256, notes}; notes: what a look at them found, in words
    detector               {path, sha256} of the eval tier, or null
    runs                   [{name, group, seed, iterations, starts, seconds, images_a_second, peak_mib, ap, metrics,
                             raw, detections, steps, vals, environment}]
    date                   when it was judged, UTC

``metrics`` of a run: {box|mask: {AP, AP50, AP75, APs, APm, APl}} in percent, null where there are no such objects;
``ap`` the first of each; ``raw``: metrics of the weights as they were trained, where ``metrics`` are of their average
(EMAHook), else null. ``steps``: [iteration, loss, lr]; ``vals``: [iteration, {box, mask}].
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ckptconv.errors import printable
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.type_names import kind
from ckptconv.mmdetection.verify.measure import Measured
from ckptconv.mmdetection.verify.plan import RANDOM, Plan
from ckptconv.mmdetection.verify.recipes import digest, length
from ckptconv.mmdetection.verify.run.environment import tried
from ckptconv.mmdetection.verify.run.events import curve
from ckptconv.mmdetection.verify.run.files import EVENTS, RESULT, Run, write_whole
from ckptconv.mmdetection.verify.verdict import Verdict

SCHEMA = 1
Report = Mapping[str, Any]
_POINTS = 400  # of a loss curve
_COLUMNS = (
    "Method",
    "Backbone",
    "Style",
    "Lr schd",
    "Mem (GB)",
    "Inf time (fps)",
    "box AP",
    "mask AP",
    "Config",
    "Download",
)


def report(
    plan: Plan,
    proof: Mapping[str, Any] | None,
    measured: Mapping[str, Measured],
    verdict: Verdict,
    notes: Sequence[str] = (),
) -> Report:
    """The whole report. ``measured`` by the run's name; runs that did not come to an end are left out."""
    config = plan.runs[0].config if plan.runs else plan.config
    backbone = value_at(config, "model.backbone", {})
    first = next(iter(measured.values()), None)
    detector = plan.request.detector or ""
    generated = plan.training is not None
    return {
        "schema": SCHEMA,
        "command": "verify-ap",
        "target": plan.request.target,
        "title": plan.title,
        "tier": plan.request.tier,
        "claim": plan.claim,
        "verdict": asdict(verdict),
        "expected": {**asdict(plan.expected), "band": plan.expected.band} if plan.expected else None,
        "proof": proof,
        "notes": list(plan.notes),
        "recipe": {
            "digest": digest(config, plan.launch.processes) if generated else plan.digest,
            "row": plan.recipe.name if plan.recipe and not generated else None,
            "images": plan.images,
            "length": length(config),
            "lr": value_at(config, "optim_wrapper.optimizer.lr"),
            "detector": kind(value_at(config, "model")) or None,
            "style": backbone.get("style", "pytorch"),
            "schedule": plan.recipe.schedule if plan.recipe and not generated else None,
        },
        "data": {
            "generated": generated,
            "images": first.images if first else None,
            "annotated": first.annotated if first else None,
            "sha256": tried(lambda: hashed(truth(plan))),
            "notes": list(notes),
        },
        "detector": {"path": detector, "sha256": tried(lambda: hashed(Path(detector)))} if detector else None,
        "runs": [_run(run, measured[run.name]) for run in plan.runs if run.name in measured],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def truth(plan: Plan) -> Path:
    """The file that the runs are evaluated on."""
    config = plan.runs[0].config if plan.runs else plan.config
    return Path(value_at(config, "val_evaluator.ann_file", ""))


def _run(run: Run, found: Measured) -> Mapping[str, Any]:
    result = tried(lambda: json.loads((run.folder / RESULT).read_text(encoding="utf-8"))) or {}
    went = curve(run.folder / EVENTS)
    thin = went.steps[:: max(len(went.steps) // _POINTS, 1)]
    return {
        "name": run.name,
        "group": run.group,
        "seed": run.job.seed,
        "iterations": result.get("iterations"),
        "starts": went.starts,
        "seconds": went.seconds,
        "images_a_second": result.get("images_a_second"),
        "peak_mib": max(filter(None, [result.get("peak_mib"), *(s["memory_mib"] for s in went.steps)]), default=None),
        "ap": {metric: ap["AP"] for metric, ap in found.ap.items()},
        "metrics": found.ap,
        "raw": found.raw,
        "detections": found.detections,
        "steps": [[s["iteration"], s["loss"], s["lr"]] for s in thin],
        "vals": [[v["iteration"], v["ap"]] for v in went.vals],
        "environment": result.get("environment") or {},
    }


def hashed(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _as_json(made: Report, folder: Path) -> None:
    write_whole(folder / "report.json", made)


def _as_markdown(made: Report, folder: Path) -> None:
    (folder / "report.md").write_text(markdown([made]), encoding="utf-8", errors="backslashreplace")


FORMS: Mapping[str, Callable[[Report, Path], None]] = {"report.json": _as_json, "report.md": _as_markdown}
"""What writes each form of a report into a folder."""


def markdown(reports: Sequence[Report]) -> str:
    """A table with the columns of MMDetection's own, a row for each group of runs, and what it says below."""
    lines = [_line(_COLUMNS), _line("---" for _ in _COLUMNS)]
    notes = []
    for made in reports:
        groups = dict.fromkeys(run["group"] for run in made["runs"])
        lines += [_line(_cells(made, group)) for group in groups]
        verdict = made["verdict"]
        found = f"**{verdict['status']}**{_meaning(verdict)}"
        notes.append(f"{made['target']}, tier {made['tier']} ({made['claim']}): {found}.")
        notes += [f"  {reason}." for reason in verdict["reasons"]]
        notes += [f"  {note}." for note in made.get("notes", ())]
        notes += [f"  {raw}." for run in made["runs"] if (raw := raw_weights(run))]
    return "\n".join(map(printable, [*lines, "", *notes])) + "\n"


def _meaning(verdict: Mapping[str, Any]) -> str:
    return f": {verdict['meaning']}" if verdict.get("meaning") else ""


def _cells(made: Report, group: str) -> list[str]:
    runs = [run for run in made["runs"] if run["group"] == group]
    recipe, proof = made["recipe"], made["proof"] or {}
    method = "random weights" if group == RANDOM else proof.get("method") or recipe["detector"]
    speed = [r["images_a_second"] for r in runs if r["images_a_second"]]
    peak = max((r["peak_mib"] for r in runs if r["peak_mib"]), default=None)
    memory = f"{peak / 1024:.1f}" if peak else ""
    device = runs[0]["environment"].get("device") or "unknown"
    schedule = made["tier"] if made["data"]["generated"] else recipe["schedule"] or recipe["length"]
    return [
        method,
        proof.get("backbone") or "",
        recipe["style"],
        schedule,
        memory + (" of the process" if memory and device == "CPU" else ""),
        f"{sum(speed) / len(speed):.1f} ({device})" if speed else "",
        mean(runs, "box"),
        mean(runs, "mask"),
        made["target"],
        "",
    ]


def mean(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The mean AP over runs, to one decimal; '' where it was not measured."""
    values = [run["ap"][metric] for run in runs if run["ap"].get(metric) is not None]
    return f"{sum(values) / len(values):.1f}" if values else ""


def raw_weights(run: Mapping[str, Any]) -> str:
    """AP of the weights as they were trained, in words, where the run's own is of their average; else ''."""
    found = ", ".join(f"{m} AP {ap['AP']:.2f}" for m, ap in (run.get("raw") or {}).items() if ap["AP"] is not None)
    return f"{run['name']}, raw weights: {found}" if found else ""


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
