"""A small network in place of one that is too large to train in a smoke test: the same class of timm, the same parts.

Its parts (registers, rotary positions, LayerScale, gated MLP, patch) are those of the file's network; width, depth and
heads are small. It starts from random weights, so it shows how the detector trains, and nothing of the file. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ckptconv.backbones import Backbone
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.hiera import Hiera
from ckptconv.backbones.interface import Hyperparameters, described
from ckptconv.backbones.regnet import RegNetY
from ckptconv.backbones.swin import Swin
from ckptconv.mmdetection.config.network import Network
from ckptconv.mmdetection.config.timm_args import timm_network
from ckptconv.mmdetection.type_names import has_type
from ckptconv.mmdetection.verify import lift
from ckptconv.mmdetection.verify.config_edits import Config, dicts

_LARGEST = {False: 30_000_000, True: 400_000_000}
"""Parameters that a smoke test trains, without and with a GPU, at 16 pixels a patch: a ViT-S on two cores."""
_PATCH = 16
_WIDTH, _HEADS, _DEPTH = 192, 3, 4
_GLOBAL = [_DEPTH // 2 - 1, _DEPTH - 1]
_OF_STAGES: Mapping[type, Mapping[str, Any]] = {
    Hiera: {"embed_dim": 32, "hidden_dim": 128, "depths": (1, 2, 2, 1), "num_heads": 1},
    RegNetY: {"depths": (1, 2, 3, 2), "embed_dims": (16, 32, 80, 168), "group_size": 8},
    Swin: {"embed_dim": 32, "hidden_dim": 128, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    ConvNeXt: {"depths": (1, 1, 2, 1), "embed_dims": (32, 64, 128, 256)},
}


@dataclass(frozen=True)
class StandIn:
    """What a smoke test trains in place of the file's network: ``name`` and ``parameters``; ``original`` has more."""

    name: str
    parameters: int
    original: str
    original_parameters: int

    @property
    def note(self) -> str:
        """What was trained and what was not, in a sentence."""
        return (
            f"{self.original} has {_in_words(self.original_parameters)} parameters, too many to train in this tier "
            f"here: it is compared with its checkpoint and not trained; {self.name} with {_in_words(self.parameters)}, "
            "of the same class and with the same parts, is trained in its place, from random weights"
        )


def replaced(config: Config, backbone: Backbone, network: Network, gpu: bool) -> tuple[Config, StandIn] | None:
    """The config with a small network, and what it is; None where the file's own is small enough, or not timm's."""
    node = config["model"]["backbone"]
    small = _smaller(backbone)
    size = parameters(backbone)
    if small is None or not has_type(node, lift.TIMM) or size * _tokens(backbone) <= _LARGEST[gpu]:
        return None
    built = timm_network(small, Hyperparameters())
    if built is None:
        return None
    changed = lift.from_random(config, lambda part, _: ("zero_init_residual",) if has_type(part, lift.TIMM) else ())
    _exchange(changed["model"]["backbone"], network, built, backbone)
    channels = dict(zip(network.channels, built.channels, strict=True))
    for _, part in dicts(changed["model"].get("neck")):
        if "in_channels" in part:
            part["in_channels"] = _translated(part["in_channels"], channels)
    return changed, StandIn(small.name, parameters(small), backbone.name, size)


def parameters(backbone: Backbone) -> int:
    """How many numbers a network holds."""
    return sum(math.prod(shape) for shape in backbone.entries().values())


def _tokens(backbone: Backbone) -> float:
    """How many times as many tokens an image has as with 16 pixels a patch; 1 for a network of stages."""
    patch = described(backbone).get("patch_size")
    return (_PATCH / patch) ** 2 if backbone.token_dim and isinstance(patch, int) else 1.0


def _smaller(backbone: Any) -> Backbone | None:
    """A small member of the same family; None for a family that has none here."""
    if backbone.token_dim is None:
        sizes = _OF_STAGES.get(type(backbone))
        return None if sizes is None else replace(backbone, **sizes)
    hidden = round(backbone.hidden_dim / backbone.embed_dim * _WIDTH / 8) * 8
    sizes = {"embed_dim": _WIDTH, "hidden_dim": hidden, "depth": min(_DEPTH, backbone.depth)}
    if "num_heads" in backbone.__dataclass_fields__:
        sizes["num_heads"] = _HEADS
    small: Backbone = replace(backbone, **sizes)
    return small


def _exchange(node: Config, old: Network, new: Network, backbone: Backbone) -> None:
    """Change the dict of a `TimmBackbone` to the small network; what it says of another size is left out."""
    theirs, ours = (dict(one.arguments.get("arguments") or {}) for one in (old, new))
    own = {k: v for k, v in (node.get("arguments") or {}).items() if k not in theirs}
    node.update({"name": new.arguments["name"], "arguments": {**own, **ours}})
    node.pop("rope_periods", None)  # as many as its heads are wide
    if backbone.token_dim is not None:
        if node.get("global_blocks") is not None:
            node["global_blocks"] = _GLOBAL
        if node.get("out_indices") is not None:
            count = len(node["out_indices"])
            node["out_indices"] = list(range(_DEPTH - count, _DEPTH))


def _translated(value: Any, channels: Mapping[int, int]) -> Any:
    return (
        [_translated(one, channels) for one in value] if isinstance(value, list | tuple) else channels.get(value, value)
    )


def _in_words(count: int) -> str:
    if count >= 10**9:
        return f"{count / 1e9:.1f} billion"
    return f"{count / 1e6:.1f} million" if count < 10**7 else f"{count / 1e6:.0f} million"
