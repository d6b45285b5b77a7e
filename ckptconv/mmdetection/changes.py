"""Changes by dotted path -> nested dicts, as an MMDetection config writes them. Pure; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from ckptconv.mmdetection import literal
from ckptconv.mmdetection.literal import Code

ABSENT = object()
"""What a base has where it has nothing, or has not been read."""


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
    changed = "".join(f",{gap}{key[3:]!r}: {literal.inline(value)}" for key, value in changes.items())
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
