"""What a run's folder holds: the names of its files, and the typed content of those that processes hand over.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
RAW = "raw"  # a folder with the evaluation of the raw weights, where a hook averages them
LOCK = ".lock"

CONVERTED, RANDOM, TRAINED, TESTED = "converted", "random", "trained", "test"
"""The groups of runs: the two arms of a lift, every other training, and the test of a detector."""


@dataclass(frozen=True)
class Job:
    """What a run does with its config.

    ``train``: train and evaluate; else evaluate ``detector``. ``repeatable``: the same seed gives the same numbers, and
    a resumed run gives those of a run that was never stopped. ``launcher``: how its processes were started.
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
    """One training or test.

    ``group``: runs of one group differ only in their seed. ``processes``: how many of its processes run on this node.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    job: Job
    group: str
    processes: int = 1


@dataclass(frozen=True)
class RunResult:
    """``result.json``, the last file that a run writes. None is what could not be collected.

    ``images_per_second`` of the last evaluation, in one process; ``peak_mib``: the most memory of the first process.
    """

    iterations: int | None = None
    images_per_second: float | None = None
    peak_mib: float | None = None
    environment: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> RunResult:
        """What a finished run wrote; without any value where the file cannot be read."""
        body = _read(folder / RESULT) or {}
        return cls(
            body.get("iterations"),
            body.get("images_per_second", body.get("images_a_second")),  # its name in ckptconv 0.1
            body.get("peak_mib"),
            body.get("environment") or {},
        )


@dataclass(frozen=True)
class Failure:
    """``failure.json``: why a run ended early, by the process that failed first.

    ``kind``: 'proof', 'diverged', 'memory', 'input' or 'error'; ``exit_code`` of an error of ckptconv's own.
    """

    kind: str
    message: str
    hint: str = ""
    exit_code: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Failure | None:
        """None where no process wrote it, or not all of it."""
        body = _read(folder / FAILURE)
        if not body:
            return None
        return cls(body["kind"], body["message"], body["hint"], body.get("exit_code"))


@dataclass(frozen=True)
class Evaluation:
    """``evaluation.json``, next to the detections that it is about.

    ``images``: ids of the images that were evaluated; ``categories``: ids of the categories that count; ``mmdet``: what
    CocoMetric itself reported.
    """

    images: tuple[Any, ...]
    categories: tuple[int, ...]
    mmdet: Mapping[str, float]

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Raises OSError, ValueError or LookupError for a file that cannot be read."""
        body = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        return cls(tuple(body["images"]), tuple(body["categories"]), body["mmdet"])


def _read(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None for a file that is missing, cut short, or holds something else."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def write_whole(path: Path, body: Mapping[str, object]) -> None:
    """JSON that is there complete or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(body, indent=1), encoding="utf-8")
    draft.replace(path)


def sha256(path: Path) -> str | None:
    """The digest of a file's bytes; None if it is not a file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
