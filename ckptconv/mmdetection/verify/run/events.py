"""The events of a run, as its first process writes them: one JSON object per line, read live and afterwards.

A kill may leave half a line, and a resumed run repeats what followed its checkpoint: readers see each iteration once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, cast


class StartEvent(TypedDict):
    """A training starts, or resumes, at this iteration."""

    event: Literal["start"]
    iteration: int
    iterations: int
    epochs: int


class StepEvent(TypedDict):
    """One step, or the mean over the steps since the last event. None is a value that is not finite.

    ``seconds`` per step, of which ``data_seconds`` wait for data; ``memory_mib``: the process's peak so far.
    """

    event: Literal["step"]
    iteration: int
    epoch: int
    loss: float | None
    losses: Mapping[str, float | None]
    lr: float
    seconds: float | None
    data_seconds: float | None
    memory_mib: float


class EvaluationEvent(TypedDict):
    """The AP in percent, by 'box' and 'mask', after this iteration; None where no annotation counts."""

    event: Literal["val"]
    iteration: int
    epoch: int
    ap: Mapping[str, float | None]


class EvaluatingEvent(TypedDict):
    """An evaluation is under way: ``done`` of ``of`` batches."""

    event: Literal["evaluating"]
    done: int
    of: int


Event = StartEvent | StepEvent | EvaluationEvent | EvaluatingEvent


class Log:
    """Appends events; the first thing it writes ends a line that a kill left open."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        if path.stat().st_size:
            self._file.write("\n")

    def write(self, event: str, **body: object) -> None:
        self._file.write(json.dumps({"event": event, **body}) + "\n")
        self._file.flush()


class Follower:
    """Reads the events that were appended since the last call."""

    def __init__(self, path: Path, from_the_end: bool = False) -> None:
        self._path, self._rest = path, b""
        self._at = path.stat().st_size if from_the_end and path.exists() else 0

    def new(self) -> Iterator[Event]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            read = file.read()
        self._at += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            if (event := _parsed(line)) is not None:
                yield event


def _parsed(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:  # half a line, or an empty one
        return None
    return cast("Event", event) if isinstance(event, dict) and "event" in event else None


@dataclass(frozen=True)
class Curve:
    """``steps`` and ``evaluations`` by iteration, as they led to the final weights; ``starts``: how often."""

    steps: tuple[StepEvent, ...]
    evaluations: tuple[EvaluationEvent, ...]
    starts: int
    iterations: int

    @property
    def seconds(self) -> float | None:
        """The median time of a step, in seconds; None if no step was timed."""
        times = sorted(seconds for step in self.steps if (seconds := step.get("seconds")))
        return float(times[len(times) // 2]) if times else None


def curve(path: Path) -> Curve:
    """The whole run, without what was computed after a checkpoint from which the run later resumed."""
    steps: dict[int, StepEvent] = {}
    evaluations: dict[int, EvaluationEvent] = {}
    starts, iterations = 0, 0
    for event in Follower(path).new():
        if event["event"] == "start":
            starts, iterations = starts + 1, event["iterations"]
            steps = {i: e for i, e in steps.items() if i <= event["iteration"]}
            evaluations = {i: e for i, e in evaluations.items() if i <= event["iteration"]}
        elif event["event"] == "step":
            steps[event["iteration"]] = event
        elif event["event"] == "val":
            evaluations[event["iteration"]] = event
    return Curve(
        tuple(steps[i] for i in sorted(steps)),
        tuple(evaluations[i] for i in sorted(evaluations)),
        starts,
        iterations,
    )
