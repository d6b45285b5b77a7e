"""Checks of the fields of public dataclasses: one set of rules and one wording for all of them.

A wrong value is refused where it is written, and the error names the field. Each function takes a field's name and its
value, and returns the value as it is stored: a list becomes a tuple. This module knows no method, network or file.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ckptconv.errors import UsageError, printable

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_NAMES = "A name has letters, digits and - _ . +, and starts with a letter or a digit."
_URL = re.compile(r"(?:https?|hf|s3|gs)://[^/?#@]+/.*[^/]")
_ADDRESS = "an address such as https://example.org/file.pth"
_SECTIONS = "Write 'model.encoder' for one mapping, 'model...' for everything below it, '' for the top level."
_LONGEST = 80  # characters of a value that an error shows


def set_fields(owner: object, **values: object) -> None:
    """Set fields of a frozen dataclass, from its own ``__post_init__``."""
    for field, value in values.items():
        object.__setattr__(owner, field, value)


def invalid(field: str, must: str, value: object, hint: str = "") -> UsageError:
    """The error for a field's value: what it must be, and what it is."""
    shown = printable(repr(value))
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 2]} …"
    return UsageError(f"'{field}' must be {must}, not {shown}", hint)


def is_name(value: object) -> bool:
    """Whether a value may be the name of a method, a release, a network family or a target."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def folded(name: str) -> str:
    """A name as it is looked up: without case, hyphens, underscores, spaces and dots."""
    return re.sub(r"[-_ .]", "", name).lower()


def name(field: str, value: object) -> None:
    if not is_name(value):
        raise invalid(field, "a name", value, _NAMES)


def text(field: str, value: object, empty: bool = True) -> None:
    """One line of text that a terminal can show."""
    if not isinstance(value, str) or not value.isprintable():
        raise invalid(field, "one line of text", value)
    if not empty and not value.strip():
        raise invalid(field, "a text that is not empty", value)


def choice(field: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise invalid(field, " or ".join(map(repr, known)), value)


def boolean(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise invalid(field, "True or False", value)


def integer(field: str, value: Any, least: int) -> int:
    """A whole number that is not below ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise invalid(field, f"a whole number, {least} or more", value)
    return number


def number(field: str, value: Any) -> float:
    """A number above 0 that is finite."""
    finite = _finite(value)
    if finite is None or finite <= 0:
        raise invalid(field, "a number above 0", value)
    return finite


def three_numbers(field: str, value: object) -> tuple[float, float, float]:
    """Three finite numbers, one per channel."""
    finite = [_finite(n) for n in value] if isinstance(value, list | tuple) else []
    if len(finite) != 3 or finite[0] is None or finite[1] is None or finite[2] is None:
        raise invalid(field, "three numbers", value)
    return finite[0], finite[1], finite[2]


def _finite(value: Any) -> float | None:
    if isinstance(value, str | bytes | bool):
        return None
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def items(
    field: str, value: object, kind: type[_T] | tuple[type[_T], ...], what: str, empty: bool = True, hint: str = ""
) -> tuple[_T, ...]:
    """A list or tuple of values of one type, called ``what`` in the error. A single value or a text is refused."""
    if not isinstance(value, list | tuple):
        raise invalid(field, f"a list of {what}", value, hint)
    for one in value:
        if not isinstance(one, kind):
            raise invalid(field, f"a list of {what}", list(value), hint)
    if not value and not empty:
        raise invalid(field, f"a non-empty list of {what}", list(value), hint)
    return tuple(value)


def as_tuple(field: str, value: Iterable[_T], what: str = "texts") -> tuple[_T, ...]:
    """Any iterable as a tuple. A single text is refused: it would be read as its characters."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise invalid(field, f"a list of {what}", value, _single(value))
    return tuple(value)


def _single(value: object) -> str:
    return f"Put it into a list: [{printable(repr(value))}]." if isinstance(value, str) else ""


def texts(field: str, value: object, empty: bool = True) -> tuple[str, ...]:
    """A list of texts without duplicates."""
    checked = items(field, value, str, "texts", empty, _single(value))
    unique(field, checked)
    return checked


def unique(field: str, values: Sequence[str]) -> None:
    """Refuses a list with duplicates."""
    seen: set[str] = set()
    for one in values:
        if one in seen:
            raise UsageError(f"'{field}' has '{printable(one)}' twice", "Leave out one of them.")
        seen.add(one)


def sections(field: str, value: object) -> tuple[str, ...]:
    """Dotted paths inside a checkpoint, at least one; '' is the top level, 'PATH...' everything below a path."""
    paths = texts(field, value, empty=False)
    for path in paths:
        if not is_section(path):
            raise UsageError(f"'{field}' has {printable(repr(path))}, which is not a path", _SECTIONS)
    return paths


def is_section(path: str) -> bool:
    """Whether a text is a dotted path to a mapping."""
    root = path.removesuffix("...")
    return root == "" or (path.isprintable() and all(step.strip() == step != "" for step in root.split(".")))


def url(field: str, value: object) -> None:
    """An address of a file, without a user's name and password; '' for none."""
    text(field, value)
    if value and not _is_url(str(value)):
        raise invalid(field, _ADDRESS, value)


def page(field: str, value: object) -> None:
    """An address of a page, which may end in a slash; '' for none."""
    text(field, value)
    if value and not _is_url(str(value).removesuffix("/")):
        raise invalid(field, _ADDRESS, value)


def _is_url(value: str) -> bool:
    return _URL.fullmatch(value) is not None and value.isascii() and not set(value) & set(" \\")


def hex_digits(field: str, value: object, most: int) -> None:
    """The first hexadecimal digits of a digest, or all of them; '' for none."""
    if not isinstance(value, str) or (value and re.fullmatch(f"[0-9a-f]{{6,{most}}}", value) is None):
        raise invalid(field, f"6 to {most} hexadecimal digits in lower case", value)
