"""THE OTHER TABLE: network families, and which of their members a set of names and shapes is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckptconv.backbones import beit, convnext, eva, hiera, regnet, resnet, swin, vit, xcit
from ckptconv.backbones.interface import Backbone, Dialect, Family, TargetName
from ckptconv.spec import StateSpec

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        resnet.FAMILY,
        swin.FAMILY,
        swin.V2,
        swin.UNSHIFTED,
        vit.FAMILY,
        eva.FAMILY,
        beit.FAMILY,
        convnext.FAMILY,
        hiera.FAMILY,
        xcit.FAMILY,
        regnet.FAMILY,
    )
}
TARGETS: tuple[TargetName, ...] = tuple(sorted({target for family in FAMILIES.values() for target in family.targets}))


def read(state: StateSpec, among: Collection[str] = ()) -> Backbone | None:
    """The member whose names cover most of the state; None if there is none. ``among`` names families; () is all."""
    members = [m for f in FAMILIES.values() if not among or f.name in among if (m := f.read(state)) is not None]
    return max(members, key=lambda m: sum(name in state for name in m.entries()), default=None)


__all__ = ["FAMILIES", "TARGETS", "Backbone", "Dialect", "Family", "TargetName", "read"]
