"""Changes by dotted path -> nested dicts, as an MMDetection config writes them. Pure; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.config.detectors import value_at
from ckptconv.mmdetection.config.python_source import Code

ABSENT = object()
"""What a base has where it has nothing, or has not been read."""


class Changes:
    """Values by dotted path, and the comments above them, over a base; None is a base that has not been read."""

    def __init__(self, base: Mapping[str, Any] | None) -> None:
        self._base = base
        self._values: dict[str, Any] = {}
        self.notes: dict[python_source.Path, str] = {}

    def set(self, path: str, value: Any, note: str = "") -> None:
        self._values[path] = value
        if note:
            self.notes[tuple(path.split("."))] = note

    def put(self, path: str, values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> None:
        """Exactly these values at a path: what the base has beside them there goes."""
        had = self.had(path)
        if had is not ABSENT and (not isinstance(had, Mapping) or had.keys() - values.keys() - {"_scope_"}):
            self.set(f"{path}._delete_", True)
        for key, value in values.items():
            self.set(f"{path}.{key}", value, (notes or {}).get(key, ""))

    def had(self, path: str) -> Any:
        """What the base has at a path; absent, too, where it has not been read."""
        return value_at(self._base, path, ABSENT)

    def tree(self) -> dict[str, Any]:
        """The changes as nested dicts."""
        return nested(self._values, self.had)


def nested(changes: Mapping[str, Any], had: Callable[[str], Any]) -> dict[str, Any]:
    """The changes as nested dicts. A list is replaced whole: by a copy with changes, or an expression over it.

    Paths are ``a.b``, ``a.b[0].c`` for one item of a list, ``a.b[].c`` for each; ``had`` gives what the base has.
    """
    tree: dict[str, Any] = {}
    lists: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        start, inside, rest = path.partition("[")
        if inside:
            changed = lists.setdefault(start, {})
            changed[f"[{rest}"] = value
            items = had(start)
            value = _over_list(start, changed) if items is ABSENT else _changed(items, changed)
        *steps, last = start.split(".")
        node = tree
        for step in steps:
            node = node.setdefault(step, {})
        node[last] = value
    return tree


def _over_list(path: str, changes: Mapping[str, Any]) -> Code:
    """An expression for the base's list at ``path``, each of whose items changes alike: keys are ``[].name``."""
    gap = "\n " if len(changes) > 1 else " "
    changed = "".join(f",{gap}{key[3:]!r}: {python_source.inline(value)}" for key, value in changes.items())
    return Code(f"[\n{{**item{changed}}}\nfor item in _base_.{path}]")


def _changed(items: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a list with changes: keys are ``[0].name``, ``[1].name[0].name`` and so on."""
    copy = deepcopy(items)
    for path, value in changes.items():
        *steps, last = (int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path))
        node = copy
        for step in steps:
            node = node[step]
        node[last] = value
    return copy
