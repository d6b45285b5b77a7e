"""What the table of backbones is made of: networks known by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ckptconv.spec import StateSpec


class Backbone(Protocol):
    """A network of a family, read back from shapes."""

    @property
    def name(self) -> str:
        """What a person calls it: 'ResNet-50'."""

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        """Every canonical name with its shape, in the network's own order."""

    def optional(self, name: str) -> bool:
        """Whether the network starts well without this entry."""

    def settings(self) -> Mapping[str, object]:
        """What tells it from others of its family, as plain values."""

    def obstacle(self, target: str) -> str:
        """Why ``target`` cannot hold this network, with the nearest thing that works; '' if it can."""


@dataclass(frozen=True)
class Family:
    """A family of networks. ``read`` gives the member that fits names and shapes best, or None if none is near."""

    name: str
    read: Callable[[StateSpec], Backbone | None]
    targets: tuple[str, ...]
