"""What the fields of the public dataclasses may hold: one grammar and one wording, wherever a value is written.

A value that makes no sense is refused where it is written, and the error names the field. Each function takes a
field's name and its value, and gives the value back as it is kept: a list becomes a tuple. It knows no method, no
network and no file.
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
_SECTIONS = "Write 'model.encoder' for one mapping, 'model...' for all that lies below it, '' for the top level."
_LONGEST = 80  # letters of a value that an error shows


def keep(owner: object, **values: object) -> None:
    """Set fields of a frozen dataclass, from its own ``__post_init__``."""
    for field, value in values.items():
        object.__setattr__(owner, field, value)


def refused(field: str, must: str, value: object, hint: str = "") -> UsageError:
    """The error for a field's value: what it must be, and what it is."""
    shown = printable(repr(value))
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 2]} …"
    return UsageError(f"'{field}' must be {must}, not {shown}", hint)


def is_name(value: object) -> bool:
    """Whether a value may be the name of a method, a release, a network family or a target."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def folded(name: str) -> str:
    """A name without what does not matter when it is looked up: case, hyphens, underscores, spaces and dots."""
    return re.sub(r"[-_ .]", "", name).lower()


def name(field: str, value: object) -> None:
    if not is_name(value):
        raise refused(field, "a name", value, _NAMES)


def text(field: str, value: object, empty: bool = True) -> None:
    """One line of text that a terminal can show."""
    if not isinstance(value, str) or not value.isprintable():
        raise refused(field, "one line of text", value)
    if not empty and not value.strip():
        raise refused(field, "a text that is not empty", value)


def choice(field: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise refused(field, " or ".join(map(repr, known)), value)


def flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise refused(field, "True or False", value)


def whole(field: str, value: Any, least: int) -> int:
    """A whole number that is not below ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise refused(field, f"a whole number, {least} or more", value)
    return number


def number(field: str, value: Any) -> float:
    """A number above 0 that is finite."""
    found = _finite(value)
    if found is None or found <= 0:
        raise refused(field, "a number above 0", value)
    return found


def three(field: str, value: object) -> tuple[float, float, float]:
    """Three finite numbers, one a channel."""
    found = [_finite(n) for n in value] if isinstance(value, list | tuple) else []
    if len(found) != 3 or found[0] is None or found[1] is None or found[2] is None:
        raise refused(field, "three numbers", value)
    return found[0], found[1], found[2]


def _finite(value: Any) -> float | None:
    if isinstance(value, str | bytes | bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def items(
    field: str, value: object, kind: type[_T] | tuple[type[_T], ...], what: str, empty: bool = True, hint: str = ""
) -> tuple[_T, ...]:
    """A list or tuple of things of one kind, ``what`` in words. A single one is refused, and so is a text."""
    if not isinstance(value, list | tuple):
        raise refused(field, f"a list of {what}", value, hint)
    for one in value:
        if not isinstance(one, kind):
            raise refused(field, f"a list of {what}", list(value), hint)
    if not value and not empty:
        raise refused(field, f"a list of at least one of {what}", list(value), hint)
    return tuple(value)


def listed(field: str, value: Iterable[_T], what: str = "texts") -> tuple[_T, ...]:
    """What any iterable gives, as a tuple. A single text is refused: it would be read as its letters."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise refused(field, f"a list of {what}", value, _single(value))
    return tuple(value)


def _single(value: object) -> str:
    return f"Put it into a list: [{printable(repr(value))}]." if isinstance(value, str) else ""


def texts(field: str, value: object, empty: bool = True) -> tuple[str, ...]:
    """A list of texts, none of them twice."""
    found = items(field, value, str, "texts", empty, _single(value))
    once(field, found)
    return found


def once(field: str, values: Sequence[str]) -> None:
    """Refuses a list in which something stands twice."""
    seen: set[str] = set()
    for one in values:
        if one in seen:
            raise UsageError(f"'{field}' has '{printable(one)}' twice", "Leave out one of them.")
        seen.add(one)


def sections(field: str, value: object) -> tuple[str, ...]:
    """Dotted paths inside a checkpoint, at least one; '' is the top level, 'PATH...' all that lies below a path."""
    found = texts(field, value, empty=False)
    for path in found:
        if not is_section(path):
            raise UsageError(f"'{field}' has {printable(repr(path))}, which is not a path", _SECTIONS)
    return found


def is_section(path: str) -> bool:
    """Whether a text is a dotted path to a mapping."""
    root = path.removesuffix("...")
    return root == "" or (path.isprintable() and all(step.strip() == step != "" for step in root.split(".")))


def url(field: str, value: object) -> None:
    """An address of a file, without a user's name and password; '' for none."""
    text(field, value)
    if value and not (_URL.fullmatch(str(value)) and str(value).isascii() and not set(str(value)) & set(" \\")):
        raise refused(field, "an address such as https://example.org/file.pth", value)


def digits(field: str, value: object, most: int) -> None:
    """The first hexadecimal digits of a digest, or all of them; '' for none."""
    if not isinstance(value, str) or (value and re.fullmatch(f"[0-9a-f]{{6,{most}}}", value) is None):
        raise refused(field, f"6 to {most} hexadecimal digits in small letters", value)
