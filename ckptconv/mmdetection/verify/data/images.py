"""Which images are not there. It lists each folder once: to ask for 118,000 files one by one takes minutes over NFS."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

_ASKED = 1000  # missing names that are asked for one by one: a file system may know a name by more than one spelling


def missing(paths: Sequence[str]) -> list[str]:
    """Those of the paths that are not files, in their order."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[os.path.dirname(path)].append(path)  # noqa: PTH120 (half a million of them)
    absent: list[str] = []
    for folder, inside in by_folder.items():
        names = _files(folder) if len(inside) > 1 else None
        lost = inside if names is None else [path for path in inside if os.path.basename(path) not in names]  # noqa: PTH119
        absent += lost
    found = {path for path in absent[:_ASKED] if os.path.isfile(path)}  # noqa: PTH113
    if found:
        found |= {path for path in absent[_ASKED:] if os.path.isfile(path)}  # noqa: PTH113
    gone = set(absent) - found
    return [path for path in paths if path in gone]


def _files(folder: str) -> set[str] | None:
    """The names of a folder's files; None where it cannot be listed, though its files may be read."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return None
