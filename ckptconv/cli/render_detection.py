"""What the commands about MMDetection print, line by line through `render`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ckptconv.backbones.interface import described
from ckptconv.cli import render, render_sources
from ckptconv.errors import shell_word
from ckptconv.text import some

if TYPE_CHECKING:
    from ckptconv.mmdetection.check.evidence import Finding
    from ckptconv.mmdetection.check.verdict import CheckReport
    from ckptconv.mmdetection.config.emit import Emitted
    from ckptconv.mmdetection.config.training_commands import Command
    from ckptconv.mmdetection.environment.doctor import Diagnosis

_WIDTH = 11  # of 'torchvision'
_SCHEMA = 2  # of check and doctor


def diagnosis(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        head = {"can_detect": found.can_detect, "verdict": found.verdict, "loading": found.loading}
        render.dump("doctor", {**head, "findings": [asdict(f) for f in found.findings]}, schema=_SCHEMA)
        return
    for finding in found.findings:
        render.row(finding.name, ", ".join(filter(None, (finding.version, finding.text))), _WIDTH)
        for i, command in enumerate(finding.commands):
            render.row("" if i else "  fix", command, _WIDTH)
    render.row("verdict", found.verdict, _WIDTH)


def config_text(emitted: Emitted, as_json: bool) -> None:
    """The config itself, for a pipe."""
    _notes(emitted, as_json)
    if as_json:
        render.dump("emit-config", {"config": None, **_config_data(emitted)})
    else:
        render.text(emitted.text)


def _notes(emitted: Emitted, as_json: bool) -> None:
    for note in () if as_json else emitted.notes:
        render.note(f"note: {note}")


def config_written(emitted: Emitted, out: Path, as_json: bool) -> None:
    _notes(emitted, as_json)
    if as_json:
        render.dump("emit-config", {"config": str(out), **_config_data(emitted, str(out))})
        return
    found = emitted.pretrained
    render.row(
        "backbone", f"{found.backbone.name} of {found.method}, {found.path}; fingerprint {found.fingerprint[:16]}"
    )
    render_sources.licence(found.licence)
    render.row("detector", f"{emitted.title}, on {emitted.base}")
    rate = f", learning rate {emitted.lr:g}" if emitted.lr is not None else ""
    if emitted.data.classes:
        render.row("classes", f"{len(emitted.data.classes)}: {some(emitted.data.classes, 10)}")
    render.row("training", f"{emitted.images} images a step{rate}")
    render.row("wrote", str(out))
    render.row("next", f"ckptconv check {shell_word(str(out))}")
    training = _training(emitted, str(out))
    if training is not None:
        render.row("then", f"on {training.gpus} GPU{'s' * (training.gpus != 1)}: {training.text}")
    else:
        render.row("then", "train it with MMDetection's tools/train.py: check prints the command where it is installed")


def _training(emitted: Emitted, config: str) -> Command | None:
    from ckptconv.mmdetection.config import training_commands

    return training_commands.command(
        config, training_commands.Rate(emitted.batch_size, emitted.images, emitted.lr, counts=emitted.counts)
    )


def _config_data(emitted: Emitted, config: str = "") -> Mapping[str, object]:
    training = _training(emitted, config) if config else None
    found = emitted.pretrained
    return {
        "checkpoint": found.path,
        "fingerprint": found.fingerprint,
        "method": found.method,
        "licence": render_sources.licence_data(found.licence),
        "backbone": {"name": found.backbone.name, **described(found.backbone)},
        "detector": emitted.title,
        "base": emitted.base,
        "classes": list(emitted.data.classes),
        "notes": list(emitted.notes),
        "images": emitted.images,
        "batch_size": emitted.batch_size,
        "lr": emitted.lr,
        "train": training.text if training else None,
        "text": emitted.text,
    }


def verdict(report: CheckReport, page: Path | None, as_json: bool) -> None:
    if as_json:
        body = {**asdict(report), "good": report.good, "proved": report.proved, "report": str(page) if page else None}
        render.dump("check", body, schema=_SCHEMA)
        return
    render.row("config", f"{report.config}: {report.detector}")
    render_sources.fetched(report.transfers)
    for module in report.modules:
        path = module.module or "the whole detector"
        prefix = f", prefix={module.prefix!r}" if module.prefix else ""
        render.row("module", f"{path}: {module.network}, from {module.checkpoint}{prefix}")
        render.row("equal", f"{module.equal}/{module.total}")
        _findings(module.problems, module.notes)
    _findings(report.problems, report.notes)
    if page is not None:
        render.row("report", str(page))
    render.row("verdict", report.verdict)
    if report.training is not None:
        render.row("train", report.training.rate)
        for command in report.training.commands:
            render.row(f"  {command.where}", command.text)


def _findings(problems: Iterable[Finding], notes: Iterable[Finding]) -> None:
    for label, findings in (("problem", problems), ("note", notes)):
        for finding in findings:
            render.row(label, finding.text)
            for i, fix in enumerate(finding.fixes):
                render.row("  or" if i else "  fix", fix)
