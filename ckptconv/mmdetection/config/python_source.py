"""Nested data -> Python text, as people write MMDetection's configs: ``dict(...)``, short things on one line, comments.

It knows nothing about detection.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable, Mapping
from textwrap import wrap

WIDTH = 100
_INDENT = 4
Path = tuple[str, ...]
Comments = Mapping[Path, str]


class Code(str):
    """A Python expression that is written as it is; its lines after the first are indented."""

    __slots__ = ()


def assignments(values: Mapping[str, object], comments: Comments | None = None) -> str:
    """One assignment a key, with ``comments`` above the key at their path.

    Raises ValueError for a key that is not a name, TypeError for a value without a literal.

    >>> print(assignments({"model": {"depth": 50, "norm": {"type": "BN"}}}, {("model", "depth"): "layers"}), end="")
    model = dict(
        # layers
        depth=50,
        norm=dict(type='BN'))
    """
    comments = comments or {}
    text = ""
    for key, value in values.items():
        if not _is_name(key):
            raise ValueError(f"{key!r} is not a name")
        block = f"{_above((key,), 0, comments)}{key} = {_text(value, (key,), 0, len(key) + 3, 0, comments)}\n"
        gap = "\n" if text and "\n" in block[:-1] else ""
        text += gap + block
    return text


def _above(path: Path, depth: int, comments: Comments) -> str:
    lines = wrap(comments[path], WIDTH - depth * _INDENT - 2) if path in comments else ()
    return "".join(f"{' ' * (depth * _INDENT)}# {line}\n" for line in lines)


def _text(value: object, path: Path, depth: int, before: int, behind: int, comments: Comments) -> str:
    """The value on one line if it fits between ``before`` and ``behind`` letters, uncommented; else an item a line."""
    short = inline(value)
    noted = any(len(p) > len(path) and p[: len(path)] == path for p in comments)
    fits = before + len(short) + behind <= WIDTH
    if not isinstance(value, Mapping | list | tuple | Code) or not value or (fits and not noted):
        return short
    inner = " " * ((depth + 1) * _INDENT)
    if isinstance(value, Code):
        return value.replace("\n", f"\n{inner}")
    opening, closing = _brackets(value)
    items = list(_items(value))
    parts = []
    for i, (name, head, item) in enumerate(items):
        below = (*path, name)
        tail = 1 if i < len(items) - 1 else len(closing) + behind
        text = _text(item, below, depth + 1, len(inner) + len(head), tail, comments)
        parts.append(f"{_above(below, depth + 1, comments)}{inner}{head}{text}")
    return f"{opening}\n" + ",\n".join(parts) + closing


def inline(value: object) -> str:
    """The value on one line. Raises TypeError for a value without a literal."""
    if isinstance(value, Code):
        return re.sub(r"\s*\n\s*", " ", value.replace("[\n", "["))
    if isinstance(value, Mapping | list | tuple):
        opening, closing = _brackets(value)
        return opening + ", ".join(head + inline(item) for _, head, item in _items(value)) + closing
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{float(value)}')"
    for kind in (str, bytes, int, float):
        if isinstance(value, kind):
            # A subclass may call itself something else; and mmengine replaces what stands in double braces.
            return kind.__repr__(value).replace("{{", r"{\x7b")
    raise TypeError(f"a value of type {type(value).__name__} does not have a literal")


def _is_name(key: object) -> bool:
    """Whether it can stand before ``=``, here and among the arguments of ``dict()``."""
    plain = isinstance(key, str) and key.isascii() and key.isidentifier()
    return plain and not keyword.iskeyword(str(key)) and key != "__debug__"


def _brackets(value: Mapping[object, object] | list[object] | tuple[object, ...]) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ("dict(", ")") if all(map(_is_name, value)) else ("{", "}")
    if isinstance(value, list):
        return "[", "]"
    return "(", ",)" if len(value) == 1 else ")"


def _items(value: Mapping[object, object] | list[object] | tuple[object, ...]) -> Iterable[tuple[str, str, object]]:
    """Each item with its step in a path and the text before it."""
    if isinstance(value, Mapping):
        named = all(map(_is_name, value))
        return [(str(k), f"{k}=" if named else f"{inline(k)}: ", item) for k, item in value.items()]
    return [(str(i), "", item) for i, item in enumerate(value)]
