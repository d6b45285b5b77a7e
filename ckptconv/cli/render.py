"""The one place that prints. Results go to stdout, progress and errors to stderr; JSON carries a schema version."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

import typer

from ckptconv.errors import CkptconvError, printable
from ckptconv.folding import fold, place
from ckptconv.formats.source import Transfer
from ckptconv.mmdetection.networks import network
from ckptconv.pipeline import Progress, Receipt
from ckptconv.questions import Explanation, Inspection, dropped_by_reason

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
_MANY_BYTES = 256 << 20
_MOST_LINES = 40


def dump(command: str, body: Mapping[str, object]) -> None:
    typer.echo(json.dumps({"schema": SCHEMA, "command": command, **body}, indent=2))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it; a stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


def _color(stream: TextIO | None) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def row(label: str, text: str, width: int = 9) -> None:
    head = f"{label:<{width}}"
    typer.echo(f"{typer.style(head, bold=True) if label and _color(sys.stdout) else head} {printable(text)}")


def size(count: int) -> str:
    """Bytes for people: '352.7 MiB'."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def note(line: str) -> None:
    """A line about what goes on, for a person or a log."""
    typer.echo(printable(line), err=True)


def json_text(body: Mapping[str, object]) -> str:
    return json.dumps(body, indent=2) + "\n"


def text(content: str) -> None:
    """Text that is data, as it is."""
    typer.echo(content, nl=False)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def error(problem: CkptconvError, as_json: bool) -> None:
    if as_json:
        body = {"message": problem.message, "hint": problem.hint, "exit_code": problem.exit_code}
        typer.echo(json.dumps({"schema": SCHEMA, "error": body}, indent=2))
        return
    red = _color(sys.stderr)
    typer.echo(f"{typer.style('error', fg='red', bold=True) if red else 'error'}: {problem.message}", err=True)
    for line in problem.hint.splitlines():
        typer.echo(f"hint: {line}", err=True)


