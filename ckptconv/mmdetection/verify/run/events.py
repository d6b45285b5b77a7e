"""The events of a run: one JSON object a line, written by its first process, read while they come and afterwards.

A kill may leave half a line, and a resumed run repeats what came after its checkpoint: readers see each iteration once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
"""``event`` says which: ``start`` (iteration, iterations, epochs), ``step`` (iteration, epoch, loss, losses, lr,
seconds, data_seconds, memory_mib), ``val`` (iteration, epoch, ap), ``evaluating`` (done, of)."""


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
    """What was appended since it was last asked."""

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
    except ValueError:  # half a line, or none
        return None
    return event if isinstance(event, dict) and "event" in event else None


@dataclass(frozen=True)
class Curve:
    """``steps`` and ``vals`` by iteration, as they led to the final weights; ``starts``: how often it was started."""

    steps: tuple[Event, ...]
    vals: tuple[Event, ...]
    starts: int
    iterations: int

    @property
    def seconds(self) -> float | None:
        """The median time of a step, in seconds; None if no step was timed."""
        took = sorted(step["seconds"] for step in self.steps if step.get("seconds"))
        return float(took[len(took) // 2]) if took else None


def curve(path: Path) -> Curve:
    """The whole run. What was computed after a checkpoint that the run later went back to is forgotten."""
    steps: dict[int, Event] = {}
    vals: dict[int, Event] = {}
    starts, iterations = 0, 0
    for event in Follower(path).new():
        if event["event"] == "start":
            starts, iterations = starts + 1, event["iterations"]
            steps = {i: e for i, e in steps.items() if i <= event["iteration"]}
            vals = {i: e for i, e in vals.items() if i <= event["iteration"]}
        elif event["event"] == "step":
            steps[event["iteration"]] = event
        elif event["event"] == "val":
            vals[event["iteration"]] = event
    in_order = [tuple(found[i] for i in sorted(found)) for found in (steps, vals)]
    return Curve(in_order[0], in_order[1], starts, iterations)
