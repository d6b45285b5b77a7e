"""The rule language: how a method's names become the canonical names of its network family.

A pattern is anchored at both ends and reads dotted segments: ``{x}`` is one segment or a part of one, ``{x...}`` one
or more whole segments. What a capture matched is carried to the target. A key is matched once, against source names
only; the first rule that matches wins; what a rule puts out is never matched again.

>>> rule = keep("encoder_q.layer{n}.{rest...}", "layer{n}.{rest...}")
>>> rule.target_of("encoder_q.layer1.0.conv1.weight")
'layer1.0.conv1.weight'
>>> rule.target_of("module.encoder_q.layer1.0.conv1.weight") is None
True

Pure data and string work: this module knows no method, no network and no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckptconv import fields
from ckptconv.errors import UsageError
from ckptconv.ops import Op

_MADE = "Rules are made with keep, drop and fuse."
_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class RuleError(UsageError):
    """A rule that makes no sense, found when it is written down and not when it is used."""


def _pieces(text: str) -> list[tuple[str, str, bool]]:
    """Split a pattern into (literal, capture name or '', spans segments) triples."""
    pieces, at = [], 0
    for found in _CAPTURE.finditer(text):
        pieces.append((text[at : found.start()], found[1], bool(found[2])))
        at = found.end()
    pieces.append((text[at:], "", False))
    if any("{" in literal or "}" in literal for literal, _, _ in pieces):
        raise RuleError(f"the pattern '{text}' has a stray brace", "Captures are written {x} or {x...}.")
    return pieces


@dataclass(frozen=True)
class Pattern:
    """A source pattern. Raises RuleError for one that cannot be matched in one way only."""

    text: str

    def __post_init__(self) -> None:
        _check_text("a pattern", self.text)
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
        """The literal text every match starts with."""
        return self._pieces[0][0]

    @cached_property
    def suffix(self) -> str:
        """The literal text every match ends with."""
        return self._pieces[-1][0]

    @cached_property
    def ends(self) -> tuple[str | None, str | None]:
        """The first and the last segment of every match; None for one that is not the same in all."""
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
        """What the captures hold if the whole key matches, else None."""
        if not key.startswith(self.prefix) or not key.endswith(self.suffix):
            return None
        if self._tail is not None:
            rest = key[len(self.prefix) :]
            whole = rest and rest[0] != "." and rest[-1] != "." and ".." not in rest
            return {self._tail: rest} if whole else None
        found = self._regex.fullmatch(key)
        return found.groupdict() if found else None

    def under(self, prefix: str) -> Pattern:
        return Pattern(prefix + self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Template:
    """A target name in which each ``{x}`` or ``{x...}`` stands for what the source's capture matched."""

    text: str

    def __post_init__(self) -> None:
        _check_text("a target", self.text)
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


@dataclass(frozen=True)
class Keep:
    """One source tensor becomes one target tensor, changed by ``op`` if there is one.

    ``by`` names further tensors that the op reads beside it; what becomes of those is for other rules to say.
    """

    source: Pattern
    target: Template
    op: Op | None = None
    by: tuple[Template, ...] = ()

    def __post_init__(self) -> None:
        _check_kind("source", self.source, Pattern)
        if self.by:
            fields.keep(self, by=fields.items("by", self.by, Template, "Template"))
        for name in (self.target, *self.by):
            _check_target(name, [self.source])
        if self.op is not None:
            _check_kind("op", self.op, Op)
        if self.op is not None and self.op.arity != 1 and not self.by:
            raise RuleError(f"'{self.source}' is one tensor, but {self.op} takes several", "Use fuse().")
        if self.by and (self.op is None or self.op.arity == 1):
            raise RuleError(f"'{self.source}' is changed by {self.by[0]}, but no op says how", "Give an op of several.")

    @property
    def sources(self) -> tuple[Pattern, ...]:
        return (self.source,)

    @property
    def invertible(self) -> bool:
        """Whether the target name tells the source name: the same captures on both sides, and no op between them."""
        if self.op is not None or set(_CAPTURE.findall(self.source.text)) != set(_CAPTURE.findall(self.target.text)):
            return False
        try:
            Pattern(self.target.text)
        except RuleError:
            return False  # the target names something twice, or joins two captures in one segment
        return True

    def inverse(self) -> Keep:
        """The rule that renames back. Raises RuleError if the names do not carry enough."""
        if not self.invertible:
            raise RuleError(
                f"'{self}' cannot be turned round", "Both sides must carry the same captures, without an op."
            )
        return Keep(Pattern(self.target.text), Template(self.source.text))

    def target_of(self, key: str) -> str | None:
        captures = self.source.match(key)
        return None if captures is None else self.target.fill(captures)

    def under(self, prefix: str) -> Keep:
        return Keep(self.source.under(prefix), self.target, self.op, tuple(Template(prefix + b.text) for b in self.by))

    def __str__(self) -> str:
        by = f" by {', '.join(map(str, self.by))}" if self.by else ""
        return f"keep {self.source} -> {self.target}" + (f" ({self.op}{by})" if self.op else "")


