"""What a plan is: where each tensor of a file goes, before any byte is read.

Pure: it sees names, shapes and element types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ckptconv.backbones import Backbone
from ckptconv.backbones.interface import Dialect
from ckptconv.planning.heads import HeadsFrom
from ckptconv.planning.matching import Dropped, Move
from ckptconv.planning.problems import Problem


@dataclass(frozen=True)
class Resized:
    """A tensor of the target that is resized from ``old`` x ``old`` patches or pixels to ``new`` x ``new``."""

    target: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"{self.target} from {self.old}x{self.old} to {self.new}x{self.new}"


@dataclass(frozen=True)
class SelectedChannels:
    """The input channels that the kernel ``target`` keeps, of ``of``, numbered from 1, in this order."""

    target: str
    channels: tuple[int, ...]
    of: int

    def __str__(self) -> str:
        return f"{self.target} to {_listed(self.channels)} of {self.of}"


def _listed(numbers: Iterable[object]) -> str:
    return ",".join(map(str, numbers))


@dataclass(frozen=True)
class Plan:
    """Where every tensor of one section goes. Nothing is written unless `complete`.

    ``dialect`` is how the target names the network, ``prefix`` is removed from the names before any rule is applied.
    ``tensors`` counts those of the section, ``entries`` all its names. ``optional_missing`` are optional entries of the
    network that the file does not fill. ``unused_rules`` counts the rules, ``unused_drops`` lists the user's drops that
    match nothing. ``resized`` are the tensors that are resized on request. ``droppable_names`` are the names without
    which the plan is complete and the network the same. ``selected_channels`` is None if all channels are kept.
    ``heads_from`` is where the network's number of attention heads is from: the file, its method, or the usual one.
    """

    method: str
    layout: str
    section: str
    target: str
    dialect: Dialect
    moves: tuple[Move, ...]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    backbone: Backbone | None
    optional_missing: tuple[str, ...]
    unused_rules: int
    tensors: int
    entries: int
    prefix: str
    unused_drops: tuple[str, ...]
    resized: tuple[Resized, ...] = ()
    droppable_names: tuple[str, ...] = ()
    selected_channels: SelectedChannels | None = None
    heads_from: HeadsFrom = "none"

    def __repr__(self) -> str:
        counts = f"moves={len(self.moves)}, dropped={len(self.dropped)}, problems={len(self.problems)}"
        return (
            f"Plan(method={self.method!r}, layout={self.layout!r}, section={self.section!r}, target={self.target!r}, "
            f"backbone={self.backbone.name if self.backbone else None!r}, {counts})"
        )

    def _repr_html_(self) -> str:
        from ckptconv.planning.notebook import plan_fragment

        return plan_fragment(self)

    @property
    def complete(self) -> bool:
        return not self.problems

    def same_as(self, other: Plan) -> bool:
        """Whether both keep the same tensors under the same names."""
        mine, others = (
            {(m.sources, m.target, m.op) for m in plan.moves} | {((), plan.section, None)} for plan in (self, other)
        )
        return mine == others

    @property
    def unsupported_target(self) -> bool:
        """Whether every name is accounted for and the target is the only problem: it cannot hold the network."""
        return bool(self.problems) and all(p.kind == "target" for p in self.problems)
