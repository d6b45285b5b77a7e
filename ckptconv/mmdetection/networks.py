"""A backbone read from shapes -> what MMDetection's constructor of it is given, and its channels a stage.

Source: `mmdet/models/backbones/resnet.py` and `resnext.py` of mmdet 3.3.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptconv.backbones import Backbone


@dataclass(frozen=True)
class Network:
    """``arguments`` of the constructor, all of them with their values; ``channels`` of each stage's output."""

    arguments: Mapping[str, Any]
    channels: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether `mmdet`'s ResLayer, which knows a depth and nothing else, can be its last stage."""
        return bool(self.arguments["type"] == "ResNet" and self.arguments["base_channels"] == 64)


DEFAULTS: Mapping[str, Any] = {
    "type": "ResNet",
    "depth": 50,
    "stem_channels": 64,
    "base_channels": 64,
    "groups": 1,
    "base_width": 4,
    "style": "pytorch",
}
"""What the constructors take an argument to be that the config leaves out; type and depth as in most configs."""


def _resnet(settings: Mapping[str, Any]) -> Network:
    grouped = settings["groups"] > 1
    arguments = {"type": "ResNeXt" if grouped else "ResNet", "depth": settings["depth"]}
    arguments |= {key: settings[key] for key in ("stem_channels", "base_channels")}
    if grouped:
        arguments |= {"groups": settings["groups"], "base_width": settings["base_width"]}
    expansion = 4 if settings["bottleneck"] else 1
    # All methods known here train torchvision's ResNet, whose strides are in the 3x3 convolutions.
    arguments["style"] = "pytorch"
    return Network(arguments, tuple(settings["base_channels"] * expansion << stage for stage in range(4)))


_FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Network]] = {"ResNet": _resnet}


def network(backbone: Backbone) -> Network:
    """How MMDetection builds this backbone."""
    settings = backbone.settings()
    return _FAMILIES[str(settings["family"])](settings)
