"""Measures commands as whole processes, in turn: A B C, A B C, … What is compared was measured side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MEASURES = ("wall_s", "cpu_s", "peak_mib")
_LAUNCH = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")}
"""A user's: the first of these would have an editable install compiled at every start, and not its installed peers."""

Run = Mapping[str, float]


@dataclass(frozen=True)
class Command:
    """A command: ``words`` as typed in ``folder``, ``args`` as run there, ``output`` the file it writes."""

    words: str
    args: tuple[str, ...]
    folder: Path
    output: Path | None = None


def once(command: Command) -> Run:
    """Wall time, CPU time (user and system) and peak memory of one run. Raises SystemExit if the command fails.

    The disk is brought to rest before, and the output removed after, so that no run pays for another's.
    """
    if command.output is not None:
        os.sync()
    done = subprocess.run(
        [*_LAUNCH, *command.args], cwd=command.folder, env=_ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{command.words} failed:\n{done.stderr}")
    if command.output is not None:
        command.output.unlink()
    measured: Run = json.loads(done.stdout)
    return measured


def in_turn(commands: Sequence[Command], runs: int) -> list[list[Run]]:
    """The runs of each command, after one of each that warms the file cache and is not counted."""
    turns = [[once(command) for command in commands] for _ in range(runs + 1)]
    return [list(found) for found in zip(*turns[1:], strict=True)]


def summary(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    return {m: {"median": _short(median(r[m] for r in runs)), "min": _short(min(r[m] for r in runs))} for m in MEASURES}


def ratios(ours: Sequence[Run], peers: Sequence[Run]) -> dict[str, float]:
    """The median of the ratios of runs that stood side by side; below 1, ours takes less."""
    return {m: _short(median(a[m] / b[m] for a, b in zip(ours, peers, strict=True))) for m in MEASURES}


def _short(value: float) -> float:
    return float(f"{value:.3g}") if value < 100 else round(value, 1)
