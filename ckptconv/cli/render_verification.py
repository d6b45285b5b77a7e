"""What `verify-ap` and `recipes` print: what will be run, how it goes, and the verdict."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ckptconv.cli import render
from ckptconv.cli.spelling import spell
from ckptconv.errors import printable, shell_word
from ckptconv.text import size

if TYPE_CHECKING:
    from ckptconv.mmdetection.verify.data.findings import Findings
    from ckptconv.mmdetection.verify.plan import Plan
    from ckptconv.mmdetection.verify.recipes import Recipe
    from ckptconv.mmdetection.verify.report.report import Report
    from ckptconv.mmdetection.verify.run.events import Event
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
    render.text("* trained by another framework: no run of MMDetection is compared with it\n")


def planned(made: Plan, looked: Findings, as_json: bool) -> None:
    """What `--dry-run` shows."""
    expected = made.expected
    if as_json:
        body = {
            "target": made.request.target,
            "title": made.title,
            "tier": made.request.tier,
            "claim": made.claim,
            "digest": made.digest,
            "row": made.recipe.name if made.recipe else None,
            "known": made.known,
            "images": made.images,
            "batch_size": made.batch_size,
            "processes": made.launch.processes,
            "accumulative_counts": made.accumulative_counts,
            "notes": list(made.notes),
            "expected": {"ap": dict(expected.ap), "tolerance": expected.tolerance, "source": expected.source}
            if expected
            else None,
            "missing": list(made.missing),
            "data": looked.data(),
            "commands": list(made.commands()),
        }
        render.dump("verify-ap", {"dry_run": True, **body})
        return
    _head(made)
    counts = made.accumulative_counts
    steps = f": {made.batch_size} x {made.launch.processes} x {counts} accumulated" if counts > 1 else ""
    render.row("recipe", f"{made.title}, {made.images} images a step{steps}")
    render.row("digest", made.digest)
    _notes(made.notes)
    if made.missing:
        render.row("missing", f"{', '.join(made.missing)} in {made.config.get('data_root') or '.'}")
    for problem in looked.problems:
        render.row("data", problem.text)
        render.row("", problem.hint)
    for note in looked.notes:
        render.row("note", note)
    for i, command in enumerate(made.commands()):
        render.row("" if i else "command", command)
    if made.launch.apart:
        render.row("nodes", "verify-ap on the one of MASTER_ADDR; the command on each other, with the work dir shared")
    render.row("dry run", "nothing was run")


def _notes(notes: Iterable[str]) -> None:
    for i, note in enumerate(notes):
        render.row("" if i else "note", note)


def _head(made: Plan) -> None:
    render.row("target", f"{made.request.target}, tier {made.request.tier}")
    render.row("claim", made.claim)
    if made.expected is not None:
        render.row("expected", f"{made.expected.band}; {made.expected.source}")
    if made.expected is not None and made.recipe is not None and made.expected.source == made.recipe.source:
        render.row("row", f"{made.recipe.name}: {made.recipe.title}, pretrained for {made.recipe.pretraining} epochs")
    if made.known:
        render.row("known", made.known)


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
        shown = _Shown()

        def watch(run: Run, event: Event) -> None:
            shown.take(run, event)
            live.update(shown.lines(console.width))

        def stage(text: str) -> None:
            live.console.print(printable(spell(text)), highlight=False, markup=False, emoji=False)
            live.update(Spinner("dots"))

        yield watch, stage


class _Shown:
    """What is known of the run that is under way."""

    def __init__(self) -> None:
        self._run = ""
        self._step: Event = {}
        self._iterations = 0
        self._epochs = 0
        self._ap = ""
        self._evaluating = ""
        self._seconds: list[float] = []

    def take(self, run: Run, event: Event) -> None:
        if run.name != self._run:
            self.__init__()  # type: ignore[misc]
            self._run = run.name
        kind = event["event"]
        self._evaluating = f"evaluating {event['done']}/{event['of']}" if kind == "evaluating" else ""
        if kind == "start":
            self._iterations, self._epochs = event["iterations"], event["epochs"]
        elif kind == "step":
            self._step = event
            self._seconds += [event["seconds"]] if event["seconds"] else []
        elif kind == "val":
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
        done = step.get("iteration", 0)
        where = f"epoch {step.get('epoch', 1)}/{self._epochs}  {done}/{self._iterations}" if self._iterations else ""
        head = f"{self._run}  {where}  {self._left(self._iterations - done)}"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(printable(head), no_wrap=True, overflow="ellipsis"))
        if self._iterations:
            grid.add_row(ProgressBar(total=self._iterations, completed=done, width=min(width - 2, 60)))
        grid.add_row(Text(printable(self._evaluating or _told(step)), no_wrap=True, overflow="ellipsis"))
        if self._ap:
            grid.add_row(Text(f"AP so far: {self._ap}", no_wrap=True, overflow="ellipsis"))
        return grid


def _told(step: Event) -> str:
    if not step:
        return "starting"
    losses = " ".join(f"{n.removeprefix('loss_')} {v:.2f}" for n, v in step["losses"].items() if v is not None)
    loss = f"loss {step['loss']:.3f}" if step["loss"] is not None else "loss is no number"
    return f"{loss}  {losses}  {size(int(step['memory_mib'] * 2**20))}"


def _ap(event: Event) -> str:
    """CocoMetric reports no AP where nothing is detected (`mmdet/evaluation/metrics/coco_metric.py`)."""
    if not event["ap"]:
        return "0: no detection"
    return ", ".join(f"{m} {ap:.1f}" for m, ap in event["ap"].items() if ap is not None) or "none: no annotation counts"


class _Lines:
    """A line now and then, for a log."""

    def __init__(self) -> None:
        self._told = 0.0

    def watch(self, run: Run, event: Event) -> None:
        if event["event"] == "start" and event["iteration"]:
            render.note(f"{run.name}: goes on at iteration {event['iteration']} of {event['iterations']}")
        if event["event"] == "step" and time.monotonic() - self._told > _EVERY:
            self._told = time.monotonic()
            render.note(f"{run.name}: epoch {event['epoch']}, iteration {event['iteration']}, {_told(event)}")
        if event["event"] == "val":
            render.note(f"{run.name}: iteration {event['iteration']}, AP {_ap(event)}")


def verdict(found: Report, folder: str, as_json: bool) -> None:
    if as_json:
        render.text(render.json_text(found))
        return
    from ckptconv.mmdetection.verify.report.report import raw_weights

    render.row("target", f"{found['target']}, tier {found['tier']}")
    render.row("claim", found["claim"])
    if proof := found["proof"]:
        render.row("proof", f"{proof['equal']}/{proof['total']} tensors equal {proof['checkpoint']}")
    for run in found["runs"]:
        ap = ", ".join(f"{m} AP {v:.2f}" for m, v in run["ap"].items() if v is not None)
        where = f", {run['iterations']} iterations" if run["iterations"] else ""
        average = " of the average" if run.get("raw") else ""
        render.row("run", f"{run['name']}: {ap}{average}{where}")
        if raw := raw_weights(run):
            render.row("", raw)
    _notes(found.get("notes", ()))
    judged = found["verdict"]
    for i, reason in enumerate(judged["reasons"]):
        render.row("" if i else "because", reason)
    render.row("rule", judged["rule"])
    if judged["needed"]:
        render.row("decided", f"by about {judged['needed']} seeds: --seeds {judged['needed']}")
    written = [name for name in ("report.html", "report.md", "report.json") if (Path(folder) / name).exists()]
    if written:
        render.row("report", f"{shell_word(folder)}/{written[0]}")
    render.row("verdict", ": ".join(filter(None, (judged["status"], judged["meaning"]))))
