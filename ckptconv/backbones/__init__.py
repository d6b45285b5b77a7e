"""THE OTHER TABLE: network families, and which of their members speaks from a set of names and shapes."""

from __future__ import annotations

from ckptconv.backbones import resnet
from ckptconv.backbones.interface import Backbone, Family
from ckptconv.spec import StateSpec

FAMILIES: tuple[Family, ...] = (resnet.FAMILY,)
TARGETS: tuple[str, ...] = tuple(sorted({target for family in FAMILIES for target in family.targets}))


def read(state: StateSpec) -> Backbone | None:
    """The member of any family whose names cover most of the state; None if it is like none of them."""
    members = [m for family in FAMILIES if (m := family.read(state)) is not None]
    return max(members, key=lambda m: sum(name in state for name in m.entries()), default=None)


__all__ = ["FAMILIES", "TARGETS", "Backbone", "Family", "read"]
