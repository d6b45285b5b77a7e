"""Texts for people: sizes, and long lists of names, in which numbered layers fold into one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ckptconv.errors import printable

_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])|(?<=layer)\d+|(?<=conv)\d+|(?<=bn)\d+|(?<=[a-z]_)\d+(?=\.)")


def fold(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ in their numbers only, under one line with ``*`` for the numbers, in order of appearance.

    >>> list(fold(["layer1.0.bn1.bias", "layer1.1.bn1.bias", "fc.bias"]))
    ['layer*.*.bn*.bias', 'fc.bias']
    """
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(_NUMBER.sub("*", name), []).append(name)
    return {(names[0] if len(names) == 1 else line): names for line, names in folded.items()}


def some(names: Iterable[str], most: int = 5) -> str:
    """A few names as a sentence fragment: ``a, b, c and 4 more``."""
    names = [printable(name) for name in names]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def size(count: int) -> str:
    """A count of bytes in units of 1000: '352.7 MB'.

    >>> size(999), size(352_700_000), size(2_000_000_000_000)
    ('999 B', '352.7 MB', '2000.0 GB')
    """
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def quantity(number: int) -> str:
    """A count in three digits, for what is too many to count: '25.6 M'.

    >>> quantity(999), quantity(25_557_032), quantity(6_716_035_072)
    ('999', '25.6 M', '6.72 G')
    """
    amount, unit = float(number), ""
    for unit in ("", "k", "M", "G"):
        amount = float(f"{amount:.3g}")
        if amount < 1000 or unit == "G":
            break
        amount /= 1000
    return f"{amount:g} {unit}".rstrip()


def section_label(section: str) -> str:
    """A section's path as people say it: ``'state_dict'``, or ``the top level``."""
    return f"'{printable(section)}'" if section else "the top level"
