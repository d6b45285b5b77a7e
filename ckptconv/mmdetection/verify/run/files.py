"""What a run's folder holds: the names of its files, and what its processes are told. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOB, CONFIG, EVENTS, EVALUATION, RESULT, FAILURE = (
    "job.json",
    "config.py",
    "events.jsonl",
    "evaluation.json",
    "result.json",
    "failure.json",
)
DETECTIONS = "detections"
RAW = "raw"  # a folder with the evaluation of the weights as they were trained, where a hook averages them
LOCK = ".lock"


@dataclass(frozen=True)
class Job:
    """What a run does with its config.

    ``train``: train and evaluate; else evaluate ``detector``. ``repeatable``: the same seed gives the same numbers, and
    a resumed run those of one that was never stopped. ``launcher``: how its processes were started.
    """

    train: bool
    seed: int
    launcher: str
    cuda: bool
    repeatable: bool = False
    detector: str | None = None

    def save(self, folder: Path) -> None:
        (folder / JOB).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Job:
        return cls(**json.loads((folder / JOB).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Run:
    """One training or test: its folder, its config, and what its processes do. ``group``: what it is one seed of."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    job: Job
    group: str
    local: int = 1


def write_whole(path: Path, body: Mapping[str, object]) -> None:
    """JSON that is there complete or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(body, indent=1), encoding="utf-8")
    draft.replace(path)
