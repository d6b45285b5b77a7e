"""What the guard writes into the checkpoints of a training that it has proved, and what is read back on resume.

It is JSON in ``meta``: the fingerprint of the file that each module started from. Imports no torch.
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
from ckptconv.mmdetection.config.checkpoint import section_of

KEY = "ckptconv_guard"
_LONGEST = 1 << 16


def text(modules: Iterable[str], mark: str) -> str:
    """The record of modules that started from the file of a fingerprint."""
    return json.dumps(dict.fromkeys(modules, mark))


def read(said: object) -> dict[str, str]:
    """Module to fingerprint, as a record says; {} for what is no record."""
    try:
        found = json.loads(said) if isinstance(said, str) else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    return {name: mark for name, mark in found.items() if isinstance(name, str) and isinstance(mark, str)}


def of_file(path: Path) -> dict[str, str]:
    """The record in a detector's checkpoint. Raises UnreadableError for a file that cannot be read."""
    with open_checkpoint(path) as checkpoint:
        meta: Any = checkpoint.tree.get("meta") if isinstance(checkpoint.tree, Mapping) else None
        said = meta.get(KEY) if isinstance(meta, Mapping) else None
        if isinstance(said, Blob) and said.kind == "str" and said.length <= _LONGEST:
            said = said.read(checkpoint.sources[0])
        return read(said)


def fingerprint_in(checkpoint: Checkpoint) -> str:
    """The fingerprint of a file's weights, as `convert` prints it; '' where mmengine finds none in the file."""
    section = section_of(checkpoint)
    return fingerprint(as_they_are(section, checkpoint)) if section in checkpoint.sections else ""


def fingerprint_of(path: Path) -> str:
    """The same of the file at a path."""
    with open_checkpoint(path) as checkpoint:
        return fingerprint_in(checkpoint)
