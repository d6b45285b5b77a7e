"""What `verify-ap` and `recipes` print: the plan, the progress, and the verdict."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ckptconv.cli import render
from ckptconv.cli.spelling import spell
from ckptconv.errors import printable, shell_word
from ckptconv.text import size

if TYPE_CHECKING:
    from ckptconv.mmdetection.verify.data.findings import DataFindings
    from ckptconv.mmdetection.verify.plan import VerificationPlan
    from ckptconv.mmdetection.verify.recipes import Recipe
    from ckptconv.mmdetection.verify.report.comparison import Compared
    from ckptconv.mmdetection.verify.report.report import VerificationReport
    from ckptconv.mmdetection.verify.run.events import EvaluationEvent, Event, StepEvent
    from ckptconv.mmdetection.verify.run.files import Run
    from ckptconv.mmdetection.verify.run.supervisor import Watch

_EVERY = 20  # seconds between two plain lines
_FEW, _RECENT = 3, 50  # steps, to tell how long it takes


def recipes(known: Iterable[Recipe], as_json: bool) -> None:
    known = list(known)
    if as_json:
        render.dump("recipes", {"recipes": [vars(r) for r in known]})
        return
    from rich.table import Column, Table

    name = Column("recipe", no_wrap=True)
    table = Table(name, "box/mask", "published by", box=None, pad_edge=False, header_style="bold")
    rows = (
        (f"{r.name}{'' if r.digest else '*'}", f"{r.box:.1f}/{r.mask:.1f}", r.source.partition(",")[0]) for r in known
    )
    render.table(table, rows)
    render.text("* trained with another framework: no run of MMDetection is compared with it\n")


def planned(plan: VerificationPlan, data: DataFindings, as_json: bool) -> None:
    """What `--dry-run` shows."""
    if as_json:
        _dump_plan(plan, data)
        return
    _head(plan)
    counts = plan.accumulative_counts
    steps = f": {plan.batch_size} x {plan.launch.processes} x {counts} accumulated" if counts > 1 else ""
    render.row("recipe", f"{plan.title}, {plan.images_per_step} images per step{steps}")
    render.row("digest", plan.digest)
    _notes(plan.notes)
    if plan.missing_files:
        render.row("missing", f"{', '.join(plan.missing_files)} in {plan.config.get('data_root') or '.'}")
    for problem in data.problems:
        render.row("data", problem.text)
        render.row("", problem.hint)
    for note in data.notes:
        render.row("note", note)
    for i, command in enumerate(plan.commands()):
        render.row("" if i else "command", command)
    if plan.launch.other_nodes:
        render.row(
            "nodes",
            "verify-ap on the node of MASTER_ADDR, the command on every other node; all of them share the work dir",
        )
    render.row("dry run", "nothing was run")


def _dump_plan(plan: VerificationPlan, data: DataFindings) -> None:
    from ckptconv.mmdetection.verify.report.report import COMMAND, SCHEMA

    expected = plan.expected
    body = {
        "config": plan.request.config,
        "title": plan.title,
        "tier": plan.request.tier,
        "purpose": plan.purpose,
        "digest": plan.digest,
        "row": plan.recipe.name if plan.recipe else None,
        "how_to_compare": plan.how_to_compare,
        "images_per_step": plan.images_per_step,
        "batch_size": plan.batch_size,
        "processes": plan.launch.processes,
        "accumulative_counts": plan.accumulative_counts,
        "notes": list(plan.notes),
        "expected": {"ap": dict(expected.ap), "tolerance": expected.tolerance, "source": expected.source}
        if expected
        else None,
        "missing": list(plan.missing_files),
        "data": asdict(data),
        "commands": list(plan.commands()),
    }
    render.dump(COMMAND, {"schema": SCHEMA, "dry_run": True, **body})


def _notes(notes: Iterable[str]) -> None:
    for i, note in enumerate(notes):
        render.row("" if i else "note", note)


def _head(plan: VerificationPlan) -> None:
    render.row("config", f"{plan.request.config}, tier {plan.request.tier}")
    render.row("purpose", plan.purpose)
    if plan.expected is not None:
        render.row("expected", f"{plan.expected.band}; {plan.expected.source}")
    if plan.expected is not None and plan.recipe is not None and plan.expected.source == plan.recipe.source:
        epochs = f", pretrained for {plan.recipe.pretraining} epochs" if plan.recipe.pretraining else ""
        render.row("row", f"{plan.recipe.name}: {plan.recipe.title}{epochs}")
    if plan.how_to_compare:
        render.row("compare", plan.how_to_compare)


@contextlib.contextmanager
def progress() -> Iterator[tuple[Watch, Callable[[str], None]]]:
    """A line that stays up to date on a terminal; elsewhere a line now and then. All of it on stderr."""
    if not render.is_terminal(sys.stderr):
        yield _Lines().watch, render.note
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = Console(stderr=True)
    with Live(Spinner("dots"), console=console, refresh_per_second=4, transient=True) as live:
        state = _Live()

        def watch(run: Run, event: Event) -> None:
            state.take(run, event)
            live.update(state.lines(console.width))

        def stage(text: str) -> None:
            live.console.print(printable(spell(text)), highlight=False, markup=False, emoji=False)
            live.update(Spinner("dots"))

        yield watch, stage


class _Live:
    """The state of the run that is under way."""

    def __init__(self) -> None:
        self._run = ""
        self._step: StepEvent | None = None
        self._iterations = 0
        self._epochs = 0
        self._ap = ""
        self._evaluating = ""
        self._seconds: list[float] = []

    def take(self, run: Run, event: Event) -> None:
        if run.name != self._run:
            self.__init__()  # type: ignore[misc]
            self._run = run.name
        self._evaluating = ""
        if event["event"] == "evaluating":
            self._evaluating = f"evaluating {event['done']}/{event['of']}"
        elif event["event"] == "start":
            self._iterations, self._epochs = event["iterations"], event["epochs"]
        elif event["event"] == "step":
            self._step = event
            self._seconds += [event["seconds"]] if event["seconds"] else []
        elif event["event"] == "val":
            self._ap = _ap(event)

    def _left(self, steps: int) -> str:
        """By the median of the last steps; the first ones are slow."""
        if len(self._seconds) < _FEW:
            return ""
        seconds = int(steps * median(self._seconds[-_RECENT:]))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"

    def lines(self, width: int) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step = self._step
        done, epoch = (step["iteration"], step["epoch"]) if step else (0, 1)
        position = f"epoch {epoch}/{self._epochs}  {done}/{self._iterations}" if self._iterations else ""
        head = f"{self._run}  {position}  {self._left(self._iterations - done)}"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(printable(head), no_wrap=True, overflow="ellipsis"))
        if self._iterations:
            grid.add_row(ProgressBar(total=self._iterations, completed=done, width=min(width - 2, 60)))
        text = self._evaluating or (_step_text(step) if step else "starting")
        grid.add_row(Text(printable(text), no_wrap=True, overflow="ellipsis"))
        if self._ap:
            grid.add_row(Text(f"AP so far: {self._ap}", no_wrap=True, overflow="ellipsis"))
        return grid


def _step_text(step: StepEvent) -> str:
    losses = " ".join(f"{n.removeprefix('loss_')} {v:.2f}" for n, v in step["losses"].items() if v is not None)
    loss = f"loss {step['loss']:.3f}" if step["loss"] is not None else "loss NaN"
    return f"{loss}  {losses}  {size(int(step['memory_mib'] * 2**20))}"


def _ap(event: EvaluationEvent) -> str:
    """CocoMetric reports no AP where nothing is detected (`mmdet/evaluation/metrics/coco_metric.py`)."""
    if not event["ap"]:
        return "0: no detection"
    return ", ".join(f"{m} {ap:.1f}" for m, ap in event["ap"].items() if ap is not None) or "none: no annotation counts"


class _Lines:
    """A line now and then, for a log."""

    def __init__(self) -> None:
        self._last = 0.0

    def watch(self, run: Run, event: Event) -> None:
        if event["event"] == "start" and event["iteration"]:
            render.note(f"{run.name}: resumes at iteration {event['iteration']} of {event['iterations']}")
        if event["event"] == "step" and time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            render.note(f"{run.name}: epoch {event['epoch']}, iteration {event['iteration']}, {_step_text(event)}")
        if event["event"] == "val":
            render.note(f"{run.name}: iteration {event['iteration']}, AP {_ap(event)}")


def verdict(report: VerificationReport, folder: Path, as_json: bool) -> None:
    from ckptconv.mmdetection.verify.report.report import as_json as body_of

    if as_json:
        render.text(render.json_text(body_of(report)))
        return
    render.row("config", f"{report.config}, tier {report.tier}")
    render.row("purpose", report.purpose)
    if proof := report.proof:
        render.row("proof", f"{proof.equal}/{proof.total} tensors equal {proof.checkpoint}")
    for run in report.runs:
        ap = ", ".join(f"{m} AP {v:.2f}" for m, v in run.ap.items() if v is not None)
        iterations = f", {run.iterations} iterations" if run.iterations else ""
        average = " of the average" if run.raw else ""
        render.row("run", f"{run.name}: {ap}{average}{iterations}")
        if raw := run.raw_weights():
            render.row("", raw)
    _notes(report.notes)
    judged = report.verdict
    for i, reason in enumerate(judged.reasons):
        render.row("" if i else "because", reason)
    render.row("rule", judged.rule)
    if judged.needed:
        render.row("seeds", f"about {judged.needed} would decide: --seeds {judged.needed}")
    written = [name for name in ("report.html", "report.md", "report.json") if (folder / name).exists()]
    if written:
        render.row("report", f"{shell_word(str(folder))}/{written[0]}")
    render.row("verdict", ": ".join(filter(None, (judged.status, judged.meaning))))


def comparison(compared: Iterable[Compared], page: Path, as_json: bool) -> None:
    """Each report in a line, and where the page is."""
    if as_json:
        reports = [
            {"folder": one.folder, "verdict": one.report.verdict.status, "ap": _mean_ap(one)} for one in compared
        ]
        render.dump("report", {"reports": reports, "page": str(page)})
        return
    for one in compared:
        groups = [
            ", ".join([group, *(f"{metric} AP {value:.2f}" for metric, value in aps.items() if value is not None)])
            for group, aps in _mean_ap(one).items()
        ]
        render.row(one.report.verdict.status, "; ".join([one.folder, *groups]), 12)
    render.row("report", str(page), 12)


def _mean_ap(one: Compared) -> dict[str, dict[str, float | None]]:
    """By group, and by 'box' and 'mask'."""
    metrics = dict.fromkeys(metric for run in one.report.runs for metric in run.ap)
    return {group: {metric: one.mean(metric, group) for metric in metrics} for group in one.groups}
