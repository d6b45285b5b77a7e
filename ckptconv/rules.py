"""The rule language: how a method's names become the canonical names of its network family.

A key is matched once, against source names only. The first rule that matches wins, and its output is never matched
again. What a pattern's captures matched is carried to the target.

>>> rule = keep("encoder_q.layer{n}.{rest...}", "layer{n}.{rest...}")
>>> rule.target_of("encoder_q.layer1.0.conv1.weight")
'layer1.0.conv1.weight'
>>> rule.target_of("module.encoder_q.layer1.0.conv1.weight") is None
True

Pure data and string work: this module knows no method, no network and no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptconv import fields
from ckptconv.ops import Op, chunk, compose
from ckptconv.patterns import CAPTURE, Pattern, RuleError, Template, require_text

_MADE = "Rules are made with keep, drop, fuse and split."


@dataclass(frozen=True)
class Keep:
    """One source tensor becomes one target tensor, changed by ``op`` if there is one.

    ``by`` names further tensors that the op reads. Other rules say what becomes of those.
    """

    source: Pattern
    target: Template
    op: Op | None = None
    by: tuple[Template, ...] = ()

    def __post_init__(self) -> None:
        _check_kind("source", self.source, Pattern)
        if self.by:
            fields.set_fields(self, by=fields.items("by", self.by, Template, "Template"))
        for name in (self.target, *self.by):
            _check_target(name, [self.source])
        _check_op(self.source, self.op, self.by)

    @property
    def sources(self) -> tuple[Pattern, ...]:
        return (self.source,)

    @property
    def invertible(self) -> bool:
        """Whether the target name determines the source name: the same captures on both sides, and no op."""
        if self.op is not None or set(CAPTURE.findall(self.source.text)) != set(CAPTURE.findall(self.target.text)):
            return False
        try:
            Pattern(self.target.text)
        except RuleError:
            return False  # the target names something twice, or joins two captures in one segment
        return True

    def inverse(self) -> Keep:
        """The rule that renames back. Raises RuleError if this one cannot be inverted."""
        if not self.invertible:
            raise RuleError(f"'{self}' cannot be inverted", "Both sides must carry the same captures, without an op.")
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
    """A source tensor that is not part of the backbone, and why.

    ``instead`` is the part of a network that these files replace by this tensor, such as "norm"; '' for none.
    """

    source: Pattern
    why: str
    instead: str = ""

    def __post_init__(self) -> None:
        _check_kind("source", self.source, Pattern)
        require_text("the reason of a drop", self.why)
        require_text("what a drop is instead of", self.instead)
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
        fields.set_fields(self, sources=fields.items("sources", self.sources, Pattern, "Pattern"))
        _check_target(self.target, self.sources)
        _check_kind("op", self.op, Op)
        if len(self.sources) < 2:
            raise RuleError(f"'{self.target}' is fused from fewer than two tensors", "Use keep() for one.")
        if len({s.captures for s in self.sources}) > 1:
            raise RuleError(
                f"the sources of '{self.target}' carry different captures",
                "Each source of a fuse() must carry the same ones, so that the parts can be joined.",
            )
        if self.op.arity == 1:
            raise RuleError(f"{self.op} takes one tensor, not {len(self.sources)}", "Use an op such as concat(axis).")

    def under(self, prefix: str) -> Fuse:
        return Fuse(tuple(s.under(prefix) for s in self.sources), self.target, self.op)

    def __str__(self) -> str:
        return f"fuse {' + '.join(map(str, self.sources))} -> {self.target} ({self.op})"


@dataclass(frozen=True)
class Split:
    """One source tensor becomes several targets: first ``op`` changes it, then one of ``ops`` makes each part of it.

    Without ``ops``, the parts are equal and cut along ``axis``, in the order of the targets. None as a target leaves
    such a part out, and ``why`` says why; '' where all parts are kept. ``by`` names further tensors that the op reads,
    as those of a `Keep`.
    """

    source: Pattern
    targets: tuple[Template | None, ...]
    axis: int = 0
    why: str = ""
    ops: tuple[Op, ...] = ()
    op: Op | None = None
    by: tuple[Template, ...] = ()

    def __post_init__(self) -> None:
        _check_kind("source", self.source, Pattern)
        if self.by:
            fields.set_fields(self, by=fields.items("by", self.by, Template, "Template"))
        for target in (*self.kept, *self.by):
            _check_target(target, [self.source])
        _check_op(self.source, self.op, self.by)
        fields.set_fields(self, axis=fields.integer("axis", self.axis, 0))
        require_text("the reason of a split", self.why)
        fields.set_fields(self, ops=fields.items("ops", self.ops, Op, "ops"))
        if self.ops and (len(self.ops) != len(self.kept) or len(self.kept) != len(self.targets) or self.axis):
            raise RuleError(f"'{self.source}' is split by ops, and not each part has one", "Give one for each target.")
        for op in self.ops:
            if op.arity != 1:
                raise RuleError(f"'{self.source}' is one tensor, but {op} takes several", "Use fuse().")
        if len(self.targets) < 2 or not self.kept:
            raise RuleError(f"'{self.source}' is split into fewer than two parts", "Use keep() for one.")
        if None in self.targets and not self.why.strip():
            raise RuleError(
                f"'{self.source}' is split, and a part is left out without a reason",
                "Say why: split(pattern, targets, why=reason).",
            )
        if self.why and None not in self.targets:
            raise RuleError(
                f"'{self.source}' is split into parts that are all kept, and has a reason to leave one out",
                "Give '' as the target of that part.",
            )

    @property
    def sources(self) -> tuple[Pattern, ...]:
        return (self.source,)

    @property
    def kept(self) -> tuple[Template, ...]:
        """The targets of the parts that are kept."""
        return tuple(target for target in self.targets if target is not None)

    @property
    def parts(self) -> tuple[tuple[Template, Op | None], ...]:
        """Each kept target with the op that makes its part; None for the tensor as it is."""
        count, first = len(self.targets), [(self.op, 1 + len(self.by))]
        cuts = self.ops or tuple(chunk(self.axis, i, count) for i in range(count))
        return tuple((target, compose(cut, first)) for target, cut in zip(self.targets, cuts, strict=True) if target)

    def under(self, prefix: str) -> Split:
        by = tuple(Template(prefix + b.text) for b in self.by)
        return Split(self.source.under(prefix), self.targets, self.axis, self.why, self.ops, self.op, by)

    def __str__(self) -> str:
        targets = " + ".join(str(target) if target else "nothing" for target in self.targets)
        parts = " + ".join(map(str, self.ops)) or f"axis={self.axis}"
        op = f", {self.op}" if self.op else ""
        by = f" by {', '.join(map(str, self.by))}" if self.by else ""
        return f"split {self.source} -> {targets} ({parts}{op}{by}{f', {self.why}' if self.why else ''})"


Rule = Keep | Drop | Fuse | Split
RULES = (Keep, Drop, Fuse, Split)


def _check_kind(field: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        hint = "Ops are made with the functions of ckptconv.ops." if kind is Op else _MADE
        raise RuleError(f"'{field}' must be {kind.__name__}, not {value!r}", hint)


def _check_op(source: Pattern, op: Op | None, by: Sequence[Template]) -> None:
    """Refuses an op of several tensors where there is one, and further tensors that no op reads."""
    if op is not None:
        _check_kind("op", op, Op)
    if op is not None and op.arity != 1 and not by:
        raise RuleError(f"'{source}' is one tensor, but {op} takes several", "Use fuse().")
    if by and (op is None or op.arity == 1):
        raise RuleError(f"'{source}' is changed by {by[0]}, but no op says how", "Give an op of several.")


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
    """Keep a tensor under another name; ``op`` changes it, and may also read the tensors of ``by``."""
    return Keep(Pattern(source), Template(target), op, tuple(map(Template, fields.texts("by", by))) if by else ())


def drop(source: str, why: str, instead: str = "") -> Drop:
    """Leave a tensor out; ``why`` is printed. Raises RuleError without a reason."""
    return Drop(Pattern(source), why, instead)


def fuse(sources: Sequence[str], target: str, op: Op) -> Fuse:
    """Join several tensors into one, such as query, key and value into qkv."""
    return Fuse(tuple(map(Pattern, fields.texts("sources", sources))), Template(target), op)


def split(
    source: str,
    targets: Sequence[str],
    axis: int = 0,
    why: str = "",
    ops: Sequence[Op] = (),
    op: Op | None = None,
    by: Sequence[str] = (),
) -> Split:
    """Cut a tensor into equal parts, such as qkv into q, k and v; '' leaves a part out, and ``why`` is the reason.

    With ``ops``, one for each target, a part is what its op makes of the tensor. ``op`` changes the tensor before, and
    may also read the tensors of ``by``.
    """
    parts = tuple(Template(t) if t else None for t in fields.texts("targets", targets))
    names = tuple(map(Template, fields.texts("by", by))) if by else ()
    return Split(Pattern(source), parts, axis, why, tuple(ops), op, names)


def under(prefix: str | Sequence[str], rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for names that start with ``prefix``, or with one of several; '' means no prefix.

    A prefix is plain text that ends with a dot: its braces, if any, are not captures but an error.
    """
    prefixes = tuple(prefix) if isinstance(prefix, list | tuple) else (prefix,)
    for text in prefixes:
        require_text("a prefix", text)
        if "{" in text or "}" in text:
            raise RuleError(f"the prefix '{text}' has a brace", "A prefix is plain text that ends with a dot.")
        if text and not text.endswith("."):
            raise RuleError(f"the prefix '{text}' has no dot at its end", f"Write '{text}.' instead.")
    if isinstance(rules, RULES):
        raise RuleError(f"what is under '{prefix}' must be a list of rules, not '{rules}'", "Put it into a list.")
    rules = tuple(rules)
    return tuple(rule.under(text) for text in prefixes for rule in rules)
