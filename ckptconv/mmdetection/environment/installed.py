"""Asks what is installed, in child processes of this interpreter: a broken package may end its process.

Nothing here imports torch or mmengine, and nothing is printed. `doctor` judges the answers.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.environment import probe

# One child process for each line: torch is imported twice at the same time, and not eleven times in a row.
PROCESSES = (
    ("installed", "torch", "mmengine", "loading", "torchvision", "timm"),
    ("mmcv", "mmdet", "models", "bases", "report", "pkg_resources"),
)
_SECONDS = 180.0  # torch from a cold network disk takes a minute


@dataclass(frozen=True)
class Answer:
    """What a step of `probe` found, or the error that it ended with."""

    found: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


Facts = Mapping[str, Answer]


def collect(processes: Sequence[Sequence[str]] = PROCESSES) -> dict[str, Answer]:
    """Run the steps of `probe`, each line in its own child process, all at the same time."""
    children = _Children()
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        try:
            found = list(pool.map(lambda steps: _ask(steps, children), processes))
        except BaseException:  # Ctrl-C: the pool waits for its threads, and these for their children
            children.stop()
            raise
    return {step: answer for answers in found for step, answer in answers.items()}


class _Children:
    """The child processes, which can be ended together."""

    def __init__(self) -> None:
        self._lock, self._running, self.stopped = threading.Lock(), list[subprocess.Popen[bytes]](), False

    def start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        with self._lock:
            child = subprocess.Popen(command, cwd=folder, stdin=quiet, stdout=quiet, stderr=quiet)
            self._running.append(child)
            if self.stopped:
                child.kill()
        return child

    def stop(self) -> None:
        self.stopped = True
        with self._lock:
            for child in self._running:
                child.kill()


def _ask(steps: Sequence[str], children: _Children) -> dict[str, Answer]:
    """Run the steps in one child process; if a step ends it, run the rest in a new one."""
    answers: dict[str, Answer] = {}
    while (rest := steps[len(answers) :]) and not children.stopped:
        with tempfile.TemporaryDirectory(prefix="ckptconv-doctor-", ignore_cleanup_errors=True) as folder:
            end = _child(Path(folder), rest, children)
            report = Path(folder, "report")
            for line in report.read_text().splitlines() if report.exists() else ():
                said = json.loads(line)
                answers[said["step"]] = Answer(said.get("found", {}), said.get("error", ""))
        if len(answers) < len(steps):
            answers[steps[len(answers)]] = Answer(error=end)
    return answers


def _child(folder: Path, steps: Sequence[str], children: _Children) -> str:
    """Run the steps and return how the child ended; its answers are in its report."""
    nowhere = folder / "empty"  # `python -c` imports from its working directory
    nowhere.mkdir()
    command = [sys.executable, "-c", inspect.getsource(probe), str(folder), *steps]
    child = children.start(command, nowhere)
    try:
        code = child.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return f"did not end within {_SECONDS:.0f} s"
    if code < 0 and os.name == "posix":
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"
