"""Why a plan is not complete, as data; `problem_texts` has the sentences. Pure: it sees names, shapes and networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ckptconv.backbones import Backbone
from ckptconv.backbones.interface import MissingPart
from ckptconv.spec import TensorSpec, Unreadable

ProblemKind = Literal[
    "unexplained", "unreadable", "missing", "shape", "dtype", "collision", "parts", "backbone", "target", "drop"
]


@dataclass(frozen=True)
class _OfKey:
    """``key``: the name in the file, or the entry of the network, that the problem is about."""

    key: str


@dataclass(frozen=True)
class NoRule(_OfKey):
    """No rule explains a name."""

    kind: ClassVar[ProblemKind] = "unexplained"
    spec: TensorSpec


@dataclass(frozen=True)
class NoEntry(_OfKey):
    """A rule makes an ``entry`` that the network does not have."""

    kind: ClassVar[ProblemKind] = "unexplained"
    spec: TensorSpec
    entry: str
    backbone: Backbone


@dataclass(frozen=True)
class WrongShape(_OfKey):
    """A tensor has another shape than the ``entry`` that it becomes."""

    kind: ClassVar[ProblemKind] = "shape"
    spec: TensorSpec
    entry: str
    backbone: Backbone


@dataclass(frozen=True)
class WrongDtype(_OfKey):
    """A tensor that becomes an ``entry`` of floating point is of another type."""

    kind: ClassVar[ProblemKind] = "dtype"
    spec: TensorSpec
    entry: str
    backbone: Backbone


@dataclass(frozen=True)
class UnsuitableOp(_OfKey):
    """An op does not take these tensors; ``error`` is its message."""

    kind: ClassVar[ProblemKind] = "shape"
    sources: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Collision(_OfKey):
    """Another name, ``other``, becomes the ``target`` already."""

    kind: ClassVar[ProblemKind] = "collision"
    target: str
    other: str


@dataclass(frozen=True)
class PartsMissing(_OfKey):
    """Some of the tensors that become one ``target`` are missing."""

    kind: ClassVar[ProblemKind] = "parts"
    sources: tuple[str, ...]
    target: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class EntryMissing(_OfKey):
    """No tensor becomes this entry of the network."""

    kind: ClassVar[ProblemKind] = "missing"
    backbone: Backbone


@dataclass(frozen=True)
class PartMissing(_OfKey):
    """The network lacks a part: one that files of this layout have, if ``truncated``, or else of its known depths."""

    kind: ClassVar[ProblemKind] = "missing"
    backbone: Backbone
    part: MissingPart
    truncated: bool


@dataclass(frozen=True)
class NoBackbone(_OfKey):
    """The tensors that are ``kept`` are not a known network."""

    kind: ClassVar[ProblemKind] = "backbone"
    kept: tuple[str, ...]


@dataclass(frozen=True)
class UnsupportedTarget(_OfKey):
    """The ``target`` cannot hold the network."""

    kind: ClassVar[ProblemKind] = "target"
    target: str
    backbone: Backbone


@dataclass(frozen=True)
class NotReadable(_OfKey):
    """An entry stands for a tensor and cannot be read; ``inside``: whether it would be in a module of the network."""

    kind: ClassVar[ProblemKind] = "unreadable"
    entry: Unreadable
    inside: bool


@dataclass(frozen=True)
class DropsEntry(_OfKey):
    """The user drops a tensor that becomes an ``entry`` of the network."""

    kind: ClassVar[ProblemKind] = "drop"
    entry: str
    backbone: Backbone


@dataclass(frozen=True)
class DropsPart(_OfKey):
    """The user drops a name in a ``part`` of which other tensors are kept; ``entry`` if it cannot be read."""

    kind: ClassVar[ProblemKind] = "drop"
    part: str
    entry: Unreadable | None = None


Problem = (
    NoRule
    | NoEntry
    | WrongShape
    | WrongDtype
    | UnsuitableOp
    | Collision
    | PartsMissing
    | EntryMissing
    | PartMissing
    | NoBackbone
    | UnsupportedTarget
    | NotReadable
    | DropsEntry
    | DropsPart
)
"""One reason why a plan is not complete: its ``kind``, its ``key``, and what a sentence about it needs."""
