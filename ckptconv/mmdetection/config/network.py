"""What a config needs to know of a network: the arguments of its class, its channels, its optimizer. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptconv.mmdetection.type_names import has_type


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network that SGD does not train well is trained: it replaces the optimizer of a base with SGD.

    ``lr`` is for a batch size of 16; ``warmup`` counts iterations; ``source`` is the MMDetection config it is from.
    ``decays`` says whose layer decay, drop path and weight decay these are, if they are from elsewhere.
    """

    lr: float
    optimizer: Mapping[str, Any]
    wrapper: Mapping[str, Any]
    warmup: int
    source: str
    decays: str = ""


@dataclass(frozen=True)
class Network:
    """``arguments`` of the constructor, all of them with their values; ``channels`` of each stage's output.

    ``batch_norm`` is whether it has any. ``init`` is what ``init_cfg`` has besides the file, ``imports`` what must be
    imported for its class. ``training`` is None for what the detector's own optimizer trains. ``base`` is a
    config that it can stand on, '' if the table's detectors will do: then either ``stands_on`` is the type of backbone
    that a base must have for it, or ``stride`` that of its only output map, 0 if it outputs one map per stage.

    ``pyramid`` is whether a `SimpleFeaturePyramid` makes a pyramid of its only map, and ``depth`` its blocks; 0 for a
    network of stages. ``fixed_size`` is the side of the images, in pixels, for a network that takes one size only; 0
    for any other. ``sync_bn`` is whether mmengine's runner synchronises its batch norm, for lack of a ``norm_cfg``.
    ``windows`` is whether its attention can be restricted to windows.
    """

    arguments: Mapping[str, Any]
    channels: tuple[int, ...]
    batch_norm: bool = True
    init: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    training: TrainingRecipe | None = None
    base: str = ""
    stands_on: str = ""
    stride: int = 0
    pyramid: bool = False
    depth: int = 0
    fixed_size: int = 0
    sync_bn: bool = False
    windows: bool = False

    @property
    def plain(self) -> bool:
        """Whether `mmdet`'s ResLayer, which only takes a depth, can be its last stage."""
        return has_type(self.arguments, "ResNet") and bool(self.arguments["base_channels"] == 64)

    @property
    def of_timm(self) -> bool:
        """Whether `TimmBackbone` builds it."""
        return has_type(self.arguments, "TimmBackbone")
