"""What the guard writes into the checkpoints of a training that it proved, and reads back on resume.

It is JSON in ``meta``: for each module the fingerprint of the file that it started from. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ckptconv.conversion.fingerprint import fingerprint
from ckptconv.conversion.transform import as_they_are
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.records import Blob

KEY = "ckptconv_guard"
_LONGEST = 1 << 16


def text(modules: Iterable[str], fingerprint: str) -> str:
    """The record of modules that started from the file with this fingerprint."""
    return json.dumps(dict.fromkeys(modules, fingerprint))


def read(record: object) -> dict[str, str]:
    """The fingerprint of each module in a record; {} for anything else."""
    try:
        marks = json.loads(record) if isinstance(record, str) else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(marks, Mapping):
        return {}
    return {name: mark for name, mark in marks.items() if isinstance(name, str) and isinstance(mark, str)}


def of_file(path: Path) -> dict[str, str]:
    """The record in a detector's checkpoint. Raises UnreadableError for a file that cannot be read."""
    with open_checkpoint(path) as checkpoint:
        meta: Any = checkpoint.tree.get("meta") if isinstance(checkpoint.tree, Mapping) else None
        record = meta.get(KEY) if isinstance(meta, Mapping) else None
        if isinstance(record, Blob) and record.kind == "str" and record.length <= _LONGEST:
            record = record.read(checkpoint.sources[0])
        return read(record)


def fingerprint_in(checkpoint: Checkpoint, section: str) -> str:
    """The fingerprint of the weights in a section, as `convert` prints it; '' if the file has none there."""
    return fingerprint(as_they_are(section, checkpoint)) if section in checkpoint.sections else ""
