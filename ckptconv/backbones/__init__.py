"""THE OTHER TABLE: network families, and which of their members speaks from a set of names and shapes."""

from __future__ import annotations

from ckptconv.backbones import resnet
from ckptconv.backbones.interface import Backbone, Family

FAMILIES: tuple[Family, ...] = (resnet.FAMILY,)
TARGETS: tuple[str, ...] = tuple(sorted({target for family in FAMILIES for target in family.targets}))

__all__ = ["FAMILIES", "TARGETS", "Backbone", "Family"]
