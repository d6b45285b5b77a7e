"""What is found when a module is compared with a file: data that `compare` makes and `reasons` reads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Comparison:
    """The entries of a module by how they compare with the file, and the file's names that no module takes.

    ``equal``, ``differing``, ``reshaped``, ``missing``, ``absent`` and ``added`` are together all its entries. Absent
    are those that no file needs to have: batch norm's step counters. Added are those that the plain network does not
    have, such as the offsets of deformable convolutions: no checkpoint of it could. ``unplaced`` are those of the
    ``extra`` names that belong to the file's network, in a part of it that the module has, too.
    """

    equal: tuple[str, ...]
    differing: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    added: tuple[str, ...]
    extra: tuple[str, ...]
    unplaced: tuple[str, ...]
    way: str = ""
    scattered: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Entries that a file could fill."""
        parts = (self.equal, self.differing, self.reshaped, self.missing, self.absent)
        return sum(map(len, parts))

    @property
    def wrong(self) -> tuple[str, ...]:
        """What keeps the module from being the file's network."""
        return (*self.differing, *self.reshaped, *self.missing, *self.unplaced)


def under(names: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    """The names as a module sees them. As mmengine: a prefix is cut; without one, a leading 'module.' is.

    Source: `load_checkpoint` (``revise_keys``) and `_load_checkpoint_with_prefix` of `mmengine/runner/checkpoint.py`.
    """
    if prefix:
        return {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}
    return {name.removeprefix("module."): value for name, value in names.items()}