@dataclass(frozen=True)
class Drop:
    """A source tensor that is no part of the backbone, and why.

    ``instead`` is the part of a network that its files have this in place of, such as "norm"; '' for none.
    """

    source: Pattern
    why: str
    instead: str = ""

    def __post_init__(self) -> None:
        _check_kind("source", self.source, Pattern)
        _check_text("the reason of a drop", self.why)
        _check_text("what a drop is instead of", self.instead)
        if not self.why.strip():
            raise RuleError(f"'{self.source}' is dropped without a reason", "Say why: drop(pattern, why).")

    @property
    def sources(self) -> tuple[Pattern, ...]:
        return (self.source,)

    def under(self, prefix: str) -> Drop:
        return Drop(self.source.under(prefix), self.why, self.instead)

    def __str__(self) -> str:
        return f"drop {self.source} ({self.why})"


@dataclass(frozen=True)
class Fuse:
    """Several source tensors, in this order, become one target tensor."""

    sources: tuple[Pattern, ...]
    target: Template
    op: Op

    def __post_init__(self) -> None:
        fields.keep(self, sources=fields.items("sources", self.sources, Pattern, "Pattern"))
        _check_target(self.target, self.sources)
        _check_kind("op", self.op, Op)
        if len(self.sources) < 2:
            raise RuleError(f"'{self.target}' is fused from fewer than two tensors", "Use keep() for one.")
        if len({s.captures for s in self.sources}) > 1:
            raise RuleError(
                f"the sources of '{self.target}' carry different captures",
                "Each source of a fuse() must carry the same ones, so that the parts find each other.",
            )
        if self.op.arity == 1:
            raise RuleError(f"{self.op} takes one tensor, not {len(self.sources)}", "Use an op such as concat(axis).")

    def under(self, prefix: str) -> Fuse:
        return Fuse(tuple(s.under(prefix) for s in self.sources), self.target, self.op)

    def __str__(self) -> str:
        return f"fuse {' + '.join(map(str, self.sources))} -> {self.target} ({self.op})"


Rule = Keep | Drop | Fuse


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise RuleError(f"{what} must be a text, not {text!r}", "Write it in quotes.")


def _check_kind(field: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        hint = "Ops are made with the functions of ckptconv.ops." if kind is Op else _MADE
        raise RuleError(f"'{field}' must be {kind.__name__}, not {value!r}", hint)


def _check_target(target: Template, sources: Sequence[Pattern]) -> None:
    _check_kind("target", target, Template)
    if not target.text:
        raise RuleError(f"'{sources[0]}' is kept under an empty name", "Name the target.")
    for source in sources:
        lost = target.captures - source.captures
        if lost:
            raise RuleError(
                f"the target '{target}' uses {{{min(lost)}}}, which '{source}' does not capture",
                "Captures are carried by name.",
            )


def keep(source: str, target: str, op: Op | None = None, by: Sequence[str] = ()) -> Keep:
    """A tensor that is kept under another name, changed by ``op`` if one is given, which may read others as well."""
    return Keep(Pattern(source), Template(target), op, tuple(map(Template, fields.texts("by", by))) if by else ())


def drop(source: str, why: str, instead: str = "") -> Drop:
    """A tensor that is left out, and the reason a person will read. Raises RuleError without a reason."""
    return Drop(Pattern(source), why, instead)


def fuse(sources: Sequence[str], target: str, op: Op) -> Fuse:
    """Several tensors that become one, such as query, key and value into qkv."""
    return Fuse(tuple(map(Pattern, fields.texts("sources", sources))), Template(target), op)


def under(prefix: str | Sequence[str], rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for names that start with ``prefix``, or with one of several; '' is no prefix at all.

    A prefix is plain text that ends with a dot: its braces, if any, are not captures but an error.
    """
    prefixes = tuple(prefix) if isinstance(prefix, list | tuple) else (prefix,)
    for text in prefixes:
        _check_text("a prefix", text)
        if "{" in text or "}" in text:
            raise RuleError(f"the prefix '{text}' has a brace", "A prefix is plain text that ends with a dot.")
        if text and not text.endswith("."):
            raise RuleError(f"the prefix '{text}' has no dot at its end", f"Write '{text}.' instead.")
    if isinstance(rules, Keep | Drop | Fuse):
        raise RuleError(f"what is under '{prefix}' must be a list of rules, not '{rules}'", "Put it into a list.")
    rules = tuple(rules)
    return tuple(rule.under(text) for text in prefixes for rule in rules)
