"""Which images are missing. Each folder is listed once: to check 118,000 files one by one takes minutes over NFS."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

_CHECKED = 1000  # missing names that are checked one by one: a file system may accept several spellings of a name


def missing(paths: Sequence[str]) -> list[str]:
    """Those of the paths that are not files, in their order."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[os.path.dirname(path)].append(path)  # noqa: PTH120 (half a million of them)
    absent: list[str] = []
    for folder, inside in by_folder.items():
        names = _files(folder) if len(inside) > 1 else None
        unlisted = inside if names is None else [path for path in inside if os.path.basename(path) not in names]  # noqa: PTH119
        absent += unlisted
    existing = {path for path in absent[:_CHECKED] if os.path.isfile(path)}  # noqa: PTH113
    if existing:
        existing |= {path for path in absent[_CHECKED:] if os.path.isfile(path)}  # noqa: PTH113
    gone = set(absent) - existing
    return [path for path in paths if path in gone]


def _files(folder: str) -> set[str] | None:
    """The names of a folder's files; None where it cannot be listed, though its files may be read."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return None
