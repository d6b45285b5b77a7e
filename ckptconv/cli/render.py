"""How everything is printed: results to stdout, progress and errors to stderr, JSON with a schema version.

The other `render` modules say what is printed, one for each subject.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, TextIO

import typer

from ckptconv.cli.spelling import option_of, spell
from ckptconv.errors import CkptconvError, printable, shell_word
from ckptconv.text import size

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table


SCHEMA = 1
_SENTENCES = {"problems", "notes", "findings", "first", "reasons", "claim", "known", "meaning"}
"""Keys of the JSON below which there are sentences."""
_MANY_BYTES = 256 << 20
_PATIENCE = 1.0
"""Seconds after which few bytes have a bar, too."""


def dump(command: str, body: Mapping[str, object], schema: int = SCHEMA) -> None:
    typer.echo(json.dumps({"schema": schema, "command": command, **_spelled(body)}, indent=2))


def _spelled(body: Mapping[str, object]) -> dict[str, object]:
    """The same data, whose sentences name options and commands; names of files and tensors stay as they are."""
    return {key: _spelled_below(value) if key in _SENTENCES else _spelled_inside(value) for key, value in body.items()}


def _spelled_inside(value: object) -> object:
    if isinstance(value, Mapping):
        return _spelled(value)
    return [_spelled_inside(one) for one in value] if isinstance(value, list | tuple) else value


def _spelled_below(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _spelled_below(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_below(one) for one in value]
    return spell(value) if isinstance(value, str) else value


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it; a stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


def _color(stream: TextIO | None) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def row(label: str, text: str, width: int = 9) -> None:
    """A line under a label. On a terminal, a sentence is folded to its width; a command to copy stays on one line."""
    head = f"{printable(label):<{width}}"
    shown = printable(spell(text))
    across = columns()
    if across is not None and width + 1 + len(shown) > across and "ckptconv " not in shown and not shown[:1].isspace():
        lines = wrap(shown, max(across - width - 1, 20), break_long_words=False, break_on_hyphens=False)
        shown = f"\n{' ' * (width + 1)}".join(lines)
    typer.echo(f"{typer.style(head, bold=True) if label and _color(sys.stdout) else head} {shown}")


def heading(text: str) -> None:
    """A line above what belongs together."""
    typer.echo(typer.style(printable(text), bold=True) if _color(sys.stdout) else printable(text))


def columns() -> int | None:
    """How wide the terminal is; None if no person reads."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def note(line: str) -> None:
    """A line about what goes on, for a person or a log."""
    typer.echo(printable(spell(line)), err=True)


def json_text(body: Mapping[str, object]) -> str:
    return json.dumps(body, indent=2) + "\n"


def text(content: str) -> None:
    """Text that is data, as it is."""
    typer.echo(content, nl=False)


def typed() -> str:
    """The command as it was typed."""
    return " ".join(("ckptconv", *map(shell_word, sys.argv[1:])))


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def error(problem: CkptconvError, code: int, as_json: bool) -> None:
    message, hint = spell(problem.message), spell(problem.hint)
    if as_json:
        option = option_of(problem.parameter)
        body = {"message": message, "hint": hint, "parameter": problem.parameter, "option": option, "exit_code": code}
        typer.echo(json.dumps({"schema": SCHEMA, "error": body}, indent=2))
        return
    red = _color(sys.stderr)
    typer.echo(f"{typer.style('error', fg='red', bold=True) if red else 'error'}: {message}", err=True)
    for line in hint.splitlines():
        typer.echo(f"hint: {line}", err=True)


@contextlib.contextmanager
def progress(many: int = _MANY_BYTES) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on a terminal, with the phase before it, which appears when the bytes or the seconds are many."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    shown: dict[str, TaskID] = {}
    started = time.monotonic()

    def show(phase: str, done: int, total: int) -> None:
        if total < many and time.monotonic() - started < _PATIENCE:
            return
        if phase not in shown:
            for task in shown.values():
                bar.remove_task(task)
            shown.clear()
            # how much of a file is on the disk, no system call tells: that bar moves without an end
            shown[phase] = bar.add_task(phase, total=None if phase == "syncing" else total, amount="")
            bar.start()
        amount = size(total) if phase == "syncing" else f"{size(done)} of {size(total)}"
        bar.update(shown[phase], completed=done, amount=amount)

    try:
        yield show
    finally:
        bar.stop()


def table(empty: Table, rows: Iterable[Iterable[str]]) -> None:
    """A table as wide as the terminal, or 120 columns where there is none. Cells are text: no markup, no escapes."""
    from rich.console import Console

    for cells in rows:
        empty.add_row(*map(printable, cells))
    width = None if is_terminal(sys.stdout) else 120
    Console(highlight=False, markup=False, emoji=False, width=width).print(empty)