@contextlib.contextmanager
def progress(label: str = "", many: int = _MANY_BYTES) -> Iterator[Progress | None]:
    """A bar on a terminal, which appears when the bytes are many; nothing elsewhere."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        *([TextColumn(label)] if label else []),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = None

    def show(done: int, total: int) -> None:
        nonlocal task
        if total < many:
            return
        if task is None:
            task = bar.add_task(label, total=total)
            bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


def receipt(done: Receipt, as_json: bool) -> None:
    if as_json:
        dump("convert", _receipt_data(done))
        return
    plan = done.plan
    backbone = plan.backbone
    assert backbone is not None
    row("read", f"{done.source} ({done.source_format}, {size(done.source_size)}), {place(plan.section)}")
    fetched(done.transfers, done.checksums)
    own = done.release in [release.name for release in done.method.releases]
    how = "found by its names" if not done.method_named else "the release's own" if own else "as asked"
    row("method", f"{done.method.name}: {done.method.title}, {plan.layout} ({how})")
    if done.also:
        row("", f"the same names and the same result: {', '.join(done.also)}")
    filled = len(plan.moves)
    wanted = filled + len(plan.absent)
    row("backbone", f"{backbone.name}: {filled}/{wanted} tensors for {plan.target}, of {plan.tensors} in the file")
    if plan.absent:
        row("", f"not in the file and not needed: {_folded(plan.absent)}")
    for i, (why, names) in enumerate(dropped_by_reason(plan).items()):
        count = sum(d.why == why for d in plan.dropped)
        shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
        row("" if i else "dropped", f"{count:>4}  {why}: {shown}")
    for i, one in enumerate(plan.resized):
        row("" if i else "resized", f"{one}: no longer the numbers of the source")
    if done.dtype:
        row("rounded", f"floating tensors to {done.dtype}: no longer bit for bit the source")
    if not done.written:
        row("dry run", f"{done.target} ({done.target_format}, about {size(done.target_size)}) was not written")
        return
    row("wrote", f"{done.target} ({done.target_format}, {size(done.target_size)}) in {done.seconds:.2f} s")
    row("proved", f"{done.proved}/{filled} tensors read back equal; fingerprint {done.fingerprint[:16]}")
    detected = network(backbone, target=plan.target)
    if detected is not None:
        base, out = (f" --base {detected.base}", "detector.py") if detected.base else ("", "mask_rcnn.py")
        row("next", f"ckptconv emit-config {shlex.quote(done.target)}{base} -o {out}")


def fetched(transfers: Iterable[Transfer], checksums: int | None = None) -> None:
    """How files came here and what was verified of them, a line each."""
    for moved in transfers:
        if not moved.requests:
            how = f"nothing: it is in the cache, from {moved.address}"
        else:
            what = (
                size(moved.fetched) if moved.fetched >= moved.size else f"{size(moved.fetched)} of {size(moved.size)}"
            )
            how = f"{what} in {count(moved.requests, 'request')} from {moved.address}"
        row("fetched", how)
        state = moved.version.partition(" ")[0]
        said = ["size", f"{state} unchanged"] if state else ["size"]
        if checksums:
            said.append(count(checksums, "checksum"))
        if moved.hash_checked:
            said.append(f"the published {moved.published}")
        row("verified", ", ".join(said))
        if moved.published and not moved.hash_checked:
            row("", f"not the published {moved.published}, which is of the whole file: --whole fetches and checks it")


def _folded(names: Iterable[str]) -> str:
    lines = list(fold(names))
    return ", ".join(lines[:3]) + (", …" if len(lines) > 3 else "")


def _receipt_data(done: Receipt) -> dict[str, object]:
    plan = done.plan
    assert plan.backbone is not None
    return {
        "source": {
            "path": done.source,
            "format": done.source_format,
            "bytes": done.source_size,
            "release": done.release or None,
            "fetched": [vars(transfer) for transfer in done.transfers],
            "checksums": done.checksums,
        },
        "method": {
            "name": done.method.name,
            "title": done.method.title,
            "named": done.method_named,
            "also": list(done.also),
        },
        "layout": plan.layout,
        "section": plan.section,
        "target": plan.target,
        "backbone": {"name": plan.backbone.name, **plan.backbone.settings()},
        "tensors": {
            "in_section": plan.tensors,
            "kept": {m.target: list(m.sources) for m in plan.moves},
            "dropped": {d.source: d.why for d in plan.dropped},
            "absent": list(plan.absent),
            "resized": {r.target: {"from": [r.old, r.old], "to": [r.new, r.new]} for r in plan.resized},
        },
        "dtype": done.dtype,
        "output": {
            "path": done.target,
            "format": done.target_format,
            "bytes": done.target_size,
            "written": done.written,
            "proved": done.proved,
            "fingerprint": done.fingerprint,
        },
        "seconds": round(done.seconds, 3),
    }


def inspection(found: Inspection, full: bool, as_json: bool) -> None:
    if as_json:
        dump("inspect", _inspection_data(found))
        return
    row("file", f"{found.path} ({found.format}, {size(found.size)})")
    fetched(found.transfers)
    if found.named:
        row("names", f"{', '.join(found.named)} (none of them was imported or called)")
    for path, names in fold(found.sections).items():
        specs = [spec for name in names for spec in found.sections[name].values()]
        dtypes = ", ".join(dict.fromkeys(str(s.dtype) for s in specs))
        head = f"{place(path)}" + (f" ({len(names)} alike)" if len(names) > 1 else "")
        row("section", f"{head}: {count(len(specs), 'tensor')}, {size(sum(s.nbytes for s in specs))}, {dtypes}")
        if len(names) == 1:
            _tensors(found, path, full)
    complete = [fit for fit in found.fits if fit.complete]
    for i, fit in enumerate(complete):
        row("" if i else "fits", f"{fit.method} ({fit.layout}, {place(fit.section)}) explains every tensor")
    if found.stranger:
        row("network", found.stranger)
    elif not complete:
        row("fits", "no method known here; --strip-prefix, --section and --rules may help")
    rest = [fit for fit in found.fits if not fit.complete]
    if rest:
        first = f"leaves {count(rest[0].problems, 'problem')}: {rest[0].first}"
        row("" if complete else "nearest", f"{'next: ' if complete else ''}{rest[0].method} {first}")


def _tensors(found: Inspection, path: str, full: bool) -> None:
    specs = found.sections[path]
    lines = {name: [name] for name in specs} if full else fold(specs)
    for shown, (line, names) in enumerate(lines.items()):
        if shown == _MOST_LINES and not full:
            row("", f"  … and {len(lines) - shown} more lines (--all)")
            break
        shapes = list(dict.fromkeys(str(specs[n]) for n in names))
        times = f"{len(names)} x " if len(names) > 1 else ""
        row("", f"  {line}  {times}{shapes[0]}{' …' if len(shapes) > 1 else ''}")
    for name, kind in found.others[path].items():
        if path:
            row("", f"  {name}  not a tensor: {kind}")


def _inspection_data(found: Inspection) -> dict[str, object]:
    return {
        "path": found.path,
        "format": found.format,
        "bytes": found.size,
        "fetched": [vars(transfer) for transfer in found.transfers],
        "names": list(found.named),
        "metadata": dict(found.metadata),
        "sections": {
            path: {
                "tensors": {n: {"dtype": str(s.dtype), "shape": list(s.shape)} for n, s in specs.items()},
                "others": dict(found.others[path]),
            }
            for path, specs in found.sections.items()
        },
        "fits": [vars(fit) for fit in found.fits],
        "network_without_a_place": found.stranger,
    }


def explanation(found: Explanation, as_json: bool) -> None:
    if as_json:
        dump("explain", {**vars(found), "spec": str(found.spec) if found.spec else None})
        return
    row("key", f"{found.key} ({found.spec})" if found.spec else found.key)
    row("method", f"{found.method}, {place(found.section)}")
    row(
        found.fate,
        f"as {found.target}: {found.why}" if found.target else found.why,
        11 if found.fate == "unexplained" else 9,
    )
    if found.rule:
        row("rule", found.rule + (f" (after '{found.prefix}')" if found.prefix else ""))


def table(filled: Table) -> None:
    """A table as wide as the terminal, or 120 columns where there is none."""
    from rich.console import Console

    Console(highlight=False, width=None if is_terminal(sys.stdout) else 120).print(filled)
