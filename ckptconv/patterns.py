"""Patterns for dotted names, and templates that are filled with what a pattern captured.

A pattern is anchored at both ends and reads dotted segments: ``{x}`` is one segment or a part of one, ``{x...}`` one
or more whole segments. A template has the captures of its pattern.

>>> Pattern("encoder.{name...}").match("encoder.layer1.0.conv1.weight")
{'name': 'layer1.0.conv1.weight'}
>>> Template("backbone.{name...}").fill({"name": "conv1.weight"})
'backbone.conv1.weight'

Pure string work: this module knows no rule, no method and no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ckptconv.errors import UsageError

CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class RuleError(UsageError):
    """A rule that is wrong. It is raised where the rule is written, not where it is used."""


def _pieces(text: str) -> list[tuple[str, str, bool]]:
    """Split a pattern into (literal, capture name or '', spans segments) triples."""
    pieces, at = [], 0
    for capture in CAPTURE.finditer(text):
        pieces.append((text[at : capture.start()], capture[1], bool(capture[2])))
        at = capture.end()
    pieces.append((text[at:], "", False))
    if any("{" in literal or "}" in literal for literal, _, _ in pieces):
        raise RuleError(f"the pattern '{text}' has a stray brace", "Captures are written {x} or {x...}.")
    return pieces


@dataclass(frozen=True)
class Pattern:
    """A source pattern. Raises RuleError for one that could match in more than one way."""

    text: str

    def __post_init__(self) -> None:
        require_text("a pattern", self.text)
        if not self.text:
            raise RuleError("a pattern may not be empty", "{key...} matches every name.")
        pieces = self._pieces
        names = [name for _, name, _ in pieces if name]
        if len(set(names)) != len(names):
            raise RuleError(f"the pattern '{self.text}' names a capture twice", "Give each capture its own name.")
        if sum(spans for _, _, spans in pieces) > 1:
            raise RuleError(f"the pattern '{self.text}' has two '...' captures", "Only one may span segments.")
        for (before, name, spans), (after, _, _) in zip(pieces, pieces[1:], strict=False):
            if spans and ((before and not before.endswith(".")) or (after and not after.startswith("."))):
                raise RuleError(
                    f"in the pattern '{self.text}', {{{name}...}} is not a whole segment",
                    "Write it between dots: 'encoder.{rest...}'.",
                )
        if any(name and "." not in before for before, name, _ in pieces[1:]):
            raise RuleError(
                f"the pattern '{self.text}' has two captures in one segment",
                "Put a dot between them: names are cut there.",
            )

    @cached_property
    def _pieces(self) -> list[tuple[str, str, bool]]:
        return _pieces(self.text)

    @cached_property
    def captures(self) -> frozenset[str]:
        return frozenset(name for _, name, _ in self._pieces if name)

    @cached_property
    def prefix(self) -> str:
        """The literal text that every match starts with."""
        return self._pieces[0][0]

    @cached_property
    def suffix(self) -> str:
        """The literal text that every match ends with."""
        return self._pieces[-1][0]

    @cached_property
    def ends(self) -> tuple[str | None, str | None]:
        """The first and the last segment of every match; None for one that varies."""
        whole = len(self._pieces) == 1
        first, dot, _ = self.prefix.partition(".")
        _, other, last = self.suffix.rpartition(".")
        return first if dot or whole else None, last if other or whole else None

    @cached_property
    def _tail(self) -> str | None:
        """The capture's name if the pattern is ``literal{name...}``, which needs no regular expression."""
        pieces = self._pieces
        return pieces[0][1] if len(pieces) == 2 and pieces[0][2] and not pieces[1][0] else None

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = []
        for literal, name, spans in self._pieces:
            parts.append(re.escape(literal))
            if name:
                parts.append(f"(?P<{name}>[^.]+(?:\\.[^.]+)*)" if spans else f"(?P<{name}>[^.]+)")
        return re.compile("".join(parts))

    def match(self, key: str) -> dict[str, str] | None:
        """The captures if the whole key matches, else None."""
        if not key.startswith(self.prefix) or not key.endswith(self.suffix):
            return None
        if self._tail is not None:
            rest = key[len(self.prefix) :]
            whole = rest and rest[0] != "." and rest[-1] != "." and ".." not in rest
            return {self._tail: rest} if whole else None
        matched = self._regex.fullmatch(key)
        return matched.groupdict() if matched else None

    def under(self, prefix: str) -> Pattern:
        return Pattern(prefix + self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Template:
    """A target name in which each ``{x}`` or ``{x...}`` stands for what the source's capture matched."""

    text: str

    def __post_init__(self) -> None:
        require_text("a target", self.text)
        _ = self._pieces  # refuses a stray brace

    @cached_property
    def _pieces(self) -> list[tuple[str, str]]:
        return [(literal, name) for literal, name, _ in _pieces(self.text)]

    @cached_property
    def captures(self) -> frozenset[str]:
        return frozenset(name for _, name in self._pieces if name)

    def fill(self, captures: Mapping[str, str]) -> str:
        return "".join(literal + (captures[name] if name else "") for literal, name in self._pieces)

    def __str__(self) -> str:
        return self.text


def require_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise RuleError(f"{what} must be a text, not {text!r}", "Write it in quotes.")
