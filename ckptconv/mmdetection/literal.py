"""Nested data -> Python text, as people write MMDetection's configs: ``dict(...)``, short things on one line, comments.

It knows nothing of detection.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterable, Mapping
from textwrap import wrap

WIDTH = 100
_INDENT = 4
Path = tuple[str, ...]


class Code(str):
    """A Python expression that stands in the text as it is; its lines after the first are indented."""

    __slots__ = ()


def assignments(values: Mapping[str, object], comments: Mapping[Path, str] | None = None) -> str:
    """One assignment a key. ``comments`` go above the key at their path; keys must be identifiers.

    >>> print(assignments({"model": {"depth": 50, "norm": {"type": "BN"}}}, {("model", "depth"): "layers"}), end="")
    model = dict(
        # layers
        depth=50,
        norm=dict(type='BN'))
    """
    comments = comments or {}
    text = ""
    for key, value in values.items():
        block = f"{_above((key,), 0, comments)}{key} = {_text(value, (key,), 0, len(key) + 3, comments)}\n"
        gap = "\n" if text and "\n" in block[:-1] else ""
        text += gap + block
    return text


def _above(path: Path, depth: int, comments: Mapping[Path, str]) -> str:
    lines = wrap(comments[path], WIDTH - depth * _INDENT - 2) if path in comments else ()
    return "".join(f"{' ' * (depth * _INDENT)}# {line}\n" for line in lines)


def _text(value: object, path: Path, depth: int, used: int, comments: Mapping[Path, str]) -> str:
    """The value in one line if it fits behind ``used`` letters and holds no comment, else an item a line."""
    short = inline(value)
    fits = used + len(short) < WIDTH
    noted = any(len(p) > len(path) and p[: len(path)] == path for p in comments)
    if not isinstance(value, Mapping | list | tuple | Code) or not value or (fits and not noted):
        return short
    inner = " " * ((depth + 1) * _INDENT)
    if isinstance(value, Code):
        return value.replace("\n", f"\n{inner}")
    opening, closing = _brackets(value)
    parts = []
    for name, head, item in _items(value):
        below = (*path, name)
        text = _text(item, below, depth + 1, len(inner) + len(head), comments)
        parts.append(f"{_above(below, depth + 1, comments)}{inner}{head}{text}")
    comma = "," if len(parts) == 1 and isinstance(value, tuple) else ""
    return opening + "\n" + ",\n".join(parts) + comma + closing


def inline(value: object) -> str:
    """The value on one line. Raises TypeError for what has no literal."""
    if isinstance(value, Code):
        return value.replace("[\n", "[").replace("\n", " ")
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if not isinstance(value, Mapping | list | tuple):
        if value is not None and not isinstance(value, str | bytes | bool | int | float):
            raise TypeError(f"a value of type {type(value).__name__} has no literal")
        return repr(value)
    opening, closing = _brackets(value)
    parts = [head + inline(item) for _, head, item in _items(value)]
    comma = "," if len(parts) == 1 and isinstance(value, tuple) else ""
    return opening + ", ".join(parts) + comma + closing


def _is_call(value: Mapping[object, object]) -> bool:
    """Whether all keys can be keyword arguments of ``dict()``."""
    return all(isinstance(k, str) and k.isidentifier() and not keyword.iskeyword(k) for k in value)


def _brackets(value: object) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ("dict(", ")") if _is_call(value) else ("{", "}")
    return ("[", "]") if isinstance(value, list) else ("(", ")")


def _items(value: object) -> Iterable[tuple[str, str, object]]:
    """Each item with its step in a path and what stands before it."""
    if isinstance(value, Mapping):
        call = _is_call(value)
        return [(str(k), f"{k}=" if call else f"{k!r}: ", item) for k, item in value.items()]
    assert isinstance(value, list | tuple)
    return [(str(i), "", item) for i, item in enumerate(value)]
