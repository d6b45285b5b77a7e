"""The tensors of a section as a tree: repeated blocks are one branch, with their sizes as bars. Prints nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckptconv.spec import TensorSpec
from ckptconv.text import size

_NUMBER = re.compile(r"\d+$")
_BAR = 8
"""The width of the longest bar, in characters."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WIDEST = 44
"""The column of shapes starts here at the latest: longer labels push theirs to the right."""


@dataclass(frozen=True)
class Branch:
    """Tensors under one label, such as ``layer{1..4}.{0..5}``, and the branches below it; a leaf has none."""

    label: str
    names: tuple[str, ...]
    below: tuple[Branch, ...]


def tree(names: Iterable[str]) -> tuple[Branch, ...]:
    """The tree of dotted names, in their order. Segments that differ in the number at their end are one branch.

    >>> [branch.label for branch in tree(["layer1.0.weight", "layer1.1.weight", "layer2.0.weight", "fc.bias"])]
    ['layer{1,2}.{0,1}.weight', 'fc.bias']
    """
    return _branches((tuple(name.split(".")), name) for name in names)


_Entry = tuple[tuple[str, ...], str]


def _branches(entries: Iterable[_Entry]) -> tuple[Branch, ...]:
    groups: dict[tuple[str, bool], list[_Entry]] = {}
    for segments, name in entries:
        groups.setdefault((_NUMBER.sub("*", segments[0]), len(segments) == 1), []).append((segments, name))
    found = []
    for (_, leaf), group in groups.items():
        for part in [group] if leaf else _alike_below(group):
            label = braces(segments[0] for segments, _ in part)
            below = () if leaf else _branches((segments[1:], name) for segments, name in part)
            if len(below) == 1:
                label, below = f"{label}.{below[0].label}", below[0].below
            found.append(Branch(label, tuple(name for _, name in part), below))
    return tuple(found)


def _alike_below(entries: Iterable[_Entry]) -> list[list[_Entry]]:
    """Entries whose first segments differ in a number, parted where those have no kind of entry below in common.

    `nn.Sequential` numbers a convolution, a norm and whole stages in one row.
    """
    parts: list[tuple[set[tuple[str, bool]], list[_Entry]]] = []
    by_number: dict[str, list[_Entry]] = {}
    for segments, name in entries:
        by_number.setdefault(segments[0], []).append((segments, name))
    for group in by_number.values():
        kinds = {(_NUMBER.sub("*", segments[1]), len(segments) == 2) for segments, _ in group}
        part = next((part for part in parts if part[0] & kinds), None)
        if part is None:
            parts.append((kinds, group))
        else:
            part[0].update(kinds)
            part[1].extend(group)
    return [group for _, group in parts]


def braces(segments: Iterable[str]) -> str:
    """One label for segments that differ in the number at their end, or for whole words.

    >>> braces(["conv1", "conv2", "conv3"]), braces(["0", "2"]), braces(["bn1"]), braces(["weight", "bias"])
    ('conv{1..3}', '{0,2}', 'bn1', '{weight,bias}')
    """
    words = list(dict.fromkeys(segments))
    if len(words) == 1:
        return words[0]
    head = _NUMBER.sub("", words[0])
    if any(word != head and (not _NUMBER.search(word) or _NUMBER.sub("", word) != head) for word in words):
        return f"{{{','.join(words)}}}"
    numbers = sorted({int(word[len(head) :]) for word in words if word != head})
    return f"{head}{{{','.join([*[''] * (head in words), *_runs(numbers)])}}}"


def _runs(numbers: list[int]) -> Iterator[str]:
    """Numbers in order, of which three or more in a row are a range."""
    at = 0
    while at < len(numbers):
        end = at
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        if end - at < 2:
            yield from map(str, numbers[at : end + 1])
        else:
            yield f"{numbers[at]}..{numbers[end]}"
        at = end + 1


def _merged(branches: Iterable[Branch], specs: Mapping[str, TensorSpec]) -> list[Branch]:
    """The branches, where leaves with the same shapes are one: ``{weight,bias}``."""
    groups: dict[object, list[Branch]] = {}
    for branch in branches:
        key = branch.names if branch.below else tuple(specs[name] for name in branch.names)
        groups.setdefault(key, []).append(branch)
    return [
        group[0]
        if len(group) == 1
        else Branch(braces(one.label for one in group), tuple(name for one in group for name in one.names), ())
        for group in groups.values()
    ]


def lines(specs: Mapping[str, TensorSpec], width: int | None = None, ascii_only: bool = False) -> list[str]:
    """A line a branch: the bytes below it, a bar, its label, and for leaves how many tensors of which shapes.

    ``width`` is how wide lines should be, None for any: bars are shorter below 90 characters.
    """
    longest = _BAR if width is None or width >= 90 else _BAR // 2
    total = sum(spec.nbytes for spec in specs.values())
    usual = Counter(spec.dtype for spec in specs.values()).most_common(1)[0][0] if specs else None
    rows: list[tuple[str, str, str]] = []

    def add(branches: Iterable[Branch], depth: int) -> None:
        for branch in branches:
            bytes_below = sum(specs[name].nbytes for name in branch.names)
            head = f"{size(bytes_below):>8} {bar(bytes_below, total, longest, ascii_only)}"
            label, below = "  " * depth + branch.label, _merged(branch.below, specs)
            if len(below) == 1 and not below[0].below:
                label, below = f"{label}.{below[0].label}", []
            if below:
                rows.append((head, label, ""))
                add(below, depth + 1)
                continue
            shapes = list(dict.fromkeys(_shape(specs[name], specs[name].dtype != usual) for name in branch.names))
            times = f"{len(branch.names)} x " if len(branch.names) > 1 else ""
            rows.append((head, label, f"{times}{shapes[0]}{' …' if len(shapes) > 1 else ''}"))

    add(_merged(tree(specs), specs), 0)
    room = (width or 1000) - longest - 12  # for the label and the shapes
    widest = min(_WIDEST, room - max((len(text) for _, _, text in rows), default=0))
    column = max((len(label) for _, label, text in rows if text and len(label) <= widest), default=0)
    return [f"{head} {label:<{column}}  {text}".rstrip() for head, label, text in rows]


def _shape(spec: TensorSpec, with_type: bool) -> str:
    return str(spec) if with_type else str(list(spec.shape))


def bar(part: int, whole: int, longest: int = _BAR, ascii_only: bool = False) -> str:
    """A bar for a part of a whole, filled up with spaces to ``longest`` characters. Anything at all shows something.

    >>> bar(1, 2), bar(1, 1000), bar(0, 1000)
    ('████    ', '▏       ', '        ')
    """
    eighths = max(round(longest * 8 * part / whole), bool(part)) if whole else 0
    if ascii_only:
        return ("#" * -(-eighths // 8)).ljust(longest)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(longest)
